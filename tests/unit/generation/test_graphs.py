"""The static runner against reading from scratch, and against `TorchRunner` in the engine; graphs themselves need a GPU."""

from __future__ import annotations

import copy
import logging
import pickle
import weakref
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_runner import (  # fmt: skip
    MODEL,
    POSITIONS,
    VOCABULARY,
    Tokens,
    check,
    prompt,
    random_calls,
    random_feed,
    tiny,
)

import glmkit
from glmkit.errors import GenerationError
from glmkit.generation.captured import CapturedStep
from glmkit.generation.decoding import TokenChooser
from glmkit.generation.engine import Engine
from glmkit.generation.graphs import GraphDecoder, GraphRunner, release, why_not
from glmkit.generation.memory import inference_memory, static_capacity, static_rows
from glmkit.generation.prompts import Prompt
from glmkit.generation.request import Request
from glmkit.generation.runner import Feed
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.torch_runner import TorchRunner

DECODER = GraphDecoder(MODEL, captures=False)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32))
def test_any_order_of_calls_equals_reading_from_scratch(seed: int):
    """One decoder throughout: what a runner leaves in its workspace does not reach the next one."""
    random_calls(Random(seed), DECODER.make_runner(), 6, (1, 1, 3, 60, 200))
    assert len(DECODER._idle) == 1


def requests(rng: Random, count: int) -> list[Request]:
    """Greedy, drawn, several samples, several blanks, minimal lengths, guesses from the text."""
    found = []
    for number in range(count):
        drawn = rng.random() < 0.3
        lookup = 0 if drawn else rng.choice([0, 0, 3])
        most = rng.randint(1, 12)
        chooser = TokenChooser(
            DecodingSettings(
                max_new_tokens=most, min_new_tokens=rng.randint(0, most), do_sample=drawn, prompt_lookup_num_tokens=lookup
            ),
            [1, 2],
            [3],
            VOCABULARY - 2,
        )  # fmt: skip
        ids = np.array([rng.randrange(4, 12) for _ in range(rng.randint(3, 40))])
        masks = np.array(sorted(rng.sample(range(len(ids)), rng.randint(1, 2))))
        seeds = [number, number + 1] if drawn else [None]
        found.append(Request(Prompt(ids, [""] * (len(masks) + 1), masks), chooser, seeds=seeds))
    return found


def written(runner: TorchRunner, some: list[Request]) -> tuple[list, list[float]]:
    engine = Engine(runner, 0, MODEL.config.max_sequence_length, max_batch=5)
    tickets = [engine.submit(one) for one in some]
    for _ in engine.run():
        pass
    assert not any(ticket.error for ticket in tickets)
    blanks = [blank for ticket in tickets for sample in ticket.samples for blank in sample]
    scores = [score for blank in blanks for score in blank.log_probabilities]
    return [(blank.tokens, blank.finished) for blank in blanks], scores


@pytest.mark.parametrize("seed", range(6))
def test_the_engine_writes_the_same_with_it(seed: int):
    """Tokens chosen where the logits are, with their log-probabilities, are those chosen from the logits."""
    some = requests(Random(seed), 9)
    found, scores = written(DECODER.make_runner(), some)
    expected, others = written(TorchRunner(MODEL), some)
    assert found == expected
    assert scores == pytest.approx(others, abs=1e-4)


@pytest.fixture
def begun(monkeypatch) -> list[bool]:
    """Whether each step was begun ahead."""
    found: list[bool] = []
    begin = CapturedStep.begin

    def noted(self, columns, before=None, order=None):
        found.append(before is not None)
        return begin(self, columns, before, order)

    monkeypatch.setattr(CapturedStep, "begin", noted)
    return found


def greedy(texts: int, most: int, blanks: int = 1) -> list[Request]:
    chooser = TokenChooser(DecodingSettings(max_new_tokens=most, min_new_tokens=most), [1, 2], [3], VOCABULARY - 2)  # fmt: skip
    masks = np.arange(1, 1 + blanks)
    return [Request(Prompt(np.arange(4, 9 + text), [""] * (blanks + 1), masks), chooser) for text in range(texts)]  # fmt: skip


@pytest.mark.parametrize("texts", [1, 3])
def test_steps_are_begun_before_their_tokens_are_known(begun, texts):
    """All but the first, and none after the last; each is read once."""
    some = greedy(texts, 12)
    assert written(DECODER.make_runner(), some)[0] == written(TorchRunner(MODEL), some)[0]
    assert begun == [False] + 10 * [True]


