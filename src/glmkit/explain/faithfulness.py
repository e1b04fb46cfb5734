"""Is an explanation true to the model? Words are taken away in the order that it gives, and put back.

In: a question's rows and an order of its units. Out: curves of the model's belief in what it explains, and numbers of
them, to be set against random orders. What a word's absence is, is a choice: "drop" leaves it out of the text (no method here looks at
such texts), "mask" puts the baseline's token in its place.

    deletion             area under the belief while the first units go, one tenth after the other: low is good
    insertion            the same while they come back into an empty text: high is good
    comprehensiveness    belief with the text - without the first 10, 20, 50 % of units, the mean: high is good
    sufficiency          belief with the text - with these alone: low is good

The belief in a label is its probability; in a blank's content the mean log-probability of its tokens, in nats, because
probabilities of contents are so small that a few texts would make the mean.

Sources: DeYoung et al. 2020 (ERASER, arXiv 1911.03429) section 4.2, whose 1 and 5 % are less than a word of a sentence and
left out; Petsiuk et al. 2018 (RISE, arXiv 1806.07421) for the curves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from glmkit.applications.labels import as_records
from glmkit.errors import UserError
from glmkit.evaluation.resampling import bootstrap_interval
from glmkit.explain.filling import Filling, evidence_for
from glmkit.explain.questions import asked
from glmkit.explain.results import Explanation
from glmkit.explain.rows import Rows
from glmkit.explain.scoring import Objective, content_objective, label_objective, scores_of
from glmkit.generation.prompts import Prompt
from glmkit.tasks.rendering import asked_language
from glmkit.tasks.task import Task

Removal = Literal["drop", "mask"]

TENTHS = np.linspace(0, 1, 11)
BINS = (1, 2, 5)
"""Tenths at which comprehensiveness and sufficiency are taken."""

METRICS = ("deletion", "insertion", "comprehensiveness", "sufficiency")
HIGHER_IS_BETTER = {"deletion": False, "insertion": True, "comprehensiveness": True, "sufficiency": False}  # fmt: skip


@dataclass(frozen=True)
class Question:
    """What the curves are about.

    Attributes:
        rows: As the model reads the text.
        evidence: bool [U], units that may go.
        objective: The number that is explained.
        tokens: Tokens of a blank's content, its end included; 0 for a label.
    """

    rows: Rows
    evidence: np.ndarray
    objective: Objective
    tokens: int = 0


@dataclass(frozen=True)
class Curves:
    """The belief while the units of an order go or come, at 0, 10 … 100 % of them.

    Attributes:
        deletion: float64 [11].
        insertion: float64 [11].
    """

    deletion: np.ndarray
    insertion: np.ndarray

    def metrics(self) -> dict[str, float]:
        """Returns the four numbers."""
        whole, bins = self.deletion[0], list(BINS)
        return {
            "deletion": area(self.deletion),
            "insertion": area(self.insertion),
            "comprehensiveness": float((whole - self.deletion[bins]).mean()),
            "sufficiency": float((whole - self.insertion[bins]).mean()),
        }


def question_of(
    model: Any,
    tokenizer: Any,
    explanation: Explanation,
    task: Task | None = None,
    number: int = 0,
    prompt: Prompt | None = None,
    record: Mapping[str, Any] | None = None,
    reader: Any = None,
) -> Question:
    """Returns the question that an explanation answers; its orders rank the units of `explanation.evidence[number]`.

    Args:
        model: As it was explained.
        tokenizer: Its tokenizer.
        explanation: Of a text's blanks, or of a label (without `labels=`).
        task: Of a label.
        number: Of the blank.
        prompt: The prompt that was explained, where it has media, which no text holds.
        record: Likewise the record of a label; without one the text is all of it.
        reader: What reads its media.
    """
    grouping = explanation.facts["unit"]
    if task is None:
        contents = [one.content for one in explanation.evidence]
        filling = Filling.of(model, tokenizer, prompt or explanation.text, contents)
        rows, units = filling.rows(grouping)
        tokens = len(rows.predictions.of(number))
        return Question(rows, evidence_for(units, number), content_objective(number), tokens)
    [given] = as_records(task, [record or explanation.text])
    spoken = asked_language(task, given)
    found = asked(model, tokenizer, given, task, spoken, grouping, reader)
    words = [one[spoken] for one in task.labels.values()]
    label = words.index(explanation.evidence[0].content)
    return Question(found.rows, np.ones(len(found.units), bool), label_objective(label))


def area(curve: np.ndarray) -> float:
    """Returns the area under a curve of evenly spaced points on [0, 1] (trapezoids)."""
    return float(((curve[1:] + curve[:-1]) / 2).mean())


def order_of(values: np.ndarray) -> np.ndarray:
    """Returns units from the one that speaks most for the score to the one that speaks most against it."""
    return np.argsort(-np.asarray(values, float), kind="stable")


def random_orders(num_units: int, seeds: Sequence[int]) -> list[np.ndarray]:
    """Returns an order for each seed."""
    return [np.random.default_rng(seed).permutation(num_units) for seed in seeds]


def curves(
    model: Any,
    question: Question,
    orders: Sequence[np.ndarray],
    *,
    removal: Removal = "drop",
    mask: int | None = None,
) -> list[Curves]:
    """Returns the curves of each order of the evidence's units.

    Args:
        model: In evaluation mode.
        question: What the model is asked.
        orders: Each a permutation of the units that are evidence (counted among these).
        removal: "drop" or "mask".
        mask: The token that replaces a word, with "mask".

    Raises:
        UserError: Another removal, or no token for it.
    """
    if removal not in ("drop", "mask") or (removal == "mask" and mask is None):
        raise UserError(f"removal={removal!r} must be 'drop', or 'mask' with the token that replaces a word")  # fmt: skip
    units = np.flatnonzero(question.evidence)
    counts = np.round(TENTHS * len(units)).astype(int)
    wanted = []
    for order in orders:
        ranked = units[order].tolist()
        wanted += [frozenset(ranked[:count]) for count in counts]
        wanted += [frozenset(ranked[count:]) for count in counts]
    # The whole text and the empty one are every order's.
    different = list(dict.fromkeys(wanted))
    rows = [
        question.rows.without(gone)
        if removal == "drop"
        else question.rows.replaced(gone, mask or 0)
        for gone in different
    ]
    known = dict(zip(different, _beliefs(model, question, rows), strict=True))
    values = np.array([known[gone] for gone in wanted]).reshape(len(orders), 2, len(TENTHS))
    return [Curves(one[0], one[1]) for one in values]


def compare(
    by_method: Mapping[str, Sequence[Mapping[str, float]]], random: str = "random"
) -> dict[str, dict[str, dict[str, float]]]:
    """Returns for each method and metric the mean, and the difference to random orders with its 95 % interval.

    Args:
        by_method: Method -> for each text its metrics, in the same order of texts; random ones averaged over seeds.
        random: The name of the random orders.

    Returns:
        method -> metric -> `value`, `difference` (positive is better than random, whatever the metric), `low`, `high`:
        the bootstrap interval over texts.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for method, texts in by_method.items():
        found[method] = {}
        for metric in METRICS:
            sign = 1.0 if HIGHER_IS_BETTER[metric] else -1.0
            better = [
                sign * (one[metric] - other[metric])
                for one, other in zip(texts, by_method[random], strict=True)
            ]
            low, high = bootstrap_interval(better)
            found[method][metric] = {
                "value": float(np.mean([one[metric] for one in texts])),
                "difference": float(np.mean(better)),
                "low": low,
                "high": high,
            }
    return found


def _beliefs(model: Any, question: Question, rows: Sequence[Rows]) -> list[float]:
    scores = question.objective(torch.from_numpy(scores_of(model, rows))).numpy()
    if question.tokens:
        return (scores / question.tokens).tolist()
    return (1 / (1 + np.exp(-scores))).tolist()
