"""Which labels there are, and what is asked: tasks from a name, a file or labels alone; texts as a task's records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glmkit.errors import ConfigError, DataError
from glmkit.special_tokens import MASK
from glmkit.tasks.task import Language, Task, load_task

SENTIMENTS = {"1": "positive", "0": "negative"}
"""Label of the catalog's task sentiment -> the name that people read."""

ZERO_SHOT: dict[Language, list[str]] = {
    "zh": [f"{{text}}\n类别：{MASK}", f"{{text}}\n这是关于{MASK}的。"],
    "en": [f"{{text}}\nTopic: {MASK}", f"{{text}}\nThis is about {MASK}."],
}
"""How a text is asked about where only labels are given."""


def labels_task(labels: Sequence[str] | Mapping[str, str], template: str | None = None) -> Task:
    """Returns a task that asks which of some labels a text has, for a model that was never trained on them.

    Args:
        labels: The labels, or label -> the word that fills the blank.
        template: A pattern of one's own with `{text}` and `[MASK]`; by default `ZERO_SHOT`.

    Raises:
        ConfigError: Fewer than two labels, labels that are equal or empty, or a template without its blank.
    """
    if isinstance(labels, str):
        raise ConfigError(f"labels={labels!r} must be a list such as ['体育', '财经']")
    words = dict(labels) if isinstance(labels, Mapping) else {label: label for label in labels}
    good = all(isinstance(one, str) and one.strip() for one in (*words, *words.values()))
    if len(words) < 2 or len(words) < len(labels) or not good:
        raise ConfigError(
            f"labels={list(labels)} must be at least two strings, different and not empty"
        )
    patterns = ZERO_SHOT
    if template is not None:
        patterns = {"zh": [template], "en": [template]}
    return Task(
        name="labels",
        kind="classification",
        metric="accuracy",
        fields={"text": "the text", "label": "its label"},
        patterns=patterns,
        label="label",
        labels={label: {"zh": word, "en": word} for label, word in words.items()},
        shorten=load_task("topics").shorten,
    )


def as_records(task: Task, texts: Sequence[str | Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns texts as records of a task.

    Raises:
        DataError: A text alone for a task with several fields or with a medium, or something that is neither text nor record.
    """
    found: list[Mapping[str, Any]] = []
    for number, text in enumerate(texts):
        if isinstance(text, Mapping):
            found.append(text)
            continue
        names = [name for name in task.fields if name != task.label]
        # A text is never taken for a medium: whoever may send texts may not open files by that.
        plain = len(names) == 1 and names[0] not in task.media
        if not isinstance(text, str) or not plain:
            raise DataError(
                f"text {number + 1}: the task {task.name!r} takes "
                + ("a text or a record" if plain else "records")
                + f" with {', '.join(names)}, not {type(text).__name__} {str(text)[:40]!r}"
            )
        found.append({names[0]: text})
    return found


def resolve_task(
    task: str | Path | Task | None,
    labels: Sequence[str] | Mapping[str, str] | None,
    template: str | None = None,
) -> Task:
    """Returns the task meant: one of the catalog, a file, a `Task`, or labels alone.

    Raises:
        ConfigError: Both or none of task and labels, a template without labels, or no such task.
    """
    if labels is not None:
        if task is not None:
            raise ConfigError("give either task or labels, and not both")
        return labels_task(labels, template)
    if template is not None:
        raise ConfigError("a template needs labels; a task has its own patterns")
    if task is None:
        raise ConfigError(
            "say which labels there are: labels=['…', '…'], or a task such as task='topics'"
        )
    return task if isinstance(task, Task) else load_task(task)