def test_texts_that_end_do_not_make_what_was_begun_useless(begun):
    """Of eight texts each is a token longer than the one before; those that go on are found in the step of all."""
    some = [request for most in range(4, 12) for request in greedy(1, most)]
    engine = Engine(DECODER.make_runner(), 0, POSITIONS, max_batch=8)
    tickets = [engine.submit(one) for one in some]
    [*_] = engine.run()
    assert [len(one.samples[0][0].tokens) for one in tickets] == [*range(4, 12)]
    assert begun == [False] + 9 * [True]


def test_a_step_in_vain_is_not_followed_by_another_at_once(begun):
    """Of two blanks the second begins with a marker, which nobody had guessed."""
    some = greedy(1, 6, blanks=2)
    assert written(DECODER.make_runner(), some)[0] == written(TorchRunner(MODEL), some)[0]
    assert begun.count(True) >= 7
    assert len(begun) <= 14


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_what_was_begun_is_used_only_for_what_it_has_read(seed: int):
    """Tokens that were guessed and others, in other orders, after forks, forgetting, other prompts and in rows that were others'."""
    rng, runner, known = Random(seed), DECODER.make_runner(), dict[int, Tokens]()
    barred = np.zeros(VOCABULARY, bool)
    barred[[1, 3]] = True
    others = barred | (np.arange(VOCABULARY) % 3 == 0)
    after: dict[int, tuple[int, int, int]] = {}
    for _ in range(14):
        if not known or rng.random() < 0.15:
            handle = runner.open()
            known[handle] = Tokens()
            check(runner, [random_feed(rng, handle, known[handle], 9)], known)
            after[handle] = (5, 2, 1)
        for handle in [one for one in known if rng.random() < 0.1]:
            copied = runner.fork(handle)
            known[copied] = Tokens(list(known[handle].read), known[handle].prefix)
            after[copied] = after[handle]
        for handle in [one for one in known if rng.random() < 0.1]:
            kept = rng.randint(max(1, known[handle].prefix), len(known[handle].read))
            runner.truncate(handle, kept)
            known[handle].read = known[handle].read[:kept]
        some = [*known] if rng.random() < 0.7 else rng.sample(sorted(known), rng.randint(1, len(known)))  # fmt: skip
        feeds = []
        for handle in some:
            token = after[handle] if rng.random() < 0.9 else (rng.randrange(VOCABULARY), 2, 1)
            known[handle].read.append(token)
            feeds.append(Feed(handle, *([one] for one in token), barred=[rng.choice([barred, barred, others])], goes_on=rng.random() < 0.9))  # fmt: skip
        for feed, [(chosen, score)] in zip(feeds, runner.forward(feeds), strict=True):
            expected = known[feed.sequence].logits(1)[0]
            expected = expected.masked_fill(torch.from_numpy(feed.barred[0]), -torch.inf)
            expected = expected.log_softmax(-1)
            assert score == pytest.approx(float(expected.max()), abs=1e-3)
            assert float(expected[chosen]) == pytest.approx(score, abs=1e-3)
            after[feed.sequence] = (chosen, feed.positions[0], feed.blocks[0] + 1)
        for handle in [one for one in known if rng.random() < 0.08]:
            runner.close(handle)
            del known[handle]
    for handle in known:
        runner.close(handle)


def test_logits_stay_where_they_are_unless_somebody_needs_them():
    runner = DECODER.make_runner()
    plain, drawn = (
        TokenChooser(DecodingSettings(do_sample=do_sample), [1], [3], 30) for do_sample in (False, True)
    )  # fmt: skip
    assert drawn.barred(0) is None
    handles = [runner.open(), runner.open()]
    answers = runner.forward(
        [
            Feed(handles[0], [5, 6], [0, 1], [0, 0], 2, barred=[plain.barred(0)]),
            Feed(handles[1], [5, 6], [0, 1], [0, 0], 2),
        ]
    )
    barred = plain.barred(0)
    allowed = torch.from_numpy(answers[1][0, :30]).masked_fill(torch.from_numpy(barred), -torch.inf)
    [(token, log_probability)] = answers[0]
    assert token == int(allowed.argmax())
    assert log_probability == pytest.approx(float(allowed.log_softmax(-1).max()), abs=1e-5)
    assert barred.nonzero()[0].tolist() == [1, 3]
    assert plain.barred(1).nonzero()[0].tolist() == [1]


