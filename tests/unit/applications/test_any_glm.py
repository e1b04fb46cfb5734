"""The calls that understand texts work with every vocabulary of GLM, and in half precision."""

from __future__ import annotations

import pytest

import glmkit
from glmkit.errors import DataError

REVIEWS = ["很快，好吃。", "The room was clean, and quiet at night.", "", "[MASK] <|endofpiece|> x"]
CONTEXT = "凯旋门位于米兰市，高25米。It is in Milan."


def use(glm: glmkit.GLM) -> None:
    """Uses each call once, Chinese and English in one batch."""
    if glm.tokenizer.kind == "bert":  # an English vocabulary: 好 and 差 are the same unknown token
        with pytest.raises(DataError, match="two are the same in this vocabulary"):
            glm.sentiment(REVIEWS)
    language = "en" if glm.tokenizer.kind == "bert" else None
    for found in glm.sentiment(REVIEWS, language=language):
        assert sum(found.probabilities.values()) == pytest.approx(1)
    assert set(glm.classify(REVIEWS[0], labels=["food", "体育"]).probabilities) == {"food", "体育"}
    for question in ("门在哪里？", "Where is it?"):
        found = glm.answer(question, CONTEXT, no_answer=None)
        assert CONTEXT[found.start : found.end] == found.text != ""
        assert glm.answer(question, CONTEXT, mode="free", max_new_tokens=3).score > 0
    assert all(glm.summarize(REVIEWS[:2], max_new_tokens=3, num_beams=2))


def test_every_vocabulary(golden):
    use(glmkit.load(golden.path, device="cpu"))


def test_half_precision(golden):
    use(glmkit.load(golden.path, device="cpu", dtype="bfloat16"))
