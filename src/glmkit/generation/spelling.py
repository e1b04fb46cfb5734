"""A vocabulary as bytes: what each token adds to the text of a blank, so that text can be limited token by token.

In: a `GLMTokenizer`. Out: the bytes of each token at the start of a blank and later, the text of tokens, the tokens that
begin with or hold some bytes, and the fewest tokens that spell a text. The text is the one that people get: decoded, cleaned up,
without space around it. It knows no constraint.

The published vocabularies clean text up (`" ."` becomes `"."`), and what a token adds could depend on the next one. `breaking`
names the tokens after which it would; a constraint that leaves them out has a text that only grows.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

from glmkit.errors import GenerationError
from glmkit.tokens.base import CLEANED, well_formed
from glmkit.tokens.blanked import encode_plain

_DECODERS = {"Sequence", "Replace", "Fuse", "ByteLevel", "ByteFallback", "WordPiece"}
"""Decoders under which a token adds the same text wherever it stands but at the start."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_BEYOND = b"\xff" * 8
"""Follows all that begins alike in the order of bytes."""


def token_texts(tokenizer: Any, later: bool = True) -> list[str]:
    """Returns what each id adds to a text; incomplete bytes show as U+FFFD.

    Args:
        tokenizer: A `GLMTokenizer`.
        later: In a text that it continues; otherwise at the start, where a vocabulary may strip a space or not put
            one between words.
    """
    before = encode_plain(tokenizer, "a")[-1:] if later else []
    decode = tokenizer.backend_tokenizer.decode_batch
    (base,) = decode([before], skip_special_tokens=False)
    rows = [[*before, index] for index in range(len(tokenizer))]
    return [text[len(base) :] for text in decode(rows, skip_special_tokens=False)]


class Spelling:
    """The bytes of a vocabulary.

    Attributes:
        end: Id that ends a blank.
        later: Bytes of each id behind others; b"" for what no text is made of (special tokens).
        first: The same at the start of a blank, without space before it.
        num_characters: int64 [V], characters that begin in `later`.
        last_bytes: int64 [V], the last byte of `later`, -1 where there is none.
        usable: bool [V], what a limited blank may begin with or go on with: not empty, not a byte that decoding would spoil.
        alphabet: The characters that can be written, or None where every one can.
    """

    def __init__(self, tokenizer: Any):
        """Makes the tables.

        Raises:
            GenerationError: What a token adds depends on its neighbours in this vocabulary.
        """
        state = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"]
        kinds = set(re.findall(r'"type": "(\w+)"', json.dumps(state)))
        if not kinds <= _DECODERS:
            raise GenerationError(
                f"text cannot be limited token by token in this vocabulary: its decoder has {sorted(kinds - _DECODERS)}; "
                f"{sorted(_DECODERS)} are known. Choices, Length(unit='tokens') and NoRepeat do without"
            )
        self.end = tokenizer.special_ids.eop
        self.patterns = [one.encode() for one in CLEANED] if _cleans(tokenizer) else []
        self._clean: Any = tokenizer.clean_up_tokenization if self.patterns else str
        raw = [self._raw(tokenizer, kinds, later) for later in (False, True)]
        self.first = [self._cleaned(one, at_start=True) for one in raw[0]]
        self.later = [self._cleaned(one) for one in raw[1]]
        self._raw_first = raw[0]
        self._begins = [_Beginnings(raw[1]), _Beginnings(self.later)]
        self.num_characters = np.array(
            [sum(byte & 0xC0 != 0x80 for byte in one) for one in self.later], np.int64
        )
        self.last_bytes = np.array([one[-1] if one else -1 for one in self.later], np.int64)
        self.usable = np.array([bool(one) for one in self.later])
        self.usable_first = np.array([bool(one) for one in self.first])
        if "ByteFallback" in kinds:  # a run of such tokens that is no text spoils all of itself
            lone = [
                bool(_BYTE.fullmatch(tokenizer.convert_ids_to_tokens(i) or ""))
                for i in range(len(self.later))
            ]
            self.usable &= ~np.array(lone)
            self.usable_first &= ~np.array(lone)
        self.alphabet: set[str] | None = None
        if not {"ByteLevel", "ByteFallback"} & kinds:
            self.alphabet = set(b"".join(self.later).decode())
        self._breaking: dict[bytes, np.ndarray] = {}
        self._ids = {one: index for index, one in reversed(list(enumerate(self.later))) if one}
        self._longest = max(map(len, self._ids))

    def text(self, tokens: Sequence[int]) -> bytes:
        """Returns the text of a blank's tokens, whole or not, without space before it."""
        later = [self.later[token] for token in tokens[1:]]
        return b"".join([*(self.first[token] for token in tokens[:1]), *later])

    def breaking(self, tokens: Sequence[int]) -> np.ndarray:
        """Returns the ids behind which the text so far would be cleaned up into another one."""
        if not self.patterns or not tokens:
            return np.empty(0, np.int64)
        last = [self.later[token] for token in tokens[-4:]]
        if len(tokens) <= 4:  # the space that is stripped there still counts for what follows
            last[0] = self._raw_first[tokens[0]]
        tail = b"".join(last)[-3:]
        if tail not in self._breaking:
            self._breaking[tail] = self.completing(tail, self.patterns)
        return self._breaking[tail]

    def completing(self, text: bytes, patterns: Iterable[bytes]) -> np.ndarray:
        """Returns the ids that complete a pattern which the end of `text` begins."""
        found = [
            table.of(rest)
            for pattern in patterns
            for rest in ends_of(text, pattern)
            for table in self._begins
        ]
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)

    def holding(self, pattern: bytes, first: bool) -> list[int]:
        """Returns the ids that hold a pattern by themselves, at the start of a blank or later."""
        table = self.first if first else self.later
        return [index for index, one in enumerate(table) if pattern in one]

    def spell(self, text: str) -> list[int] | None:
        """Returns the fewest ids that add exactly `text`, or None where there are none."""
        goal = text.encode()
        best: list[list[int] | None] = [[], *([None] * len(goal))]
        for place in range(len(goal)):
            before = best[place]
            if before is None:
                continue
            for stop in range(place + 1, min(len(goal), place + self._longest) + 1):
                token = self._ids.get(goal[place:stop])
                if token is None or not self.usable[token] or token in self.breaking(before):
                    continue
                known = best[stop]
                if known is None or len(before) + 1 < len(known):
                    best[stop] = [*before, token]
        return best[-1]

    def is_clean(self, text: str) -> bool:
        """Returns whether cleaning up leaves `text` as it is."""
        return self._clean(text) == text

    def _cleaned(self, raw: bytes, at_start: bool = False) -> bytes:
        text = self._clean(raw.decode("utf-8", "surrogateescape"))
        return (text.lstrip() if at_start else text).encode("utf-8", "surrogateescape")

    @staticmethod
    def _raw(tokenizer: Any, kinds: set[str], later: bool) -> list[bytes]:
        """Returns the bytes of each id as decoded, not cleaned up."""
        textless = tokenizer.textless_ids
        values = _byte_values() if "ByteLevel" in kinds else {}
        table = []
        for index, text in enumerate(token_texts(tokenizer, later)):
            if index in textless:
                table.append(b"")
            elif "�" not in text:
                table.append(text.encode())
            else:
                token = tokenizer.convert_ids_to_tokens(index)
                if values:
                    token = token.removeprefix("##") if "Replace" in kinds else token
                    table.append(bytes(values[one] for one in token))
                else:
                    found = _BYTE.fullmatch(token)
                    table.append(bytes([int(found[1], 16)]) if found else b"")
        return table


