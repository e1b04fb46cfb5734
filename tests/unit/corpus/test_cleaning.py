"""Cleaning: one spelling, nothing that a reader would miss, every drop counted."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmkit.corpus.cleaning import digest, first_of_each, in_validation, normalise


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("春，江。花！月？夜；（一）：《二》", "春，江。花！月？夜；（一）：《二》"),
        ("ＧＬＭ　２０２２", "GLM 2022"),
        ("e\u0301", "é"),
        ("a\u200bb\ufeffc\u00add\x00e\x7f\x9f", "abcde"),
        ("a\t b \u00a0c\u3000 d", "a b c d"),
        ("\u3000\u3000段落\r\n\u3000\u3000二 \r三", "段落\n二\n三"),
        ("a\n\n\n\n\nb\n \n \nc", "a\n\nb\n\nc"),
        ("a\u2028b\x85c", "a\nb\nc"),
        ("x\ud800y", "xy"),
        ("👩\u200d👧 می\u200cخواهم", "👩\u200d👧 می\u200cخواهم"),
        (" \n ", ""),
    ],
)
def test_normalise(text, cleaned):
    assert normalise(text) == cleaned


@given(st.text())
def test_normalise_properties(text):
    cleaned = normalise(text)
    assert normalise(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert cleaned.encode("utf-8").decode() == cleaned
    assert all(unicodedata.category(c) != "Cc" or c == "\n" for c in cleaned)
    assert "  " not in cleaned
    assert "\n\n\n" not in cleaned


def digests_of(texts) -> np.ndarray:
    return np.frombuffer(b"".join(map(digest, texts)), "V16")


def test_split_is_a_draw_by_the_text_alone():
    digests = digests_of(map(str, range(20_000)))
    assert in_validation(digests, 0.1).mean() == pytest.approx(0.1, abs=0.01)
    assert not in_validation(digests, 0.0).any()
    assert in_validation(digests, 1.0).all()
    assert in_validation(digests, 0.1)[in_validation(digests, 0.01)].all()


@given(st.lists(st.lists(st.integers(0, 9)), max_size=6), st.sampled_from([1, 3, 1000]))
def test_first_of_each(parts, at_once):
    """Whether the digests fit into memory or are looked at in several passes: of equal texts the first stays."""
    found = first_of_each([digests_of(map(str, part)) for part in parts], at_once)
    seen = set()
    for part, first in zip(parts, found, strict=True):
        for text, is_first in zip(part, first.tolist(), strict=True):
            assert is_first == (text not in seen)
            seen.add(text)
