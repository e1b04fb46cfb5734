"""Compressed bytes -> bytes, as a stream: .gz, .bz2, .xz and .zst, each of one or several members.

Knows nothing of files; `BROKEN` are the exceptions that damaged bytes raise while they are read.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from glmkit.errors import missing_dependency

TESTERS = {".gz": "gzip -t", ".bz2": "bzip2 -t", ".xz": "xz -t", ".zst": "zstd -t"}
"""Suffix -> the command that tests such a file."""

COMPRESSED = tuple(TESTERS)

BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)

_BLOCK = 2**16


def unpack(raw: BinaryIO, suffix: str) -> BinaryIO:
    """Returns the unpacked bytes of `raw`, or `raw` itself where `suffix` names no compression.

    Raises:
        MissingDependencyError: .zst without the extra `glmkit[corpus]`.
    """
    if suffix == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if suffix == ".bz2":
        return cast(BinaryIO, bz2.BZ2File(raw))
    if suffix == ".xz":
        return cast(BinaryIO, lzma.LZMAFile(raw))
    if suffix == ".zst":
        return stream_of(_unpack_zstd(raw))
    return raw


def _unpack_zstd(raw: BinaryIO) -> Iterator[bytes]:
    """Frame after frame; zstandard's own reader takes a frame that is cut short for a whole one."""
    try:
        import zstandard
    except ImportError as error:
        raise missing_dependency("zstandard", "Reading .zst files", "corpus") from error
    frame = None
    while packed := raw.read(_BLOCK):
        while packed:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                yield frame.decompress(packed)
            except zstandard.ZstdError as error:
                raise OSError(error) from error
            packed = frame.unused_data
            if frame.eof:
                frame = None
    if frame is not None:
        raise EOFError("the last frame is cut short")


def stream_of(chunks: Iterator[bytes]) -> BinaryIO:
    """Returns a binary stream of the bytes that the iterator gives, read on demand."""
    return cast(BinaryIO, io.BufferedReader(_Chunks(chunks), _BLOCK))


class _Chunks(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]):
        self._chunks, self._rest = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        taken = min(len(buffer), len(self._rest))
        buffer[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken
