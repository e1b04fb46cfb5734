"""The search among all spans, against all spans scored one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glmkit.errors import GenerationError
from glmkit.generation import spans as module
from glmkit.generation.choices import score_choices
from glmkit.generation.prompts import build_prompt
from glmkit.generation.spans import SpanSearch, spans_from
from glmkit.tokens.blanked import encode_plain

TEXT = "凯旋门位于米兰市（意大利）。1807年为纪念拿破仑而建，高25米。It is near Milan's castle."


def all_spans(text: str, max_units: int) -> list[str]:
    return list({text[a:b] for a, ends in spans_from(text, max_units).items() for b in ends})


@pytest.mark.parametrize("max_units", [1, 6])
def test_the_search_finds_what_scoring_all_spans_finds(golden, monkeypatch, max_units: int):
    """In every vocabulary, each span spelled as an answer by itself."""
    monkeypatch.setattr(module, "MAX_NODES", 10_000)  # random weights make all spans about alike
    from glmkit import GLMForConditionalGeneration, GLMTokenizer

    tokenizer = GLMTokenizer.from_pretrained(golden.path)
    model = GLMForConditionalGeneration.from_pretrained(golden.path, dtype="float32").eval()
    prompt = build_prompt(tokenizer, f"{TEXT}\n问：门在哪里？\n答： [MASK]", 128)
    # Texts that a vocabulary cannot tell apart (BERT's: capitals, unknown characters) are one answer.
    texts = list(
        {tuple(encode_plain(tokenizer, one)): one for one in all_spans(TEXT, max_units)}.values()
    )
    [scores] = score_choices(model, tokenizer, [prompt], texts)
    best = np.sort(scores)[::-1][:5]
    found = SpanSearch(model, tokenizer, prompt, TEXT, max_units).best(5)
    np.testing.assert_allclose([one.log_probability for one in found], best, rtol=1e-4)
    for span in found:
        text = TEXT[span.start : span.end]
        [[alone]] = score_choices(model, tokenizer, [prompt], [text])
        assert alone == pytest.approx(span.log_probability, rel=1e-4)
        places = [a for a, ends in spans_from(TEXT, max_units).items() if a + len(text) in ends]
        assert span.start == min(place for place in places if TEXT.startswith(text, place))


def test_a_search_that_is_cut_short_still_answers(glm, monkeypatch):
    monkeypatch.setattr(module, "MAX_NODES", 3)
    model, tokenizer = glm
    prompt = build_prompt(tokenizer, f"{TEXT}[MASK]", 128)
    for span in SpanSearch(model, tokenizer, prompt, TEXT).best(3):
        assert TEXT[span.start : span.end] in all_spans(TEXT, 60)


def test_any_contents_are_scored_on_what_the_search_has_read(glm, monkeypatch):
    """Before a search and after it, known beginnings or none; the search finds what it finds without."""
    monkeypatch.setattr(module, "MAX_NODES", 40)
    model, tokenizer = glm
    prompt = build_prompt(tokenizer, f"{TEXT}[MASK]", 128)
    search = SpanSearch(model, tokenizer, prompt, TEXT)
    contents = ["", "凯旋门", "米兰市", "no idea", "意大利意大利"]
    before = [search.log_probability(one) for one in contents]
    found = search.best(3)
    contents += [TEXT[one.start : one.end] for one in found]
    after = [search.log_probability(one) for one in contents]
    [scores] = score_choices(model, tokenizer, [prompt], contents)
    np.testing.assert_allclose(after, scores, rtol=1e-4)
    np.testing.assert_allclose(before, scores[: len(before)], rtol=1e-4)
    expected = SpanSearch(model, tokenizer, prompt, TEXT).best(3)
    assert [(one.start, one.end) for one in found] == [(one.start, one.end) for one in expected]
    with pytest.raises(GenerationError, match="a blank of this model holds"):
        search.log_probability("门" * 2000)


def test_no_spans_no_answer(glm):
    model, tokenizer = glm
    prompt = build_prompt(tokenizer, "[MASK]", 128)
    for text in ("", " \n", "，。！"):
        assert SpanSearch(model, tokenizer, prompt, text).best(2) == []


def test_spans_are_whole_words_within_a_sentence():
    found = set(all_spans(TEXT, 4))
    assert {"米兰", "1807年", "（意大利", "意大利）", "25米", "Milan", "near Milan"} <= found
    assert not {"180", "ilan", "市（", "）。", "利）。1807", "，高", "castle."} & found


@settings(max_examples=100)
@given(st.text(max_size=60), st.integers(1, 8))
def test_spans_of_any_text_lie_in_it(text: str, max_units: int):
    for start, ends in spans_from(text, max_units).items():
        assert ends == sorted(set(ends))
        assert 0 <= start < ends[0] <= ends[-1] <= len(text)
        for end in ends:
            assert text[start:end].strip() == text[start:end] != ""
