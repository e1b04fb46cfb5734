"""The engine: whoever comes and goes beside it, a request gets what it gets alone, and nothing of it is left behind."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from random import Random

import numpy as np
import pytest
import torch
from engine_samples import (
    EOP,
    POSITIONS,
    SOP,
    VOCABULARY,
    PaperModel,
    PaperRunner,
    Raises,
    make_chooser,
    make_prompt,
    make_request,
    write,
)
from generation_samples import TEXTS
from hypothesis import given, settings
from hypothesis import strategies as st

from glmkit.errors import GenerationError
from glmkit.generation.assistant import Assistant
from glmkit.generation.constraints import Choices
from glmkit.generation.decoding import TokenChooser
from glmkit.generation.engine import Engine
from glmkit.generation.infill import fill, stream
from glmkit.generation.prompts import Prompt
from glmkit.generation.request import Request
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.torch_runner import TorchRunner
from glmkit.model import GLMConfig, GLMForConditionalGeneration


def make_engine(runner=None, **limits) -> Engine:
    return Engine(PaperRunner() if runner is None else runner, SOP, POSITIONS, **limits)


@pytest.mark.parametrize("seed", range(150))
def test_any_order_of_calls_gives_what_each_request_gets_alone(seed: int):
    """Requests of every kind come, are read on, are cancelled and fail; a sequence too many or a token off shows."""
    rng, runner = Random(seed), PaperRunner()
    limits = {"max_batch": rng.choice([3, 5]), "max_tokens": rng.choice([None, 400])}
    assistant = rng.choice([None, PaperModel(), PaperModel(wrong=0.3), PaperModel(positions=20)])
    if assistant is not None:
        limits["assistant"] = Assistant(assistant, rng.choice([1, 4]))
    engine, tickets, cancelled, events = make_engine(runner, **limits), [], set(), []
    for _ in range(40):
        action = rng.choice(["submit", "step", "step", "step", "cancel"])
        if action == "submit":
            tickets.append(engine.submit(make_request(rng, failing=rng.random() < 0.2)))
        elif action == "cancel" and tickets:
            ticket = rng.choice(tickets)
            if engine.cancel(ticket):
                cancelled.add(ticket)
            assert ticket.done
        else:
            events += engine.step()
        running = [ticket for ticket in tickets if not ticket.done]
        assert len(runner.sequences) <= 2 * limits["max_batch"]  # a guided sample is two
        assert len(engine._slots) <= limits["max_batch"]
        assert sum(map(len, runner.sequences.values())) <= (limits["max_tokens"] or 1000)
        assert bool(running) == engine.busy
    events += engine.run()
    assert runner.sequences == {}
    assert assistant is None or assistant.runner.sequences == {}
    assert all(ticket.done for ticket in tickets)
    for ticket in tickets:
        seen = [event for event in events if event.ticket is ticket]
        if ticket in cancelled:
            assert ticket.error is None
        elif ticket.error is None:
            for sample, blanks in enumerate(ticket.samples):
                assert blanks == write(ticket.request, sample)
                ends = [one.blank for one in seen if one.sample == sample and one.token is None]
                assert ends == [number for number, blank in enumerate(blanks) if blank.finished]
        else:
            failed = seen[-1]
            assert failed.token is None
            with pytest.raises(type(ticket.error), match=re.escape(str(ticket.error))):
                write(ticket.request, failed.sample)


def test_requests_run_in_the_order_in_which_they_came():
    """A short request does not pass a long one that waits for room."""
    long, short = (
        Request(make_prompt(Random(0), 1), make_chooser(max_new_tokens=most, min_new_tokens=most))
        for most in (50, 5)
    )
    room = long.tokens(POSITIONS) + short.tokens(POSITIONS)
    engine = make_engine(max_tokens=room)
    first, second, third = map(engine.submit, (long, long, short))
    while not first.done:
        engine.step()
        assert not third.samples[0][0].tokens
    engine.step()
    assert second.samples[0][0].tokens
    assert third.samples[0][0].tokens


def test_the_next_request_begins_as_soon_as_a_row_is_free():
    """Six texts in two rows: nobody waits for the long one."""
    runner = PaperRunner()
    engine = make_engine(runner, max_batch=2)
    for count in (10, 2, 2, 2, 2, 2):
        chooser = make_chooser(max_new_tokens=count, min_new_tokens=count)
        engine.submit(Request(make_prompt(Random(count), 1), chooser))
    list(engine.run())
    assert [len(feeds) for feeds in runner.passes] == [2] * 10


def test_samples_share_the_reading_of_part_a():
    runner = PaperRunner()
    engine = make_engine(runner)
    chooser = make_chooser(do_sample=True, max_new_tokens=9, min_new_tokens=9)
    request = Request(make_prompt(Random(1), 1), chooser, seeds=[1, 2, 1])
    ticket = engine.submit(request)
    list(engine.run())
    assert [len(feeds) for feeds in runner.passes] == [1] + [3] * 8
    assert sum(feed.prefix > 0 for feeds in runner.passes for feed in feeds) == 1
    one, other, again = ticket.samples
    assert one == again != other


def test_without_seeds_draws_differ_and_settings_have_a_seed_for_all():
    prompt = make_prompt(Random(1), 1)
    found = []
    for seed in (None, 3):
        chooser = make_chooser(do_sample=True, max_new_tokens=9, min_new_tokens=9, seed=seed)
        engine = make_engine()
        ticket = engine.submit(Request(prompt, chooser, seeds=[None, None]))
        list(engine.run())
        found.append(ticket.samples)
    assert found[0][0] != found[0][1]
    assert found[1][0] == found[1][1] == write(Request(prompt, chooser, seeds=[3]))


@cache
def written_with(guesses: int, seed: int) -> tuple[int, list]:
    """Returns passes and contents: free and limited blanks, with and without stop strings, repetitive as PaperRunner is."""
    rng, runner = Random(seed), PaperRunner()
    prompt, stop = make_prompt(rng, rng.choice([1, 2])), make_request(rng).chooser.stop
    chooser = make_chooser(stop, max_new_tokens=40, prompt_lookup_num_tokens=guesses)
    limits = [Choices([[5, 6] * 5, [5, 6, 5, 7]], EOP), None][: len(prompt.mask_indices)]
    engine = make_engine(runner, max_batch=2)
    tickets = [engine.submit(Request(prompt, chooser, some)) for some in ([], limits)]
    list(engine.run())
    return len(runner.passes), [ticket.samples for ticket in tickets]


@pytest.mark.parametrize("seed", range(40))
def test_prompt_lookup_writes_what_is_written_without_it(seed: int):
    assert written_with(4, seed)[1] == written_with(0, seed)[1]


def test_prompt_lookup_saves_passes():
    before, after = (
        sum(written_with(guesses, seed)[0] for seed in range(40)) for guesses in (0, 4)
    )
    assert after < 0.9 * before


def test_an_assistant_saves_passes_and_changes_nothing():
    """One that guesses as the model would, and one that is wrong in a third of its guesses."""
    prompts = [make_prompt(Random(seed), 2) for seed in range(8)]
    found = []
    for wrong in (None, 0.0, 0.3):
        runner = PaperRunner()
        assistant = None if wrong is None else Assistant(PaperModel(wrong=wrong), 4)
        engine = make_engine(runner, assistant=assistant)
        settings = {"max_new_tokens": 40, "min_new_tokens": 40}
        tickets = [
            engine.submit(Request(prompt, make_chooser(**settings, **more), seeds=[7]))
            for prompt in prompts
            for more in ({}, {"do_sample": True, "temperature": 0.3})
        ]
        list(engine.run())
        found.append((sum(map(len, runner.passes)), [ticket.samples for ticket in tickets]))
    (alone, written), (good, same), (bad, again) = found
    assert written == same == again
    assert good < 0.4 * alone
    assert good < bad < 0.8 * alone


def test_texts_that_the_assistant_cannot_read_are_written_without_it():
    assistant = PaperModel(unreadable=9)
    engine = make_engine(assistant=Assistant(assistant))
    chooser = make_chooser(max_new_tokens=12)
    requests = [Request(make_prompt(Random(seed), 1), chooser, seeds=[0]) for seed in range(12)]
    tickets = [engine.submit(request) for request in requests]
    list(engine.run())
    assert [ticket.samples for ticket in tickets] == [[write(request)] for request in requests]
    assert assistant.runner.sequences == {}
    with pytest.raises(GenerationError, match="num_assistant_tokens=0 must be at least 1"):
        Assistant(assistant, 0)


def test_an_error_concerns_one_request():
    """A constraint that raises, one that leaves nothing, ids that no table has: each ends its own request."""
    torch.manual_seed(0)
    engine = make_engine(TorchRunner(tiny_models()[0]))
    chooser = make_chooser(max_new_tokens=6, min_new_tokens=6)
    prompt, good = make_prompt(Random(3), 1), make_prompt(Random(4), 1)
    strange = Prompt(np.array([5, 999, 3]), ["", ""], np.array([2]))
    before = engine.submit(Request(good, chooser))
    broken = engine.submit(Request(prompt, chooser, [Raises(2)]))
    nothing = engine.submit(Request(prompt, chooser, [Choices([[SOP]], EOP)]))
    unreadable = engine.submit(Request(strange, chooser))
    after = engine.submit(Request(good, chooser))
    events = list(engine.run())
    assert isinstance(broken.error, ZeroDivisionError)
    assert len(broken.samples[0][0].tokens) == 2
    assert isinstance(nothing.error, GenerationError)
    assert isinstance(unreadable.error, IndexError)
    assert before.error is after.error is None
    assert len(before.samples[0][0].tokens) == 6
    assert before.samples == after.samples
    for ticket in (broken, nothing, unreadable):
        assert [event.token for event in events if event.ticket is ticket][-1] is None


def test_a_cancelled_request_leaves_its_rows_at_once():
    runner = PaperRunner()
    engine = make_engine(runner, max_batch=2)
    chooser = make_chooser(max_new_tokens=20, min_new_tokens=20)
    both, waiting = (
        engine.submit(Request(make_prompt(Random(1), 1), chooser, seeds=seeds))
        for seeds in ([0, 1], [0])
    )
    engine.step()
    assert len(runner.sequences) == 2
    assert engine.cancel(both)
    assert runner.sequences == {}
    assert len(both.samples[0][0].tokens) == 1
    assert not engine.cancel(both)
    engine.step()
    assert len(waiting.samples[0][0].tokens) == 1
    assert engine.cancel(waiting)
    assert not engine.busy
    assert engine.step() == []


def test_threads_submit_cancel_and_step_at_once():
    runner = PaperRunner()
    engine, finished = make_engine(runner, max_batch=3), threading.Event()
    rng = Random(5)
    requests = [make_request(rng) for _ in range(60)]

    def steps() -> None:
        while engine.busy or not finished.is_set():
            engine.step()

    with ThreadPoolExecutor(6) as pool:
        stepping = [pool.submit(steps) for _ in range(2)]
        tickets = list(pool.map(engine.submit, requests))
        gone = list(pool.map(engine.cancel, tickets[::7]))
        finished.set()
        for one in stepping:
            one.result(timeout=60)
    assert len(gone) == 9
    assert runner.sequences == {}
    for number, ticket in enumerate(tickets):
        assert ticket.done
        if number % 7 and ticket.error is None:
            for sample, blanks in enumerate(ticket.samples):
                assert blanks == write(ticket.request, sample)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (lambda prompt: Request(prompt, make_chooser(num_beams=2)), "num_beams=2; beams are searched"),
        (lambda prompt: Request(prompt, make_chooser(), [None]), "2 blanks and 1 constraints"),
        (lambda prompt: Request(prompt, make_chooser(), seeds=[]), "0 samples; between 1 and max_batch=2"),
        (lambda prompt: Request(prompt, make_chooser(), seeds=[1] * 3), "3 samples"),
        (lambda prompt: Request(prompt, make_chooser(max_new_tokens=50)), "more than max_tokens=100; lower max_new_tokens=50"),
        (lambda prompt: Request(Prompt(prompt.ids, [""], prompt.mask_indices[:0]), make_chooser()), "no blank"),
        (lambda prompt: Request(Prompt(np.tile(prompt.ids, 30), ["", ""], prompt.mask_indices), make_chooser()), "the model reads 60; cut it on the left"),
    ],
)  # fmt: skip
def test_requests_that_can_never_run_are_refused(request_, words: str):
    with pytest.raises(GenerationError, match=words):
        make_engine(max_batch=2, max_tokens=100).submit(request_(make_prompt(Random(2), 2)))


@pytest.mark.parametrize("limits", [{"max_batch": 0}, {"max_tokens": 0}])
def test_limits_below_one_are_refused(limits: dict):
    with pytest.raises(GenerationError, match="=0 must be at least 1"):
        make_engine(**limits)


@pytest.mark.parametrize("other", [{"do_sample": True}, {"num_beams": 2}])
def test_prompt_lookup_is_for_greedy_writing_alone(other: dict):
    with pytest.raises(
        GenerationError, match="prompt_lookup_num_tokens checks guesses.*set it to 0"
    ):
        DecodingSettings(prompt_lookup_num_tokens=3, **other)
    with pytest.raises(GenerationError, match="prompt_lookup_num_tokens=-1 must be 0"):
        DecodingSettings(prompt_lookup_num_tokens=-1)


_tiny: list[GLMForConditionalGeneration] = []


def tiny_models() -> list[GLMForConditionalGeneration]:
    """Models whose random weights are large, so that what they write depends on all that they read."""
    torch.manual_seed(7)
    sizes = [(1, 16, 1), (2, 16, 2), (3, 24, 3)] if not _tiny else []
    for number, (layers, hidden, heads) in enumerate(sizes):
        config = GLMConfig(
            num_layers=layers,
            hidden_size=hidden,
            num_attention_heads=heads,
            vocab_size=VOCABULARY,
            max_sequence_length=POSITIONS,
            block_position_encoding=number != 1,
            sop_token_id=SOP,
            eop_token_id=EOP,
            mask_token_id=3,
            pad_token_id=0,
        )
        model = GLMForConditionalGeneration(config).eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.mul_(15)
        _tiny.append(model)
    return _tiny


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    which=st.integers(0, 2),
    seed=st.integers(0, 10**6),
    texts=st.integers(1, 5),
    longest=st.integers(1, 10),
    least=st.integers(0, 10),
    batch=st.integers(1, 4),
    guesses=st.sampled_from([0, 0, 3]),
)
def test_the_tokens_are_those_of_generate(which, seed, texts, longest, least, batch, guesses):
    """transformers' own loop, with its own cache and padding, in float32."""
    rng, model = Random(seed), tiny_models()[which]
    least = min(least, longest)
    engine = make_engine(TorchRunner(model), max_batch=batch)
    chooser = TokenChooser(
        DecodingSettings(max_new_tokens=longest, min_new_tokens=least, prompt_lookup_num_tokens=guesses),
        [], [EOP], VOCABULARY,
    )  # fmt: skip
    prompts = [make_prompt(rng, 1) for _ in range(texts)]
    tickets = [engine.submit(Request(prompt, chooser)) for prompt in prompts]
    list(engine.run())
    expected = model.generate(
        [prompt.ids.tolist() for prompt in prompts],
        max_new_tokens=longest,
        min_new_tokens=least,
        do_sample=False,
    )[:, max(len(prompt.ids) for prompt in prompts) + 1 :].tolist()
    for ticket, row in zip(tickets, expected, strict=True):
        [[blank]] = ticket.samples
        ended = row.index(EOP) if EOP in row else len(row)
        assert blank.tokens == row[:ended]
        assert blank.finished == (EOP in row)


