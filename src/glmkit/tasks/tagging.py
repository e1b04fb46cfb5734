"""Token classification: which spans of a text have which label (names, words …), as one tag for each unit of the text.

In: a record (`text` with `spans`, or `tokens` with `tags`), a `Task` of the kind tagging, a tokenizer. Out: `Tagged` samples
within a limit of tokens, laid out by `blanks`; and back, tags of units -> spans. A unit is a Chinese character, a word, a number
or another sign; white space has none. Each unit is encoded by itself, so that a token never spans a border between
two labels; its tag is read at its first token. Tags are BIO (Ramshaw and Marcus 1995).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glmkit.errors import DataError, nearest
from glmkit.tasks.agreement import TaggedSpan
from glmkit.tasks.hiding import HAN
from glmkit.tasks.rendering import missing_field
from glmkit.tasks.task import Task
from glmkit.tokens.blanked import encode_plain

UNIT = re.compile(rf"[{HAN}]|[^\W\d_{HAN}]+|\d+|[^\w\s]|_")
"""One unit of a text."""

COLUMNS = (".conll", ".bio", ".bmes")
"""Ends of names of files with a token and its tag a line, an empty line between sentences."""

_WIDE = re.compile(rf"[{HAN}\u3000-\u303f\uff00-\uffef]")
_SENTENCE_ENDS = "。！？；.!?;\n"


@dataclass(frozen=True)
class Tagged:
    """A text, or a window of a longer one.

    Attributes:
        part_a: int64 [n], with `[CLS]` and end of text.
        places: int64 [u], index in `part_a` of each unit's first token.
        tags: int64 [u], index in `tag_names`; empty where the record does not tell.
        units: (start, end) of each unit, in characters of the whole text.
        spans: Those that the record has in this window.
    """

    part_a: np.ndarray
    places: np.ndarray
    tags: np.ndarray
    units: list[tuple[int, int]]
    spans: list[TaggedSpan]


def tag_names(task: Task) -> list[str]:
    """Returns the tags: `O` for what is outside, then `B-` (begins) and `I-` (goes on) of each label."""
    return ["O", *(f"{prefix}-{label}" for label in task.labels for prefix in "BI")]


def text_field(task: Task) -> str:
    """Returns the field with the text."""
    return next(name for name in task.fields if name != task.label)


def tagged_text(task: Task, record: Mapping[str, Any], where: str) -> tuple[str, list[TaggedSpan]]:
    """Returns a record's text and its spans, in their order.

    Args:
        task: Of the kind tagging.
        record: With the task's text and spans (`[start, end, label]`, or objects with these names, in characters, half-open), or
            with `tokens` and `tags` (BIO, BIOES or BMES; a tag without a label has the task's only one).
        where: `file:line`, for messages.

    Raises:
        DataError: A field is missing, or a span or tag cannot be used.
    """
    if "tokens" in record and "tags" in record:
        return _joined(task, record["tokens"], record["tags"], where)
    field, label = text_field(task), str(task.label)
    for name in (field, label):
        if name not in record:
            raise missing_field(task, record, name, where)
    text = str(record[field])
    spans = sorted(_span(task, one, text, where) for one in record[label] or [])
    for (_, end, _), (start, *_) in zip(spans, spans[1:], strict=False):
        if start < end:
            raise DataError(f"{where}: spans overlap at character {start}; a character has one label")  # fmt: skip
    return text, spans


def encode_tagged(
    task: Task,
    text: str,
    spans: Sequence[TaggedSpan] | None,
    tokenizer: Any,
    max_length: int,
) -> list[Tagged]:
    """Returns a text as samples: one, or windows of a text that is longer, cut behind a sentence where there is one.

    A span that begins or ends inside a unit gets all of the unit; `spans` of the sample stay as they are.

    Args:
        task: Of the kind tagging.
        text: The text.
        spans: Sorted; None where they are not known.
        tokenizer: A `GLMTokenizer`.
        max_length: Of a sample, in tokens.
    """
    ids = tokenizer.special_ids
    units = [found.span() for found in UNIT.finditer(text)]
    encoded = _encode_units(tokenizer, text, units)
    samples = []
    for first, last in _windows(text, units, encoded, max(1, max_length - 2)):
        lengths = [len(one) for one in encoded[first:last]]
        body = [token for one in encoded[first:last] for token in one]
        inside = units[first:last]
        own: list[TaggedSpan] = []
        tags: list[int] = []
        if spans is not None:
            begin, end = inside[0][0], inside[-1][1]
            own = [one for one in spans if begin <= one[0] < end]
            tags = _tags(task, inside, own)
        samples.append(
            Tagged(
                np.array([ids.cls, *body, ids.eos], np.int64),
                1 + np.cumsum([0, *lengths[:-1]], dtype=np.int64),
                np.array(tags, np.int64),
                inside,
                own,
            )
        )
    return samples


def decode_tags(task: Task, units: Sequence[tuple[int, int]], scores: np.ndarray) -> list[tuple[TaggedSpan, float]]:  # fmt: skip
    """Returns the likeliest spans: Viterbi's path through log-probabilities in which `I-` follows its own label alone.

    Args:
        task: Of the kind tagging.
        units: (start, end) of each unit.
        scores: float [u, tags], log-probabilities.

    Returns:
        Each span with the mean probability of its units' tags.
    """
    names = tag_names(task)
    path = _viterbi(scores, names)
    found: list[tuple[TaggedSpan, float]] = []
    parts: list[float] = []
    for number, (tag, (start, end)) in enumerate(zip(path, units, strict=True)):
        name = names[tag]
        share = float(np.exp(scores[number, tag]))
        if name.startswith("B-"):
            parts = [share]
            found.append(((start, end, name[2:]), share))
        elif name.startswith("I-"):
            parts.append(share)
            (begin, _, label), _ = found[-1]
            found[-1] = ((begin, end, label), float(np.mean(parts)))
    return found


def read_columns(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields the sentences of a file of columns as records of `tokens` and `tags`, and `file:line` of their first line.

    The first column is the token, the last one its tag; lines that begin with `-DOCSTART-` are left out.

    Raises:
        DataError: A line without a tag, an empty file, or another encoding than UTF-8.
    """
    tokens: list[str] = []
    tags: list[str] = []
    begun, any_line = 1, False
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error  # fmt: skip
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    for number, line in enumerate([*lines, ""], start=1):
        columns = line.split()
        if columns and not line.startswith("-DOCSTART-"):
            if len(columns) < 2:
                raise DataError(f"{path}:{number}: {line!r} has no tag; a line is a token and its tag")  # fmt: skip
            begun = begun if tokens else number
            tokens.append(columns[0])
            tags.append(columns[-1])
        elif tokens:
            any_line = True
            yield {"tokens": tokens, "tags": tags}, f"{path}:{begun}"
            tokens, tags = [], []
    if not any_line:
        raise DataError(f"{path}: holds no sentence")


def _span(task: Task, value: Any, text: str, where: str) -> TaggedSpan:
    names = ("start", "end", "label")
    parts = [value.get(name) for name in names] if isinstance(value, Mapping) else value
    if not isinstance(parts, list | tuple) or len(parts) != 3:
        raise DataError(f"{where}: the span {value!r} is not [start, end, label]")
    start, end, label = parts
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)):
        raise DataError(f"{where}: the span {value!r} is not inside the text, which has {len(text)} characters")  # fmt: skip
    return start, end, _label(task, str(label), where)