def test_many_ways_to_choose_at_once_and_rows_that_are_taken_again():
    """More sets of barred tokens than the device holds are answered with logits; a closed row is the next one's."""
    runner = DECODER.make_runner()
    choosers = [TokenChooser(DecodingSettings(), [one], [3], 30) for one in range(4, 24)]
    again = TokenChooser(DecodingSettings(), [23], [3], 30)
    assert again.barred(1) is choosers[-1].barred(1)
    handles = [runner.open() for _ in choosers]
    feeds = [
        Feed(handle, [5, 6], [0, 1], [0, 0], 2, barred=[chooser.barred(1)])
        for handle, chooser in zip(handles, choosers, strict=True)
    ]
    logits = runner.forward(feeds)
    assert all(isinstance(one, np.ndarray) for one in logits)
    for feed, one in zip(feeds[:3], logits, strict=False):
        runner.truncate(feed.sequence, 0)
        [[(token, _)]] = runner.forward([feed])
        assert token == np.where(feed.barred[0], -np.inf, one[0, :30]).argmax()
    for handle in (handles[3], handles[7]):
        runner.close(handle)
    new = [runner.open(), runner.open()]
    check(runner, [prompt(one, 4) for one in new], {one: of_prompt(4) for one in new})
    assert len(runner._rows) == len(handles)


def test_everything_barred_is_an_error_of_the_request():
    chooser = TokenChooser(DecodingSettings(min_new_tokens=1), range(10), [3], 10)
    engine = Engine(DECODER.make_runner(), 0, 200)
    ticket = engine.submit(Request(Prompt(np.array([5, 6]), ["", ""], np.array([1])), chooser))
    [*_] = engine.run()
    with pytest.raises(GenerationError, match="nothing may follow the first 0 tokens"):
        raise ticket.error


def test_what_the_tables_do_not_have_is_refused_before_the_device_sees_it():
    runner = DECODER.make_runner()
    one, new = runner.open(), runner.open()
    runner.forward([prompt(one, 6)])
    for wrong, message in (
        (Feed(new, [VOCABULARY], [0], [0]), f"the id {VOCABULARY} in a vocabulary of {VOCABULARY}"),
        (Feed(new, [-1], [0], [0]), "the id -1"),
        (Feed(new, [2**24], [0], [0]), "reads row 0"),
        (Feed(new, [1], [999], [0]), "position 999; this model's tables end at 200"),
        (Feed(new, [1], [0], [-1]), "block position -1"),
    ):
        with pytest.raises(GenerationError, match=message):
            runner.forward([Feed(one, [3], [2], [1]), wrong])
        assert [runner.length(handle) for handle in (one, new)] == [6, 0]


def test_no_memory_is_said_with_what_to_do_and_is_not_lasting(monkeypatch):
    decoder = GraphDecoder(MODEL, captures=False)
    runner = decoder.make_runner()
    handle = runner.open()
    workspace = runner._workspace

    def full(like):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(workspace.rows, "settle", full)
    with pytest.raises(
        GenerationError, match=r"no memory left.* 2 rows of 256 tokens.*lower batch_size"
    ):
        runner.forward([Feed(handle, [3], [2], [1])])
    runner.close(handle)
    assert decoder._idle == []
    check(runner, [prompt(again := runner.open(), 4)], {again: of_prompt(4)})


def of_prompt(length: int) -> Tokens:
    feed = prompt(0, length)
    return Tokens([*zip(feed.ids, feed.positions, feed.blocks, strict=True)], length)


def test_weights_that_change_are_seen_wherever_they_are_put():
    model = tiny()
    decoder = GraphDecoder(model, captures=False)

    def read() -> np.ndarray:
        runner, tokens = decoder.make_runner(), of_prompt(5)
        handle = runner.open()
        runner.forward([prompt(handle, 5)])
        (logits,) = runner.forward([Feed(handle, [7], [2], [1])])
        tokens.read.append((7, 2, 1))
        np.testing.assert_allclose(logits, tokens.logits(1, model), rtol=1e-4, atol=1e-4)
        runner.close(handle)
        return logits

    before = read()
    with torch.no_grad():
        model.glm.word_embeddings.weight.mul_(0.5)  # in place
    assert not np.array_equal(read(), before)
    workspace = decoder._idle[0]
    read()
    assert decoder._idle[0] is workspace
    model.glm.word_embeddings.weight = torch.nn.Parameter(torch.randn(VOCABULARY, 16))
    read()
    assert decoder._idle[0] is not workspace
    decoder.free()
    assert decoder._idle == []


