"""Compressed bytes -> bytes, as a stream: .gz, .bz2, .xz and .zst, each of one or several members.

Knows nothing of files; `BROKEN` are the exceptions that damaged bytes raise while they are read.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
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
        return cast(BinaryIO, io.BufferedReader(_ZstdReader(raw), _BLOCK))
    return raw


class _ZstdReader(io.RawIOBase):
    """Frame after frame; zstandard's own reader takes a frame that is cut short for a whole one."""

    def __init__(self, raw: BinaryIO):
        try:
            import zstandard
        except ImportError as error:
            raise missing_dependency("zstandard", "Reading .zst files", "corpus") from error
        self._raw, self._zstandard = raw, zstandard
        self._frame: Any = None
        self._packed = b""
        self._unpacked = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._unpacked:
            self._packed = self._packed or self._raw.read(_BLOCK)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("the last frame is cut short")
                return 0
            self._advance()
        taken = min(len(buffer), len(self._unpacked))
        buffer[:taken] = self._unpacked[:taken]
        self._unpacked = self._unpacked[taken:]
        return taken

    def _advance(self) -> None:
        if self._frame is None:
            self._frame = self._zstandard.ZstdDecompressor().decompressobj()
        try:
            self._unpacked = memoryview(self._frame.decompress(self._packed))
        except self._zstandard.ZstdError as error:
            raise OSError(error) from error
        self._packed = self._frame.unused_data
        if self._frame.eof:
            self._frame = None
