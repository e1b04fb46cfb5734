"""Models side by side: what each of two got on the same examples -> how far apart they are, and how surely.

In: the predictions of each model, as `predictions.jsonl` has them. Out: `Difference`s. Nothing is asked again: a
comparison can be made of folders that were filled on different days and machines.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from glmkit.evaluation.asking import bits
from glmkit.evaluation.metrics import METRICS, Outcome
from glmkit.evaluation.significance import (
    holm,
    mcnemar,
    paired_interval,
    randomisation_test,
    randomisation_test_of,
)
from glmkit.evaluation.sums import rows_of

TRANSFORMS: dict[str, Callable[[float], float]] = {
    "bits_per_character": bits,
    "perplexity": math.exp,
    "word_perplexity": math.exp,
    "greedy_match": float,
}
"""Ratio of sums -> metric."""

Predictions = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Difference:
    """Two models' difference in one metric of one run.

    Attributes:
        first: Name of the model compared with.
        second: Name of the model whose numbers are higher where `value` is above 0.
        metric: Its name.
        examples: Examples that both answered.
        value: The second's number minus the first's, on these.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p: Two-sided p of the test.
        adjusted_p: The same, adjusted for the number of pairs of models (Holm).
        test: "exact McNemar" or "approximate randomisation".
    """

    first: str
    second: str
    metric: str
    examples: int
    value: float
    low: float
    high: float
    p: float
    adjusted_p: float
    test: str

    @property
    def winner(self) -> str | None:
        """The better model where the adjusted p is below 0.05, else None."""
        if self.adjusted_p >= 0.05 or not self.value:
            return None
        return self.second if (self.value > 0) == higher_is_better(self.metric) else self.first


def higher_is_better(metric: str) -> bool:
    """Returns whether more is better of a metric as results name it."""
    if metric == "greedy_match":
        return True
    known = METRICS.get(metric) or METRICS.get(metric.removeprefix("free_"))
    return known.better == "higher" if known else False


def compare(models: Mapping[str, Predictions], metrics: Sequence[str]) -> list[Difference]:
    """Returns the differences of every pair of models in every metric that their predictions hold.

    Args:
        models: Name -> predictions of one run.
        metrics: Names, as in results. Perplexity is compared where both models count the same tokens; chrF, distinct-n
            and bits on blanks are not.
    """
    found: list[Difference] = []
    for metric in metrics:
        pairs = [
            one
            for first, second in combinations(models, 2)
            if (one := _difference(first, second, *matched(models[first], models[second]), metric))
        ]
        adjusted = holm([one.p for one in pairs])
        found += [replace(one, adjusted_p=p) for one, p in zip(pairs, adjusted, strict=True)]
    return found


def matched(first: Predictions, second: Predictions) -> tuple[Predictions, Predictions]:
    """Returns the predictions for the examples that both have, in the same order."""
    others = dict(keyed(second))
    pairs = [(one, others[key]) for key, one in keyed(first) if key in others]
    return [one for one, _ in pairs], [other for _, other in pairs]


def keyed(predictions: Predictions) -> list[tuple[tuple[str, int], Mapping[str, Any]]]:
    """Returns each with where it stands and its number there: a conversation is several examples of one line."""
    seen: Counter[str] = Counter()
    pairs = []
    for one in predictions:
        pairs.append(((one["where"], seen[one["where"]]), one))
        seen[one["where"]] += 1
    return pairs


def _difference(
    first: str, second: str, a: Predictions, b: Predictions, metric: str
) -> Difference | None:
    """Returns the difference in a metric, or None where the predictions do not tell."""
    found: Found | None = None
    if not a:
        return None
    if all(metric in one for one in (*a, *b)):
        found = _of_means([one[metric] for one in a], [one[metric] for one in b])
    elif metric in TRANSFORMS and all(f"{metric}_sums" in one for one in (*a, *b)):
        sums = [[one[f"{metric}_sums"] for one in part] for part in (a, b)]
        if [d for _, d in sums[0]] == [d for _, d in sums[1]]:  # other tokens are other units
            found = _of_ratios(sums[0], sums[1], TRANSFORMS[metric])
    elif metric in METRICS and all("prediction" in one for one in (*a, *b)):
        found = _of_whole(metric, a, b)
    return found and Difference(first, second, metric, len(a), *found[:4], found[3], found[4])


Found = tuple[float, float, float, float, str]


def _of_means(a: Sequence[float], b: Sequence[float]) -> Found:
    one, other = np.asarray(a, float), np.asarray(b, float)
    gaps = other - one
    interval = paired_interval(lambda drawn: float(gaps[drawn].mean()), len(gaps))
    if set(np.unique([one, other]).tolist()) <= {0.0, 1.0}:
        return float(gaps.mean()), *interval, mcnemar(a, b), "exact McNemar"
    return float(gaps.mean()), *interval, randomisation_test(a, b), "approximate randomisation"


def _of_ratios(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], transform: Callable[[float], float]
) -> Found:
    """Args hold numerator and denominator of each example."""
    one, other = np.asarray(a, float), np.asarray(b, float)

    def gap(drawn: np.ndarray) -> float:
        total = max(1.0, float(one[drawn, 1].sum()))
        return transform(other[drawn, 0].sum() / total) - transform(one[drawn, 0].sum() / total)

    # The transforms are monotonic: the test of the ratios is the test of what is made of them.
    p = randomisation_test(one[:, 0].tolist(), other[:, 0].tolist(), one[:, 1].tolist())
    everything = np.arange(len(one))
    return gap(everything), *paired_interval(gap, len(one)), p, "approximate randomisation"


def _of_whole(metric: str, a: Predictions, b: Predictions) -> Found | None:
    """Returns None for distinct-n and chrF, which no sums of examples give: nothing is tested there."""
    found = rows_of(metric, [outcome_of(one) for one in a], [outcome_of(one) for one in b])
    if found is None:
        return None
    one, other, value = found

    def gap(drawn: np.ndarray) -> float:
        times = np.bincount(drawn, minlength=len(one)).astype(float)
        return value(times @ other) - value(times @ one)

    p = randomisation_test_of(value, one, other)
    everything = np.arange(len(one))
    return gap(everything), *paired_interval(gap, len(one)), p, "approximate randomisation"


def outcome_of(prediction: Mapping[str, Any]) -> Outcome:
    """Returns the outcome that a prediction was written of."""
    return Outcome(
        prediction["prediction"],
        list(prediction["references"]),
        dict(prediction.get("probabilities", {})),
    )
