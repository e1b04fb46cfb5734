"""Words that must and must not be written, lengths, and all together: kept under random logits, in every vocabulary."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import VARIANTS, golden_folder
from glmkit import GLMTokenizer
from glmkit.errors import GenerationError
from glmkit.generation.constraints import All, Choices, Constraint, Length, Room
from glmkit.generation.infill import fill, stream
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.words import Exclude, Include

WORDS = ("cat", "new york", "the", "s", "t", "sun", "1", "a", "北京", "猫", "n", "re")


@functools.cache
def vocabulary(name: str):
    return GLMTokenizer.from_pretrained(golden_folder(name).path)


@functools.cache
def risky(name: str) -> np.ndarray:
    """Returns ids of spaces, apostrophes, letters and full stops, which are cleaned up or make words with others."""
    tokenizer = vocabulary(name)
    texts = tokenizer.backend_tokenizer.decode_batch([[index] for index in range(len(tokenizer))])
    return np.flatnonzero([len(text.strip(" #")) < 2 for text in texts])


def write(limit: Constraint, tokenizer, seed: int, most: int, ends: float = 0.5) -> str:
    """Writes a blank of random allowed tokens until it ends, or is cut off behind `most`."""
    random, end = np.random.default_rng(seed), tokenizer.eop_token_id
    likely = risky(tokenizer.kind and "tiny-" + tokenizer.kind)
    tokens: list[int] = []
    while len(tokens) < most:
        ids = limit.allowed(tokens)
        assert ids is not None
        assert len(ids), (tokens, tokenizer.decode(tokens))
        if end in ids and (random.random() < ends or len(ids) == 1):
            break
        ids = ids[ids != end]
        few = np.intersect1d(ids, likely, assume_unique=True)
        tokens.append(int(random.choice(few if len(few) and random.random() < 0.7 else ids)))
    return tokenizer.decode(tokens, skip_special_tokens=True).strip()


def spelled(tokenizer, words, room: Room) -> Include | None:
    """Returns the constraint, or None where this vocabulary cannot write a word or there is no room."""
    try:
        return Include(tokenizer, words, room)
    except GenerationError:
        return None


@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    st.sampled_from(VARIANTS),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True),
    st.integers(2, 12),
    st.integers(0, 10_000),
)
def test_words_are_included_however_little_room_there_is(name: str, words, most: int, seed: int):
    tokenizer = vocabulary(name)
    limit = spelled(tokenizer, words, Room(tokens=most))
    if limit is not None:
        text = write(limit, tokenizer, seed, most)
        assert all(word in text for word in words), text


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    st.sampled_from(VARIANTS),
    st.lists(st.sampled_from([*WORDS, "a.", "n't", "'s", ", ", "it's"]), min_size=1, max_size=3),
    st.integers(0, 10_000),
)
def test_words_are_excluded(name: str, words, seed: int):
    tokenizer = vocabulary(name)
    text = write(Exclude(tokenizer, words), tokenizer, seed, 12, ends=0.1)
    assert not any(word in text for word in words), text


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    st.sampled_from(VARIANTS),
    st.sampled_from(["cat", "the", "sun", "猫"]),
    st.sampled_from(["do", "x", "q", "ing"]),
    st.integers(6, 14),
    st.integers(0, 10_000),
)
def test_words_and_lengths_together(name: str, word: str, other: str, most: int, seed: int):
    tokenizer = vocabulary(name)
    if spelled(tokenizer, [word], Room(whole=True)) is None:
        return
    limit = Include(tokenizer, word) & Exclude(tokenizer, other) & Length(tokenizer, 4, most)
    text = write(limit.within(Room(tokens=20)), tokenizer, seed, 20)
    assert word in text
    assert other not in text
    assert len(text) <= most


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-roberta"])
def test_lines_are_counted(name: str):
    tokenizer = vocabulary(name)
    limit, end = Length(tokenizer, 2, 3, "lines"), tokenizer.eop_token_id
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in ("a\n", "a\nb", "a\nb\nc")]
    assert [end in limit.allowed(one) for one in ids] == [False, True, True]
    [line_end] = tokenizer.encode("\n", add_special_tokens=False)
    assert [line_end in limit.allowed(one) for one in ids] == [True, True, False]
    one = Length(tokenizer, 0, 1, "lines")
    assert all("\n" not in write(one, tokenizer, seed, 20, ends=0.1) for seed in range(3))


def test_a_regex_knows_of_words_and_lengths():
    """Joined, they have no dead ends: no character is written behind which the word would not fit."""
    pytest.importorskip("llguidance")
    from glmkit.generation.grammar import Regex

    tokenizer = vocabulary("tiny-chinese")
    letters = (
        Regex(tokenizer, "[a-z]+") & Include(tokenizer, "cat") & Exclude(tokenizer, ["ab", "e"])
    )
    limit = letters & Length(tokenizer, 5, 6) & Regex(tokenizer, "[^b]+")
    for seed in range(5):
        text = write(limit, tokenizer, seed, 30)
        assert 5 <= len(text) <= 6
        assert "cat" in text
        assert not set("be") & set(text)
    with pytest.raises(
        GenerationError, match=r"regex='\[0-9\]\+' with the other constraints matches no text"
    ):
        All(Regex(tokenizer, "[0-9]+"), Include(tokenizer, "cat"))


@pytest.mark.parametrize(
    "decoding",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"do_sample": True, "seed": 3, "temperature": 3.0},
        {"num_beams": 3},
    ],
)
def test_several_blanks_batches_and_beams(glm, decoding: dict):
    model, tokenizer = glm
    beijing, no_city = Include(tokenizer, "北京"), Exclude(tokenizer, ["北京", "市"])
    texts = ["[MASK]和[MASK]。", "说的是[MASK]", "x[MASK]"]
    limits = [[beijing, no_city], beijing & Length(tokenizer, 0, 5), None]
    chosen = DecodingSettings(max_new_tokens=6, **decoding)
    together = fill(model, tokenizer, texts, chosen, constraints=limits)
    assert "北京" in together[0].blanks[0]
    assert "北京" not in together[0].blanks[1]
    assert "北京" in together[1].blanks[0]
    assert len(together[1].blanks[0]) <= 5
    for text, limit, result in zip(texts, limits, together, strict=True):
        (alone,) = fill(model, tokenizer, [text], chosen, constraints=[limit])
        assert alone.blanks == result.blanks
    greedy = DecodingSettings(max_new_tokens=6)
    assert "北京" in "".join(stream(model, tokenizer, "去[MASK]", greedy, beijing))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda t: Include(t, []), "at least one word"),
        (lambda t: Exclude(t, ["a", ""]), "none of them empty"),
        (lambda t: Include(t, " a"), "no space around it"),
        (lambda t: Exclude(t, "a\ud83d"), "exclude='a.ud83d' has half of a surrogate pair"),
        (lambda t: Include(t, "龘"), "cannot be written in this vocabulary"),
        (lambda t: Include(t, "a ."), "cannot be written in this vocabulary"),
        (lambda t: Include(t, "北京").within(Room(tokens=0)), "takes 1 tokens"),
        (lambda t: Include(t, "北京") & Length(t, 0, 1), "takes 2 characters"),
        (lambda t: Include(t, "北京") & Exclude(t, "京"), "include='北京' holds exclude='京'"),
        (lambda t: Length(t, 2, 3, "lines"), "no end of line"),
        (lambda t: Length(t, 2, 3, "words"), "must be tokens, characters or lines"),
    ],
)
def test_mistakes_are_named(build, message: str):
    with pytest.raises(GenerationError, match=message):
        build(vocabulary("tiny-chinese"))


def test_and_is_all():
    tokenizer = vocabulary("tiny-chinese")
    both = Choices.of_texts(tokenizer, ["北京", "上海"]) & Include(tokenizer, "京")
    assert isinstance(both, All)
    assert write(both, tokenizer, 0, 5) == "北京"
