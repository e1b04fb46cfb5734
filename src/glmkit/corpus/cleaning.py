"""Documents -> cleaned documents, with the reason and the count of every one that is dropped.

Pure text functions; the only state is the set of digests that exact de-duplication needs.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field

_KEPT_CONTROLS = "\n\t"
_INVISIBLE = (
    "\u00ad\u200b\u200e\u200f\u2060\ufeff\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def _character_table() -> dict[int, str | None]:
    table: dict[int, str | None] = {}
    for code in (*range(0x20), *range(0x7F, 0xA0)):
        if chr(code) not in _KEPT_CONTROLS:
            table[code] = None
    table.update(dict.fromkeys(map(ord, _INVISIBLE)))
    for code in (0x09, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000):
        table[code] = " "
    table[0x85] = table[0x2028] = table[0x2029] = "\n"
    # Full-width digits and letters become ordinary ones; full-width punctuation is Chinese and stays.
    for low, high in (("0", "9"), ("A", "Z"), ("a", "z")):
        for code in range(ord(low), ord(high) + 1):
            table[code + 0xFEE0] = chr(code)
    return table


_CHARACTERS = _character_table()
_LINE_ENDS = re.compile(r"\r\n?")
_SPACES = re.compile(r" {2,}")
_LINE_EDGES = re.compile(r" ?\n ?")
_BLANK_LINES = re.compile(r"\n{3,}")
_SURROGATES = re.compile("[\ud800-\udfff]")


def normalise(text: str) -> str:
    """Returns the text in one spelling; what a reader sees stays the same.

    NFC (not NFKC: it would turn `，` into `,`); control, invisible and unpaired surrogate characters removed;
    every kind of space becomes one ordinary space, none at the edges of lines; at most one blank line
    running; full-width letters and digits become half-width. Joiners (U+200C, U+200D) stay: scripts and
    emoji need them. Idempotent.
    """
    text = _LINE_ENDS.sub("\n", text).translate(_CHARACTERS)
    text = _SURROGATES.sub("", text)
    text = unicodedata.normalize("NFC", text)
    text = _LINE_EDGES.sub("\n", _SPACES.sub(" ", text))
    return _BLANK_LINES.sub("\n\n", text).strip()


def digest(text: str) -> bytes:
    """Returns 16 bytes that stand for the text: equal texts, equal bytes, on every machine."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()


def in_validation(text_digest: bytes, valid_ratio: float) -> bool:
    """Says whether a text belongs to the validation split: a draw that depends on the text alone.

    Args:
        text_digest: From `digest`.
        valid_ratio: Share of the distinct texts that go to validation, in [0, 1].
    """
    return int.from_bytes(text_digest[:8], "big") < valid_ratio * 2**64


@dataclass
class Cleaner:
    """Normalises texts and drops the short and the repeated ones.

    Attributes:
        min_chars: Texts with fewer characters after normalisation are dropped.
        dropped: Reason -> number of texts, so far.
        seen: Digests of the texts kept so far.
    """

    min_chars: int = 1
    dropped: Counter[str] = field(default_factory=Counter)
    seen: set[bytes] = field(default_factory=set)

    def __call__(self, text: str) -> tuple[str, bytes] | None:
        """Returns the cleaned text and its digest, or None where it is dropped."""
        text = normalise(text)
        if len(text) < max(self.min_chars, 1):
            self.dropped["too short" if text else "empty"] += 1
            return None
        text_digest = digest(text)
        if text_digest in self.seen:
            self.dropped["duplicate"] += 1
            return None
        self.seen.add(text_digest)
        return text, text_digest
