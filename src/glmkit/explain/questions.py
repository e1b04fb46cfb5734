"""A classified record -> the rows in which every pattern of its task asks about it, and what they have in common.

In: a record, its task. Out: part A of each pattern as `applications.classification` lays it out (shortened alike), with
the units of the record's own texts and media; the patterns' words are no evidence.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from glmkit.applications.heads import is_head
from glmkit.errors import GenerationError
from glmkit.explain.results import Unit
from glmkit.explain.rows import Rows, choice_rows, head_rows
from glmkit.explain.units import Grouping, Span, encode_pieces_with_spans, group, shown, unit_of
from glmkit.multimodal.media import Medium
from glmkit.special_tokens import FIRST_MEDIA_ID, MEDIA_MARKER, MEDIA_MARKERS
from glmkit.tasks.encoding import Attempt, encode_answer, fit_record, rows_of
from glmkit.tasks.rendering import Question, choices_of, media_of, question
from glmkit.tasks.task import MEDIA, Language, Task

Media = dict[str, range]
"""Medium ("image 1" …) -> the ids of its rows, the same in all patterns."""

PLACEHOLDERS = range(0xE000, 0xE100)
"""Private characters that stand for the fields, to find where a pattern puts them."""


@dataclass(frozen=True)
class Asked:
    """A record as all patterns ask about it.

    Attributes:
        rows: One for each pattern.
        units: What is evidence, in the order of the fields and their texts, then each row of the media.
        fields: Field -> its text, as far as it is read; under `media` the markers of the media that stand in no text.
        questions: For each pattern the text with its blank.
        media: Medium -> the field in whose text its marker stands.
    """

    rows: Rows
    units: tuple[Unit, ...]
    fields: dict[str, str]
    questions: tuple[str, ...]
    media: dict[str, str]


@dataclass(frozen=True)
class _Pattern:
    """A question in one pattern: ids of part A, and for each token its field and span there, or None.

    `media` has in the order of the text each medium and the field that it stands in.
    """

    part_a: list[int]
    mask: int
    places: list[tuple[str, Span] | None]
    fields: dict[str, str]
    contents: list[np.ndarray]
    text: str
    media: list[tuple[str, str]]


def asked(
    model: Any,
    tokenizer: Any,
    record: Mapping[str, Any],
    task: Task,
    language: Language,
    grouping: Grouping,
    reader: Any = None,
) -> Asked:
    """Returns a record as all patterns of a language ask about it.

    Args:
        model: As in `explaining.explain_label`; so are `tokenizer`, `task` and `reader`.
        tokenizer: The tokenizer.
        record: With the task's fields.
        task: The task.
        language: Of the patterns.
        grouping: Of tokens.
        reader: What reads media.

    Raises:
        DataError: The record lacks a field.
        MediaError: Its media cannot be read, or the model reads none.
        GenerationError: The record cannot be shortened enough.
    """
    limit = min(model.config.max_sequence_length, task.max_length or sys.maxsize)
    given = media_of(task, record, "the record")
    media, row = {}, FIRST_MEDIA_ID
    counts = rows_of(given, None if reader is None else reader.count_rows)
    for name, count in zip(_names(given), counts, strict=True):
        media[name] = range(row, row + count)
        row += count
    patterns = [
        _pattern(tokenizer, record, task, language, number, limit, media)
        for number in range(len(task.patterns[language]))
    ]
    fields = {
        name: max((one.fields.get(name, "") for one in patterns), key=len)
        for name in task.fields
        if name != task.label and name not in task.media
    }
    units: list[Unit] = []
    spans: dict[str, list[Span]] = {}
    for name, text in fields.items():
        here = [p[1] for one in patterns for p in one.places if p is not None and p[0] == name]
        spans[name] = group(here, text, grouping)
        units += [Unit(shown(text[a:b]), a, b, name) for a, b in spans[name]]
    first = {name: sum(len(spans[one]) for one in list(fields)[:n]) for n, name in enumerate(fields)}  # fmt: skip
    first_row = len(units) - FIRST_MEDIA_ID

    def numbers(one: _Pattern) -> list[int]:
        found = []
        for token, place in zip(one.part_a, one.places, strict=True):
            unit = -1 if place is None else unit_of(place[1], spans[place[0]])
            text = unit if unit < 0 else first[place[0]] + unit  # type: ignore[index]
            found.append(text if token < FIRST_MEDIA_ID else first_row + token)
        return found

    if loose := [name for name, field in patterns[0].media if field == MEDIA]:
        fields = {MEDIA: "".join(MEDIA_MARKERS[name.split()[0]] for name in loose), **fields}
    units += _units_of_rows(media, patterns[0].media, fields)
    questions = [(np.asarray(one.part_a, np.int64), numbers(one), one.mask) for one in patterns]
    if is_head(model):
        rows = head_rows(questions, len(task.labels))
    else:
        table = torch.cat(reader.rows(given)) if given else None
        contents = [one.contents for one in patterns]
        rows = choice_rows(questions, contents, tokenizer.special_ids, table)
    texts = tuple(one.text for one in patterns)
    return Asked(rows, tuple(units), fields, texts, dict(patterns[0].media))


def _names(media: Sequence[Medium]) -> list[str]:
    """Returns what each medium is called: its kind, and which of that kind it is; patterns place those of a kind in one order."""
    counts: Counter[str] = Counter()
    names = []
    for one in media:
        counts[one.kind] += 1
        names.append(f"{one.kind} {counts[one.kind]}")
    return names


def _units_of_rows(
    media: Media, placed: Sequence[tuple[str, str]], fields: Mapping[str, str]
) -> list[Unit]:
    """Returns a unit for each row, in the order of their ids, with the span of its medium's marker."""
    markers = {name: MEDIA_MARKER.finditer(text) for name, text in fields.items()}
    spans = {name: next(markers[field]).span() for name, field in placed}
    return [
        Unit(f"{name} [{index}]", *spans[name], name, index)
        for name, ids in media.items()
        for index in range(len(ids))
    ]


