"""Which words of a text a filling task hides: a character, a word, a line, the same ones in every call.

In: a text, a unit, a seed. Out: a span of characters. Knows no tokenizer, so models with different vocabularies, and
baselines without any, are asked the same.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

Unit = Literal["character", "word", "line"]

HAN = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Chinese characters, as a class of a regular expression."""

_CHARACTER = re.compile(rf"[{HAN}]")
_LETTER = re.compile(r"[^\W_]")
_HAN_RUN = re.compile(rf"[{HAN}]{{2,}}")
_WORD = re.compile(r"[^\W\d_]{2,}")
_CLAUSE = re.compile(
    r"[^\s，。！？；：、,.!?;:…—《》“”\"「」()（）][^\n，。！？；：、,.!?;:…—《》“”\"「」()（）]+"
)


def hide(text: str, unit: Unit, seed: int = 0) -> tuple[int, int] | None:
    """Returns the span (start, end) that is hidden, drawn by a hash of the text and the seed alone.

    Args:
        text: The text.
        unit: "character": a Chinese character, or of a text without any a letter or digit. "word": in Chinese two
            characters that begin at an even place of their run, which in regular verse (2-2-1, 2-2-3) is mostly a
            word; elsewhere a word. "line": what stands between two marks of punctuation or line ends, such as a verse.
        seed: Other seeds hide other spans.

    Returns:
        None where the text has no such unit.
    """
    spans = candidates(text, unit)
    if not spans:
        return None
    digest = hashlib.blake2b(f"{seed}:{unit}:{text}".encode("utf-8", "surrogatepass")).digest()
    return spans[int.from_bytes(digest[:8], "big") % len(spans)]


def candidates(text: str, unit: Unit) -> list[tuple[int, int]]:
    """Returns the spans of a text that could be hidden, see `hide`."""
    chinese = _CHARACTER.search(text) is not None
    if unit == "character":
        return [one.span() for one in (_CHARACTER if chinese else _LETTER).finditer(text)]
    if unit == "line":
        ends = (
            (one.start(), one.start() + len(one.group().rstrip())) for one in _CLAUSE.finditer(text)
        )
        return [(start, end) for start, end in ends if end - start > 1]
    if not chinese:
        return [one.span() for one in _WORD.finditer(text)]
    return [
        (start, start + 2)
        for run in _HAN_RUN.finditer(text)
        for start in range(run.start(), run.end() - 1, 2)
    ]
