"""What is counted: one registry of metrics, each a pure function of what was predicted and what is right.

In: `Outcome`s. Out: a `Measured` value, with the examples' own values where the metric is their mean: these give
confidence intervals (`resampling`) and let two models be compared example by example. Knows no model and no task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from glmkit.errors import ConfigError, nearest
from glmkit.evaluation import overlap
from glmkit.tasks.agreement import macro_f1

CONFIDENCE_BINS = 10
"""Of the calibration error and of the reliability diagram."""


@dataclass(frozen=True)
class Outcome:
    """One example after the model has answered.

    Attributes:
        prediction: The model's answer: a label or a text.
        references: What is right; where there are several, one of them is enough.
        probabilities: Label -> probability, where the model gave them.
        alternatives: Further answers, best first, `prediction` the first of them.
        group: Examples of one group make one question.
    """

    prediction: str
    references: list[str]
    probabilities: dict[str, float] = field(default_factory=dict)
    alternatives: list[str] = field(default_factory=list)
    group: str = ""


@dataclass(frozen=True)
class Measured:
    """A metric's value.

    Attributes:
        value: Over all outcomes.
        examples: One value for each outcome, whose mean is `value`; empty for metrics of the whole.
    """

    value: float
    examples: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Metric:
    """An entry of the registry.

    Attributes:
        name: In results.
        better: "higher" or "lower".
        worst: Value of the worst possible predictions.
        perfect: Value of perfect predictions.
        compute: The function.
    """

    name: str
    better: Literal["higher", "lower"]
    worst: float
    perfect: float
    compute: Callable[[Sequence[Outcome]], Measured]


def measure(name: str, outcomes: Sequence[Outcome]) -> Measured:
    """Returns a metric's value over outcomes.

    Raises:
        ConfigError: There is no metric of that name, no outcome to count, or the metric returns no `Measured` of them.
        MissingDependencyError: ROUGE, BLEU or chrF without `glmkit[evaluate]`.
    """
    if name not in METRICS:
        raise ConfigError(
            f"there is no metric {name!r}{nearest(name, METRICS) or '.'} There are {', '.join(METRICS)}"
        )
    if not outcomes:
        raise ConfigError(f"{name} needs at least one example")
    measured = METRICS[name].compute(outcomes)
    if not isinstance(measured, Measured):
        raise ConfigError(
            f"the metric {name} returned {measured!r}; it must return Measured(value), or Measured(value, examples) for a mean"
        )
    if len(measured.examples) not in (0, len(outcomes)):
        raise ConfigError(
            f"the metric {name} returned {len(measured.examples)} values of examples for {len(outcomes)} outcomes; return one for "
            "each, or none"
        )
    return measured


def confidence_bins(
    confidences: Sequence[float] | np.ndarray, num_bins: int = CONFIDENCE_BINS
) -> np.ndarray:
    """Returns int64 [n]: each confidence's bin of equal width, which holds its upper edge, as in (0, 0.1], (0.1, 0.2]."""
    places = np.ceil(np.asarray(confidences, float) * num_bins).astype(int) - 1
    return np.clip(places, 0, num_bins - 1)


def calibration_error(
    confidences: Sequence[float], right: Sequence[bool], num_bins: int = CONFIDENCE_BINS
) -> float:
    """Returns the expected calibration error: |accuracy - mean confidence| over bins of equal width, weighted by size.

    Source: Guo et al. 2017 (arXiv 1706.04599), equation 3.
    """
    confidence, correct = np.asarray(confidences, float), np.asarray(right, float)
    bins = confidence_bins(confidence, num_bins)
    gaps = np.bincount(bins, correct - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(confidence))


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Returns the share of different n-grams among all n-grams of texts (0 where there are none).

    Units are characters of Chinese and words of other languages. Source: Li et al. 2016 (arXiv 1510.03055).
    """
    grams = []
    for text in texts:
        units = overlap.units(text)
        grams += [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _mean(values: Sequence[float]) -> Measured:
    return Measured(float(np.mean(values)), [float(value) for value in values])


def _best(score: Callable[[str, str], float]) -> Callable[[Sequence[Outcome]], Measured]:
    """Makes a metric of a function of a prediction and one reference: the best reference counts."""
    return lambda outcomes: _mean(
        [max(score(one.prediction, other) for other in one.references) for one in outcomes]
    )


def _accuracy(outcomes: Sequence[Outcome]) -> Measured:
    return _mean([float(one.prediction in one.references) for one in outcomes])


def _macro_f1(outcomes: Sequence[Outcome]) -> Measured:
    return Measured(
        macro_f1([one.prediction for one in outcomes], [one.references[0] for one in outcomes])
    )


def _binary_f1(outcomes: Sequence[Outcome]) -> Measured:
    """F1 of the label "1": MultiRC's F1a (Khashabi et al. 2018)."""
    predicted = sum(one.prediction == "1" for one in outcomes)
    right = sum("1" in one.references for one in outcomes)
    both = sum(one.prediction == "1" and "1" in one.references for one in outcomes)
    return Measured(2 * both / (predicted + right) if predicted + right else 1.0)


