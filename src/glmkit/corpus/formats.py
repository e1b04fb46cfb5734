"""Files of records -> rows: JSON lines, JSON, CSV and TSV, parquet, Arrow; streamed, in bounded memory.

A part (k, n) of a file is a range of bytes (JSON lines, not compressed) or of row groups (parquet); of the
others it is every n-th record, so that each part reads the whole. Knows nothing of what the fields mean.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from glmkit.corpus.columns import read_columns
from glmkit.corpus.document import ReadLog
from glmkit.corpus.files import SourceFile, decode
from glmkit.corpus.json_values import read_json, refused
from glmkit.corpus.rows import Part, Row, as_record
from glmkit.errors import DataError

try:
    import orjson
except ImportError:  # it comes with datatrove; json does the same, slower
    orjson = None  # type: ignore[assignment]

MAX_FIELD_CHARS = 2**27
"""Of a field of a CSV file: what is longer has lost its closing quote."""

_BLANK = "\t\r\n ,;|"
"""What a line of a table without any value consists of: spreadsheets write empty rows with their separators."""


@dataclass
class _Line:
    """`FILE:LINE`; the lines before byte `start` are counted only when someone asks."""

    file: SourceFile
    line: int
    start: int = 0

    def __str__(self) -> str:
        before = 0
        with self.file.open_raw() as raw:
            rest = self.start
            while rest and (block := raw.read(min(rest, 2**20))):
                before += block.count(b"\n")
                rest -= len(block)
        return f"{self.file.url}:{before + self.line}"


def has_ranges(file: SourceFile) -> bool:
    """Returns whether the parts of a file of lines are ranges of bytes."""
    return file.format == "jsonl" and not file.compression and file.is_seekable()


def read_rows(file: SourceFile, part: Part, log: ReadLog) -> Iterator[Row]:
    """Yields the rows of a part in the file's order; keeps `log.bytes_read` up to date.

    Raises:
        DataError: Damaged bytes, wrong encoding, broken syntax or JSON that `refused` has words for; names file and line (or row).
        MissingDependencyError: parquet and Arrow without the extra `glmkit[corpus]`.
    """
    if file.format in ("parquet", "arrow"):
        yield from read_columns(file, part, log)
    elif has_ranges(file):
        yield from _read_line_range(file, part, log)
    else:
        read = READERS.get(file.format)
        if read is None:
            raise DataError(
                f"{file.url}: the format {file.format!r} has no reader; there are {', '.join(READERS)}. Add yours to "
                "glmkit.corpus.formats.READERS"
            )
        with file.open() as (stream, position):
            before = log.bytes_read
            for row in read(file, stream, part):
                log.bytes_read = before + position() // part[1]
                yield row


def _read_lines(file: SourceFile, stream: BinaryIO, part: Part) -> Iterator[Row]:
    for number, data in enumerate(stream):
        if number % part[1] == part[0]:
            yield _line_row(data, str(number + 1), _Line(file, number + 1))


def _line_row(data: bytes, key: str, where: _Line) -> Row:
    return Row(key, where, None if data.isspace() else _parse(data, where))


def _read_line_range(file: SourceFile, part: Part, log: ReadLog) -> Iterator[Row]:
    """The lines that begin within the k-th of n equal ranges of bytes."""
    size, before = file.size(), log.bytes_read
    start, stop = (size * index // part[1] for index in (part[0], part[0] + 1))
    with file.open_raw() as raw:
        if start:
            raw.seek(start - 1)
            start += len(raw.readline()) - 1
        at, prefix = start, f"@{start}+" if start else ""
        for number, data in enumerate(iter(raw.readline, b""), 1):
            if at >= stop:
                break
            at += len(data)
            log.bytes_read = before + at - start
            yield _line_row(data, f"{prefix}{number}", _Line(file, number, start))


def _parse(data: bytes, where: _Line) -> dict[str, Any]:
    try:
        record = orjson.loads(data) if orjson else _parse_slowly(data, where)
    except ValueError:  # NaN, lone surrogates, long integers; and its messages do not tell the line
        record = _parse_slowly(data, where)
    return as_record(record, where)


def _parse_slowly(data: bytes, where: _Line) -> Any:
    line = decode(data, where, first=where.line == 1 and where.start == 0)
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not valid JSON ({error.msg} at column {error.pos + 1}). The line begins: "
            f"{line.strip()[:60]!r}. A file of one JSON array, or of records over several lines, is called .json."
        ) from error
    except (ValueError, RecursionError) as error:
        raise refused(where, error) from error


def _read_csv(file: SourceFile, stream: BinaryIO, part: Part) -> Iterator[Row]:
    """The first line that is not blank names the fields; the separator is what it has most of: tab, comma, semicolon or bar."""
    lines = (decode(data, f"{file.url}:{n}", first=n == 1) for n, data in enumerate(stream, 1))
    before, heading = next(((n, one) for n, one in enumerate(lines) if one.strip(_BLANK)), (0, ""))
    if not heading:
        return
    separator = max("\t,;|" if file.url.lower().find(".tsv") >= 0 else ",\t;|", key=heading.count)
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARS))
    reader = csv.reader(_chain(heading, lines), delimiter=separator, strict=True)
    fields, line = None, before + 1
    try:
        for number, values in enumerate(reader, -1):
            where = f"{file.url}:{line}"
            if fields is None:
                fields = values
            elif number % part[1] != part[0]:
                pass
            elif not values:
                yield Row(str(line), where, None)
            elif len(values) != len(fields):
                raise DataError(
                    f"{where}: {len(values)} values, but the heading names {len(fields)} fields "
                    f"({', '.join(fields)[:200]}). Is the file cut short, or a quote missing?"
                )
            else:
                yield Row(str(line), where, dict(zip(fields, values, strict=True)))
            line = before + reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{file.url}:{line}: not valid CSV ({error}). The record that begins on this line may miss a quote."
        ) from error


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


READERS: dict[str, Callable[[SourceFile, BinaryIO, Part], Iterator[Row]]] = {
    "jsonl": _read_lines,
    "json": read_json,
    "csv": _read_csv,
}
"""Format -> the reader of a part of its unpacked bytes."""