class _Beginnings:
    """Finds the ids whose bytes begin alike."""

    def __init__(self, table: Sequence[bytes]):
        order = sorted((one, index) for index, one in enumerate(table) if one)
        self._texts = [one for one, _ in order]
        self._ids = np.array([index for _, index in order], np.int64)

    def of(self, beginning: bytes) -> np.ndarray:
        low = bisect_left(self._texts, beginning)
        return self._ids[low : bisect_left(self._texts, beginning + _BEYOND)]


def ends_of(text: bytes, pattern: bytes) -> list[bytes]:
    """Returns what is missing of `pattern` for each of its proper beginnings with which `text` ends."""
    most = min(len(text), len(pattern) - 1)
    return [pattern[n:] for n in range(1, most + 1) if text.endswith(pattern[:n])]


def check_writable(name: str, text: str) -> None:
    """Refuses a text with half of a surrogate pair, which no token and no UTF-8 can hold.

    Raises:
        GenerationError: It has one; says under which `name` it was given.
    """
    if not text.isascii() and well_formed(text) != text:
        raise GenerationError(f"{name}={text!r} has half of a surrogate pair, which no text can hold; take it out")  # fmt: skip


def literal(text: str) -> str:
    """Returns the regular expression that matches `text` alone."""
    return re.sub(r"[^\w]|_", lambda found: f"\\x{{{ord(found[0]):x}}}", text)


_spellings: WeakKeyDictionary[Any, Spelling] = WeakKeyDictionary()


def spelling_of(tokenizer: Any) -> Spelling:
    """Returns the tables of a tokenizer, made once."""
    if tokenizer not in _spellings:
        _spellings[tokenizer] = Spelling(tokenizer)
    return _spellings[tokenizer]


def _cleans(tokenizer: Any) -> bool:
    return bool(tokenizer.clean_up_tokenization_spaces)


def _byte_values() -> dict[str, int]:
    """Returns the byte of each character of GPT-2's vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    values = {chr(value): value for value in printable}
    values.update({chr(256 + place): value for place, value in enumerate(others)})
    assert set(values) == set(ByteLevel.alphabet())
    return values
