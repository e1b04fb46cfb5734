"""The pages of a Wikipedia dump that lie in one of n ranges of its bytes, as a dump of its own.

Possible for plain XML, where a page begins on a line of its own, and for the multistream dumps
(`…-pages-articles-multistream.xml.bz2`), where each bzip2 stream holds whole pages. Others are read whole.
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from glmkit.corpus.compression import stream_of
from glmkit.corpus.files import SourceFile
from glmkit.corpus.rows import Part

_STREAM = re.compile(rb"BZh[1-9]1AY&SY")
"""Where a bzip2 stream begins: its head, and the head of its first block (always so; by chance 1 in 2**76)."""

_BLOCK = 2**18
_PAGE = b"<page>"


def has_page_ranges(file: SourceFile) -> bool:
    """Returns whether a dump can be read from the middle."""
    if not file.is_seekable():
        return False
    return not file.compression or (file.compression == ".bz2" and _is_multistream(file))


@contextmanager
def opened_range(file: SourceFile, part: Part) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """Opens the k-th of n ranges; yields (a complete XML dump of its pages, how many stored bytes are read).

    Args:
        file: A dump of which `has_page_ranges` is true.
        part: (k, n).

    Raises:
        DataError: The file cannot be opened, or turns out damaged while it is read.
    """
    size = file.size()
    start, stop = (size * index // part[1] for index in (part[0], part[0] + 1))
    pages = _plain_pages if not file.compression else _multistream_pages
    with file.open_raw() as raw:
        heading = _heading(raw, bool(file.compression))
        dump = stream_of(_dump(heading, pages(raw, start, stop)))
        yield dump, lambda: min(stop, max(start, raw.tell())) - start


def _dump(heading: bytes, pages: Iterator[bytes]) -> Iterator[bytes]:
    yield heading
    yield from pages
    yield b"</mediawiki>"


def _heading(raw: BinaryIO, packed: bool) -> bytes:
    """Returns what precedes the first page: the name of the wiki and its namespaces."""
    raw.seek(0)
    found = b""
    for chunk in _first_stream(raw) if packed else iter(lambda: raw.read(_BLOCK), b""):
        found += chunk
        if _PAGE in found:
            break
    return found.partition(_PAGE)[0]


def _first_stream(raw: BinaryIO) -> Iterator[bytes]:
    for _, data in _streams(raw, 0):
        yield data
        return


def _plain_pages(raw: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    """The lines of the pages that begin within these bytes."""
    raw.seek(max(0, start - 1))
    at = start + len(raw.readline()) - 1 if start else 0
    inside = False
    for line in iter(raw.readline, b""):
        if line.lstrip().startswith(_PAGE):
            if at >= stop:
                return
            inside = True
        if inside:
            yield line
            inside = not line.rstrip().endswith(b"</page>")
        elif at >= stop:
            return
        at += len(line)


def _multistream_pages(raw: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    """The contents of the streams of pages that begin within these bytes."""
    for at, data in _streams(raw, start):
        if at >= stop:
            return
        if data.lstrip().startswith(_PAGE):
            yield data


def _streams(raw: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
    """(where it begins, its contents) of each stream from `start` on; one of them is in memory at a time."""
    at = _find_stream(raw, start)
    while at is not None:
        raw.seek(at)
        unpacker, contents, read = bz2.BZ2Decompressor(), [], 0
        while not unpacker.eof:
            block = raw.read(_BLOCK)
            if not block:
                raise EOFError("the last stream is cut short")
            read += len(block)
            contents.append(unpacker.decompress(block))
        yield at, b"".join(contents)
        at = _find_stream(raw, at + read - len(unpacker.unused_data))


def _find_stream(raw: BinaryIO, start: int) -> int | None:
    raw.seek(start)
    kept, offset = b"", start
    while block := raw.read(_BLOCK):
        kept += block
        if match := _STREAM.search(kept):
            return offset + match.start()
        offset += max(0, len(kept) - 9)
        kept = kept[-9:]
    return None


def _is_multistream(file: SourceFile) -> bool:
    """Whether the first stream ends soon, and a page begins the second."""
    with file.open_raw() as raw:
        beginning = raw.read(2**22)  # bzip2 unpacks nothing before it has a whole block
    found = list(_STREAM.finditer(beginning))
    if len(found) < 2:
        return False
    second = bz2.BZ2Decompressor().decompress(beginning[found[1].start() :], 1024)
    return second.lstrip().startswith(_PAGE)
