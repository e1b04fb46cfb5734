"""What a filling task hides: whole units of the text, the same ones for everybody, everywhere in the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmkit.tasks.hiding import candidates, hide
from glmkit.tasks.rendering import question
from glmkit.tasks.task import load_task

VERSES = "国破山河在，城春草木深。\n感时花溅泪，恨别鸟惊心。"


def shown(text: str, unit: str) -> list[str]:
    return [text[start:end] for start, end in candidates(text, unit)]


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("花开，A1", "character", ["花", "开"]),
        ("a-1", "character", ["a", "1"]),
        ("国破山河在，城", "word", ["国破", "山河"]),
        ("Don't panic, R2D2 is 花", "word", []),
        ("a cat sat.", "word", ["cat", "sat"]),
        (VERSES, "line", ["国破山河在", "城春草木深", "感时花溅泪", "恨别鸟惊心"]),
        ("Well, it is: fine .", "line", ["Well", "it is", "fine"]),
        ("", "line", []),
        ("。", "character", []),
    ],
)
def test_units(text: str, unit: str, expected: list[str]):
    assert shown(text, unit) == expected


@given(st.text("春江 a\n，.x9", max_size=40), st.sampled_from(["character", "word", "line"]))
def test_a_span_is_one_of_the_candidates_and_never_changes(text: str, unit: str):
    span = hide(text, unit)
    assert span == hide(text, unit)
    assert (span is None) == (candidates(text, unit) == [])
    if span is not None:
        assert span in candidates(text, unit)
        assert text[slice(*span)].strip() == text[slice(*span)] != ""


def test_every_place_comes_up_and_the_seed_decides():
    spans = {hide(VERSES, "character", seed) for seed in range(300)}
    assert spans == set(candidates(VERSES, "character"))


def test_a_filling_question_restores_the_record():
    record = {"title": "春望[MASK]", "lines": VERSES.split("\n")}
    for unit in ("character", "word", "line"):
        asked = question(load_task(f"poem_{unit}"), record, "x:1")
        assert asked.before + asked.answer + asked.after == f"春望[ MASK]\n{VERSES}"
        assert asked != question(load_task(f"poem_{unit}"), record, "x:1", seed=5)
    nothing = question(load_task("fill_word"), {"text": "3.14"}, "x:1")
    assert (nothing.before, nothing.answer) == ("3.14", "")
