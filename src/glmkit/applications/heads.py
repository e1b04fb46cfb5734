"""Fine-tuned classification heads, asked as they were trained: the same questions, without words to compare.

In: a folder with a `GLMForSequenceClassification`. Out: its `Head`, whose model `label_scores` takes like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glmkit.applications.calibration import Calibration, load_calibrations
from glmkit.blanks.batches import by_length
from glmkit.checkpoint import read_config, resolve
from glmkit.errors import ConfigError, require_torch
from glmkit.generation.arrays import log_probabilities, reading
from glmkit.generation.prompts import Prompt
from glmkit.generation.reading import part_a_inputs
from glmkit.tasks.task import Task, load_task

if TYPE_CHECKING:
    from glmkit.model import GLMForConditionalGeneration, GLMForSequenceClassification
    from glmkit.tokens.tokenizer import GLMTokenizer

HEADS_NEED_IT = ("A head that classifies or tags", "分类头与标注头")
"""For `require_torch`."""


@dataclass(frozen=True)
class Head:
    """A classifier and what it was trained to tell.

    Attributes:
        model: A `GLMForSequenceClassification` in evaluation mode.
        tokenizer: Its `GLMTokenizer`.
        task: How texts are asked about, with the labels in the head's order.
        calibration: What makes its probabilities mean what they say, or None.
    """

    model: GLMForSequenceClassification
    tokenizer: GLMTokenizer
    task: Task
    calibration: Calibration | None


def is_classifier(folder: str | Path) -> bool:
    """Returns whether a folder holds a classification head."""
    return "GLMForSequenceClassification" in (
        read_config(resolve(folder)).get("architectures") or []
    )


def is_head(model: Any) -> bool:
    """Returns whether a model answers with a classification head instead of words."""
    return not hasattr(model, "lm_head")


def stored_tasks(folder: str | Path) -> dict[str, Task]:
    """Returns the tasks that fine-tuning left beside a model: name -> task."""
    files = sorted((Path(folder) / "tasks").glob("*.yaml"))
    return {path.stem: load_task(path) for path in files}


def load_head(
    folder: str | Path,
    backbone: GLMForConditionalGeneration,
    task: Task | None = None,
    *,
    shared: bool = False,
) -> Head:
    """Loads the classifier of a folder.

    Args:
        folder: What `glmkit finetune` with `method: head` wrote, or any folder of a `GLMForSequenceClassification`.
        backbone: The model beside which it works: its device and number type are taken.
        task: How to ask; by default the task in the folder.
        shared: Whether the backbone was loaded from the same folder, so that its weights are the head's.

    Raises:
        ConfigError: The folder has no head, no task is known, or its labels are not the head's.
        CheckpointError: The weights cannot be read.
    """
    require_torch(*HEADS_NEED_IT)
    from glmkit.model import GLMForSequenceClassification
    from glmkit.model.adapters import load_merged
    from glmkit.tokens.tokenizer import GLMTokenizer

    path = resolve(folder)
    if not is_classifier(path):
        raise ConfigError(
            f"{folder} holds no classification head. Train one with `glmkit finetune` and method: head"
        )
    model = load_merged(GLMForSequenceClassification, path, dtype=backbone.dtype)
    if shared:
        model.glm = backbone.glm
    found = list(stored_tasks(path).values())
    if task is None and len(found) != 1:
        raise ConfigError(
            f"{folder} does not say how its head was asked (tasks/*.yaml); give the task too: task='sentiment'"
        )
    return Head(
        model=model.to(backbone.device).eval(),
        tokenizer=GLMTokenizer.from_pretrained(path),
        task=_in_order(task or found[0], model, folder),
        calibration=load_calibrations(path).get((task or found[0]).name),
    )


def _in_order(task: Task, model: GLMForSequenceClassification, folder: str | Path) -> Task:
    """Returns the task with its labels in the order of the head's outputs."""
    named: Any = model.config.id2label
    names = [str(named[number]) for number in range(model.num_labels)]
    if names == [f"LABEL_{number}" for number in range(len(names))]:
        names = list(task.labels)  # nobody named them: the task's own order
    if set(names) != set(task.labels) or len(names) != model.num_labels:
        raise ConfigError(
            f"the head in {folder} tells {', '.join(names)}; the task {task.name!r} has {', '.join(task.labels)}"
        )
    return replace(task, labels={name: task.labels[name] for name in names})


def head_scores(
    model: GLMForSequenceClassification,
    prompts: Sequence[Prompt],
    specials: Any,
    *,
    batch_size: int = 16,
) -> list[np.ndarray]:
    """Returns for each prompt float64 [labels]: the log-probabilities of a head, in nats."""
    results: list[np.ndarray] = [np.empty(0)] * len(prompts)
    for chosen in by_length([len(prompt.ids) for prompt in prompts], batch_size):
        inputs = part_a_inputs(model, [prompts[index].ids for index in chosen], specials)
        with reading(model):
            scores = log_probabilities(model(**inputs).logits)
        for index, row in zip(chosen, scores.astype(np.float64), strict=True):
            results[index] = row
    return results
