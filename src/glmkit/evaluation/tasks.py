"""A task measured on a model: answers counted, with confidence intervals, as a whole and by groups of records.

In: a loaded `GLM`, a `Task`, records. Out: a `TaskResult` that can be written as JSON, and every prediction.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from glmkit.errors import ConfigError, DataError, nearest
from glmkit.evaluation.answers import RUNNERS
from glmkit.evaluation.asking import Answers, Record, Sums
from glmkit.evaluation.metrics import FAMILIES, METRICS, Measured, Outcome, measure
from glmkit.evaluation.resampling import bootstrap_interval
from glmkit.evaluation.right_answers import MEASURED_BY_TOKENS
from glmkit.tasks.rendering import expand, text_of
from glmkit.tasks.task import Task


@dataclass(frozen=True)
class Number:
    """A metric's value with its 95 % bootstrap interval, where examples have values of their own."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


@dataclass(frozen=True)
class TaskResult:
    """A task's numbers.

    Attributes:
        task: Name of the task.
        kind: Of the task.
        examples: Questions that were asked.
        skipped: Records that could not be asked.
        metrics: Name -> number, the task's own metric first.
        groups: "field=value" -> the same for the records with that value.
        group_sizes: "field=value" -> examples.
        seconds: Wall-clock time.
    """

    task: str
    kind: str
    examples: int
    skipped: int
    metrics: dict[str, Number]
    groups: dict[str, dict[str, Number]] = field(default_factory=dict)
    group_sizes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def evaluate_task(
    glm: Any,
    task: Task,
    records: Sequence[Record],
    *,
    by: str | None = None,
    seed: int = 0,
) -> tuple[TaskResult, list[dict[str, Any]]]:
    """Asks a model everything a task's records ask, and counts the answers.

    Args:
        glm: A loaded `glmkit.GLM`.
        task: The task.
        records: Records with where each stands (`tasks.records.read_records`); conversations are expanded here.
        by: A field of the records; numbers are also given for each of its values.
        seed: Of what is hidden.

    Returns:
        The numbers, and for each example a dict of `where`, `prediction`, `references` and what else is known.

    Raises:
        ConfigError: The task's metric is unknown.
        DataError: A record lacks a field or has an unknown label; or none could be asked.
    """
    known = {*METRICS, *FAMILIES, *MEASURED_BY_TOKENS, "entity_f1"}
    if task.metric not in known:
        raise ConfigError(
            f"the task {task.name!r} has the metric {task.metric!r}{nearest(task.metric, known) or ', which is unknown.'} There are {', '.join(sorted(known))}"
        )
    started = time.monotonic()
    asked = [(dict(one), where) for record, where in records for one in expand(task, record, where)]
    answers = RUNNERS[task.kind](glm, task, asked, seed) if asked else Answers([], [])
    if not answers.records:
        raise DataError(
            f"the task {task.name!r} has nothing to ask: {len(records)} records, {answers.skipped} of which could not "
            "be asked. Give data with the task's fields: " + ", ".join(task.fields)
        )
    metrics, examples = _count(task, answers)
    groups, sizes = {}, {}
    if by is not None:
        for value in sorted({text_of(record[by]) for record, _ in answers.records if by in record}):
            part = _part(answers, [text_of(one.get(by)) == value for one, _ in answers.records])
            groups[f"{by}={value}"] = _count(task, part)[0]
            sizes[f"{by}={value}"] = len(part.records)
    result = TaskResult(
        task=task.name,
        kind=task.kind,
        examples=len(answers.records),
        skipped=answers.skipped,
        metrics=metrics,
        groups=groups,
        group_sizes=sizes,
        seconds=round(time.monotonic() - started, 1),
    )
    return result, _predictions(answers, examples)


def _count(task: Task, answers: Answers) -> tuple[dict[str, Number], dict[str, list[float]]]:
    """Returns the metrics, and those of single examples."""
    metrics: dict[str, Number] = {}
    examples: dict[str, list[float]] = {}
    names = FAMILIES.get(task.metric, (task.metric,))
    for prefix, outcomes in {"": answers.outcomes, **answers.further}.items():
        for name in names if outcomes else ():
            if name not in METRICS or (prefix and name != "exact_match"):
                continue
            measured = measure(name, outcomes)
            full = f"{prefix}_{name}" if prefix else name
            metrics[full] = _number(measured)
            if measured.examples:
                examples[full] = measured.examples
    for name, sums in answers.sums.items():
        metrics[name] = _ratio(sums)
    metrics |= {name: Number(value) for name, value in answers.values.items()}
    if task.metric in metrics and task.metric not in FAMILIES:
        metrics = {task.metric: metrics[task.metric], **metrics}
    return metrics, examples


def _number(measured: Measured) -> Number:
    if not measured.examples:
        return Number(measured.value)
    return Number(measured.value, *bootstrap_interval(measured.examples))


def _ratio(sums: Sums) -> Number:
    total = sum(sums.numerators) / max(1.0, sum(sums.denominators))
    if not all(sums.denominators):
        return Number(sums.transform(total))
    low, high = bootstrap_interval(sums.numerators, sums.denominators)
    return Number(sums.transform(total), sums.transform(low), sums.transform(high))


def _part(answers: Answers, chosen: Sequence[bool]) -> Answers:
    """Returns the answers to some of the records."""

    def some(values: Sequence[Any]) -> list[Any]:
        return [one for one, take in zip(values, chosen, strict=True) if take]

    return Answers(
        outcomes=some(answers.outcomes) if answers.outcomes else [],
        records=some(answers.records),
        sums={
            name: Sums(some(sums.numerators), some(sums.denominators), sums.transform)
            for name, sums in answers.sums.items()
        },
        further={name: some(outcomes) for name, outcomes in answers.further.items()},
    )


def _predictions(answers: Answers, examples: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Returns one dict for each example, without what is empty."""
    found = []
    for number, (_, where) in enumerate(answers.records):
        one: dict[str, Any] = {"where": where}
        if answers.outcomes:
            one |= _outcome(answers.outcomes[number])
        for name, outcomes in answers.further.items():
            one[f"{name}_prediction"] = outcomes[number].prediction
        one |= {name: values[number] for name, values in examples.items()}
        for name, sums in answers.sums.items():
            one[f"{name}_sums"] = [sums.numerators[number], sums.denominators[number]]
        found.append(one)
    return found


def _outcome(outcome: Outcome) -> dict[str, Any]:
    values = {"prediction": outcome.prediction, "references": outcome.references}
    if outcome.probabilities:
        values["probabilities"] = {k: round(v, 5) for k, v in outcome.probabilities.items()}  # type: ignore[assignment]
    return values
