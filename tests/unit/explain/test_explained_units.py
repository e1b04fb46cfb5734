"""Units: characters of several tokens are one, words of several tokens are one, nothing of a text is lost or doubled."""

from __future__ import annotations

from functools import cache

import pytest

from conftest import VARIANTS, golden_folder
from glmkit import GLMTokenizer
from glmkit.explain.units import (
    NOWHERE,
    encode_pieces_with_spans,
    encode_with_spans,
    group,
    shown,
    token_text,
    unit_of,
)
from glmkit.generation.prompts import split_at_blanks
from glmkit.tokens.blanked import encode_pieces
from understanding_samples import random_glm

TEXTS = (
    "好吃，[MASK]龘了 [sMASK]。",
    " The international [MASK] room\nwas <|endofpiece|> [CLS] 好[gMASK]",
    "[MASK][MASK]",
    "naïve 𠮷野家 100km",
)


@cache
def load(name: str):
    if name == "trained":
        return random_glm().tokenizer
    return GLMTokenizer.from_pretrained(golden_folder(name).path)


@pytest.fixture(params=[*VARIANTS, "trained"])
def tokenizer(request):
    return load(request.param)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_prompts_and_spans_are_their_characters(tokenizer, text):
    pieces = split_at_blanks(tokenizer, text)
    ids, spans = encode_pieces_with_spans(tokenizer, pieces)
    assert ids == encode_pieces(tokenizer, pieces)
    masks = set(tokenizer.special_ids.masks)
    for index, span in zip(ids, spans, strict=True):
        assert (span == NOWHERE) == (index in masks)
        word = tokenizer.decode([index]).strip()
        if word.isalpha() and word.isascii() and tokenizer.kind != "bert":
            assert word in "".join(pieces)[slice(*span)]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("grouping", ["word", "token"])
def test_units_share_no_character_and_cut_none(tokenizer, text, grouping):
    pieces = split_at_blanks(tokenizer, text)
    joined = "".join(pieces)
    _, spans = encode_pieces_with_spans(tokenizer, pieces)
    units = group(spans, joined, grouping)
    assert all(end <= start for (_, end), (start, _) in zip(units, units[1:], strict=False))
    for start, end in set(spans) - {NOWHERE}:
        number = unit_of((start, end), units)
        assert units[number][0] <= start
        assert end <= units[number][1]


def test_a_character_of_several_tokens_is_one_unit():
    tokenizer = random_glm().tokenizer
    text = "好𠮷吃龘"
    ids, spans = encode_with_spans(tokenizer, text)
    assert len(ids) > 4
    assert [text[a:b] for a, b in group(spans, text, "token")] == list(text)


def test_a_word_is_one_unit_and_chinese_tokens_are_words():
    tokenizer = random_glm().tokenizer
    text = "The staff were 很快 2024年"
    _, spans = encode_with_spans(tokenizer, text)
    words = [text[a:b].strip() for a, b in group(spans, text, "word")]
    assert [word for word in words if word] == ["The", "staff", "were", *"很快", "2024", "年"]
    tokens = group(spans, text, "token")
    assert len(tokens) > len(words)


def test_what_is_shown_is_visible():
    assert [shown(text) for text in (" a", "\n", " ", "")] == ["a", "↵", "␣", ""]
    tokenizer = random_glm().tokenizer
    byte = tokenizer.convert_tokens_to_ids("<0xF0>")
    assert token_text(tokenizer, byte) == "<0xF0>"
    assert token_text(tokenizer, tokenizer.special_ids.eop) == "<|endofpiece|>"
    assert token_text(tokenizer, tokenizer.convert_tokens_to_ids("好")) == "好"
