"""Metrics of a whole that are functions of sums over examples, so that thousands of resamples cost little.

In: outcomes. Out: a row of counts for each example, and the metric's value of the rows' sum: macro-F1 of times right,
predicted and true by label, the calibration error of gaps by bin, BLEU of n-grams found and lengths. Equal to `metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from glmkit.evaluation import overlap
from glmkit.evaluation.metrics import CONFIDENCE_BINS, Outcome, confidence_bins

Rows = Callable[[Sequence[Outcome]], np.ndarray]


def macro_f1_rows(labels: Sequence[str]) -> Rows:
    """Returns what makes float64 [n, 3 labels] of outcomes: right, predicted, true."""
    places = {label: place for place, label in enumerate(labels)}

    def rows(outcomes: Sequence[Outcome]) -> np.ndarray:
        counts = np.zeros((len(outcomes), 3, len(places)))
        for row, one in enumerate(outcomes):
            counts[row, 1, places[one.prediction]] = counts[row, 2, places[one.references[0]]] = 1
        counts[:, 0] = counts[:, 1] * counts[:, 2]
        return counts.reshape(len(outcomes), -1)

    return rows


def macro_f1_value(sums: np.ndarray) -> float:
    """Returns macro-F1 of the sum of rows."""
    right, predicted, true = sums.reshape(3, -1)
    there = predicted + true > 0
    return float((2 * right[there] / (predicted + true)[there]).mean())


def calibration_rows(outcomes: Sequence[Outcome]) -> np.ndarray:
    """Returns float64 [n, bins + 1]: right minus confidence in the example's bin; 1."""
    sure = np.array([one.probabilities[one.prediction] for one in outcomes], float)
    right = np.array([one.prediction in one.references for one in outcomes], float)
    rows = np.zeros((len(outcomes), CONFIDENCE_BINS + 1))
    rows[:, CONFIDENCE_BINS] = 1
    rows[np.arange(len(outcomes)), confidence_bins(sure)] = right - sure
    return rows


def calibration_value(sums: np.ndarray) -> float:
    """Returns the calibration error of the sum of rows."""
    return float(np.abs(sums[:CONFIDENCE_BINS]).sum() / sums[CONFIDENCE_BINS])


def binary_rows(outcomes: Sequence[Outcome]) -> np.ndarray:
    """Returns float64 [n, 3]: "1" is predicted and right, is predicted, is right."""
    pairs = [(one.prediction == "1", "1" in one.references) for one in outcomes]
    return np.array([[a and b, a, b] for a, b in pairs], float)


def binary_value(sums: np.ndarray) -> float:
    """Returns F1 of the label "1" of the sum of rows."""
    return float(2 * sums[0] / (sums[1] + sums[2])) if sums[1] + sums[2] else 1.0


def bleu_rows(outcomes: Sequence[Outcome]) -> np.ndarray:
    """Returns float64 [n, 10]: n-grams found (n = 1 … 4), n-grams there are, length, length of the references."""
    scorer = overlap.sentence_bleu([one.references for one in outcomes])
    found = [scorer(one.prediction, one.references) for one in outcomes]
    return np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in found], float)


def bleu_value(sums: np.ndarray) -> float:
    """Returns corpus BLEU (0 to 100) of the sum of rows."""
    counts = sums.astype(int).tolist()
    return overlap.bleu_of_counts(counts[:4], counts[4:8], counts[8], counts[9])


def rows_of(
    metric: str, first: Sequence[Outcome], second: Sequence[Outcome]
) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], float]] | None:
    """Returns two models' rows and what makes the metric of their sums, or None for a metric that is no such function."""
    if metric == "macro_f1":
        every = [*first, *second]
        labels = {one.prediction for one in every} | {one.references[0] for one in every}
        rows = macro_f1_rows(sorted(labels))
        return rows(first), rows(second), macro_f1_value
    if metric == "binary_f1":
        return binary_rows(first), binary_rows(second), binary_value
    if metric == "bleu":
        return bleu_rows(first), bleu_rows(second), bleu_value
    if metric == "calibration_error" and all(one.probabilities for one in (*first, *second)):
        return calibration_rows(first), calibration_rows(second), calibration_value
    return None
