"""Poems by random models and adversarial logits: every one keeps its form."""

from __future__ import annotations

import numpy as np
import pytest

from glmkit import Poem, check_poem
from glmkit.applications.poetry.alphabet import Alphabet, alphabet
from glmkit.applications.poetry.constraint import PoemConstraint
from glmkit.applications.poetry.forms import find_form, forms
from glmkit.applications.poetry.sounds import sounds
from glmkit.errors import GenerationError
from glmkit.generation import infill
from glmkit.generation.results import Filled
from poem_samples import poem_tokenizer, random_glm


@pytest.fixture(scope="module")
def glm():
    return random_glm()


def write(constraint: PoemConstraint, end: int, seed: int) -> list[int]:
    """Writes with what would break most: for odd seeds always the same favourites, for some the fewest-choice path."""
    rng = np.random.default_rng(seed)
    favourites, tokens = rng.normal(size=20_000), []
    while True:
        following = constraint.allowed(tokens)
        assert len(following), "a dead end"
        taste = favourites if seed % 2 else rng.normal(size=20_000)
        token = int(following[taste[following].argmax()])
        if token == end:
            return tokens
        tokens.append(token)
        assert len(tokens) < constraint.num_tokens


@pytest.mark.parametrize("rhyme", ["modern", "pingshui"])
def test_every_form_is_kept_under_any_logits(rhyme: str):
    tokenizer = poem_tokenizer()
    for form in forms().values():
        characters = alphabet(tokenizer, sounds(rhyme, form.tune))
        for seed in range(4):
            constraint = PoemConstraint(characters, form)
            tokens = write(constraint, characters.end, seed)
            assert len(tokens) + 1 == constraint.num_tokens
            text = tokenizer.decode(tokens)
            assert check_poem(text, form.name, rhyme=rhyme) == [], text
            assert text.splitlines() == form.lines("".join(c for c in text if c not in "，。、\n"))


def test_the_rarest_rhyme_does_not_run_dry():
    """Favourites are the smallest groups' characters: a rhyme that cannot be completed must never begin."""
    tokenizer, form = poem_tokenizer(), find_form("七律")
    characters = Alphabet(tokenizer, sounds("pingshui"))
    for size, key in enumerate(sorted(characters.rhymes), start=1):
        characters.rhymes[key] = characters.rhymes[key][:size]  # of one character, of two …
    taste = np.zeros(20_000)
    for ids in characters.rhymes.values():
        taste[ids] = 1000 - len(ids)
    constraint, tokens = PoemConstraint(characters, form), []
    while (following := constraint.allowed(tokens)).tolist() != [characters.end]:
        tokens.append(int(following[taste[following].argmax()]))
    assert check_poem(tokenizer.decode(tokens), "七律", rhyme="pingshui") == []


def test_what_cannot_be_continued_has_no_continuation():
    tokenizer = poem_tokenizer()
    characters = alphabet(tokenizer, sounds("modern"))
    constraint = PoemConstraint(characters, find_form("五绝"), {0: "春", 1: "眠"})
    assert constraint.allowed([]).tolist() == tokenizer("春", add_special_tokens=False)["input_ids"]
    wrong = tokenizer("秋", add_special_tokens=False)["input_ids"]
    assert constraint.allowed(wrong).tolist() == []
    assert constraint.allowed([*range(100)]).tolist() == []
    free = PoemConstraint(characters, find_form("五绝"))
    comma = tokenizer("，", add_special_tokens=False)["input_ids"]
    assert free.allowed(comma).tolist() == []
    assert free.allowed(write(free, characters.end, 0) + comma).tolist() == []


def test_a_poem_of_each_kind_by_a_model(glm):
    poem = glm.poem("春江花月夜", seed=1)
    assert isinstance(poem, Poem)
    assert (poem.title, poem.form, len(poem.lines)) == ("春江花月夜", "七言绝句", 2)
    assert check_poem(poem) == []
    assert str(poem) == "\n".join(["春江花月夜 · 七言绝句", *poem.lines])
    for form, options in {
        "浣溪沙": {"rhyme": "pingshui"},
        "rumengling": {"num_beams": 2},
        "quatrain-5": {"do_sample": False},
        "wulü": {"tones": False, "top_p": 1.0},
    }.items():
        poem = glm.poem("", form, candidates=1, seed=2, **options)
        strict = {"rhyme": options.get("rhyme", "modern"), "tones": options.get("tones", True)}
        assert check_poem(poem, **strict) == []


def test_batch_equals_one_by_one_and_seeds_repeat(glm):
    titles = ["春", "一个很长的题目，有标点 and English", ""]
    together = glm.poem(titles, "五绝", seed=5, candidates=2)
    assert together == [glm.poem(title, "五绝", seed=5, candidates=2) for title in titles]
    assert glm.poem([], "五绝") == []
    assert glm.poem("春", "五绝", seed=6) != glm.poem("春", "五绝", seed=5)
    assert glm.poem("春", "五绝") != glm.poem("春", "五绝")  # without a seed each call draws one


