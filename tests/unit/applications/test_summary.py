"""Summaries: never empty, of the wished length, of texts of any length."""

from __future__ import annotations

import pytest

import glmkit
from glmkit.errors import GenerationError
from understanding_samples import CONTEXT, TEXTS, random_glm

FAST = {"max_new_tokens": 6, "num_beams": 1}


@pytest.fixture(scope="module")
def loaded() -> glmkit.GLM:
    return random_glm()


def test_it_is_what_fills_the_catalogs_pattern(loaded: glmkit.GLM):
    found = loaded.summarize(TEXTS[0], max_new_tokens=5, num_beams=1, no_repeat_ngram_size=0)
    assert found == loaded.fill(f"{TEXTS[0]}\n概括上文：[sMASK]", max_new_tokens=5).blanks[0]
    english = loaded.summarize(TEXTS[2], max_new_tokens=5, num_beams=1, no_repeat_ngram_size=0)
    assert english == loaded.fill(f"{TEXTS[2]}\nIn short: [sMASK]", max_new_tokens=5).blanks[0]


def test_many_are_as_one_by_one_and_only_nothing_gives_nothing(loaded: glmkit.GLM):
    texts = [*TEXTS, " \n", "。", "😀"]
    many = loaded.summarize(texts, batch_size=3, **FAST)
    assert [bool(one) for one in many] == [bool(text.strip()) for text in texts]
    assert many == [loaded.summarize(text, **FAST) for text in texts]
    assert loaded.summarize([]) == []


@pytest.mark.parametrize("beams", [1, 3])
def test_limits_are_kept_exactly(loaded: glmkit.GLM, beams: int):
    for low, high in ((None, 4), (6, 9), (12, None)):
        for found in loaded.summarize(
            TEXTS[:3], min_characters=low, max_characters=high, num_beams=beams, max_new_tokens=24
        ):
            assert (low or 1) <= len(found) <= (high or 10**6)


@pytest.mark.parametrize("unit", [CONTEXT, "好" * 1000, "It is near the old castle. "])
def test_a_long_text_is_summarised_by_parts_and_the_limit_holds_at_the_end(
    loaded: glmkit.GLM, unit: str
):
    text = (unit * (3000 // len(unit) + 1))[:3000]
    found = loaded.summarize([text, TEXTS[0]], max_characters=7, max_new_tokens=4, num_beams=1)
    assert 1 <= len(found[0]) <= 7
    assert found[1] == loaded.summarize(TEXTS[0], max_characters=7, max_new_tokens=4, num_beams=1)


def test_what_cannot_be_is_named(loaded: glmkit.GLM):
    with pytest.raises(GenerationError, match="text 1 must be a string, not int"):
        loaded.summarize([3])
    with pytest.raises(GenerationError, match="minimum=9"):
        loaded.summarize("文", min_characters=9, max_characters=3)
    with pytest.raises(GenerationError, match="unknown decoding setting"):
        loaded.summarize("文", length=3)
