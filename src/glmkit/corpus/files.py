"""A source as the user names it (file, folder, glob, here or at any fsspec URL) -> files of a known format.

Every failure to find, unpack or decode is a `DataError` that names the file (and the line, where there is
one) and the remedy. Knows the bytes, not what the records mean.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from glmkit.corpus.compression import COMPRESSED, TESTERS, unpack
from glmkit.corpus.places import explained, file_system, is_url, path_of, remote_info
from glmkit.errors import DataError

logger = logging.getLogger(__name__)

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".rst": "text",
    ".xml": "wikipedia",
}
"""Suffix -> format. A compressed file is judged by the suffix inside (`x.jsonl.gz`), else by its beginning."""

REMEDIES = {
    ".zip": "unpack it first: unzip FILE",
    ".7z": "unpack it first: 7z x FILE",
    ".tar": "unpack it first: tar xf FILE",
    ".tgz": "unpack it first: tar xf FILE",
    ".xlsx": "save it as CSV (UTF-8) first",
    ".pdf": "take its text out first: pdftotext FILE OUT.txt",
    ".epub": "take its text out first: pandoc FILE -t plain -o OUT.txt",
}
"""Suffixes that cannot be read -> what to do."""

HASHED_BYTES = 2**28
"""Local files up to this size are known by their contents, larger ones by size and time of change."""

_MAGIC = {b"<mediawiki": "wikipedia", b"<?xml": "wikipedia", b"PAR1": "parquet", b"ARROW1": "arrow"}
_ARRAY = re.compile(rb"\[\s*(\{|$)")
_ACCOUNTS = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")
_SNIFFED = 2**16
_VERSION_KEYS = (
    "ETag",
    "etag",
    "md5Hash",
    "checksum",
    "blob_id",
    "mtime",
    "LastModified",
    "created",
)


@dataclass(frozen=True)
class SourceFile:
    """One file to read, wherever it is.

    Attributes:
        url: A local path or an fsspec URL, as messages show it.
        format: One of the values of `FORMATS`.
        named: The user named this very file: an empty one is then an error, not a thing to pass over.
    """

    url: str
    format: str
    named: bool = True

    @property
    def name(self) -> str:
        """The last part of the path."""
        return path_of(self.url).name

    @property
    def compression(self) -> str:
        """The suffix of the compression, such as `.gz`, or an empty string."""
        return _split_suffixes(self.url)[1]

    @property
    def is_local(self) -> bool:
        """Whether it lies in this machine's file system."""
        return not is_url(self.url)

    def size(self) -> int:
        """Returns the number of bytes, as stored."""
        if self.is_local:
            with explained(self.url):
                return Path(self.url).stat().st_size
        return int(remote_info(self.url).get("size") or 0)

    def is_seekable(self) -> bool:
        """Returns whether it can be read from the middle; some web servers cannot do that."""
        if self.url.startswith(("http://", "https://")):
            return bool(remote_info(self.url).get("partial"))
        return True

    def fingerprint(self) -> str:
        """Returns what stands for the contents: another one whenever they have changed.

        For a small local file the SHA-256; for a large one, size and time of change; elsewhere what the store
        says (ETag, checksum or time of change), with the size.
        """
        if self.is_local:
            with explained(self.url):
                status = Path(self.url).stat()
                if status.st_size > HASHED_BYTES:
                    return f"size={status.st_size} modified={status.st_mtime_ns}"
                digest = hashlib.sha256()
                with Path(self.url).open("rb") as raw:
                    while block := raw.read(2**20):
                        digest.update(block)
                return f"sha256={digest.hexdigest()}"
        info = remote_info(self.url)
        version = next(
            (f"{key}={info[key]}" for key in _VERSION_KEYS if info.get(key)), "unversioned"
        )
        return f"size={info.get('size')} {version}"

    @contextmanager
    def open_raw(self) -> Iterator[BinaryIO]:
        """Opens the stored bytes; they can be sought in, except at some web addresses.

        Raises:
            DataError: The file cannot be opened, or turns out damaged while it is read.
        """
        with explained(self.url, TESTERS.get(self.compression)):
            if self.is_local:
                with Path(self.url).open("rb") as raw:
                    yield raw
            else:
                system, path = file_system(self.url)
                with system.open(path, "rb") as remote, io.BufferedReader(remote, 2**20) as raw:
                    yield cast(BinaryIO, raw)

    @contextmanager
    def open(self) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
        """Opens the file; yields (the unpacked bytes, how many stored bytes are read so far).

        Raises:
            DataError: As `open_raw`.
            MissingDependencyError: .zst without the extra `glmkit[corpus]`.
        """
        with self.open_raw() as raw, unpack(raw, self.compression) as unpacked:
            yield unpacked, raw.tell


