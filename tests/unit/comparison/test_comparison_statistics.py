"""Intervals over seeds, against hand-computed cases and scipy."""

from __future__ import annotations

import math

import pytest

from glmkit.comparison.statistics import _T, difference, estimate


def test_three_seeds_by_hand():
    # mean 2, sample variance 1, t(0.975, 2) = 4.303: 4.303 / sqrt(3)
    found = estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.count) == (2.0, 3)
    assert found.half_width == pytest.approx(4.303 / math.sqrt(3))
    assert not found.excludes_zero
    assert estimate([2.0, 2.1, 1.9]).excludes_zero


def test_one_seed_tells_nothing_of_others():
    found = estimate([0.5])
    assert found.half_width == math.inf
    assert not found.excludes_zero


def test_the_table_is_students():
    stats = pytest.importorskip("scipy.stats")
    for degrees, value in enumerate(_T, 1):
        assert value == pytest.approx(stats.t.ppf(0.975, degrees), abs=6e-4)


def test_differences_are_paired_by_seed():
    one, other = {1: 0.9, 2: 0.5, 3: 0.7}, {1: 0.8, 2: 0.4, 3: 0.6, 4: 0.1}
    found = difference(one, other)
    assert found is not None
    assert found.mean == pytest.approx(0.1)
    assert found.half_width == pytest.approx(0.0, abs=1e-9)  # seeds differ, the difference does not
    assert difference(one, {7: 1.0}) is None
