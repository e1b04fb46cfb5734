from __future__ import annotations

import math

import numpy as np
import pytest

from glmkit.evaluation.metrics import Outcome, measure
from glmkit.evaluation.significance import (
    holm,
    mcnemar,
    paired_interval,
    randomisation_test,
    randomisation_test_of,
)
from glmkit.evaluation.sums import rows_of


@pytest.mark.parametrize(("first", "second", "both"), [(0, 5, 10), (3, 9, 0), (7, 7, 3), (0, 0, 4), (30, 55, 100)])  # fmt: skip
def test_mcnemar_is_the_binomial_test_of_what_differs(first, second, both):
    from scipy.stats import binomtest

    a = [1] * first + [0] * second + [1] * both
    b = [0] * first + [1] * second + [1] * both
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(a, b) == pytest.approx(expected)
    assert mcnemar(b, a) == mcnemar(a, b)


def test_mcnemar_by_hand():
    # Six differ, all in favour of one: 2 * (1/2)^6.
    assert mcnemar([0] * 6, [1] * 6) == pytest.approx(2 / 64)


def test_randomisation_by_hand_and_against_all_swappings():
    # Four gaps of 1: of 16 ways to set signs only two are as extreme.
    assert randomisation_test([0] * 4, [1] * 4, trials=40_000) == pytest.approx(2 / 16, abs=0.01)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=10), rng.normal(0.4, 1, 10)
    gaps = b - a
    signs = np.array([[1 if n >> i & 1 else -1 for i in range(10)] for n in range(1024)])
    exact = (np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-12).mean()
    assert randomisation_test(a, b, trials=40_000) == pytest.approx(exact, abs=0.01)
    rows = (a[:, None], b[:, None])
    mean = lambda sums: float(sums[0]) / 10  # noqa: E731
    assert randomisation_test_of(mean, *rows, trials=4000) == pytest.approx(exact, abs=0.03)
    # Equal models differ by nothing: everything is as extreme.
    assert randomisation_test(a, a) == 1
    assert randomisation_test_of(mean, rows[0], rows[0], trials=10) == 1
    assert randomisation_test([1.0], [2.0], [5.0]) == 1


def test_chance_finds_a_difference_as_often_as_it_may():
    """Models that are the same differ with p < 0.05 in about one of twenty comparisons, no more."""
    rng = np.random.default_rng(1)
    found = []
    for seed in range(300):
        a, b = rng.normal(size=(2, 40))
        found.append(randomisation_test(a, b, trials=200, seed=seed) < 0.05)
    assert 0.02 <= np.mean(found) <= 0.09


def test_interval_holds_the_difference_of_normals():
    rng = np.random.default_rng(2)
    gaps = rng.normal(0.3, 1, 400)
    low, high = paired_interval(lambda drawn: float(gaps[drawn].mean()), 400)
    half = 1.96 * gaps.std(ddof=1) / math.sqrt(400)
    assert (low, high) == pytest.approx((gaps.mean() - half, gaps.mean() + half), abs=0.015)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_sums_give_what_the_metrics_give():
    rng = np.random.default_rng(3)
    labels = ["1", "坏", "whatever"]
    outcomes = [
        Outcome(str(got), [str(right)], {str(got): float(p)})
        for got, right, p in zip(*rng.choice(labels, (2, 50)), rng.uniform(0.1, 1, 50), strict=True)
    ]
    for name in ("macro_f1", "calibration_error", "binary_f1"):
        rows, _, value = rows_of(name, outcomes, outcomes[:1] * 50)
        assert value(rows.sum(0)) == pytest.approx(measure(name, outcomes).value)
    texts = [("今天天气很好", ["今天天气真好", "今天的天气很好"]), ("the cat sat on the mat", ["the cat is on the mat"]), ("", ["空"])]  # fmt: skip
    for some in (texts, texts[1:2] * 3, texts[2:]):
        outcomes = [Outcome(text, right) for text, right in some]
        rows, _, value = rows_of("bleu", outcomes, outcomes)
        assert value(rows.sum(0)) == pytest.approx(measure("bleu", outcomes).value)
    assert rows_of("distinct_2", outcomes, outcomes) is None
