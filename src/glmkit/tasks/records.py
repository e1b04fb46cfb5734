"""Files of labelled data -> records with the task's field names, each with where it stands.

In: whatever `glmkit.corpus` reads, and how fields are renamed. Out: (record, `file:line`). Damaged files are refused by
the reader, which names file, line and remedy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from glmkit.corpus.document import ReadLog
from glmkit.corpus.files import find_files
from glmkit.corpus.sources import read_file
from glmkit.multimodal.media import Kind, Medium, as_medium
from glmkit.tasks.rendering import flat_records, media_of, text_of
from glmkit.tasks.tagging import COLUMNS, read_columns
from glmkit.tasks.task import Task


def read_records(
    sources: str | Path | Sequence[str | Path], rename: Mapping[str, str] | None = None
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields each record, fields renamed, and `file:line`.

    Args:
        sources: Files, folders and globs, see `glmkit.corpus.read_documents`; or files of columns (`tagging.COLUMNS`).
        rename: The task's field -> the field of the records, where they differ.

    Raises:
        DataError: A missing, empty, damaged or wrongly encoded file.
    """
    for record, where, _ in _records(sources, rename):
        yield record, where


def _records(
    sources: str | Path | Sequence[str | Path], rename: Mapping[str, str] | None = None
) -> Iterator[tuple[dict[str, Any], str, Path | None]]:
    """Yields each record, `file:line`, and the folder of its file where that is of this machine."""
    for source in [sources] if isinstance(sources, str | Path) else sources:
        if str(source).endswith(COLUMNS):
            for record, where in read_columns(Path(source)):
                yield record, where, Path(source).parent
            continue
        for file in find_files(source):
            folder = Path(file.url).parent if file.is_local else None
            # A template without a field: the record is wanted, not a text of it.
            for document in read_file(file, text_field="{{}}", log=ReadLog()):
                record = dict(document.metadata)
                if document.text != "{}":  # a file of plain text, which has no fields
                    record["text"] = document.text
                for ours, theirs in (rename or {}).items():
                    if theirs in record:
                        record[ours] = record[theirs]
                yield record, document.id, folder


def read_questions(
    task: Task,
    sources: str | Path | Sequence[str | Path],
    rename: Mapping[str, str] | None = None,
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields each record that a task's view makes of those that `read_records` yields, and `file:line`.

    Media are found on the way: their relative paths begin at the folder of the file.

    Raises:
        DataError: As `read_records`, or a record that is not in the view's format.
    """
    for record, where, folder in _records(sources, rename):
        for one in flat_records(task, record, where):
            yield _located(task, one, where, folder), where


def _located(
    task: Task, record: Mapping[str, Any], where: str, folder: Path | None
) -> dict[str, Any]:
    found: Any = type(record)(record)  # type: ignore[call-arg]  # what `unfold` made stays what it is
    for name, kind in task.media.items():
        value = record.get(name)
        if value is not None and value != "":
            some = value if isinstance(value, list) else [value]
            found[name] = [
                _in_folder(kind, one, folder, where)
                if isinstance(one, str)
                else as_medium(kind, one, base=folder, where=where)
                for one in some
            ]
    return found


@lru_cache(maxsize=16)
def _in_folder(kind: Kind, path: str, folder: Path | None, where: str) -> Medium:
    """Returns the medium of a path; what is asked about one picture shares it."""
    return as_medium(kind, path, base=folder, where=where)


def drawn_share(task: Task, record: Mapping[str, Any]) -> float:
    """Returns a number in [0, 1) by a hash of the record: those below a ratio are held out.

    Records that the task's `split_by` keeps together have the same.
    """
    kept_together: Any = record if task.split_by is None else text_of(record.get(task.split_by))
    if task.media and task.split_by is None:  # what is asked about one picture
        kept_together = [one.label for one in media_of(task, record, "")] or record
    return int.from_bytes(_digest(kept_together)[:8], "big") / 2**64


def _digest(value: Any) -> bytes:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