def _label(task: Task, label: str, where: str) -> str:
    if label not in task.labels:
        raise DataError(
            f"{where}: the label {label!r} is not one of the task {task.name!r}, which has {', '.join(task.labels)}"
            f"{nearest(label, task.labels)}. Add it to the task's labels (in a YAML file of your own), or correct the record."
        )
    return label


def _joined(task: Task, tokens: Any, tags: Any, where: str) -> tuple[str, list[TaggedSpan]]:
    """Returns tokens as a text, spaces between those that are not Chinese, and the spans that tags make."""
    if not isinstance(tokens, list) or not isinstance(tags, list) or len(tokens) != len(tags):
        raise DataError(f"{where}: tokens and tags must be lists of the same length")
    text = ""
    spans: list[TaggedSpan] = []
    open_label: str | None = None
    for token, tag in zip(map(str, tokens), map(str, tags), strict=True):
        if text and not _WIDE.match(text[-1]) and not _WIDE.match(token[:1]):
            text += " "
        prefix, _, label = tag.partition("-") if "-" in tag else tag.partition("_")
        if prefix not in ("O", "B", "I", "M", "E", "S") or (prefix == "O" and label):
            raise DataError(f"{where}: the tag {tag!r} is none of O, B-…, I-…, M-…, E-…, S-…")
        if prefix == "O":
            open_label = None
        else:
            if not label and len(task.labels) > 1:
                raise DataError(f"{where}: the tag {tag!r} says no label, and the task has {', '.join(task.labels)}")  # fmt: skip
            name = _label(task, label or next(iter(task.labels)), where)
            goes_on = prefix in "IME" and open_label == name
            start = spans.pop()[0] if goes_on else len(text)
            spans.append((start, len(text) + len(token), name))
            open_label = None if prefix in "ES" else name
        text += token
    return text, spans


