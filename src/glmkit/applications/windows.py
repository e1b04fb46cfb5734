"""A long text -> windows that a model can read, cut where sentences end.

In: a text, a limit in tokens. Out: half-open (start, end) pairs of characters that cover the text in its order.
"""

from __future__ import annotations

import re
from typing import Any

from glmkit.tokens.blanked import encode_plain

SENTENCE_END = re.compile(r"(?:[。！？；…!?;]|\.(?=\s|$))+[\"'”’」』）)\]]*\s*|\n+")
"""Where a sentence ends, Chinese or English, closing quotes and the space after it included."""


def sentences(text: str) -> list[tuple[int, int]]:
    """Returns the sentences of a text as (start, end) pairs that touch each other."""
    borders = [0, *(found.end() for found in SENTENCE_END.finditer(text)), len(text)]
    return [(a, b) for a, b in zip(borders, borders[1:], strict=False) if a < b]


def windows(tokenizer: Any, text: str, max_tokens: int, overlap: int = 0) -> list[tuple[int, int]]:
    """Returns windows of whole sentences; a sentence that is too long is cut into equal parts.

    Args:
        tokenizer: A `GLMTokenizer`.
        text: The text; an empty one has one empty window.
        max_tokens: Most tokens of a window, at least 1.
        overlap: Tokens that a window repeats of the one before it, at most, in whole sentences.
    """
    parts = [
        part for span in sentences(text) for part in _fitting(tokenizer, text, span, max_tokens)
    ]
    counts = [len(encode_plain(tokenizer, text[a:b])) for a, b in parts]
    found: list[tuple[int, int]] = []
    first = covered = 0
    while covered < len(parts):
        last, total = first + 1, counts[first]
        while last < len(parts) and total + counts[last] <= max_tokens:
            total += counts[last]
            last += 1
        # A sum of parts can differ from the whole by a token or two.
        while last - first > 1 and (
            _size(tokenizer, text, parts[first][0], parts[last - 1][1]) > max_tokens
        ):
            last, first = (last - 1, first) if last - 1 > covered else (last, first + 1)
        found.append((parts[first][0], parts[last - 1][1]))
        first = covered = last
        room = min(overlap, max_tokens - counts[last]) if last < len(parts) else 0
        while first - 1 > 0 and parts[first - 1][0] > found[-1][0] and counts[first - 1] <= room:
            first -= 1
            room -= counts[first]
    return found or [(0, 0)]


def _fitting(tokenizer: Any, text: str, span: tuple[int, int], limit: int) -> list[tuple[int, int]]:
    """Returns a span, cut in two until each part has at most `limit` tokens (or one character)."""
    start, end = span
    if end - start <= 1 or _size(tokenizer, text, start, end) <= limit:
        return [span]
    middle = (start + end) // 2
    return [
        *_fitting(tokenizer, text, (start, middle), limit),
        *_fitting(tokenizer, text, (middle, end), limit),
    ]


def _size(tokenizer: Any, text: str, start: int, end: int) -> int:
    return len(encode_plain(tokenizer, text[start:end]))