def test_more_candidates_are_likelier_or_have_the_keywords(glm):
    from glmkit.applications.poetry import writing

    scores = []
    poem, draw = writing._poem, infill.draw

    def recorded(*arguments, **options):
        [drawn] = draw(*arguments, **options)
        scores.append([one.scores[0] for one in drawn])
        return [drawn]

    infill.draw = recorded
    try:
        glm.poem("春", "五绝", seed=5, candidates=4)
        glm.poem("春", "五绝", seed=5, candidates=1)
    finally:
        infill.draw = draw
    assert len(set(scores[0])) == 4  # candidates really differ
    assert scores[0][0] == pytest.approx(scores[1][0], rel=1e-4)
    drawn = [
        Filled("", ["春眠不觉晓处处闻啼鸟夜来风雨声花落知多少"], [-99.0]),
        Filled("", ["白日依山尽黄河入海流欲穷千里目更上一层楼"], [-9.0]),
    ]
    form = find_form("五绝")
    assert poem("", form, drawn, []).lines[0].startswith("白日")
    assert poem("", form, drawn, ["风雨"]).lines[0].startswith("春眠")


def test_first_line_and_acrostic_are_kept(glm):
    poem = glm.poem("早发", first_line="朝辞白帝彩云间，", seed=1, rhyme="pingshui")
    assert poem.lines[0].startswith("朝辞白帝彩云间，")
    assert check_poem(poem, rhyme="pingshui") == []
    both = "朝辞白帝彩云间，千里江陵一日还。"
    assert glm.poem("", first_line=both, seed=1, rhyme="pingshui").lines[0] == both
    poem = glm.poem("", "七绝", acrostic="春江花月", seed=1)
    assert check_poem(poem, acrostic="春江花月") == []
    assert [line[0] for line in glm.poem("", "七绝", acrostic="花月", seed=1).lines] == ["花", "月"]
    eight = glm.poem("", "七律", acrostic="白日依山尽黄河入", seed=1, rhyme="pingshui")
    assert check_poem(eight, rhyme="pingshui", acrostic="白日依山尽黄河入") == []


def test_rare_and_traditional_characters_may_be_given(glm):
    """𠮷 and 鬱 are bytes in this vocabulary; they stand where they are given."""
    poem = glm.poem("𠮷祥", "七绝", acrostic="𠮷鬱東春", seed=3)
    assert "".join(verse[0] for line in poem.lines for verse in line.split("，")) == "𠮷鬱東春"
    assert check_poem(poem) == []


def test_rhyme_with_a_character(glm):
    for system in ("modern", "pingshui"):
        group = sounds(system).sure("秋").group
        poem = glm.poem("秋", "五律", rhyme=system, rhyme_with="秋", seed=4, candidates=1)
        assert sounds(system).sure(poem.lines[0][-2]).group == group


@pytest.mark.parametrize(
    "title", ["", " \n ", "春" * 10_000, "[MASK]<|endofpiece|>[gMASK]", "Spring", "😀\ud800"]
)
def test_odd_titles(glm, title: str):
    poem = glm.poem(title, "五绝", candidates=1, seed=1)
    assert poem.title == title
    assert check_poem(poem) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "十四行诗"}, "no form '十四行诗'"),
        ({"acrostic": "春江花"}, "must be 2 or 4 Chinese characters"),
        ({"acrostic": "abcd"}, "must be 2 or 4 Chinese characters"),
        ({"first_line": "白日依山尽"}, "5 Chinese characters; whole verses of a 七言绝句 have 7, 14, 21, 28"),
        ({"first_line": "平平平平平平平", "rhyme": "pingshui"}, "does not fit the tones.*tones=False"),
        ({"first_line": "朝辞白帝彩云间", "acrostic": "春江花月"}, "'朝' where the acrostic has '春'"),
        ({"max_new_tokens": 9}, "max_new_tokens: the form of a poem decides"),
        ({"no_repeat_ngram_size": 2}, "the form of a poem decides"),
        ({"candidates": 0}, "candidates=0 must be at least 1"),
        ({"rhyme": "old"}, "rhyme='old'"),
        ({"rhyme_with": "A"}, "not enough characters for the rhymes.*'A'"),
        ({"colour": 1}, "unknown decoding setting 'colour'"),
        ({"form": "如梦令", "acrostic": "一二三四五六七"}, "repeats the one before"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused(glm, options: dict, message: str):
    with pytest.raises(GenerationError, match=message):
        glm.poem("春", **options)


def test_a_first_line_that_leaves_no_rhyme_is_refused(glm):
    with pytest.raises(GenerationError, match="does not rhyme there"):
        glm.poem("", first_line="朝辞白帝彩云间，千里江陵一日红。", rhyme="pingshui")


def test_models_that_are_too_small_or_write_no_chinese_say_so():
    with pytest.raises(GenerationError, match="takes 68 tokens, this model writes at most 39"):
        random_glm(positions=40).poem("春", "七律")
    from glmkit.tokens.train import train_tokenizer

    english = random_glm()
    english.tokenizer = train_tokenizer(["the quick brown fox " * 9], 300)
    with pytest.raises(GenerationError, match="has 0 single Chinese characters"):
        english.poem("Spring")


def test_only_strings_are_titles(glm):
    with pytest.raises(GenerationError, match="must be a string, not int"):
        glm.poem([3])
