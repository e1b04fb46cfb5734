"""Texts led away from another prompt: against both prompts laid out and read anew. The engine's part is in test_engine."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from glmkit.blanks.layout import Piece, collate, lay_out
from glmkit.checkpoint.quantized import NativeWeights
from glmkit.errors import GenerationError
from glmkit.generation.constraints import Choices
from glmkit.generation.guidance import Guidance, GuidedRunner
from glmkit.generation.infill import draw, fill, make_chooser, make_engine, stream
from glmkit.generation.prompts import build_prompt
from glmkit.generation.request import Request
from glmkit.generation.runner import Feed
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.torch_runner import TorchRunner
from glmkit.native import library
from glmkit.native.model import NativeModel

WORDS = ["天气", "很好", "北京的天气", "a", "好"]
PAIRS = [
    ("今天[MASK]。", "明天的天气怎么样？[MASK]"),
    ("I like [MASK] and [MASK].", "[MASK] or [MASK] is what she hates."),
]


def guided_rows(model, tokenizer, texts, contents, scale: float) -> torch.Tensor:
    """Guided log-probabilities [tokens and ends of all blanks, V], both texts laid out as in training and read once."""
    rows, ids = [], tokenizer.special_ids
    for text in texts:
        prompt = build_prompt(tokenizer, text, 500)
        pieces = [
            Piece(int(mask), np.array(tokens, np.int64), ids.eop)
            for mask, tokens in zip(prompt.mask_indices, contents, strict=True)
        ]
        batch = collate([lay_out(prompt.ids, pieces, ids.sop)], ids.pad)
        inputs = {name: torch.from_numpy(array) for name, array in batch.items()}
        places = inputs.pop("labels")[0] != -100
        with torch.no_grad():
            rows.append(model(**inputs).logits[0, places].double().log_softmax(-1))
    own, other = rows
    guided = other + scale * (own - other)
    chooser = make_chooser(model, tokenizer, DecodingSettings())
    guided[:, len(tokenizer) :] = -torch.inf
    guided[:, chooser.forbidden] = -torch.inf
    at = 0
    for tokens in contents:  # a blank has one token at least
        guided[at, chooser.ends] = -torch.inf
        at += len(tokens) + 1
    return guided.log_softmax(-1)


def log_probability(model, tokenizer, texts, contents, scale: float, ends: bool) -> float:
    rows = guided_rows(model, tokenizer, texts, contents, scale)
    ids = tokenizer.special_ids
    labels = [label for tokens in contents for label in (*tokens, ids.eop)]
    if ends:  # either of them ends a blank; beams take them for two
        rows[:, ids.eop] = rows[:, [ids.eop, ids.eos]].logsumexp(-1)
    return float(rows[range(len(labels)), labels].sum())


@pytest.mark.parametrize("texts", PAIRS)
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_greedy_tokens_are_the_likeliest_of_the_guided_distribution(glm, texts, scale: float):
    model, tokenizer = glm
    settings = DecodingSettings(max_new_tokens=7, guidance_scale=scale)
    own, other = (build_prompt(tokenizer, text, 500) for text in texts)
    engine, chooser = make_engine(model, tokenizer), make_chooser(model, tokenizer, settings)
    led = engine.submit(Request(own, chooser, guidance=Guidance(own, other, scale)))
    free = engine.submit(Request(own, chooser))
    list(engine.run())
    contents = [blank.tokens for blank in led.samples[0]]
    assert contents != [blank.tokens for blank in free.samples[0]]  # or nothing is shown here
    rows, at = guided_rows(model, tokenizer, texts, contents, scale), 0
    for blank in led.samples[0]:
        likeliest = rows[at : at + len(blank.tokens)].max(-1)
        assert likeliest.indices.tolist() == blank.tokens
        assert len(blank.tokens) == 7
        assert blank.log_probabilities == pytest.approx(likeliest.values.tolist(), abs=1e-3)
        at += 8


@pytest.mark.parametrize("texts", PAIRS)
@pytest.mark.parametrize("n", [3, None])
def test_the_n_likeliest_and_beams_score_as_the_guided_distribution(glm, texts, n: int | None):
    model, tokenizer = glm
    limit, scale = Choices.of_texts(tokenizer, WORDS), 2.5
    ids = {word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in WORDS}
    blanks = texts[0].count("[MASK]")
    everything = {
        words: log_probability(
            model, tokenizer, texts, [ids[word] for word in words], scale, n is not None
        )
        for words in itertools.product(WORDS, repeat=blanks)
    }
    ranked = sorted(everything, key=lambda words: -everything[words])
    settings = DecodingSettings(guidance_scale=scale, num_beams=1 if n else 5, length_penalty=0.0 if not n else 1.0)  # fmt: skip
    [found] = fill(model, tokenizer, texts[:1], settings, n=n, constraints=[limit], negative_prompts=texts[1:])  # fmt: skip
    assert sum(found.scores) == pytest.approx(everything[tuple(found.blanks)], abs=1e-3)
    if n:
        assert [tuple(one.blanks) for one in found.candidates] == ranked[:n]
        assert found.candidates[1].score == pytest.approx(everything[ranked[1]], abs=1e-3)
    elif blanks == 1:
        assert tuple(found.blanks) == ranked[0]


@pytest.mark.parametrize("beams", [1, 3])
def test_its_own_prompt_and_scale_1_change_nothing(glm, beams: int):
    model, tokenizer = glm
    plain = DecodingSettings(max_new_tokens=6, num_beams=beams)
    texts = [own for own, _ in PAIRS]
    expected = [one.blanks for one in fill(model, tokenizer, texts, plain)]
    far = DecodingSettings(max_new_tokens=6, num_beams=beams, guidance_scale=4.0)
    same = fill(model, tokenizer, texts, far, negative_prompts=texts)
    assert [one.blanks for one in same] == expected
    others = [other for _, other in PAIRS]
    near = DecodingSettings(max_new_tokens=6, num_beams=beams, guidance_scale=1.0)
    unled = fill(model, tokenizer, texts, near, negative_prompts=others)
    assert [one.blanks for one in unled] == expected


@pytest.mark.parametrize("native", [False, True])
def test_a_batch_is_its_texts_one_by_one(glm, native: bool):
    model, tokenizer = glm
    if native:
        if (reason := library.why_not()) is not None:
            pytest.skip(reason)
        weights = NativeWeights.of(model.config, model.state_dict(), "float32")
        model = NativeModel(model.config, weights)
    texts, others = zip(*PAIRS, ("北京", "上海"), ("北京", None), strict=True)
    settings = [
        DecodingSettings(max_new_tokens=6),
        DecodingSettings(max_new_tokens=6, prompt_lookup_num_tokens=3),
        DecodingSettings(max_new_tokens=6, do_sample=True, seed=1, stop=("a",)),
    ]
    greedy = []
    for chosen in settings:
        together = fill(model, tokenizer, texts, chosen, negative_prompts=others)
        alone = [
            fill(model, tokenizer, [text], chosen, negative_prompts=[other])[0]
            for text, other in zip(texts, others, strict=True)
        ]
        assert [one.blanks for one in together] == [one.blanks for one in alone]
        assert together[2].scores != together[3].scores
        greedy.append([one.blanks for one in together])
        if chosen.do_sample:
            [drawn] = draw(model, tokenizer, texts[:1], chosen, [[1, 2, 1]], negative_prompts=others[:1])  # fmt: skip
            assert drawn[0] == drawn[2] != drawn[1]
            assert drawn[0].blanks == together[0].blanks
    assert greedy[0] == greedy[1]
    pieces = stream(model, tokenizer, texts[1], settings[0], negative_prompt=others[1])
    assert "".join(pieces).strip() == greedy[0][1][0]


def test_both_sequences_come_and_go_together(glm):
    model, tokenizer = glm
    prompt, other = (build_prompt(tokenizer, text, 500) for text in PAIRS[0])
    base = TorchRunner(model)
    runner, sop = GuidedRunner(base), tokenizer.special_ids.sop
    sequence = runner.open(Guidance(prompt, other, 2.0))
    mask = int(prompt.mask_indices[0])
    ids, length = [*prompt.ids.tolist(), sop], len(prompt.ids) + 1
    first = Feed(sequence, ids, [*range(length - 1), mask], [*[0] * (length - 1), 1], length - 1)
    [before] = runner.forward([first])
    copy = runner.fork(sequence)
    [after] = runner.forward([Feed(copy, [50], [mask], [2])])
    assert [base.length(one) for one in (1, 2, 3, 4)] == [length, len(other.ids) + 1, length + 1, len(other.ids) + 2]  # fmt: skip
    runner.truncate(copy, length)
    [again] = runner.forward([Feed(copy, [50], [mask], [2])])
    assert np.array_equal(again, after)
    runner.truncate(sequence, 0)
    [whole] = runner.forward([first])
    assert np.array_equal(whole, before)
    with pytest.raises(IndexError):
        runner.forward([Feed(sequence, [10**6], [mask], [2])])
    assert runner.length(sequence) == length
    for one in (sequence, copy):
        runner.close(one)
    assert not base._sequences


def test_mistakes_are_explained(glm):
    model, tokenizer = glm

    def refused(words: str, texts, others, **settings):
        with pytest.raises(GenerationError, match=words):
            fill(model, tokenizer, texts, DecodingSettings(**settings), negative_prompts=others)

    refused("the text has 1 blanks and the one against it 2", ["[MASK]"], ["[MASK][MASK]"])
    refused("2 texts and negative_prompts for 1", ["a", "b"], ["c"])
    refused("give that prompt .negative_prompt.", ["a"], None, guidance_scale=2.0)
    with pytest.raises(GenerationError, match="guidance_scale=0 must be above 0"):
        DecodingSettings(guidance_scale=0)
