"""A task's questions to a model, and what came of them: the plain data that asking and counting share.

In: a loaded `GLM`, a `Task`, records. Out: `Asked` questions, laid out as training lays them out; `Answers` to fill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glmkit.applications.prompts import question_prompt
from glmkit.evaluation.metrics import Outcome
from glmkit.generation.prompts import Prompt
from glmkit.tasks.encoding import Attempt, encode_question, fit_record
from glmkit.tasks.rendering import Question, question
from glmkit.tasks.task import Task

Record = tuple[dict[str, Any], str]
"""A record and where it stands."""


@dataclass(frozen=True)
class Sums:
    """Sums whose ratio is a metric, by example, such as nats and characters.

    Attributes:
        numerators: One for each example.
        denominators: Likewise.
        transform: Makes the metric of the ratio.
    """

    numerators: list[float]
    denominators: list[float]
    transform: Callable[[float], float]


@dataclass
class Answers:
    """What a model answered.

    Attributes:
        outcomes: One for each record that could be asked; empty where only sums are measured.
        records: The records asked, each with where it stands.
        skipped: Records that could not be asked (nothing to hide, an answer that does not fit).
        sums: Metric -> sums, one for each record of `records`.
        values: Metric -> value without examples.
        further: Name -> other outcomes of the same records; their metrics are named `NAME_metric`.
    """

    outcomes: list[Outcome]
    records: list[Record]
    skipped: int = 0
    sums: dict[str, Sums] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    further: dict[str, list[Outcome]] = field(default_factory=dict)


def bits(nats_per_unit: float) -> float:
    """Returns nats as bits."""
    return nats_per_unit / math.log(2)


@dataclass(frozen=True)
class Asked:
    """A question with its right answer's ids."""

    question: Question
    prompt: Prompt
    answer: list[int]


def fitted(
    glm: Any, task: Task, records: Sequence[Record]
) -> tuple[list[Asked], list[Record], int]:
    """Returns the questions with their answers as training lays them out, shortened as the task says."""
    tokenizer, limit = glm.vocabulary, glm.model.config.max_sequence_length
    asked: list[Asked] = []
    kept: list[Record] = []
    count_rows = None if glm.media is None else glm.media.count_rows
    for record, where in records:

        def encode(one: Mapping[str, Any], where: str = where) -> Attempt:
            made = question(task, one, where)
            part_a, answer = encode_question(made, tokenizer, count_rows)
            return Attempt(part_a, len(answer) + 1, (made, answer), made.answer)

        found, _ = fit_record(task, record, tokenizer, limit, encode)
        if found is not None and found.contents[1]:
            made, answer = found.contents
            asked.append(Asked(made, question_prompt(made, tokenizer, glm.media), answer))
            kept.append((record, where))
    return asked, kept, len(records) - len(kept)