def test_fill_with_prompt_lookup_is_fill(glm):
    model, tokenizer = glm
    texts = ["长城长城长城[MASK]，长城[MASK]。", *TEXTS]
    plain = fill(model, tokenizer, texts, DecodingSettings(max_new_tokens=24))
    stop = plain[0].blanks[0][3:5] or "x"
    for chosen in ({}, {"stop": stop}):
        found = []
        for guesses in (0, 5):
            looked_up = DecodingSettings(
                max_new_tokens=24, prompt_lookup_num_tokens=guesses, **chosen
            )
            filled = fill(model, tokenizer, texts, looked_up)
            found.append([(one.blanks, one.finished) for one in filled])
            streamed = "".join(stream(model, tokenizer, texts[2], looked_up))
            assert streamed.strip() == filled[2].blanks[0]
        assert found[0] == found[1]


def test_a_model_may_change_between_calls_and_threads_may_share_it(glm):
    model, tokenizer = glm
    chosen = DecodingSettings(max_new_tokens=6)

    def once(_: int) -> list[list[str]]:
        return [one.blanks for one in fill(model, tokenizer, TEXTS, chosen, batch_size=2)]

    before = once(0)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(once, range(8))) == [before] * 8
    with torch.no_grad():
        for weight in model.glm.transformer.layers[0].parameters():
            weight.neg_()
    changed = once(0)
    assert changed != before
    model.to(torch.float64)
    assert once(0) == changed


class Answering(PaperRunner):
    """A runner of somebody else's, which answers in a form of its own."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, feeds):
        return self.change(super().forward(feeds))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda answers: None, "returned NoneType for 1 feeds"),
        (lambda answers: answers[1:], "returned 0 answers for 1 feeds"),
        (lambda answers: [torch.from_numpy(one) for one in answers], "returned Tensor for a feed"),
        (lambda answers: [one[0] for one in answers], r"returned an array float32 \[16\]"),
        (lambda answers: [one.astype(float) for one in answers], "returned an array float64"),
    ],
)
def test_a_runner_that_answers_otherwise_is_told_how(change, said: str):
    engine = make_engine(Answering(change))
    ticket = engine.submit(make_request(Random(0)))
    assert list(engine.run())
    with pytest.raises(GenerationError, match=rf"Answering\.forward {said}.*must return"):
        raise ticket.error


def test_a_runner_without_all_methods_is_refused():
    class Half:
        def open(self): ...

        def forward(self, feeds): ...

    with pytest.raises(
        GenerationError, match="Half is no runner: it lacks fork, truncate, close, length;"
    ):
        make_engine(Half())
