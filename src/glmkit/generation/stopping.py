"""Stop strings: a blank ends where one of them is written, and does not contain it.

In: a tokenizer, stop strings, the tokens of a blank as they grow. Out: where the blank is to be cut. A stop string is
looked for in the text, so it may begin and end within tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glmkit.tokens.blanked import encode_plain


@dataclass(frozen=True)
class Cut:
    """What is left of a blank in which a stop string was written.

    Attributes:
        text: The contents before the stop string.
        kept: How many of the tokens lie wholly in `text`.
        rest: Ids of the part of `text` that shared a token with the stop string; mostly empty.
    """

    text: str
    kept: int
    rest: list[int]


class StopStrings:
    """The stop strings of one decoding call."""

    def __init__(self, tokenizer: Any, strings: Sequence[str]):
        self.tokenizer = tokenizer
        self.strings = tuple(strings)

    def __bool__(self) -> bool:
        return bool(self.strings)

    def cut(self, tokens: list[int]) -> Cut | None:
        """Returns how to cut a blank's tokens before the first stop string, or None where there is none."""
        text = self._text(tokens)
        places = [place for one in self.strings if (place := text.find(one)) >= 0]
        if not places:
            return None
        text, kept = text[: min(places)], len(tokens) - 1
        while kept and not text.startswith(self._text(tokens[:kept])):
            kept -= 1
        rest = text[len(self._text(tokens[:kept])) :]
        return Cut(text, kept, encode_plain(self.tokenizer, rest) if rest else [])

    def held_back(self, text: str) -> int:
        """Returns the length of the longest end of `text` with which a stop string begins."""
        return max(
            (
                length
                for one in self.strings
                for length in range(1, min(len(one), len(text) + 1))
                if text.endswith(one[:length])
            ),
            default=0,
        )

    def _text(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)
