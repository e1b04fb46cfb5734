"""A classified record -> the rows in which every pattern of its task asks about it, and the text they have in common.

In: a record, its task. Out: part A of each pattern as `applications.classification` lays it out (shortened alike), with
the units of the record's own texts; the patterns' words are no evidence.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from glmkit.errors import GenerationError
from glmkit.explain.results import Unit
from glmkit.explain.rows import Rows, choice_rows, head_rows
from glmkit.explain.units import Grouping, Span, encode_pieces_with_spans, group, shown, unit_of
from glmkit.model import GLMForSequenceClassification
from glmkit.tasks.encoding import Attempt, encode_answer, fit_record
from glmkit.tasks.rendering import Question, choices_of, question
from glmkit.tasks.task import Language, Task

PLACEHOLDERS = range(0xE000, 0xE100)
"""Private characters that stand for the fields, to find where a pattern puts them."""


@dataclass(frozen=True)
class Asked:
    """A record as all patterns ask about it.

    Attributes:
        rows: One for each pattern.
        units: What is evidence, in the order of the fields and their texts.
        fields: Field -> its text, as far as it is read.
        questions: For each pattern the text with its blank.
    """

    rows: Rows
    units: tuple[Unit, ...]
    fields: dict[str, str]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class _Pattern:
    """A question in one pattern: ids of part A, and for each token its field and span there, or None."""

    part_a: list[int]
    mask: int
    places: list[tuple[str, Span] | None]
    fields: dict[str, str]
    contents: list[np.ndarray]
    text: str


def asked(
    model: Any,
    tokenizer: Any,
    record: Mapping[str, Any],
    task: Task,
    language: Language,
    grouping: Grouping,
) -> Asked:
    """Returns a record as all patterns of a language ask about it.

    Raises:
        DataError: The record lacks a field.
        GenerationError: The record cannot be shortened enough.
    """
    limit = min(model.config.max_sequence_length, task.max_length or sys.maxsize)
    patterns = [
        _pattern(tokenizer, record, task, language, number, limit)
        for number in range(len(task.patterns[language]))
    ]
    fields = {
        name: max((one.fields.get(name, "") for one in patterns), key=len)
        for name in task.fields
        if name != task.label
    }
    units: list[Unit] = []
    spans: dict[str, list[Span]] = {}
    for name, text in fields.items():
        here = [p[1] for one in patterns for p in one.places if p is not None and p[0] == name]
        spans[name] = group(here, text, grouping)
        units += [Unit(shown(text[a:b]), a, b, name) for a, b in spans[name]]
    first = {name: sum(len(spans[one]) for one in list(fields)[:n]) for n, name in enumerate(fields)}  # fmt: skip

    def numbers(one: _Pattern) -> list[int]:
        found = []
        for place in one.places:
            unit = -1 if place is None else unit_of(place[1], spans[place[0]])
            found.append(unit if unit < 0 else first[place[0]] + unit)  # type: ignore[index]
        return found

    questions = [(np.asarray(one.part_a, np.int64), numbers(one), one.mask) for one in patterns]
    if isinstance(model, GLMForSequenceClassification):
        rows = head_rows(questions, len(task.labels))
    else:
        rows = choice_rows(questions, [one.contents for one in patterns], tokenizer.special_ids)
    return Asked(rows, tuple(units), fields, tuple(one.text for one in patterns))


def _pattern(
    tokenizer: Any,
    record: Mapping[str, Any],
    task: Task,
    language: Language,
    number: int,
    limit: int,
) -> _Pattern:
    """Returns a record in one pattern, shortened as `tasks.choices.encode_choices` does it."""
    where = "the text"
    words = choices_of(task, record, where, language)
    options: dict[str, Any] = {"pattern": number, "language": language, "answered": False}
    specials = tokenizer.special_ids

    def encode(one: Mapping[str, Any]) -> Attempt:
        rendered = question(task, one, where, **options)
        pieces = [rendered.before, rendered.mask, rendered.after]
        ids, spans = encode_pieces_with_spans(tokenizer, pieces)
        contents = [
            np.asarray(encode_answer(rendered, tokenizer, word), np.int64) for word in words
        ]
        part_a = [specials.cls, *ids, specials.eos]
        return Attempt(part_a, max(map(len, contents)) + 1, (contents, spans, rendered), "")

    found, _ = fit_record(task, record, tokenizer, limit, encode)
    if found is None:
        raise GenerationError(
            f"as the task {task.name!r} asks about it, the text has more than the {limit} tokens that the model reads, "
            "and it could not be shortened. Say in the task which field may give way (shorten), or shorten it"
        )
    contents, spans, rendered = found.contents
    text = rendered.before + rendered.mask + rendered.after
    holders = {name: chr(code) for name, code in zip(task.fields, PLACEHOLDERS, strict=False)}
    template = question(task, {**record, **holders}, where, **options)
    ranges = [
        *_ranges(template.before, rendered.before, holders, 0),
        *_ranges(template.after, rendered.after, holders, len(text) - len(rendered.after)),
    ]
    places = [None, *(_place(span, ranges) for span in spans), None]
    mask = next(n for n, token in enumerate(found.part_a) if token in specials.masks)
    fields = {name: text[start:end] for name, start, end in ranges}
    return _Pattern(found.part_a, mask, places, fields, contents, _as_text(rendered))


def _ranges(
    template: str, text: str, holders: Mapping[str, str], start: int
) -> list[tuple[str, int, int]]:
    """Returns (field, start, end) of each field in a rendered text, found by its place in the template."""
    names = {character: name for name, character in holders.items()}
    parts = re.split(f"([{''.join(names)}])", template)
    pattern = "".join("(.*?)" if one in names else re.escape(one) for one in parts)
    found = re.fullmatch(pattern, text, re.DOTALL)
    assert found is not None, "a pattern renders its fields where it has them"
    order = [names[one] for one in parts if one in names]
    return [(name, start + found.start(n + 1), start + found.end(n + 1)) for n, name in enumerate(order)]  # fmt: skip


def _place(span: Span, ranges: list[tuple[str, int, int]]) -> tuple[str, Span] | None:
    """Returns the field that a token's characters are in, and where; of one that reaches beyond, the part within."""
    for name, start, end in ranges:
        a, b = max(span[0], start), min(span[1], end)
        if a < b:
            return name, (a - start, b - start)
    return None


def _as_text(rendered: Question) -> str:
    return rendered.before + rendered.mask + rendered.after
