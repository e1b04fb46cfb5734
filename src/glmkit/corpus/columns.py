"""Parquet and Arrow files -> rows, a batch at a time.

A part of a parquet file is a range of its row groups; of an Arrow file (as `datasets.save_to_disk` writes it)
it is every n-th batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from glmkit.corpus.document import ReadLog
from glmkit.corpus.files import SourceFile
from glmkit.corpus.rows import Part, Row
from glmkit.errors import DataError, UserError, missing_dependency

BATCH_ROWS = 256
"""Rows in memory at a time."""


def row_groups(file: SourceFile) -> int:
    """Returns into how many parts a parquet file can be divided."""
    with _arrow_explained(file), file.open_raw() as raw:
        return _parquet(raw).num_row_groups


def _parquet(raw: BinaryIO) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise missing_dependency("pyarrow", "Reading parquet files", "corpus") from error
    return parquet.ParquetFile(raw)


def read_columns(file: SourceFile, part: Part, log: ReadLog) -> Iterator[Row]:
    """Yields the rows of a part; keeps `log.bytes_read` up to date.

    Raises:
        DataError: The file is damaged.
        MissingDependencyError: The extra `glmkit[corpus]` is not installed.
    """
    batches = _parquet_batches if file.format == "parquet" else _arrow_batches
    before = log.bytes_read
    with _arrow_explained(file), file.open_raw() as raw:
        for first, batch in batches(raw, part):
            log.bytes_read = before + raw.tell() // part[1]
            for number, record in enumerate(batch.to_pylist(), first):
                yield Row(str(number), f"{file.url}, row {number}", record)


def _parquet_batches(raw: BinaryIO, part: Part) -> Iterator[tuple[int, Any]]:
    """(number of the first row, rows) of the k-th of n ranges of row groups."""
    table = _parquet(raw)
    groups = table.num_row_groups
    start, stop = (groups * index // part[1] for index in (part[0], part[0] + 1))
    first = 1 + sum(table.metadata.row_group(index).num_rows for index in range(start))
    for batch in table.iter_batches(BATCH_ROWS, row_groups=list(range(start, stop))):
        yield first, batch
        first += batch.num_rows


def _arrow_batches(raw: BinaryIO, part: Part) -> Iterator[tuple[int, Any]]:
    """(number of the first row, rows) of every n-th batch of an Arrow stream or file, as `datasets` saves it."""
    try:
        from pyarrow import ipc
    except ImportError as error:
        raise missing_dependency("pyarrow", "Reading Arrow files", "corpus") from error
    is_file = raw.read(6) == b"ARROW1"
    raw.seek(0)
    if is_file:
        reader = ipc.open_file(raw)
        batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
    else:
        batches = iter(ipc.open_stream(raw))
    first = 1
    for index, batch in enumerate(batches):
        if index % part[1] == part[0]:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield first + start, batch.slice(start, BATCH_ROWS)
        first += batch.num_rows


@contextmanager
def _arrow_explained(file: SourceFile) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise DataError(
            f"{file.url} is damaged, cut short or no {file.format} file ({error}). Fetch it again."
        ) from error