def _group_match(outcomes: Sequence[Outcome]) -> Measured:
    """Share of the groups in which everything is right: MultiRC's exact match."""
    groups: dict[str, bool] = {}
    for one in outcomes:
        right = one.prediction in one.references
        groups[one.group] = groups.get(one.group, True) and right
    return Measured(float(np.mean(list(groups.values()))))


def _calibration_error(outcomes: Sequence[Outcome]) -> Measured:
    known = [one for one in outcomes if one.probabilities]
    if not known:
        raise ConfigError("calibration_error needs outcomes with probabilities")
    confidences = [one.probabilities[one.prediction] for one in known]
    return Measured(
        calibration_error(confidences, [one.prediction in one.references for one in known])
    )


def _top(count: int) -> Callable[[Sequence[Outcome]], Measured]:
    """Makes the metric: is a reference among the first `count` answers."""

    def compute(outcomes: Sequence[Outcome]) -> Measured:
        return _mean(
            [
                max(
                    overlap.exact_match(answer, reference)
                    for answer in (one.alternatives or [one.prediction])[:count]
                    for reference in one.references
                )
                for one in outcomes
            ]
        )

    return compute


def _rouge(kind: str) -> Callable[[Sequence[Outcome]], Measured]:
    return lambda outcomes: _best(overlap.rouge_scorer(kind))(outcomes)


def _corpus(function: Callable[..., float]) -> Callable[[Sequence[Outcome]], Measured]:
    return lambda outcomes: Measured(
        function([one.prediction for one in outcomes], [one.references for one in outcomes])
    )


def _distinct(n: int) -> Callable[[Sequence[Outcome]], Measured]:
    return lambda outcomes: Measured(distinct_n([one.prediction for one in outcomes], n))


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "higher", 0, 1, _accuracy),
        Metric("macro_f1", "higher", 0, 1, _macro_f1),
        Metric("calibration_error", "lower", 1, 0, _calibration_error),
        Metric("exact_match", "higher", 0, 1, _best(overlap.exact_match)),
        Metric("top_10", "higher", 0, 1, _top(10)),
        Metric("f1", "higher", 0, 1, _best(overlap.f1)),
        Metric("token_f1", "higher", 0, 1, _best(overlap.token_f1)),
        Metric("binary_f1", "higher", 0, 1, _binary_f1),
        Metric("group_match", "higher", 0, 1, _group_match),
        Metric("rouge1", "higher", 0, 1, _rouge("rouge1")),
        Metric("rouge2", "higher", 0, 1, _rouge("rouge2")),
        Metric("rougeL", "higher", 0, 1, _rouge("rougeL")),
        Metric("bleu", "higher", 0, 100, _corpus(overlap.bleu)),
        Metric("chrf", "higher", 0, 100, _corpus(overlap.chrf)),
        Metric("distinct_1", "higher", 0, 1, _distinct(1)),
        Metric("distinct_2", "higher", 0, 1, _distinct(2)),
        Metric("distinct_3", "higher", 0, 1, _distinct(3)),
    )
}
"""Name -> metric. Numbers from 0 to 1, BLEU and chrF from 0 to 100 as their papers have them."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "accuracy": ("accuracy", "macro_f1", "calibration_error"),
    "macro_f1": ("macro_f1", "accuracy", "calibration_error"),
    "exact_match": ("exact_match", "f1"),
    "f1": ("f1", "exact_match"),
    "token_f1": ("token_f1", "exact_match"),
    "binary_f1": ("binary_f1", "group_match", "accuracy"),
    "rouge": ("rouge1", "rouge2", "rougeL"),
    "bleu": ("bleu", "chrf", "distinct_2", "distinct_3"),
    "top_10": ("exact_match", "top_10"),
}
"""A task's `metric` -> the metrics to report, the first one in front; other names stand for themselves."""
