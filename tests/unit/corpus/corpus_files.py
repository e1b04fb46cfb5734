"""Writes one and the same corpus in every format, packed in every way."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma

RECORDS = [
    {"title": "北京", "text": "北京是中国的首都，\n位于“华北”。", "n": "1"},
    {"title": "Rome", "text": 'The "eternal" city,\nin Italy; capital\tof it.', "n": "2"},
    {"title": "空", "text": "  ", "n": "3"},
    {"title": "émigré", "text": "Ünïcödé 👩‍👧 𠀀", "n": "4"},
]
TEXTS = [record["text"] for record in RECORDS if record["text"].strip()]


def zstd(data: bytes) -> bytes:
    """Two frames, as `cat a.zst b.zst` and parallel writers make them."""
    import zstandard

    half = len(data) // 2
    return zstandard.compress(data[:half]) + zstandard.compress(data[half:])


PACK = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
    ".bz2": lambda data: bz2.compress(data[:9]) + bz2.compress(data[9:]),
    ".xz": lambda data: lzma.compress(data[:9]) + lzma.compress(data[9:]),
    ".zst": zstd,
}


def separated(records: list[dict], delimiter: str) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(records[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue().encode()


def json_lines(records: list[dict]) -> bytes:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records).encode()


def parquet(records: list[dict], rows: int = 2) -> bytes:
    import pyarrow
    from pyarrow import parquet as pq

    out = io.BytesIO()
    pq.write_table(pyarrow.Table.from_pylist(records), out, row_group_size=rows)
    return out.getvalue()


def arrow_stream(records: list[dict], rows: int = 2) -> bytes:
    return _arrow(records, rows, "new_stream")


def arrow_file(records: list[dict], rows: int = 2) -> bytes:
    return _arrow(records, rows, "new_file")


def _arrow(records: list[dict], rows: int, kind: str) -> bytes:
    import pyarrow

    table, out = pyarrow.Table.from_pylist(records), io.BytesIO()
    with getattr(pyarrow.ipc, kind)(out, table.schema) as writer:
        writer.write_table(table, rows)
    return out.getvalue()


WRITE = {
    ".jsonl": json_lines,
    ".ndjson": lambda records: b"\xef\xbb\xbf" + json_lines(records),
    ".lines.json": json_lines,
    ".json": lambda records: json.dumps(records, ensure_ascii=False).encode(),
    ".pretty.json": lambda records: json.dumps(records, ensure_ascii=False, indent=2).encode(),
    ".objects.json": lambda records: "\n".join(json.dumps(r, indent=1) for r in records).encode(),
    ".csv": lambda records: separated(records, ","),
    ".semicolon.csv": lambda records: separated(records, ";"),
    ".tsv": lambda records: separated(records, "\t"),
}
"""Suffix -> records -> bytes of a format that may be packed."""

COLUMNS = {".parquet": parquet, ".stream.arrow": arrow_stream, ".file.arrow": arrow_file}
"""The same for formats that are packed inside."""