def _encode_units(tokenizer: Any, text: str, units: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Returns the ids of each unit, with the space before it where there is one, as it would have inside a text."""
    written = [text[start - (start > 0 and text[start - 1] == " ") : end] for start, end in units]
    encoded = encode_plain(tokenizer, written) if written else []
    # Some vocabularies begin every text with a mark of a space; inside a text there is none.
    return [
        one[1:] if len(one) > 1 and not shown.startswith(" ") and not tokenizer.decode(one[:1]).strip() else one
        for one, shown in zip(encoded, written, strict=True)
    ]  # fmt: skip


def _windows(
    text: str, units: Sequence[tuple[int, int]], encoded: Sequence[Sequence[int]], room: int
) -> Iterator[tuple[int, int]]:
    """Yields (first, last) of the units of each window."""
    first = 0
    while first < len(units):
        last, used = first, 0
        while last < len(units) and (used + len(encoded[last]) <= room or last == first):
            used += len(encoded[last])
            last += 1
        if last < len(units):
            half = range(last - 1, first + (last - first) // 2, -1)
            ends = (number for number in half if text[units[number][1] - 1] in _SENTENCE_ENDS)
            last = next(ends, last - 1) + 1
        yield first, last
        first = last


def _tags(task: Task, units: Sequence[tuple[int, int]], spans: Sequence[TaggedSpan]) -> list[int]:
    names = {name: number for number, name in enumerate(tag_names(task))}
    tags, last = [], None
    for start, end in units:
        own = next((one for one in spans if one[0] < end and start < one[1]), None)
        tags.append(0 if own is None else names[("I-" if own is last else "B-") + own[2]])
        last = own
    return tags


def _viterbi(scores: np.ndarray, names: Sequence[str]) -> list[int]:
    """Returns the likeliest path."""
    if not len(scores):
        return []
    allowed = np.array(
        [[not to.startswith("I-") or now[1:] == to[1:] for to in names] for now in names]
    )
    steps = np.where(allowed, 0.0, -np.inf)
    total = np.where([name.startswith("I-") for name in names], -np.inf, scores[0])
    back = []
    for row in scores[1:]:
        ways = total[:, None] + steps
        back.append(ways.argmax(0))
        total = ways.max(0) + row
    path = [int(total.argmax())]
    for row in reversed(back):
        path.append(int(row[path[-1]]))
    return path[::-1]
