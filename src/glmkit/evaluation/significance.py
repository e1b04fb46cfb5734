"""Is one model better than another: paired tests and intervals on the same examples.

In: what two models got on each example, in the same order. Out: probabilities (p) and intervals. Knows no model, no
metric and no task.

Sources: McNemar 1947 in its exact form (Dietterich 1998, "Approximate statistical tests"); approximate randomisation
(Noreen 1989; Yeh 2000, "More accurate tests for the statistical significance of result differences"); the paired
percentile bootstrap (Efron and Tibshirani 1993; Koehn 2004); Holm 1979 for several comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

CHUNK = 2_000_000
"""Numbers drawn at once."""


def mcnemar(first: Sequence[Any], second: Sequence[Any]) -> float:
    """Returns the two-sided p of the exact McNemar test: are as many examples right in `second` alone as in `first` alone?

    Args:
        first: For each example whether the first model is right.
        second: Likewise the second.
    """
    pairs = list(zip(first, second, strict=True))
    only_first = sum(bool(a) and not b for a, b in pairs)
    only_second = sum(bool(b) and not a for a, b in pairs)
    differing = only_first + only_second
    tail = sum(math.comb(differing, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**differing)


def randomisation_test(
    first: Sequence[float],
    second: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    trials: int = 10_000,
    seed: int = 0,
) -> float:
    """Returns the two-sided p of the difference of two means (or ratios of sums) by approximate randomisation.

    Were there no difference, the two models' values of an example might as well be swapped: p is the share of `trials`
    random swappings whose difference is at least as large as the one found, (count + 1) / (trials + 1).

    Args:
        first: One value for each example.
        second: Likewise.
        weights: Denominators of both models, such as characters; by default 1.
        trials: Random swappings.
        seed: Of the swappings.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    total = float(len(a) if weights is None else np.sum(np.asarray(weights, float)))
    gaps = (b - a) / total
    found = abs(gaps.sum())
    rng = np.random.default_rng(seed)
    count = 0
    rows = max(1, CHUNK // max(1, len(gaps)))
    for start in range(0, trials, rows):
        signs = rng.integers(0, 2, (min(rows, trials - start), len(gaps))) * 2 - 1
        count += int((np.abs(signs @ gaps) >= found - 1e-12 * max(1.0, found)).sum())
    return (count + 1) / (trials + 1)


def randomisation_test_of(
    value: Callable[[np.ndarray], float],
    first: np.ndarray,
    second: np.ndarray,
    *,
    trials: int = 2000,
    seed: int = 0,
) -> float:
    """As `randomisation_test` for a number that is a function of sums over examples, such as BLEU or macro-F1.

    Args:
        value: Makes the number of one model's sum of rows.
        first: float64 [examples, counts], the first model's rows.
        second: The second's, in the same order.
        trials: Random swappings.
        seed: Of the swappings.
    """
    one, other = first.sum(0), second.sum(0)
    found = abs(value(other) - value(one))
    rng = np.random.default_rng(seed)
    count = 0
    for _ in range(trials):
        moved = rng.integers(0, 2, len(first)).astype(float) @ (second - first)
        count += abs(value(other - moved) - value(one + moved)) >= found - 1e-12
    return (count + 1) / (trials + 1)


def paired_interval(
    statistic: Callable[[np.ndarray], float],
    examples: int,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of a difference between two models on the same examples.

    Args:
        statistic: Makes the difference of indices of examples (int64, drawn with replacement).
        examples: How many there are.
        level: Of confidence, in (0, 1).
        resamples: Draws.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    found = [statistic(rng.integers(0, examples, examples)) for _ in range(resamples)]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(probabilities: Sequence[float]) -> list[float]:
    """Returns p values adjusted for their number, in the given order (Holm's step-down method)."""
    order = sorted(range(len(probabilities)), key=lambda index: probabilities[index])
    adjusted = [0.0] * len(probabilities)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, (len(probabilities) - rank) * probabilities[index])
        adjusted[index] = min(1.0, largest)
    return adjusted