def test_memory_goes_back_though_a_runner_lives_on():
    """An engine keeps its runner, and the runner knew the rows of a workspace that was given back: they stayed in memory."""
    model = tiny()
    decoder = GraphDecoder(model, captures=False)
    model.make_runner = decoder.make_runner
    runner = model.make_runner()
    for _ in range(2):
        handle = runner.open()
        check(runner, [prompt(handle, 5)], {handle: of_prompt(5)})
        runner.forward([Feed(handle, [7], [2], [1])])
        buffers = [weakref.ref(one) for one in runner._cache.buffers]
        runner.close(handle)
        assert all(one() is not None for one in buffers)
        release(model)
        assert all(one() is None for one in buffers)
    handle = runner.open()
    runner.forward([Feed(handle, [7], [2], [1])])
    buffers = [weakref.ref(one) for one in runner._cache.buffers]
    model.glm.word_embeddings.weight = torch.nn.Parameter(torch.randn(VOCABULARY, 16))
    model.make_runner().open()  # with the new weights; the workspace of the old ones is nobody's any more
    runner.close(handle)
    assert all(one() is None for one in buffers)


def test_a_model_is_copied_and_pickled_without_what_was_captured():
    model = tiny()
    model.make_runner = GraphDecoder(model, captures=False).make_runner
    runner = model.make_runner()
    runner.close(runner.open())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        decoder = other.make_runner.__self__
        assert decoder.model is other
        assert decoder._idle == []
        assert isinstance(other.make_runner(), GraphRunner)


def test_what_cannot_be_captured_runs_on_torch(caplog):
    model = tiny()
    decoder = GraphDecoder(model)
    with caplog.at_level(logging.INFO):
        assert type(decoder.make_runner()) is TorchRunner
        decoder.make_runner()
    assert [one.getMessage() for one in caplog.records] == [
        "generating without CUDA graphs: CUDA graphs are for GPUs of NVIDIA or AMD, the model is on cpu"
    ]
    assert "training mode" in why_not(tiny().train())
    assert "eager" in why_not(tiny(attn_implementation="eager"))
    model.glm.virtual_tokens = object()
    assert "virtual tokens" in why_not(model)
    adapted = tiny()
    mlp = adapted.glm.transformer.layers[1].mlp
    mlp.dense_h_to_4h = torch.nn.Sequential(mlp.dense_h_to_4h)
    assert "Sequential in the place of Linear" in why_not(adapted)


def test_room_grows_in_large_steps():
    assert [static_rows(one) for one in (1, 2, 3, 8, 9, 256)] == [2, 3, 5, 9, 17, 257]
    assert [static_capacity(one) for one in (1, 256, 257, 1000)] == [256, 256, 384, 1024]
    assert static_capacity(1025, before=1024) == 1280
    config = MODEL.config
    static = inference_memory(
        config, batch_size=3, input_tokens=100, output_tokens=200, backend="graphs"
    )
    assert static.cache == 5 * 384 * 2 * config.num_layers * config.hidden_size * 2


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_graphs_on_a_gpu(dtype):
    """Captured steps against `TorchRunner` on the same GPU, through forks and forgetting."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    model = tiny(hidden_size=128).to("cuda", dtype)
    pair = [GraphDecoder(model).make_runner(), TorchRunner(model)]
    assert isinstance(pair[0], GraphRunner)
    found = []
    for runner in pair:
        rng, answers = Random(3), []
        handles = [runner.open() for _ in range(3)]
        answers += runner.forward([prompt(one, 20 + one, one) for one in handles])
        handles.append(runner.fork(handles[0]))
        for _ in range(5):
            feeds = [Feed(one, [rng.randrange(4, 30)] * 2, [2, 2], [1, 2], 0, 2) for one in handles]
            answers += runner.forward(feeds)
            for one in handles:
                runner.truncate(one, runner.length(one) - 1)
        for one in handles:
            runner.close(one)
        found.append(np.concatenate(answers))
    tolerance = 1e-3 if dtype == torch.float32 else 0.1 * float(found[1].std())
    np.testing.assert_allclose(*found, rtol=1e-3, atol=tolerance)


@pytest.mark.gpu
def test_a_model_loaded_on_a_gpu_writes_with_graphs():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    glm, plain = (
        glmkit.load(device="cuda", dtype="float32", backend=backend) for backend in (None, "torch")
    )
    assert isinstance(glm.model.make_runner(), GraphRunner)
    assert not hasattr(plain.model, "make_runner")
    texts = ["北京是[MASK]的首都，也是[MASK]。", "The capital of France is [MASK].", "春天[gMASK]"]
    for _ in range(2):  # the second time with what the first one captured
        found, expected = (one.fill(texts, max_new_tokens=20) for one in (glm, plain))
        assert [one.text for one in found] == [one.text for one in expected]
    decoder = glm.model.make_runner.__self__
    assert len(decoder._idle) == 1
    release(glm.model)
    assert decoder._idle == []