def find_files(source: str | Path) -> list[SourceFile]:
    """Returns the files that a source stands for, in sorted order.

    Args:
        source: A file; a folder (searched downwards for the suffixes in `FORMATS`); or a glob such as
            `data/*.jsonl.gz` or `data/**/*.txt`. Each here or at an fsspec URL, such as
            `s3://bucket/folder`, `https://host/file.jsonl.gz` or `memory://a/*.txt`. Or a dataset of the
            Hugging Face Hub, see `glmkit.corpus.huggingface`.

    Raises:
        DataError: Nothing is there, or a named file has a format that cannot be read.
        MissingDependencyError: The package for that kind of URL is not installed.
    """
    source = str(source)
    if source.startswith("hf:") and not is_url(source):
        from glmkit.corpus.huggingface import hub_dataset

        return [hub_dataset(source)]
    if source.startswith(("file://", "local://")):
        source = source.partition("://")[2]
    if is_url(source):
        return _find_remote(source)
    path = Path(source).expanduser()
    if path.is_file():
        return [SourceFile(str(path), _format_of(str(path)))]
    if path.is_dir():
        found = (item for item in sorted(path.rglob("*")) if item.is_file())
        return _readable(str(path), [str(item) for item in found])
    if glob.has_magic(str(path)):
        names = [n for n in sorted(glob.glob(str(path), recursive=True)) if Path(n).is_file()]
        return _matching(source, names)
    raise DataError(f"{source} does not exist (looked in {Path.cwd()}). Check the spelling.")


def _find_remote(url: str) -> list[SourceFile]:
    system, path = file_system(url)
    system.invalidate_cache()  # what an earlier call saw there may have changed
    with explained(url):
        if glob.has_magic(path.partition("?")[0] if url.startswith("http") else path):
            found = sorted(system.glob(path, detail=True).items())
            shown = path_of(path).name.startswith(".")  # as in a shell, `*` leaves hidden files out
            names = [n for n, info in found if info["type"] == "file"]
            names = [n for n in names if shown or not path_of(n).name.startswith(".")]
            return _matching(url, [system.unstrip_protocol(name) for name in names])
        if system.isdir(path) and not system.isfile(path):
            found = sorted(system.find(path))
            return _readable(url, [system.unstrip_protocol(name) for name in found])
        system.info(path)
    return [SourceFile(url, _format_of(url))]


def _matching(pattern: str, urls: list[str]) -> list[SourceFile]:
    if not urls:
        raise DataError(
            f"No file matches {pattern}. Check the pattern; quote it so that the shell leaves it alone."
        )
    return [SourceFile(url, _format_of(url), named=False) for url in urls]


def _readable(folder: str, urls: list[str]) -> list[SourceFile]:
    """Of the files in a folder, those that can be read."""
    files, passed = [], 0
    saved = any(url.endswith(".arrow") for url in urls)  # by `datasets`, with accounts and caches
    for url in urls:
        name = path_of(url).name
        if name.startswith(".") or (saved and (name in _ACCOUNTS or name.startswith("cache-"))):
            continue
        suffix, compression = _split_suffixes(url)
        if suffix in FORMATS or compression and suffix not in REMEDIES:
            files.append(SourceFile(url, _format_of(url), named=False))
        else:
            passed += 1
    if passed:
        logger.warning("%s: passed over %d files of other formats", folder, passed)
    if not files:
        raise DataError(
            f"{folder} holds no file that can be read ({passed} of other formats). "
            f"Known suffixes: {', '.join(FORMATS)}, each also with {', '.join(COMPRESSED)}."
        )
    return files


def _split_suffixes(url: str) -> tuple[str, str]:
    """Returns (suffix of the format, suffix of the compression), in small letters; either may be empty."""
    path = path_of(url)
    outer = path.suffix.lower()
    if outer not in COMPRESSED:
        return outer, ""
    return path.with_suffix("").suffix.lower(), outer


def _format_of(url: str) -> str:
    suffix, compression = _split_suffixes(url)
    if suffix in REMEDIES:
        raise DataError(f"{url}: {suffix} files cannot be read; {REMEDIES[suffix]}")
    format = FORMATS.get(suffix)
    if compression and format in ("parquet", "arrow"):
        raise DataError(
            f"{url}: {suffix} files are compressed inside; unpack it first: {TESTERS[compression][:-1]}d FILE"
        )
    if format not in (None, "json"):
        return format
    with SourceFile(url, "").open() as (stream, _):
        beginning = stream.read(_SNIFFED).lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, found in _MAGIC.items():
        if format is None and beginning.startswith(magic):
            return found
    if not beginning.startswith(b"{") and not _ARRAY.match(beginning):
        return format or "text"
    return "jsonl" if _first_line_is_record(beginning) else "json"


def _first_line_is_record(beginning: bytes) -> bool:
    try:
        return isinstance(json.loads(beginning.partition(b"\n")[0]), dict)
    except (ValueError, RecursionError):
        return False


def decode(raw: bytes, where: object, first: bool = False) -> str:
    """Returns one line of bytes as text; a byte order mark at the beginning of the file is dropped.

    Args:
        raw: The line.
        where: `file:line`, for the message.
        first: It is the first line of the file.

    Raises:
        DataError: The bytes are not UTF-8.
    """
    try:
        return raw.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        guess = "UTF-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "GB18030"
        raise DataError(
            f"{where}: not UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1}). "
            f"Convert the file first, for example: iconv -f {guess} -t UTF-8 IN > OUT"
        ) from error
