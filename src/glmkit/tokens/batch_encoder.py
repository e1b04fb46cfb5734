"""Many texts -> ids, each as [CLS] … <|endoftext|>: several times faster than the Rust library alone, the same ids.

Where the vocabulary holds no token with the characters `ab` side by side, no token of a text can stretch over an `a`
that is followed by `b`, so the text may be cut there and the segments encoded one by one. Segments are short (a word,
one or two Chinese characters) and come again and again: most are found in a table, all those of a batch at once.
"""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

import numpy as np
import regex

from glmkit.corpus.steps.units import code_points, hash_runs
from glmkit.tokens.blanked import encode_plain

MAX_SEGMENTS = 2**19
"""Known at a time; with their table some 40 MiB."""

_SLOTS = 2**21
_PROBES = 8
_PAIRS = 2**22
"""Size of the table of pairs. Two pairs may share a place: then a cut is missed, which does no harm."""


class BatchEncoder:
    """Encodes batches of texts; what looks like a special token in a text is spelled, not taken for the token.

    Vocabularies that are not cut (WordPiece, byte-level, with a normaliser) go the ordinary way.

    Args:
        tokenizer: A `GLMTokenizer`, or what behaves like one: called with a list of texts, and with `special_ids`.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        pattern = _split_pattern(tokenizer)
        self._cutter = None if pattern is None else _Cutter(tokenizer, pattern)
        self._segments = _Segments()

    def __call__(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns (ids [tokens] int64, lengths [texts])."""
        if self._cutter is None or not texts:
            ids = self._plain(texts) if texts else []
            lengths = np.array([len(one) for one in ids], np.int64)
            stream = np.fromiter(chain.from_iterable(ids), np.int64, int(lengths.sum()))
        else:
            stream, lengths = self._by_segments(texts)
        wrapped = np.empty(len(stream) + 2 * len(lengths), np.int64)
        ends = np.cumsum(lengths + 2)
        wrapped[ends - lengths - 2] = self.tokenizer.special_ids.cls
        wrapped[ends - 1] = self.tokenizer.special_ids.eos
        wrapped[np.arange(len(stream)) + np.repeat(2 * np.arange(len(lengths)) + 1, lengths)] = stream  # fmt: skip
        return wrapped, lengths + 2

    def _plain(self, texts: list[str]) -> list[list[int]]:
        if hasattr(self.tokenizer, "backend_tokenizer"):
            return encode_plain(self.tokenizer, texts)
        return self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]

    def _by_segments(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        assert self._cutter is not None
        if len(self._segments) > MAX_SEGMENTS:
            self._segments = _Segments()
        text = "".join(texts)
        codes, starts, in_word, bad = self._cutter.cut(text, texts)
        slots = self._look_up(text, codes, starts)
        hold = self._segments.must_not_be_cut(slots, in_word)
        if hold.any():  # the words they stand in become segments as a whole
            word = np.cumsum(~in_word)
            stays = ~(in_word & np.isin(word, word[hold]))
            starts, in_word = starts[stays], in_word[stays]
            slots = self._look_up(text, codes, starts)
        counts, firsts, usable = self._segments.read(slots)
        # From segments to texts: which text a segment belongs to, and which texts cannot be cut.
        owner = np.searchsorted(np.cumsum([len(one) for one in texts]), starts, side="right")
        bad |= np.bincount(owner[~usable], minlength=len(texts)) > 0
        counts = np.where(bad[owner], 0, counts)
        totals = np.bincount(owner, counts, minlength=len(texts)).astype(np.int64)
        jumps = np.repeat(firsts - (np.cumsum(counts) - counts), counts)
        stream = self._segments.pool[jumps + np.arange(int(counts.sum()))]
        if bad.any():
            stream, totals = self._with_plain(texts, stream, totals, bad)
        return stream, totals

    def _look_up(self, text: str, codes: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Returns the slots of the segments; encodes those that are new."""
        assert self._cutter is not None
        lengths = np.diff(np.append(starts, len(text)))
        hashes = hash_runs(codes, starts, lengths)
        slots = self._segments.find(hashes)
        missing = np.flatnonzero(slots < 0)
        if not len(missing):
            return slots
        missing = missing[np.unique(hashes[missing], return_index=True)[1]]
        ends = starts[missing] + lengths[missing]
        new = [text[a:b] for a, b in zip(starts[missing].tolist(), ends.tolist(), strict=True)]
        alone = [self._cutter.stands_alone(one) for one in new]
        found = iter(self._spell([one for one, yes in zip(new, alone, strict=True) if yes]))
        ids = [next(found) if yes else None for yes in alone]
        loose = np.array([self._cutter.is_ambiguous(one) for one in new])
        self._segments.add(hashes[missing], ids, loose)
        return self._segments.find(hashes)

    def _spell(self, segments: list[str]) -> list[list[int]]:
        backend = self.tokenizer.backend_tokenizer
        before, backend.encode_special_tokens = backend.encode_special_tokens, True
        try:
            return [
                one.ids for one in backend.encode_batch_fast(segments, add_special_tokens=False)
            ]
        finally:
            backend.encode_special_tokens = before

    def _with_plain(
        self, texts: list[str], stream: np.ndarray, totals: np.ndarray, bad: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        pieces = np.split(stream, np.cumsum(totals)[:-1])
        places = np.flatnonzero(bad).tolist()
        for place, ids in zip(places, self._plain([texts[i] for i in places]), strict=True):
            pieces[place] = np.array(ids, np.int64)
        return np.concatenate(pieces), np.array([len(one) for one in pieces])


class _Segments:
    """Hash of a segment -> its ids: open addressing in NumPy, so that a batch is looked up at once."""

    def __init__(self) -> None:
        self._hashes = np.zeros(_SLOTS, np.uint64)
        self._first = np.zeros(_SLOTS, np.int64)
        self._count = np.zeros(_SLOTS, np.int16)
        self._loose = np.zeros(_SLOTS, bool)
        self.pool = np.zeros(0, np.int64)
        self._known = 0

    def __len__(self) -> int:
        return self._known

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Returns the slots of the segments, -1 where they are not known: [segments]."""
        slots = np.full(len(hashes), -1, np.int64)
        open_ = np.arange(len(hashes))
        for probe in range(_PROBES):
            places = ((hashes[open_] + np.uint64(probe)) & np.uint64(_SLOTS - 1)).astype(np.int64)
            hit = self._hashes[places] == hashes[open_]
            slots[open_[hit]] = places[hit]
            open_ = open_[~hit]
            if not len(open_):
                break
        return slots

    def add(self, hashes: np.ndarray, ids: list[list[int] | None], loose: np.ndarray) -> None:
        """Adds segments that are not known; None stands for one that cannot be encoded by itself."""
        first = len(self.pool)
        self.pool = np.append(self.pool, np.fromiter(chain.from_iterable(one or () for one in ids), np.int64))  # fmt: skip
        for value, one, flag in zip(hashes.tolist(), ids, loose.tolist(), strict=True):
            for probe in range(
                _PROBES
            ):  # with no free slot it stays unknown, and its text goes the ordinary way
                place = (value + probe) & (_SLOTS - 1)
                if self._hashes[place] == 0:
                    self._hashes[place], self._first[place] = value, first
                    self._count[place], self._loose[place] = -1 if one is None else len(one), flag
                    self._known += 1
                    break
            first += len(one or ())

    def must_not_be_cut(self, slots: np.ndarray, in_word: np.ndarray) -> np.ndarray:
        """Says which of the segments that begin inside of a word do not give the ids that they give in the word."""
        return in_word & (slots >= 0) & (self._loose[slots] | (self._count[slots] < 0))

    def read(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns how many ids the segments have, where these begin in `pool`, and whether they are known at all."""
        counts = self._count[slots].astype(np.int64)
        usable = (slots >= 0) & (counts >= 0)
        return np.where(usable, counts, 0), self._first[slots], usable


class _Cutter:
    """Cuts texts where no token can stretch over: between the tokenizer's words, and between unjoined characters."""

    def __init__(self, tokenizer: Any, pattern: str):
        self._split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
        # The group around the whole makes group 1 of the pattern group 2.
        shifted = regex.sub(r"\\([1-8])", lambda match: f"\\{int(match[1]) + 1}", pattern)
        self._words = regex.compile(f"(?V1)({shifted})")
        self._several = self._words.groups > 1
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        self._unigram = model["type"] == "Unigram"
        self._seen = np.zeros(
            0x110000, np.uint8
        )  # 1: both engines see the character alike; 2: they do not
        self._joined = np.zeros(_PAIRS, bool)
        for token in tokenizer.get_vocab():
            self._joined[_place(code_points(token))] = True

    def cut(self, text: str, texts: list[str]) -> tuple[np.ndarray, ...]:
        """Cuts texts, which stand one after another in `text`.

        Returns:
            code points [characters]; starts of the segments; whether a segment begins inside of a word; whether a
            text [texts] has a character that this and the tokenizer's regex engine see differently.
        """
        codes = code_points(text)
        if (self._seen[codes] == 0).any():
            for code in np.unique(codes[self._seen[codes] == 0]).tolist():
                self._seen[code] = 1 if self._seen_alike(chr(code)) else 2
        lengths: list[int] = []
        for one in texts:
            words = self._words.findall(one)
            lengths += [len(word[0]) for word in words] if self._several else map(len, words)
        word_begins = np.zeros(len(text) + 1, bool)
        word_begins[np.cumsum([0, *lengths])] = True
        begins = word_begins[:-1].copy()
        begins[1:] |= ~self._joined[_place(codes)]
        starts = np.flatnonzero(begins)
        bad = np.zeros(len(texts), bool)
        odd = np.flatnonzero(self._seen[codes] == 2)
        bad[np.searchsorted(np.cumsum([len(one) for one in texts]), odd, side="right")] = True
        if sum(lengths) != len(text):  # a pattern that leaves characters out
            bad[:] = True
        return codes, starts, ~word_begins[starts], bad

    def stands_alone(self, segment: str) -> bool:
        """Says whether a segment is one word also by itself."""
        alike = all(self._seen[ord(one)] == 1 for one in segment)
        return alike and len(self._words.findall(segment)) == 1

    def is_ambiguous(self, segment: str) -> bool:
        """Says whether a segment may have two best segmentations, as 哈哈哈 has 哈哈+哈 and 哈+哈哈 in Unigram.

        Which of them wins is then a matter of rounding, which depends on the word around.
        """
        return self._unigram and len(segment) > 2 and len(set(segment)) < len(segment)

    def _seen_alike(self, one: str) -> bool:
        probe = f"一{one}{one}a{one} {one}1{one}\n{one}"
        words = [word[0] if self._several else word for word in self._words.findall(probe)]
        try:
            return words == [word for word, _ in self._split(probe)]
        except UnicodeEncodeError:  # a lone surrogate
            return False


def _place(codes: np.ndarray) -> np.ndarray:
    """Returns the places of all pairs of neighbours in the table: [characters - 1]."""
    codes = codes.astype(np.uint32)
    return (codes[:-1] * np.uint32(0x9E3779B1) ^ codes[1:] * np.uint32(0x85EBCA77)) >> np.uint32(10)


def _split_pattern(tokenizer: Any) -> str | None:
    """Returns the regular expression of the tokenizer's words, or None where segments might change the ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    parts = json.loads(backend.to_str())
    model, words = parts["model"], parts["pre_tokenizer"] or {}
    plain = (
        parts["normalizer"] is None
        and all(token["special"] for token in parts["added_tokens"])
        and words.get("type") == "Split"
        and words["behavior"] == "Isolated"
        and not words["invert"]
        and "Regex" in words["pattern"]
        and model.get("byte_fallback")
    )
    cuttable = model["type"] == "Unigram" or (
        model["type"] == "BPE"
        and not (model["dropout"] or model["continuing_subword_prefix"] or model["end_of_word_suffix"])
    )  # fmt: skip
    return words["pattern"]["Regex"] if plain and cuttable else None
