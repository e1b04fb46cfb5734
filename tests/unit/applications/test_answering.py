"""Answers: spans at their exact places, long contexts by windows, nothing where there is nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import glmkit
from glmkit.errors import GenerationError, UserError
from glmkit.generation import spans
from glmkit.generation.choices import score_choices
from glmkit.generation.spans import spans_from
from understanding_samples import CONTEXT, random_glm

QUESTION = "凯旋门在哪里？"


@pytest.fixture(scope="module")
def loaded() -> glmkit.GLM:
    return random_glm(192)


def test_the_answer_is_the_likeliest_span_by_both_patterns(loaded: glmkit.GLM, monkeypatch):
    monkeypatch.setattr(spans, "MAX_NODES", 10_000)  # random weights make all spans about alike
    found = loaded.answer(QUESTION, CONTEXT, no_answer=None)
    assert CONTEXT[found.start : found.end] == found.text == str(found)
    prompts = [
        f"{CONTEXT}\n问：{QUESTION}\n答：[MASK]",
        f"阅读下文，回答问题：{QUESTION}\n{CONTEXT}\n答案是[MASK]。",
    ]
    scores = score_choices(loaded.model, loaded.tokenizer, prompts, [found.text])
    assert math.log(found.score) == pytest.approx(np.mean(scores), rel=1e-4)
    # No span that is likely by the first pattern is better by both.
    texts = list({CONTEXT[a:b] for a, ends in spans_from(CONTEXT, 60).items() for b in ends})
    first, second = score_choices(loaded.model, loaded.tokenizer, prompts, [texts, texts])
    likely = np.argsort(-first)[:4]
    assert texts[likely[(first + second)[likely].argmax()]] == found.text


def test_one_question_many_contexts_and_the_other_way_round(loaded: glmkit.GLM):
    one = loaded.answer(QUESTION, CONTEXT)
    assert loaded.answer([QUESTION, "高多少？"], CONTEXT)[0] == one
    assert loaded.answer(QUESTION, [CONTEXT, "别的。"])[0] == one
    assert loaded.answer([QUESTION], [CONTEXT]) == [one]
    assert loaded.answer([], CONTEXT) == []


@pytest.mark.parametrize("mode", ["span", "free"])
def test_empty_and_odd_contexts(loaded: glmkit.GLM, mode: str):
    for context in ("", " \n", "。！", "😀", "[MASK] <|endofpiece|> [gMASK]", "\ud800x"):
        found = loaded.answer(QUESTION, context, mode=mode)
        assert (found.start == -1) == (found.end == -1)
        if mode == "span":
            assert found.text == (context[found.start : found.end] if found.start >= 0 else "")
    assert loaded.answer("", CONTEXT, mode=mode).text is not None
    english = loaded.answer("Where is it?", CONTEXT[-38:], mode=mode, no_answer=None)
    assert english.text


@settings(max_examples=15, deadline=None)
@given(st.text(alphabet="凯旋门米兰1807年 ab.，。\n（）", max_size=80))
def test_offsets_are_exact_whatever_the_context(context: str):
    found = random_glm(192).answer("在哪里？", context, no_answer=None)
    assert found.text == (context[found.start : found.end] if found.start >= 0 else "")


def test_a_long_context_is_read_in_windows(loaded: glmkit.GLM):
    context = "".join(f"第{number}座门高{number}米，在米兰。" for number in range(700))
    assert len(context) > 10_000
    found = loaded.answer(QUESTION, context[:1500], no_answer=None)
    assert context[found.start : found.end] == found.text != ""
    free = loaded.answer(QUESTION, context, mode="free", max_new_tokens=2, num_beams=1)
    assert free.start == -1 or context[free.start : free.end] == free.text


def test_no_answer_below_the_threshold(loaded: glmkit.GLM):
    found = loaded.answer(QUESTION, CONTEXT, no_answer=None)
    assert 0 < found.score < 1
    threshold = min(1.0, found.score * 2)
    nothing = loaded.answer(QUESTION, CONTEXT, no_answer=None, no_answer_threshold=threshold)
    assert (nothing.text, nothing.start, nothing.end) == ("", -1, -1)
    assert nothing.score == found.score
    kept = loaded.answer(QUESTION, CONTEXT, no_answer=None, no_answer_threshold=found.score / 2)
    assert kept == found


def test_no_answer_where_an_empty_blank_is_likelier(loaded: glmkit.GLM):
    """The random model prefers an empty blank; what it would have answered still counts in the score."""
    found = loaded.answer(QUESTION, CONTEXT, no_answer=None)
    [scores] = score_choices(
        loaded.model, loaded.tokenizer, [f"{CONTEXT}\n问：{QUESTION}\n答：[MASK]"], ["", found.text]
    )
    assert scores[0] > scores[1]
    assert loaded.answer(QUESTION, CONTEXT) == glmkit.Answer("", found.score, -1, -1)
    assert loaded.answer(QUESTION, CONTEXT, no_answer="凯旋门" * 9) == found


def test_a_free_answer_takes_decoding_settings(loaded: glmkit.GLM):
    found = loaded.answer(QUESTION, CONTEXT, mode="free", max_new_tokens=3, num_beams=1)
    written = loaded.fill(f"{CONTEXT}\n问：{QUESTION}\n答：[MASK]", max_new_tokens=3)
    assert found.text == written.blanks[0]
    assert found.score == pytest.approx(math.exp(written.scores[0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "b"], ["c"]), "2 questions were given for 1 contexts"),
        (("a", 3), "a text or a list of texts is needed, not int 3"),
        ((["a"], [3]), "must be strings, not int"),
        (("门" * 400, "c"), "question 1: it has .* tokens.*shorten the question"),
    ],
)
def test_what_does_not_match_is_named(loaded: glmkit.GLM, arguments: tuple, message: str):
    with pytest.raises(UserError, match=message):
        loaded.answer(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "spans"}, "mode='spans' must be"),
        ({"no_answer_threshold": 2}, "must be between 0 and 1"),
        ({"num_beams": 3}, "they need mode='free'"),
        ({"mode": "free", "beams": 3}, "unknown decoding setting 'beams'"),
    ],
)
def test_settings_are_checked(loaded: glmkit.GLM, options: dict, message: str):
    with pytest.raises(GenerationError, match=message):
        loaded.answer(QUESTION, CONTEXT, **options)
