"""Penalties and cuts of logits against transformers' processors of the same names, and draws against their probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from glmkit.errors import GenerationError
from glmkit.generation.arrays import largest, log_probabilities_at, log_softmax
from glmkit.generation.decoding import BlankTokens, TokenChooser, random_stream
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.warping import MIN_SCORE, candidates, drawn, penalized


def of_transformers(scores: np.ndarray, some: list, tokens: list[int]) -> np.ndarray:
    history = torch.tensor([tokens], dtype=torch.long)
    return LogitsProcessorList(some)(history, torch.from_numpy(scores)[None].clone())[0].numpy()


def warped(scores: np.ndarray, settings: DecodingSettings) -> np.ndarray:
    """Scores [V] again, of what is left."""
    ids, kept = candidates(scores, settings)
    assert (np.diff(ids) > 0).all()
    whole = np.full(len(scores), MIN_SCORE, kept.dtype)
    whole[ids] = kept
    return whole


def random_scores(seed: int, size: int, hidden: float) -> np.ndarray:
    """Logits of which a share is hidden already, one at least is not."""
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal(size, np.float32) * 4
    scores[1:][rng.random(size - 1) < hidden] = MIN_SCORE
    return scores


@given(
    seed=st.integers(0, 2**32),
    size=st.sampled_from([2, 5, 40, 3000]),
    hidden=st.sampled_from([0.0, 0.5, 0.95]),
    temperature=st.sampled_from([1.0, 0.01, 0.7, 3.0]),
    top_k=st.sampled_from([0, 1, 3, 50, 10_000]),
    top_p=st.sampled_from([1.0, 0.999, 0.9, 0.3, 1e-6]),
)
@settings(max_examples=300, deadline=None)
def test_cuts_are_those_of_transformers(seed, size, hidden, temperature, top_k, top_p):
    scores = random_scores(seed, size, hidden)
    some = [TemperatureLogitsWarper(temperature)] if temperature != 1.0 else []
    some += [TopKLogitsWarper(top_k)] if top_k else []
    some += [TopPLogitsWarper(top_p)] if top_p < 1.0 else []
    asked = DecodingSettings(do_sample=True, temperature=temperature, top_k=top_k, top_p=top_p)
    found, expected = warped(scores, asked), of_transformers(scores, some, [])
    assert found.dtype == np.float32
    # Where sums of float32 come within rounding of the limit a token may stay here and go there.
    different = np.flatnonzero((found > MIN_SCORE) != (expected > MIN_SCORE))
    shares = np.exp(scores / temperature - (scores / temperature).max())
    assert shares[different].sum() <= 1e-3 * shares.sum()
    both = (found > MIN_SCORE) & (expected > MIN_SCORE)
    np.testing.assert_allclose(found[both], expected[both], rtol=1e-6)
    assert found.argmax() == scores.argmax()


@given(
    seed=st.integers(0, 2**32),
    tokens=st.lists(st.integers(0, 4), max_size=12),
    penalty=st.sampled_from([1.0, 0.5, 1.3, 40.0]),
    size=st.integers(0, 4),
)
@settings(max_examples=300, deadline=None)
def test_penalties_are_those_of_transformers(seed, tokens, penalty, size):
    scores = random_scores(seed, 6, 0.2)
    some = [RepetitionPenaltyLogitsProcessor(penalty)] if penalty != 1.0 else []
    some += [NoRepeatNGramLogitsProcessor(size)] if size else []
    kept = scores.copy()
    asked = DecodingSettings(repetition_penalty=penalty, no_repeat_ngram_size=size)
    np.testing.assert_allclose(
        penalized(scores, asked, tokens), of_transformers(scores, some, tokens), rtol=1e-6
    )
    np.testing.assert_array_equal(scores, kept)  # the caller's own


def test_a_nucleus_wider_than_is_sorted_at_first():
    """Flat logits: the nucleus has more tokens than the first few that are looked at."""
    scores = np.linspace(0, 0.1, 5000, dtype=np.float32)
    kept = warped(scores, DecodingSettings(do_sample=True, top_p=0.9)) > MIN_SCORE
    weights = np.exp(scores.astype(np.float64))
    assert weights[kept].sum() >= 0.9 * weights.sum()
    assert weights[kept][1:].sum() < 0.9 * weights.sum()
    assert kept[-kept.sum() :].all()


def test_draws_come_as_often_as_their_probabilities_say():
    scores = np.log(np.array([0.5, 0.0, 0.3, 0.2, 0.0], np.float32), where=[1, 0, 1, 1, 0], out=np.full(5, MIN_SCORE, np.float32))  # fmt: skip
    stream = random_stream(3)
    counts = np.bincount([drawn(scores, stream) for _ in range(20_000)], minlength=5)
    assert counts[1] == counts[4] == 0
    np.testing.assert_allclose(counts / 20_000, [0.5, 0, 0.3, 0.2, 0], atol=0.015)


@pytest.mark.parametrize("do_sample", [False, True])
@pytest.mark.parametrize("broken", [slice(None), slice(2, 3)])
def test_logits_that_are_no_numbers_are_told(do_sample: bool, broken: slice):
    """Of a model whose float16 overflows: the draw ended in an IndexError, the likeliest token was any."""
    logits = np.zeros(5, np.float32)
    logits[broken] = np.nan
    chooser = TokenChooser(DecodingSettings(do_sample=do_sample), [], [0], 5)
    with pytest.raises(GenerationError, match="logits are no numbers"):
        chooser.choose(logits, BlankTokens(), random_stream(0))


@pytest.mark.parametrize("seed", [0, 7, -1, -(2**63), 2**63 - 1])
def test_a_seed_gives_its_stream_again(seed: int):
    assert random_stream(seed).random() == random_stream(seed).random()
    assert random_stream(seed).random() != random_stream(1).random()


def test_without_a_seed_numpys_own_stream_decides():
    state = np.random.get_state()
    try:
        np.random.seed(5)
        first = [random_stream(None).random() for _ in range(2)]
        np.random.seed(5)
        assert [random_stream(None).random() for _ in range(2)] == first
        assert first[0] != first[1]
    finally:
        np.random.set_state(state)


@given(seed=st.integers(0, 2**32), n=st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_the_largest_come_first_and_the_first_of_equal_ones(seed, n):
    values = np.random.default_rng(seed).integers(0, 5, 9).astype(np.float32)
    expected = sorted(range(9), key=lambda place: (-values[place], place))[:n]
    assert largest(values, n).tolist() == expected


def test_log_probabilities_are_those_of_torch():
    logits = np.random.default_rng(0).standard_normal((37, 1000), np.float32) * 20
    logits[:, 3] = MIN_SCORE
    expected = torch.from_numpy(logits).log_softmax(-1).numpy()
    np.testing.assert_allclose(log_softmax(logits), expected, rtol=1e-5, atol=1e-5)
    rows, tokens = np.array([0, 36, 20, 20]), np.array([5, 999, 3, 4])
    for given_ in (logits, torch.from_numpy(logits)):
        found = log_probabilities_at(given_, rows, tokens)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[rows, tokens], rtol=1e-5, atol=1e-5)
