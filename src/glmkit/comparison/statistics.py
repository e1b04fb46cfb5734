"""Means over seeds with confidence intervals, and differences of objectives seed by seed.

In: one number for each seed. Out: mean and half width of Student's t interval of 95 %. Knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# 97.5 % points of Student's t by degrees of freedom 1 … 30, as in any table of it.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: Of the values.
        half_width: Of the 95 % interval mean ± half_width; infinite with one seed, which tells nothing of the others.
        count: Of the seeds.
    """

    mean: float
    half_width: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is on one side of 0."""
        return abs(self.mean) > self.half_width


def estimate(values: Sequence[float]) -> Estimate:
    """Returns mean and Student's t interval of 95 % of values [n].

    The interval is right for values that are normally distributed around their mean; that of few seeds is wide.
    """
    count = len(values)
    if count < 2:
        return Estimate(float(values[0]), math.inf, count)
    spread = float(np.std(values, ddof=1)) / math.sqrt(count)
    return Estimate(float(np.mean(values)), _T[min(count - 1, len(_T)) - 1] * spread, count)


def difference(one: Mapping[int, float], other: Mapping[int, float]) -> Estimate | None:
    """Returns the mean of `one` - `other` over the seeds that both have (paired), or None where there is none."""
    seeds = sorted(one.keys() & other.keys())
    return estimate([one[seed] - other[seed] for seed in seeds]) if seeds else None
