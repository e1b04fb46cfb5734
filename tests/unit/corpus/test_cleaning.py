"""Cleaning: one spelling, nothing that a reader would miss, every drop counted."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmkit.corpus.cleaning import Cleaner, digest, in_validation, normalise


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


def test_cleaner_counts_reasons():
    cleaner = Cleaner(min_chars=3)
    results = [cleaner(text) for text in ("abc", "ab", " ", "a b", "ａｂｃ", "abc ")]
    assert [result and result[0] for result in results] == ["abc", None, None, "a b", None, None]
    assert cleaner.dropped == {"too short": 1, "empty": 1, "duplicate": 2}
    assert results[0][1] == digest("abc")
    assert Cleaner(min_chars=0)("") is None


def test_split_is_a_draw_by_the_text_alone():
    digests = [digest(str(i)) for i in range(20_000)]
    share = sum(in_validation(one, 0.1) for one in digests) / len(digests)
    assert share == pytest.approx(0.1, abs=0.01)
    assert not any(in_validation(one, 0.0) for one in digests)
    small = {one for one in digests if in_validation(one, 0.01)}
    assert all(in_validation(one, 0.1) for one in small)
