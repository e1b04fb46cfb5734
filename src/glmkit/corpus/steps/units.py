"""Text -> the units that rules count: a Han character or kana by itself, any other run of letters and digits.

One definition serves Chinese, English and texts that mix them, and needs no word segmentation, which would
need a model. Everything is NumPy over code points: a character costs some tens of nanoseconds.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SPACE, NEWLINE, PUNCTUATION, SYMBOL, DIGIT, LATIN, HAN, KANA, OTHER_LETTER = range(9)
"""Kinds of characters."""

_KANA = ((0x3040, 0x3100), (0x31F0, 0x3200), (0xFF66, 0xFF9E))
_SYMBOLS = "#|…=+*~^_<>\\`@·•■□▪●○◆◇★☆※→←↑↓"
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_WORD_BASE = np.uint64(0xD6E8FEB86659FD93)


@lru_cache(maxsize=1)
def kinds() -> np.ndarray:
    """Returns the kind of every code point: [0x110000] uint8."""
    by_category = {"Z": SPACE, "C": SPACE, "P": PUNCTUATION, "S": SYMBOL, "N": DIGIT, "L": OTHER_LETTER, "M": OTHER_LETTER}  # fmt: skip
    table = np.full(0x110000, OTHER_LETTER, np.uint8)
    names = [by_category[unicodedata.category(chr(code))[0]] for code in range(0x30000)]
    table[: len(names)] = names
    table[0xE0000:] = SPACE
    for code in range(0x250):
        if table[code] == OTHER_LETTER:
            table[code] = LATIN
    table[0x1E00:0x1F00] = LATIN
    for low, high in ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x32400)):
        table[low:high] = HAN
    table[[0x3005, 0x3007]] = HAN  # 々 〇
    for low, high in _KANA:
        letters = table[low:high]
        letters[letters == OTHER_LETTER] = KANA
    table[[ord(one) for one in _SYMBOLS]] = SYMBOL
    table[0x0A] = NEWLINE
    return table


def code_points(text: str) -> np.ndarray:
    """Returns [characters] uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


@dataclass(frozen=True)
class Units:
    """The units of a text, in order.

    Attributes:
        hashes: [units] uint64; equal for equal units, whatever their case, on every machine.
        han: [units] bool: the unit is one Han character.
        lengths: [units] in characters.
    """

    hashes: np.ndarray
    han: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.hashes)


@lru_cache(maxsize=1)  # several rules look at the same text, one after the other
def units_of(text: str) -> Units:
    """Returns the units of a text."""
    codes = code_points(text.lower())
    kind = kinds()[codes]
    single = (kind == HAN) | (kind == KANA)
    word = (kind == LATIN) | (kind == OTHER_LETTER) | (kind == DIGIT)
    begins = single.copy()
    begins[1:] |= word[1:] & ~word[:-1]
    begins[:1] |= word[:1]
    kept = np.flatnonzero(single | word)
    if not len(kept):
        return Units(np.empty(0, np.uint64), np.empty(0, bool), np.empty(0, np.int64))
    starts = np.flatnonzero(begins[kept])
    lengths = np.diff(np.append(starts, len(kept)))
    hashes = hash_runs(codes[kept], starts, lengths)
    return Units(hashes, kind[kept[starts]] == HAN, lengths)


def hash_runs(codes: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns a hash of each run of code points: [runs] uint64.

    Args:
        codes: [characters], all of them in a run.
        starts: [runs], where each begins.
        lengths: [runs], at least 1.
    """
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    powers = _powers(int(lengths.max(initial=1)))
    return np.add.reduceat(mix(codes.astype(np.uint64)) * powers[place], starts)


def windows(hashes: np.ndarray, size: int) -> np.ndarray:
    """Returns a hash of every run of `size` units: [max(units - size + 1, 0)] uint64.

    Equal for equal runs, but not evenly spread: `mix` them for MinHash.
    """
    count = len(hashes) - size + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    value = hashes[:count].copy()
    for shift in range(1, size):
        value *= _MULTIPLIER
        value += hashes[shift : shift + count]
    return value


def mix(values: np.ndarray) -> np.ndarray:
    """Returns the values scrambled, one to one (the finalizer of splitmix64): [n] uint64."""
    values = values + _MULTIPLIER
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=8)
def _powers_of_two_length(exponent: int) -> np.ndarray:
    powers = np.full(1 << exponent, _WORD_BASE, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _powers(length: int) -> np.ndarray:
    return _powers_of_two_length(max(length - 1, 1).bit_length())
