"""Files, folders, globs, URLs, datasets -> Documents, whatever the format.

In: JSON lines, JSON, CSV and TSV, plain text, Wikipedia XML dumps, each plain or .gz, .bz2, .xz or .zst; parquet
and Arrow; datasets of the Hugging Face Hub. Out: an iterator of Documents in a fixed order. Whatever is read and not handed out is counted in the `ReadLog` and logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from glmkit.corpus.columns import row_groups
from glmkit.corpus.document import Document, ReadLog
from glmkit.corpus.files import SourceFile, decode, find_files
from glmkit.corpus.formats import has_ranges, read_rows
from glmkit.corpus.huggingface import HubDataset
from glmkit.corpus.records import record_text
from glmkit.corpus.rows import Part
from glmkit.errors import DataError

logger = logging.getLogger(__name__)

MAX_TEXT_CHARS = 1_000_000
"""A plain text file longer than this is cut, at the next blank line, into several documents."""

MAX_PARTS = 32
"""Of one file of which each part reads the whole."""

END_OF_TEXT = "<|endoftext|>"
"""A line of plain text that holds only this ends a document."""


def read_documents(
    source: str | Path, *, text_field: str | None = None, log: ReadLog | None = None
) -> Iterator[Document]:
    r"""Yields the documents of a source in a fixed order; nothing is cleaned yet.

    A plain text file is one document (paragraphs stay together), unless lines that hold only
    `<|endoftext|>` divide it or it is longer than `MAX_TEXT_CHARS`. A record (JSON object, CSV or parquet
    row) is one document. Of a Wikipedia dump, each article that is neither a redirect nor a stub is one,
    without its markup.

    Args:
        source: A file, a folder or a glob, here or at an fsspec URL, or `hf:owner/name`; see `find_files`.
        text_field: How to make the text of a record: a field, several (`"title,lines"`), or a
            template (`"{title}\n{lines}"`); None finds it, see `glmkit.corpus.records`.
        log: Counts what was read and dropped, updated in place.

    Raises:
        DataError: A missing, empty, damaged or wrongly encoded file, or a record without text in a known
            field; names the file, the line and the remedy.
        MissingDependencyError: The format or place needs an extra, such as `glmkit[corpus]`.
    """
    log = log if log is not None else ReadLog()
    for file in find_files(source):
        yield from read_file(file, text_field=text_field, log=log)


def read_file(
    file: SourceFile, *, text_field: str | None, log: ReadLog, part: Part = (0, 1)
) -> Iterator[Document]:
    """Yields the documents of one file, or of one part of it; see `read_documents`."""
    if file.format == "wikipedia":
        from glmkit.corpus.wikipedia import read_dump

        documents = read_dump(file, log, part)
    elif file.format == "text":
        documents = _read_text(file, log)
    else:
        documents = _read_records(file, text_field, log, part)
    before, dropped_before = log.documents, log.dropped.total()
    for document in documents:
        log.documents += 1
        yield document
    found, dropped = log.documents - before, log.dropped.total() - dropped_before
    logger.info("%s: %d documents, %d dropped", file.url, found, dropped)


def count_parts(file: SourceFile, part_bytes: int) -> int:
    """Returns into how many parts to divide a file so that each reads about `part_bytes`.

    A compressed byte counts as four.
    """
    if file.format == "text":
        return 1
    wanted = -(-file.size() * (4 if file.compression else 1) // part_bytes) or 1
    if wanted == 1:
        return 1
    if isinstance(file, HubDataset):
        return min(wanted, file.num_shards())
    if file.format == "parquet":
        return min(wanted, row_groups(file)) or 1
    if file.format == "wikipedia":
        from glmkit.corpus.dump_ranges import has_page_ranges

        return wanted if has_page_ranges(file) else min(MAX_PARTS, wanted)
    return wanted if has_ranges(file) else min(MAX_PARTS, wanted)


def track(log: ReadLog, position: Callable[[], int], part: Part) -> Callable[[], None]:
    """Returns a function that brings `log.bytes_read` up to date with the position in one file."""
    start = log.bytes_read

    def update() -> None:
        log.bytes_read = start + position() // part[1]

    return update


def _read_records(
    file: SourceFile, text_field: str | None, log: ReadLog, part: Part
) -> Iterator[Document]:
    rows = file.rows(part) if isinstance(file, HubDataset) else read_rows(file, part, log)
    nothing, name = True, file.name
    for key, where, record in rows:
        if record is None:
            log.dropped["blank line"] += 1
            continue
        nothing = False
        text = record_text(record, text_field, where)
        if text.strip():
            yield Document(text, f"{name}:{key}", record)
        else:
            log.dropped["empty record"] += 1
    if nothing and part[1] == 1:
        _empty(file, log)


def _read_text(file: SourceFile, log: ReadLog) -> Iterator[Document]:
    piece, any_text = 0, False
    lines: list[str] = []
    length = 0

    def collected() -> Iterator[Document]:
        nonlocal piece, length, any_text
        text = "".join(lines).strip()
        lines.clear()
        length = 0
        if text:
            any_text = True
            piece += 1
            yield Document(text, f"{file.name}:{piece}", {"source": file.name})

    with file.open() as (stream, position):
        update = track(log, position, (0, 1))
        for number, line in enumerate(stream, 1):
            text = decode(line, f"{file.url}:{number}", first=number == 1)
            stripped = text.strip()
            if stripped == END_OF_TEXT or (not stripped and length > MAX_TEXT_CHARS):
                update()
                yield from collected()
            else:
                lines.append(text)
                length += len(text)
        update()
        yield from collected()
    if not any_text:
        _empty(file, log)


def _empty(file: SourceFile, log: ReadLog) -> None:
    if file.named:
        raise DataError(
            f"{file.url} is empty: it holds no text. Check the step that wrote it, or leave it out."
        )
    logger.warning("%s is empty", file.url)
    log.dropped["empty file"] += 1
