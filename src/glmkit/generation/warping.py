"""What settings make of a row of logits before a token is drawn: penalties, temperature, top-k, top-p.

In: logits [V], settings, the tokens of the blank. Out: logits again, then the tokens that are left with theirs. The same numbers as
transformers' logits processors of these names, of which one row takes many small steps of torch. Order: repetition penalty, repeated
n-grams (`penalized`); temperature, top-k, top-p (`candidates`).

Sources: repetition penalty, Keskar et al. 2019 (arXiv 1909.05858) section 4.1; top-k, Fan et al. 2018 (arXiv 1805.04833); top-p (nucleus),
Holtzman et al. 2020 (arXiv 1904.09751).

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glmkit.generation.arrays import largest
from glmkit.generation.settings import DecodingSettings

MIN_SCORE = -np.inf


def penalizes(settings: DecodingSettings) -> bool:
    """Returns whether `penalized` changes anything."""
    return settings.repetition_penalty != 1.0 or bool(settings.no_repeat_ngram_size)


def penalized(scores: np.ndarray, settings: DecodingSettings, tokens: Sequence[int]) -> np.ndarray:
    """Returns float32 [V] without what would repeat an n-gram, what was written made less likely."""
    scores = scores.copy()
    if settings.repetition_penalty != 1.0 and len(tokens):
        seen = np.unique(tokens)
        penalty = np.float32(settings.repetition_penalty)
        scores[seen] = np.where(scores[seen] < 0, scores[seen] * penalty, scores[seen] / penalty)
    if size := settings.no_repeat_ngram_size:
        scores[_completing(tokens, size)] = MIN_SCORE
    return scores


def candidates(scores: np.ndarray, settings: DecodingSettings) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tokens to draw from, int64 [n], and their scores, float32 [n], sharpened or flattened; one always stays."""
    ids = np.flatnonzero(scores > MIN_SCORE)
    kept = scores[ids]
    if settings.temperature != 1.0:
        kept = kept / np.float32(settings.temperature)
    if 0 < settings.top_k < len(kept):
        likely = kept >= np.partition(kept, -settings.top_k)[-settings.top_k]
        ids, kept = ids[likely], kept[likely]
    if settings.top_p < 1.0:
        likely = _nucleus(kept, settings.top_p)
        ids, kept = ids[likely], kept[likely]
    return ids, kept


def drawn(scores: np.ndarray, stream: np.random.Generator) -> int:
    """Returns a place, drawn with the probabilities softmax(scores)."""
    sums = np.cumsum(_weights(scores), dtype=np.float64)
    return int(np.searchsorted(sums, stream.random() * sums[-1], side="right"))


def _weights(scores: np.ndarray) -> np.ndarray:
    """Returns exp(scores), the largest as 1."""
    return np.exp(scores - scores.max())


def _completing(tokens: Sequence[int], size: int) -> list[int]:
    """Returns the tokens that would complete an n-gram which stands in `tokens` already."""
    if len(tokens) + 1 < size:
        return []
    tokens = list(tokens)
    last = tokens[len(tokens) - size + 1 :]
    starts = range(len(tokens) - size + 1)
    return [tokens[at + size - 1] for at in starts if tokens[at : at + size - 1] == last]


def _nucleus(scores: np.ndarray, top_p: float) -> np.ndarray:
    """Returns the places of the likeliest tokens, as few as come to `top_p` together, in order of place."""
    weights = _weights(scores)
    wanted, looked_at = top_p * weights.sum(dtype=np.float64), 256
    while True:  # most often a few tokens do, and the others need not be sorted
        order = largest(scores, looked_at)
        before = np.cumsum(weights[order], dtype=np.float64) - weights[order]
        if before[-1] >= wanted or len(order) == len(scores):
            return np.sort(order[before < wanted])
        looked_at *= 8
