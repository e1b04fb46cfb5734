"""A source as the user names it (file, folder, glob) -> files of a known format, opened and decoded.

Every failure to find, unpack or decode is a `DataError` that names the file (and the line, where there is
one) and the remedy. Knows the bytes, not what the records mean.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from glmkit.errors import DataError

logger = logging.getLogger(__name__)

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".rst": "text",
    ".xml": "wikipedia",
}
"""Suffix -> format. A compressed file is judged by the suffix inside (`x.jsonl.gz`), else by its beginning."""

COMPRESSED = (".gz", ".bz2")

REMEDIES = {
    ".zst": "unpack it first: zstd -d FILE",
    ".xz": "unpack it first: xz -dk FILE",
    ".zip": "unpack it first: unzip FILE",
    ".7z": "unpack it first: 7z x FILE",
    ".tar": "unpack it first: tar xf FILE",
    ".tgz": "unpack it first: tar xf FILE",
    ".parquet": "write it as JSON lines first: pandas.read_parquet(FILE).to_json(OUT, orient='records', lines=True)",
    ".csv": "write it as JSON lines first: pandas.read_csv(FILE).to_json(OUT, orient='records', lines=True)",
}
"""Suffixes that cannot be read -> what to do."""


@dataclass(frozen=True)
class SourceFile:
    """One file to read.

    Attributes:
        path: Where it is.
        format: `jsonl`, `text` or `wikipedia`.
        named: The user named this very file: an empty one is then an error, not a thing to pass over.
    """

    path: Path
    format: str
    named: bool = True


def find_files(source: str | Path) -> list[SourceFile]:
    """Returns the files that a source stands for, in sorted order.

    Args:
        source: A file; a folder (searched downwards for the suffixes in `FORMATS`); or a glob such as
            `data/*.jsonl.gz` or `data/**/*.txt`.

    Raises:
        DataError: Nothing is there, or a named file has a format that cannot be read.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return [SourceFile(path, _format_of(path))]
    if path.is_dir():
        return _search_folder(path)
    if glob.has_magic(str(path)):
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        files = [SourceFile(file, _format_of(file), False) for file in found if file.is_file()]
        if files:
            return files
        raise DataError(
            f"No file matches {source!s}. Check the pattern; quote it so that the shell leaves it alone."
        )
    raise DataError(f"{source!s} does not exist (looked in {Path.cwd()}). Check the spelling.")


def _search_folder(folder: Path) -> list[SourceFile]:
    files, passed = [], 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name.startswith("."):
            continue
        inner = path.with_suffix("") if path.suffix in COMPRESSED else path
        if inner.suffix.lower() in FORMATS or path.suffix in COMPRESSED:
            files.append(SourceFile(path, _format_of(path), named=False))
        else:
            passed += 1
    if passed:
        logger.warning("%s: passed over %d files of other formats", folder, passed)
    if not files:
        raise DataError(
            f"{folder} holds no file that can be read ({passed} of other formats). "
            f"Known suffixes: {', '.join(FORMATS)}, each also with {' or '.join(COMPRESSED)}."
        )
    return files


def _format_of(path: Path) -> str:
    inner = path.with_suffix("") if path.suffix in COMPRESSED else path
    suffix = inner.suffix.lower()
    if suffix in REMEDIES:
        raise DataError(f"{path}: {suffix} files cannot be read; {REMEDIES[suffix]}")
    if suffix in FORMATS:
        return FORMATS[suffix]
    with opened(path) as (stream, _):
        beginning = stream.read(512).lstrip(b"\xef\xbb\xbf \t\r\n")
    if beginning.startswith((b"<mediawiki", b"<?xml")):
        return "wikipedia"
    return "jsonl" if beginning.startswith(b"{") else "text"


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Opens a file, unpacking .gz and .bz2; yields (the unpacked bytes, the file on disk).

    Raises:
        DataError: The file cannot be opened, or turns out damaged while it is read.
    """
    try:
        with path.open("rb") as raw:
            if path.suffix == ".gz":
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield cast(BinaryIO, unpacked), raw
            elif path.suffix == ".bz2":
                with bz2.BZ2File(raw) as unpacked:
                    yield cast(BinaryIO, unpacked), raw
            else:
                yield raw, raw
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. Check the spelling.") from error
    except PermissionError as error:
        raise DataError(f"{path} cannot be opened: permission denied.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} is damaged, cut short or not what its suffix says ({error}). Fetch it again, or "
            f"test it with: {'bzip2' if path.suffix == '.bz2' else 'gzip'} -t {path.name}"
        ) from error


def decode(raw: bytes, path: Path, line: int) -> str:
    """Returns one line of bytes as text; a byte order mark at the beginning of the file is dropped.

    Raises:
        DataError: The bytes are not UTF-8.
    """
    try:
        return raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        guess = "UTF-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "GB18030"
        raise DataError(
            f"{path}:{line}: not UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1}). "
            f"Convert the file first, for example: iconv -f {guess} -t UTF-8 IN > OUT"
        ) from error
