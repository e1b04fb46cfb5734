"""A source as the user names it (file, folder, glob, here or at any fsspec URL) -> files of a known format.

Every failure to find, unpack or decode is a `DataError` that names the file (and the line, where there is
one) and the remedy. Knows the bytes, not what the records mean.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from glmkit.corpus.compression import BROKEN, COMPRESSED, TESTERS, unpack
from glmkit.errors import DataError, MissingDependencyError, UserError, missing_dependency

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

REMEDIES = {
    ".zip": "unpack it first: unzip FILE",
    ".7z": "unpack it first: 7z x FILE",
    ".tar": "unpack it first: tar xf FILE",
    ".tgz": "unpack it first: tar xf FILE",
    ".parquet": "write it as JSON lines first: pandas.read_parquet(FILE).to_json(OUT, orient='records', lines=True)",
    ".csv": "write it as JSON lines first: pandas.read_csv(FILE).to_json(OUT, orient='records', lines=True)",
}
"""Suffixes that cannot be read -> what to do."""

HASHED_BYTES = 2**28
"""Local files up to this size are known by their contents, larger ones by size and time of change."""

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
_PROTOCOL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+(://|::)")


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
        return _path_of(self.url).name

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
            with _explained(self.url):
                return Path(self.url).stat().st_size
        return int(_remote_info(self.url).get("size") or 0)

    def fingerprint(self) -> str:
        """Returns what stands for the contents: another one whenever they have changed.

        For a small local file the SHA-256; for a large one, size and time of change; elsewhere what the store
        says (ETag, checksum or time of change), with the size.
        """
        if self.is_local:
            with _explained(self.url):
                status = Path(self.url).stat()
                if status.st_size > HASHED_BYTES:
                    return f"size={status.st_size} modified={status.st_mtime_ns}"
                return f"sha256={hashlib.sha256(Path(self.url).read_bytes()).hexdigest()}"
        info = _remote_info(self.url)
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
        with _explained(self.url, TESTERS.get(self.compression)):
            if self.is_local:
                with Path(self.url).open("rb") as raw:
                    yield raw
            else:
                system, path = file_system(self.url)
                with system.open(path, "rb") as raw:
                    yield cast(BinaryIO, raw)

    @contextmanager
    def open(self) -> Iterator[tuple[BinaryIO, BinaryIO]]:
        """Opens the file; yields (the unpacked bytes, the bytes as stored, whose `tell` shows progress).

        Raises:
            DataError: As `open_raw`.
            MissingDependencyError: .zst without the extra `glmkit[corpus]`.
        """
        with self.open_raw() as raw, unpack(raw, self.compression) as unpacked:
            yield unpacked, raw


def find_files(source: str | Path) -> list[SourceFile]:
    """Returns the files that a source stands for, in sorted order.

    Args:
        source: A file; a folder (searched downwards for the suffixes in `FORMATS`); or a glob such as
            `data/*.jsonl.gz` or `data/**/*.txt`. Each here or at an fsspec URL, such as
            `s3://bucket/folder`, `https://host/file.jsonl.gz` or `memory://a/*.txt`.

    Raises:
        DataError: Nothing is there, or a named file has a format that cannot be read.
        MissingDependencyError: The package for that kind of URL is not installed.
    """
    source = str(source)
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


def is_url(source: str) -> bool:
    """Returns whether this is an fsspec URL, and not a path here."""
    return bool(_PROTOCOL.match(source)) and not Path(source).exists()


def file_system(url: str) -> tuple[Any, str]:
    """Returns (the fsspec file system, the path in it).

    Raises:
        MissingDependencyError: The package for that kind of URL is not installed.
        DataError: There is no such kind, or the store refuses.
    """
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        protocol = urlsplit(url).scheme
        if protocol in ("s3", "s3a"):
            raise missing_dependency("s3fs", f"Reading {url}", "s3") from error
        raise MissingDependencyError(f"Reading {url} needs a package: {error}.") from error
    except Exception as error:
        known = ", ".join(name for name in ("s3", "gs", "az", "https", "hf", "memory", "file"))
        raise DataError(
            f"{url} cannot be reached: {error} (such as {known}; see fsspec)."
        ) from error


def _find_remote(url: str) -> list[SourceFile]:
    system, path = file_system(url)
    with _explained(url):
        if glob.has_magic(path.partition("?")[0] if url.startswith("http") else path):
            found = sorted(system.glob(path))
            return _matching(
                url, [system.unstrip_protocol(name) for name in found if system.isfile(name)]
            )
        if system.isdir(path) and not system.isfile(path):
            return _readable(
                url, [system.unstrip_protocol(name) for name in sorted(system.find(path))]
            )
        system.info(path)
    return [SourceFile(url, _format_of(url))]


def _remote_info(url: str) -> dict[str, Any]:
    system, path = file_system(url)
    with _explained(url):
        return dict(system.info(path))


def _matching(pattern: str, urls: list[str]) -> list[SourceFile]:
    if not urls:
        raise DataError(
            f"No file matches {pattern}. Check the pattern; quote it so that the shell leaves it alone."
        )
    return [SourceFile(url, _format_of(url), named=False) for url in urls]


def _readable(folder: str, urls: list[str]) -> list[SourceFile]:
    """Of the files in a folder, those that can be read."""
    files, passed = [], 0
    for url in urls:
        if _path_of(url).name.startswith("."):
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


def _path_of(url: str) -> PurePosixPath | Path:
    return PurePosixPath(urlsplit(url).path or urlsplit(url).netloc) if is_url(url) else Path(url)


def _split_suffixes(url: str) -> tuple[str, str]:
    """Returns (suffix of the format, suffix of the compression), in small letters; either may be empty."""
    path = _path_of(url)
    outer = path.suffix.lower()
    if outer not in COMPRESSED:
        return outer, ""
    return path.with_suffix("").suffix.lower(), outer


def _format_of(url: str) -> str:
    suffix, _ = _split_suffixes(url)
    if suffix in REMEDIES:
        raise DataError(f"{url}: {suffix} files cannot be read; {REMEDIES[suffix]}")
    if suffix in FORMATS:
        return FORMATS[suffix]
    with SourceFile(url, "").open() as (stream, _raw):
        beginning = stream.read(512).lstrip(b"\xef\xbb\xbf \t\r\n")
    if beginning.startswith((b"<mediawiki", b"<?xml")):
        return "wikipedia"
    return "jsonl" if beginning.startswith(b"{") else "text"


@contextmanager
def _explained(url: str, tester: str | None = None) -> Iterator[None]:
    """Turns what goes wrong with a file into a `DataError` that names it."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{url} does not exist. Check the spelling.") from error
    except PermissionError as error:
        raise DataError(f"{url} cannot be opened: permission denied ({error}).") from error
    except BROKEN as error:
        remedy = "Fetch it again" + (
            f", or test it with: {tester} {_path_of(url).name}" if tester else "."
        )
        raise DataError(
            f"{url} is damaged, cut short or not what its suffix says ({error}). {remedy}"
        ) from error
    except Exception as error:
        if not is_url(url):
            raise
        raise DataError(
            f"{url} cannot be read: {type(error).__name__}: {error}. Check the address, the network and the "
            "credentials."
        ) from error


def decode(raw: bytes, url: str, line: int) -> str:
    """Returns one line of bytes as text; a byte order mark at the beginning of the file is dropped.

    Raises:
        DataError: The bytes are not UTF-8.
    """
    try:
        return raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        guess = "UTF-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "GB18030"
        raise DataError(
            f"{url}:{line}: not UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1}). "
            f"Convert the file first, for example: iconv -f {guess} -t UTF-8 IN > OUT"
        ) from error
