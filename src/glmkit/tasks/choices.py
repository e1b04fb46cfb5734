"""A record of a classification or multiple choice -> part A and everything that may fill its blank, as ids.

In: a record, its task, a tokenizer. Out: `Choices`, laid out by `blanks.choice_rows`. Part A is that of a prompt of
the same text, and each choice ends as an answer does, so that training compares what inference compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from glmkit.errors import DataError
from glmkit.multimodal.media import Medium
from glmkit.tasks.encoding import (
    Attempt,
    CountRows,
    encode_answer,
    encode_question,
    fit_record,
)
from glmkit.tasks.rendering import asked_language, choices_of, question, right_choice, right_labels
from glmkit.tasks.task import Task


@dataclass(frozen=True)
class Choices:
    """One question with its possible answers.

    Attributes:
        part_a: int64 [n], with one mask token.
        contents: For each choice int64 [m], without markers; in the order of the task's labels or the record's choices.
        right: Index of the right one; None where the record does not tell.
        media: In the order in which part A counts their rows.
    """

    part_a: np.ndarray
    contents: list[np.ndarray]
    right: int | None
    media: tuple[Medium, ...] = ()


def encode_choices(
    task: Task,
    record: Mapping[str, Any],
    tokenizer: Any,
    max_length: int,
    where: str,
    *,
    answered: bool = True,
    count_rows: CountRows | None = None,
    **options: Any,
) -> tuple[Choices | None, bool]:
    """Returns a record's question and choices, shortened where they do not fit.

    Args:
        task: A classification or multiple choice.
        record: One record.
        tokenizer: A `GLMTokenizer`.
        max_length: Of part A and the longest choice together, in tokens.
        where: `file:line`, for messages.
        answered: Whether the record says which is right.
        count_rows: As for `encode_question`.
        **options: `pattern` and `language`, as for `rendering.question`.

    Returns:
        The choices, or None where no shortening makes them fit; and whether the record was shortened.

    Raises:
        DataError: A field is missing, a label is unknown, or two choices are the same tokens.
    """
    language = asked_language(task, record, options.pop("language", None))
    texts = choices_of(task, record, where, language)
    right = None
    if answered:
        right = right_choice(task, record, texts, where)
        # Of several right ones the first competes with the wrong ones alone.
        also = {*right_labels(record[str(task.label)])} - {texts[right]}
        if task.kind == "multiple_choice" and not {*texts}.isdisjoint(also):
            word = texts[right]
            texts = [text for text in texts if text not in also]
            right = texts.index(word)

    def encode(one: Mapping[str, Any]) -> Attempt:
        asked = question(task, one, where, language=language, answered=False, **options)
        contents = [encode_answer(asked, tokenizer, text) for text in texts]
        answer = "" if right is None else texts[right]
        part_a, _ = encode_question(asked, tokenizer, count_rows)
        return Attempt(part_a, max(map(len, contents)) + 1, contents, answer, asked.media)

    found, shortened = fit_record(task, record, tokenizer, max_length, encode)
    if found is None:
        return None, shortened
    different = list(dict.fromkeys(map(tuple, found.contents)))
    if task.kind == "multiple_choice" and len(set(texts)) == len(texts) and len(different) > 1:
        # A vocabulary without capitals takes some names for one.
        right = None if right is None else different.index(tuple(found.contents[right]))
    elif len(different) < len(texts):
        raise DataError(
            f"{where}: of the answers {', '.join(map(repr, texts))} two are the same in this vocabulary; they could not be "
            f"told apart. Give the task {task.name!r} other words."
        )
    contents = [np.asarray(ids, np.int64) for ids in different]
    return Choices(np.asarray(found.part_a, np.int64), contents, right, found.media), shortened
