"""Units: one Han character, one kana, one word; hashes that are the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmkit.corpus.steps.units import HAN, KANA, LATIN, SYMBOL, kinds, units_of, windows

WORDS = st.lists(st.sampled_from(["春", "江", "moon", "River", "2024", "の", "été"]), max_size=40)


@pytest.mark.parametrize(
    ("text", "lengths", "han"),
    [
        ("Hello, World!", [5, 5], [False, False]),
        ("春江花月夜", [1] * 5, [True] * 5),
        ("用GLM4填空。", [1, 4, 1, 1], [True, False, True, True]),
        ("かな漢字", [1] * 4, [False, False, True, True]),
        ("，。 \n", [], []),
        ("", [], []),
    ],
)
def test_units(text, lengths, han):
    units = units_of(text)
    assert units.lengths.tolist() == lengths
    assert units.han.tolist() == han
    assert len(units) == len(lengths)


@given(WORDS, st.sampled_from([" ", ", ", "\n", "。"]))
def test_only_the_units_count(words, separator):
    """Punctuation, blanks and case make no difference; the order does."""
    plain, other = units_of(" ".join(words)), units_of(separator.join(words).upper())
    assert plain.hashes.tolist() == other.hashes.tolist()
    assert len(plain) == len(words)
    assert len(set(plain.hashes.tolist())) == len({word.lower() for word in words})


@given(WORDS, st.integers(1, 6))
def test_windows_are_equal_where_the_units_are(words, size):
    grams = windows(units_of(" ".join(words)).hashes, size)
    runs = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    assert len(grams) == len(runs)
    assert len(set(grams.tolist())) == len(set(runs))


def test_hashes_are_the_same_on_every_machine():
    frozen = [0x40024E53F08D683A, 0xC6B107C0A22E00DA, 0xFB69A4E18C5EF880]
    assert units_of("GLM 填空").hashes.tolist() == frozen


def test_kinds():
    assert kinds()[[ord(c) for c in "中々Aéの#"]].tolist() == [HAN, HAN, LATIN, LATIN, KANA, SYMBOL]  # fmt: skip
    assert kinds().dtype == np.uint8