def _pattern(
    tokenizer: Any,
    record: Mapping[str, Any],
    task: Task,
    language: Language,
    number: int,
    limit: int,
    media: Media,
) -> _Pattern:
    """Returns a record in one pattern, shortened as `tasks.choices.encode_choices` does it."""
    where = "the text"
    words = choices_of(task, record, where, language)
    options: dict[str, Any] = {"pattern": number, "language": language, "answered": False}
    specials = tokenizer.special_ids

    def encode(one: Mapping[str, Any]) -> Attempt:
        rendered = question(task, one, where, **options)
        pieces = [rendered.before, rendered.mask, rendered.after]
        rows = [media[name] for name in _names(rendered.media)]
        ids, spans = encode_pieces_with_spans(tokenizer, pieces, rows)
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
    bare = {**record, MEDIA: ""}
    if task.media:
        # The same patterns, in which all fields are texts: of media that no text places, the markers.
        task = replace(task, media={}, fields={**task.fields, MEDIA: ""})
        if not MEDIA_MARKER.search(_as_text(question(task, bare, where, **options))):
            bare[MEDIA] = "".join(MEDIA_MARKERS[one.kind] for one in rendered.media)
    template = question(task, {**bare, **holders}, where, **options)
    ranges = [
        *_ranges(template.before, rendered.before, holders, 0),
        *_ranges(template.after, rendered.after, holders, len(text) - len(rendered.after)),
    ]
    tokens = zip(found.part_a[1:-1], spans, strict=True)
    places = [None, *(_place(span, ranges) if one < FIRST_MEDIA_ID else None for one, span in tokens), None]  # fmt: skip
    mask = next(n for n, token in enumerate(found.part_a) if token in specials.masks)
    fields = {name: text[start:end] for name, start, end in ranges}
    held = (_place(one.span(), ranges) or (MEDIA,) for one in MEDIA_MARKER.finditer(text))
    placed = [(name, one[0]) for name, one in zip(_names(rendered.media), held, strict=False)]
    return _Pattern(found.part_a, mask, places, fields, contents, _as_text(rendered), placed)


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
