"""Which tokens of a sample are hidden: spans for the token, sentence and document objectives.

In: one sample's ids and a random generator. Out: spans, int64 [n, 2] of half-open (start, end) index pairs
that never overlap. Knows ids only; what a span becomes is decided in `objectives`.

A sample is a chunk of the token stream: it may begin with `[CLS]`, end with the end-of-text token, and hold
several documents. A *document* is here a run of ordinary tokens between those two.

Source: THUDM/GLM `blocklm_utils.py` (`ConstructBlockStrategy`), by its recorded statistics.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

SENTENCE_ENDS = ".?!;:。？！；…"
"""Characters that end a sentence."""
CLOSING = "\"')]}”’）】」』》"
"""Quotes and brackets that may follow the end of a sentence and belong to it."""


def ends_sentence(texts: Iterable[str]) -> np.ndarray:
    """Returns bool [vocab]: which tokens end a sentence.

    A token ends one if it has a newline or ends with one of `SENTENCE_ENDS`, closing quotes aside. (The
    original takes these characters anywhere in a token, so that `1.5` and `://` end sentences; this does not.)

    Args:
        texts: What each id decodes to on its own, in the order of the ids.
    """
    ends = tuple(SENTENCE_ENDS)
    return np.array(["\n" in text or text.rstrip(CLOSING).endswith(ends) for text in texts], bool)


def document_spans(ids: np.ndarray, cls: int, eos: int) -> np.ndarray:
    """Returns int64 [n, 2]: the runs of tokens between `[CLS]` and end-of-text tokens, empty runs left out."""
    found, start = [], 0
    for border in (*((ids == cls) | (ids == eos)).nonzero()[0].tolist(), len(ids)):
        if start < border:
            found.append((start, border))
        start = border + 1
    return np.array(found, np.int64).reshape(-1, 2)


def draw_lengths(rng: np.random.Generator, total: int, mean: float, longest: int) -> np.ndarray:
    """Draws span lengths until their sum reaches `total`.

    Args:
        rng: The only source of randomness.
        total: Tokens to hide, at least.
        mean: Mean of the Poisson distribution that, cut to 1 … `longest`, the lengths follow.
        longest: Longest span, in tokens.

    Returns:
        int64 [n]; the last length is not cut, so the sum can exceed `total`.
    """
    lengths = draw_span_lengths(rng, total, mean, longest)
    return lengths[: int(lengths.cumsum().searchsorted(total)) + 1]


def draw_span_lengths(
    rng: np.random.Generator, count: int, mean: float, longest: int
) -> np.ndarray:
    """Draws `count` span lengths, int64 [count]; else as `draw_lengths`."""
    return _poisson_cumulative(mean, longest).searchsorted(rng.random(count), side="right") + 1


@lru_cache(maxsize=8)
def _poisson_cumulative(mean: float, longest: int) -> np.ndarray:
    """Returns float64 [longest]: the distribution function of a Poisson variable given 1 … `longest`."""
    log_weights = np.cumsum(np.log(mean) - np.log(np.arange(1, longest + 1)))
    weights = np.exp(log_weights - log_weights.max())
    cumulative = np.cumsum(weights)
    return cumulative / cumulative[-1]


def place_spans(rng: np.random.Generator, lengths: np.ndarray, start: int, end: int) -> np.ndarray:
    """Places spans of these lengths, in this order, between `start` and `end`, no two touching.

    Every arrangement is equally likely. The lengths must fit: their sum and one token between neighbours.

    Returns:
        int64 [n, 2], ascending.
    """
    n = len(lengths)
    sums = lengths.cumsum()
    free = end - start - int(sums[-1])
    # n different gaps among the free tokens' free + 1: two spans never share one, so they never touch. (The n
    # smallest of as many random numbers are such a draw, and much quicker than rng.choice.)
    gaps = rng.random(free + 1).argpartition(n - 1)[:n] if n <= free else np.arange(n)
    gaps.sort()
    spans = np.empty((n, 2), np.int64)
    spans[:, 1] = gaps + sums + start
    spans[:, 0] = spans[:, 1] - lengths
    return spans


def token_spans(
    ids: np.ndarray,
    rng: np.random.Generator,
    *,
    cls: int,
    eos: int,
    ratio: float,
    mean: float,
    longest: int,
    lengths: np.ndarray | None = None,
) -> np.ndarray:
    """Draws short spans that hide `int(ratio * len(ids))` tokens or a few more.

    `[CLS]`, end-of-text tokens and the sample's last token are never hidden, and spans never touch. Of several
    documents, each but the longest gives at most its own `ratio`; the longest gives the rest. Spans for which
    there is no room are left out.

    Args:
        ids: int64 [S].
        rng: The only source of randomness.
        cls: Id of `[CLS]`.
        eos: Id of the end-of-text token.
        ratio: Share of the tokens to hide, at least.
        mean: See `draw_lengths`.
        longest: See `draw_lengths`.
        lengths: int64 [n], the spans' lengths if they are drawn already.

    Returns:
        int64 [n, 2]; empty if the sample is too short for a span.
    """
    if lengths is None:
        lengths = draw_lengths(rng, int(ratio * len(ids)), mean, longest)
    # The last length drawn is longer than most; it must not always be the last in the text.
    lengths = rng.permutation(lengths)
    documents = document_spans(ids[:-1], cls, eos)
    sizes = documents[:, 1] - documents[:, 0]
    if len(documents) == 1:
        fits = lengths.cumsum() + np.arange(len(lengths)) <= sizes[0]
        lengths = lengths[: np.count_nonzero(fits)]
        if not len(lengths):
            return np.empty((0, 2), np.int64)
        return place_spans(rng, lengths, int(documents[0, 0]), int(documents[0, 1]))
    by_size = np.argsort(sizes, kind="stable")
    quotas = np.where(
        np.arange(len(sizes)) == by_size[-1:], sizes, (ratio * sizes).astype(np.int64)
    )
    placed = [np.empty((0, 2), np.int64)]
    for number in by_size:
        sums = np.cumsum(lengths)
        fits = (sums <= quotas[number]) & (sums + np.arange(len(sums)) <= sizes[number])
        here, lengths = np.split(lengths, [np.count_nonzero(fits)])
        if len(here):
            placed.append(place_spans(rng, here, *documents[number]))
    return np.concatenate(placed)


def sentence_spans(
    ids: np.ndarray,
    rng: np.random.Generator,
    *,
    cls: int,
    eos: int,
    is_end: np.ndarray,
    ratio: float,
) -> np.ndarray:
    """Draws whole sentences that hide `int(ratio * len(ids))` tokens or more.

    A sentence cut off by an end-of-text token is never hidden; one cut off by the end of the sample can be.
    The `[CLS]` of a second or later document belongs to the sentence after it. Neighbouring sentences stay
    two spans. One sentence at least stays visible where there is no other text.

    Args:
        ids: int64 [S].
        rng: The only source of randomness.
        cls: Id of `[CLS]`.
        eos: Id of the end-of-text token.
        is_end: bool [S], whether a token ends a sentence.
        ratio: Share of the tokens to hide, at least.

    Returns:
        int64 [n, 2] in random order; empty if there is no sentence to hide.
    """
    is_eos = ids == eos
    borders = (is_end | is_eos).nonzero()[0]
    bounds = np.empty(len(borders) + 2, np.int64)
    bounds[0], bounds[1:-1], bounds[-1] = ids[0] == cls, borders + 1, len(ids)
    starts, ends = bounds[:-1], bounds[1:]
    # Ordinary tokens before each index: a sentence has some, and is not cut off by an end of text.
    before = np.zeros(len(ids) + 1, np.int64)
    (~(is_eos | (ids == cls))).cumsum(out=before[1:])
    ordinary = before[ends] - before[starts]
    kept = (ordinary > 0) & ~is_eos[ends - 1]
    hides_all = ordinary[kept].sum() == before[-1]
    spans = np.empty((np.count_nonzero(kept), 2), np.int64)
    spans[:, 0], spans[:, 1] = starts[kept], ends[kept]
    spans = rng.permutation(spans)
    hidden = (spans[:, 1] - spans[:, 0]).cumsum()
    n = int(hidden.searchsorted(int(ratio * len(ids)))) + 1
    return spans[: min(n, len(spans) - 1)] if hides_all and len(spans) else spans[:n]


def document_span(
    ids: np.ndarray,
    rng: np.random.Generator,
    *,
    cls: int,
    eos: int,
    min_ratio: float,
    infill_prob: float,
) -> tuple[np.ndarray, bool]:
    """Draws one long span, of `int(min_ratio * len(ids))` to `len(ids) - 2` tokens.

    Returns:
        The span, int64 [1, 2] (or [0, 2] if the sample is too short), and whether it lies inside the text.
        If not, it reaches to the sample's end, as it always does where there are several documents.
    """
    shortest, longest = max(1, int(min_ratio * len(ids))), len(ids) - 2
    documents = document_spans(ids, cls, eos)
    if shortest > longest or not len(documents):
        return np.empty((0, 2), np.int64), False
    length = int(rng.integers(shortest, longest + 1))
    start, end = int(documents[0, 0]), min(int(documents[0, 1]), len(ids) - 1)
    if len(documents) == 1 and start < end and rng.random() < infill_prob:
        return place_spans(rng, np.array([min(length, end - start)]), start, end), True
    return np.array([[len(ids) - length, len(ids)]]), False
