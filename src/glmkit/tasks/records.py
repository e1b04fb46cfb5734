"""Files of labelled data -> records with the task's field names, each with where it stands.

In: whatever `glmkit.corpus` reads, and how fields are renamed. Out: (record, `file:line`). Damaged files are refused by
the reader, which names file, line and remedy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glmkit.corpus.sources import read_documents


def read_records(
    sources: str | Path | Sequence[str | Path], rename: Mapping[str, str] | None = None
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields each record, fields renamed, and `file:line`.

    Args:
        sources: Files, folders and globs, see `glmkit.corpus.read_documents`.
        rename: The task's field -> the field of the records, where they differ.

    Raises:
        DataError: A missing, empty, damaged or wrongly encoded file.
    """
    for source in [sources] if isinstance(sources, str | Path) else sources:
        # A template without a field: the record is wanted, not a text of it.
        for document in read_documents(source, text_field="{{}}"):
            record = dict(document.metadata)
            for ours, theirs in (rename or {}).items():
                if theirs in record:
                    record[ours] = record[theirs]
            yield record, document.id
