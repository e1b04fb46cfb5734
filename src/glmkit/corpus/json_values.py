"""JSON laid out as it likes -> rows: one array of objects, or objects one after the other.

Parsed from a buffer that moves along the file, so that memory holds one record and not the array.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

from glmkit.corpus.files import SourceFile
from glmkit.corpus.rows import Part, Row, as_record
from glmkit.errors import DataError

_BLOCK = 2**18
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


def read_json(file: SourceFile, stream: BinaryIO, part: Part) -> Iterator[Row]:
    """Yields every n-th object, from the k-th on.

    Raises:
        DataError: Broken syntax, JSON that `refused` has words for, a file that ends too soon, or bytes that are not UTF-8.
    """
    values = _JsonValues(file, stream)
    for number, value in enumerate(values):
        if number % part[1] == part[0]:
            where = f"{file.url}:{values.line} (record {number + 1})"
            yield Row(str(number + 1), where, as_record(value, where))


def refused(where: object, error: ValueError | RecursionError) -> DataError:
    """Returns the complaint about what is JSON, but not for Python: integers of more than 4,300 digits, thousands of levels."""
    if isinstance(error, RecursionError):
        return DataError(f"{where}: objects or arrays within each other, too many levels deep")
    return DataError(
        f"{where}: an integer of more digits than Python reads (4,300); write it as a string"
    )


class _JsonValues:
    """The elements of a JSON array (or a sequence of values), parsed from a buffer that moves along.

    Attributes:
        line: The line where the latest value begins.
    """

    def __init__(self, file: SourceFile, stream: BinaryIO):
        self.file, self.stream, self.line = file, stream, 1
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._next_line = "", 0, 1

    def __iter__(self) -> Iterator[Any]:
        closing = ""
        if self._peek() == "[":
            self._at, closing = self._at + 1, "]"
        first = True
        while (character := self._peek()) != closing:
            if closing and not first:
                self._expect(",", character)
                character = self._peek()
            self.line, first = self._next_line, False
            yield self._value()
        if closing:
            self._at += 1
            self._expect("", self._peek())

    def _peek(self) -> str:
        """The next character that is no white space; an empty string at the end of the file."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._advance(match.end())
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on(_BLOCK):
                return ""

    def _expect(self, wanted: str, found: str) -> None:
        if found != wanted:
            self._fail(
                f"expected {wanted or 'nothing more'!r}, found {found or 'the end of the file'!r}"
            )
        self._at += len(wanted)

    def _value(self) -> Any:
        block = _BLOCK
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos > len(self._text) - 16
                if not cut or not self._read_on(block):
                    self._fail(error.msg, self._text.count("\n", self._at, error.pos))
                block *= 2
            except (ValueError, RecursionError) as error:
                raise refused(f"{self.file.url}:{self._next_line}", error) from error
            else:
                self._advance(end)
                return value

    def _advance(self, end: int) -> None:
        self._next_line += self._text.count("\n", self._at, end)
        self._at = end

    def _read_on(self, block: int) -> bool:
        data = self.stream.read(block)
        try:
            more = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            lines_on = self._text.count("\n", self._at)
            self._fail(
                f"not UTF-8 (byte 0x{error.object[error.start]:02x}); convert the file first, for example: "
                "iconv -f GB18030 -t UTF-8 IN > OUT",
                lines_on + error.object[: error.start].count(b"\n"),
            )
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(data)

    def _fail(self, reason: str, lines_on: int = 0) -> NoReturn:
        raise DataError(
            f"{self.file.url}:{self._next_line + lines_on}: not valid JSON, or cut short ({reason}). "
            f"The record begins: {self._text[self._at : self._at + 60]!r}"
        ) from None
