"""Which labels there are, and what is asked: tasks from a name, a file or labels alone; texts as a task's records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glmkit.errors import ConfigError, DataError, MediaError
from glmkit.multimodal.media import Medium
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


def as_records(
    task: Task,
    texts: Sequence[str | Mapping[str, Any]],
    media: Sequence[Sequence[Medium]] | None = None,
) -> list[Mapping[str, Any]]:
    """Returns texts as records of a task.

    Args:
        task: A classification.
        texts: Texts, or records.
        media: Of each text, where it has some beside it; they come into the task's fields of their kinds, one into each, the rest
            into the last. A task whose fields are all media takes an empty text with them.

    Raises:
        ConfigError: The task is no classification.
        DataError: A text alone for a task with several fields or with a medium, or something that is neither text nor record.
        MediaError: Media of a kind that the task has no field for.
    """
    if task.kind != "classification":
        raise ConfigError(f"the task {task.name!r} is not a classification but a {task.kind}")
    found: list[Mapping[str, Any]] = []
    names = [name for name in task.fields if name != task.label]
    words = [name for name in names if name not in task.media]
    for number, text in enumerate(texts):
        beside = media[number] if media else ()
        # A text is never taken for a medium: whoever may send texts may not open files by that.
        if isinstance(text, str) and len(words) == 1 and (beside or words == names):
            text = {words[0]: text}
        elif text == "" and not words and beside:
            text = {}
        if not isinstance(text, Mapping):
            raise DataError(
                f"text {number + 1}: the task {task.name!r} takes "
                + ("a text or a record" if words == names and len(words) == 1 else "records")
                + f" with {', '.join(names)}, not {type(text).__name__} {str(text)[:40]!r}"
            )
        fields = _in_fields(task, beside, f"text {number + 1}")
        if twice := [name for name in fields if text.get(name)]:
            raise MediaError(f"text {number + 1} has media in its field {twice[0]!r}, and others are given beside it; give them once")  # fmt: skip
        found.append({**text, **fields} if fields else text)
    return found


def _in_fields(task: Task, media: Sequence[Medium], where: str) -> dict[str, list[Medium]]:
    """Returns field -> the media that come into it."""
    found: dict[str, list[Medium]] = {}
    for kind in dict.fromkeys(one.kind for one in media):
        names = [name for name, one in task.media.items() if one == kind]
        if not names:
            raise MediaError(f"{where}: the task {task.name!r} has no field for {kind}; its fields of media are {', '.join(task.media) or 'none'}")  # fmt: skip
        some = [one for one in media if one.kind == kind]
        for place, name in enumerate(names):
            found[name] = some[place : None if name == names[-1] else place + 1]
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
