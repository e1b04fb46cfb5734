"""One spelling for every text, and the digest by which equal texts are found and the splits are drawn. Pure functions."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

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
    table.update(dict.fromkeys(range(0xD800, 0xE000)))
    return table


_CHARACTERS = _character_table()
_LINE_ENDS = re.compile(r"\r\n?")
_SPACES = re.compile(r" {2,}")
_LINE_EDGES = re.compile(r" ?\n ?")
_BLANK_LINES = re.compile(r"\n{3,}")
_CHANGED = re.compile(f"[{re.escape(''.join(map(chr, _CHARACTERS)))}]")


def normalise(text: str) -> str:
    """Returns the text in one spelling; what a reader sees stays the same.

    NFC (not NFKC: it would turn `，` into `,`); control, invisible and unpaired surrogate characters removed;
    every kind of space becomes one ordinary space, none at the edges of lines; at most one blank line
    running; full-width letters and digits become half-width. Joiners (U+200C, U+200D) stay: scripts and
    emoji need them. Idempotent.
    """
    if "\r" in text:
        text = _LINE_ENDS.sub("\n", text)
    if _CHANGED.search(text):
        text = text.translate(_CHARACTERS)
    text = unicodedata.normalize("NFC", text)
    # To look is far quicker than to replace, and most texts need nothing.
    if "  " in text:
        text = _SPACES.sub(" ", text)
    if " \n" in text or "\n " in text:
        text = _LINE_EDGES.sub("\n", text)
    if "\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return text.strip()


def digest(text: str) -> bytes:
    """Returns 16 bytes that stand for the text: equal texts, equal bytes, on every machine."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()


def in_validation(digests: np.ndarray, valid_ratio: float) -> np.ndarray:
    """Says which texts belong to the validation split: a draw that depends on each text alone.

    Args:
        digests: [texts] of 16 bytes each, from `digest`.
        valid_ratio: Share of the distinct texts that go to validation, in [0, 1].

    Returns:
        [texts] bool.
    """
    high = digests.view(">u8").reshape(-1, 2)[:, 0]
    return high < np.uint64(min(int(valid_ratio * 2.0**64), 2**64 - 1))


def first_of_each(parts: Sequence[np.ndarray], at_once: int = 4_000_000) -> list[np.ndarray]:
    """Says of each text whether no earlier one is equal to it.

    Args:
        parts: Arrays [texts] of 16 bytes each, from `digest`, in order; may be memory maps.
        at_once: About so many are held in memory.

    Returns:
        For each part [texts] bool.
    """
    halves = [part.view(">u8").reshape(-1, 2) for part in parts]
    first = [np.ones(len(part), bool) for part in parts]
    passes = -(-sum(map(len, parts)) // at_once) or 1
    for number in range(passes):
        # Equal texts meet in the same pass.
        places = [np.flatnonzero(half[:, 1] % np.uint64(passes) == number) for half in halves]
        owner = np.repeat(np.arange(len(parts)), np.array([len(one) for one in places], int))
        place = np.concatenate([*places, np.empty(0, np.int64)])
        high, low = (
            np.concatenate(
                [half[one, column] for half, one in zip(halves, places, strict=True)]
                or [np.empty(0, np.uint64)]
            )
            for column in (0, 1)
        )
        order = np.lexsort((low, high))  # stable: of equal ones, the earliest comes first
        high, low = high[order], low[order]
        repeated = order[1:][(high[1:] == high[:-1]) & (low[1:] == low[:-1])]
        for part in np.unique(owner[repeated]).tolist():
            first[part][place[repeated[owner[repeated] == part]]] = False
    return first
