"""Articles: lengths, windows beyond one context, no loops, outlines, and what is given stays as it is."""

from __future__ import annotations

import pytest

import glmkit
from conftest import golden_folder
from glmkit.applications.article import _Writer, is_title
from glmkit.errors import GenerationError
from glmkit.generation.settings import DecodingSettings
from glmkit.tokens.blanked import encode_plain


@pytest.fixture(scope="module")
def loaded() -> glmkit.GLM:
    return glmkit.load(golden_folder("tiny-chinese").path, device="cpu")


@pytest.mark.parametrize("text", ["长城", "The Great Wall", "长城是世界奇迹。它"])
def test_an_article_begins_with_what_was_given_and_keeps_to_its_length(loaded, text: str):
    article = loaded.article(text, max_characters=50, min_characters=20, seed=1)
    assert article.startswith(text)
    written = article.removeprefix(text).lstrip("\n")
    assert 20 <= len(written) <= 50
    pieces = loaded.article(text, max_characters=50, min_characters=20, seed=1, stream=True)
    assert "".join(pieces).rstrip() == article
    assert article != loaded.article(text, max_characters=50, min_characters=20, seed=2)


def test_it_goes_on_beyond_one_context_without_loops(loaded: glmkit.GLM):
    """A model that repeats itself in every window writes on, far beyond its positions, without repeating itself."""
    positions = loaded.model.config.max_sequence_length
    settings = {"do_sample": False, "max_characters": 600, "min_characters": 500}
    looping = loaded.article("今天", no_repeat_ngram_size=0, max_new_tokens=40, **settings)
    article = loaded.article("今天", no_repeat_ngram_size=3, max_new_tokens=40, **settings)

    def distinct(text: str) -> float:
        tokens = encode_plain(loaded.tokenizer, text)
        assert len(tokens) > 1.2 * positions
        trigrams = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
        return len(set(trigrams)) / len(trigrams)

    assert distinct(looping) < 0.9
    assert distinct(article) > 0.97  # a text may have more than one way to be cut into tokens


def test_windows_keep_the_opening_and_the_last_sentences(loaded: glmkit.GLM):
    writer = _Writer(loaded.model, loaded.tokenizer, DecodingSettings())
    sentences = [f"这是第{number}句话。" for number in range(300)]
    for mask, following in (("[gMASK]", ""), ("[sMASK]", "\n以后\n将来")):
        prompt = writer._prompt("题目\n", "".join(sentences), mask, following)
        assert prompt.parts[0].startswith("题目\n这是第")  # a whole sentence after the opening
        assert prompt.parts[0].endswith("这是第299句话。")
        assert prompt.parts[1] == following
        limit = writer.positions // 2
        assert limit - 12 <= len(prompt.ids) <= limit + 2
        assert len(prompt.mask_indices) == 1
    without_an_end = writer._prompt("", "字" * 5000, "[gMASK]", "")
    assert writer.positions // 2 - 12 <= len(without_an_end.ids) <= writer.positions // 2 + 2


def test_an_outline_has_a_paragraph_under_each_heading(loaded: glmkit.GLM):
    headings = ["起源", "建筑", "[gMASK] <|endofpiece|>"]
    article = loaded.article("长城", outline=headings, max_characters=90, seed=3)
    lines = article.split("\n")
    places = [lines.index(heading) for heading in headings]
    assert lines[0] == "长城"
    assert places == sorted(places)
    bodies = [
        "\n".join(lines[start + 1 : stop])
        for start, stop in zip(places, [*places[1:], len(lines)], strict=True)
    ]
    assert all(0 < len(body) <= 31 for body in bodies)


def test_blanks_of_a_text_are_filled_and_nothing_else(loaded: glmkit.GLM):
    text = "北京很大。[sMASK]我喜欢[MASK]。"
    settings = {"do_sample": False, "no_repeat_ngram_size": 0, "max_new_tokens": 5}
    assert loaded.article(text, **settings) == loaded.fill(text, max_new_tokens=5).text
    with pytest.raises(GenerationError, match="an outline, or a text with blanks"):
        loaded.article(text, outline=["a"])


def test_several_are_as_one_by_one(loaded: glmkit.GLM):
    texts = ["长城", "", "Paris", "x <|endofpiece|> [CLS]", "字" * 10_000]
    together = loaded.article(texts, max_characters=30, seed=1)
    assert together == [loaded.article(text, max_characters=30, seed=1) for text in texts]
    for text, article in zip(texts, together, strict=True):
        assert article.startswith(text)
        assert len(text) < len(article) <= len(text) + 31
    assert loaded.article([], seed=1) == []


@pytest.mark.parametrize(
    ("text", "title"),
    [("长城", True), ("The Great Wall", True), ("", False), ("长城很长。", False), ("Really?", False),
     ("长城\n很长", False), ("字" * 61, False), ("  1.5 米 ", True), ("他说：“好。”", False)],
)  # fmt: skip
def test_titles_are_short_lines_that_end_no_sentence(text: str, title: bool):
    assert is_title(text) == title


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_characters": 0}, "max_characters=0 must be at least 1"),
        ({"min_characters": 900}, "min_characters=900 between 0 and it"),
        ({"num_beams": 2, "do_sample": False}, "num_beams=1"),
        ({"outline": [3]}, "every heading, must be a string"),
        ({"nonsense": 3}, "unknown decoding setting 'nonsense'"),
    ],
)
def test_impossible_wishes_are_refused(loaded: glmkit.GLM, arguments: dict, words: str):
    with pytest.raises(GenerationError, match=words):
        loaded.article("长城", **arguments)
    with pytest.raises(GenerationError, match="takes one text"):
        loaded.article(["长城"], stream=True)
