"""How sure a number is: bootstrap confidence intervals, from the examples' own values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def bootstrap_interval(
    values: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of a mean, or of a ratio of sums.

    Args:
        values: One for each example.
        weights: With them the statistic is sum(values) / sum(weights), such as nats per character, where examples
            are drawn together with their weights.
        level: Of confidence, in (0, 1).
        resamples: Draws of as many examples as there are, with replacement.
        seed: Of the draws.
    """
    numerators = np.asarray(values, float)
    denominators = np.ones_like(numerators) if weights is None else np.asarray(weights, float)
    rng = np.random.default_rng(seed)
    statistics = np.empty(resamples)
    for number in range(resamples):
        drawn = rng.integers(0, len(numerators), len(numerators))
        statistics[number] = numerators[drawn].sum() / denominators[drawn].sum()
    low, high = np.quantile(statistics, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
