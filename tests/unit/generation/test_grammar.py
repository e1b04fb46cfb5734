"""Regular expressions, schemas and grammars against random logits: what is written matches, in every vocabulary."""

from __future__ import annotations

import functools
import json
import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("llguidance")

from conftest import VARIANTS, golden_folder
from glmkit import GLMTokenizer
from glmkit.errors import GenerationError, MissingDependencyError
from glmkit.generation.constraints import Constraint
from glmkit.generation.grammar import Grammar, JsonSchema, Regex
from glmkit.generation.infill import fill
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.spelling import spelling_of

SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["ann", "bob"]}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
    "required": ["name", "age"],
    "additionalProperties": False,
}  # fmt: skip
_tokenizers: dict = {}


def vocabulary(name: str):
    if name not in _tokenizers:
        _tokenizers[name] = GLMTokenizer.from_pretrained(golden_folder(name).path)
    return _tokenizers[name]


def write(limit: Constraint, end: int, seed: int, most: int = 40) -> tuple[list[int], bool]:
    """Writes a blank of random allowed tokens; returns it and whether it ended, which short texts do soon."""
    random = np.random.default_rng(seed)
    tokens: list[int] = []
    while len(tokens) < most:
        ids = limit.allowed(tokens)
        assert ids is not None
        assert len(ids), tokens
        if end in ids and random.random() < 0.5:
            return tokens, True
        ids = ids[ids != end]
        if not len(ids):
            return tokens, True
        tokens.append(int(random.choice(ids)))
    return tokens, False


def text_of(tokenizer, tokens: list[int]) -> str:
    return tokenizer.decode(tokens, skip_special_tokens=True).strip()


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(
    "pattern",
    [
        r"[0-9]{4}",
        r"(cat|dog|a bird)( and (cat|dog))*",
        r"[a-z ]{3,12}",
        r"(yes|no), (yes|no)\.",
        r"(?s:.){2,9}",
        r".{0,6}the.{0,3}",
        r"[^a-z]{1,6}",
    ],
)
def test_a_regex_is_kept_in_every_vocabulary(name: str, pattern: str):
    tokenizer = vocabulary(name)
    limit = Regex(tokenizer, pattern)
    assert isinstance(limit, Constraint)
    ended = 0
    for seed in range(6):
        tokens, whole = write(limit, tokenizer.eop_token_id, seed)
        text = text_of(tokenizer, tokens)
        assert not whole or re.fullmatch(pattern, text), (text, tokens)
        ended += whole
    assert ended > 1


@pytest.mark.parametrize("name", ["tiny-chinese", "tiny-gpt2", "tiny-roberta"])
@pytest.mark.parametrize(
    "pattern", [r"[0-9]{4}年[0-9]{1,2}月", "(北京|上海)，?(猫|狗){1,2}", r"\p{Han}{2,5}"]
)
def test_chinese_is_written_whole_where_tokens_are_bytes_too(name: str, pattern: str):
    tokenizer = vocabulary(name)
    limit = Regex(tokenizer, pattern)
    python = pattern.replace(r"\p{Han}", r"[^\W\d_a-z]")
    for seed in range(4):
        tokens, whole = write(limit, tokenizer.eop_token_id, seed)
        assert whole
        assert re.fullmatch(python, text_of(tokenizer, tokens)), tokens


@pytest.mark.parametrize("name", VARIANTS)
def test_a_schema_is_kept(name: str):
    tokenizer = vocabulary(name)
    limit = JsonSchema(tokenizer, SCHEMA)
    for seed in range(4):
        tokens, whole = write(limit, tokenizer.eop_token_id, seed)
        text = text_of(tokenizer, tokens)
        found = json.loads(text)
        assert whole
        assert text == json.dumps(found)
        assert set(found) == {"name", "age"}
        assert found["name"] in ("ann", "bob")
        assert 0 <= found["age"] <= 150


def test_strings_in_json_are_read_back():
    tokenizer = vocabulary("tiny-chinese")
    limit = JsonSchema(tokenizer, {"type": "array", "items": {"type": "string", "maxLength": 6}, "maxItems": 3})  # fmt: skip
    for seed in range(6):
        tokens, whole = write(limit, tokenizer.eop_token_id, seed)
        assert not whole or all(len(one) <= 6 for one in json.loads(text_of(tokenizer, tokens)))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_grammar_is_kept(name: str):
    tokenizer = vocabulary(name)
    limit = Grammar(tokenizer, 'start: noun (" and " noun)*\nnoun: "a dog" | "the " /cat|bird/')
    for seed in range(4):
        tokens, whole = write(limit, tokenizer.eop_token_id, seed)
        noun = "(a dog|the (cat|bird))"
        text = text_of(tokenizer, tokens)
        assert not whole or re.fullmatch(f"{noun}( and {noun})*", text), text


@functools.cache
def risky(name: str) -> np.ndarray:
    """Returns ids whose text is cleaned up beside others: apostrophes, full stops, spaces."""
    texts = [b"", b"'", b"n", b"t", b"s", b"v", b"e", b".", b",", b"?", b"'s", b"n't"]
    return np.flatnonzero([one.strip(b" ") in texts for one in spelling_of(vocabulary(name)).later])


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.sampled_from(VARIANTS), st.integers(0, 10_000))
def test_text_only_grows_behind_what_breaks_nothing(name: str, seed: int):
    """The text of tokens is what decoding makes of them, however they are mixed."""
    tokenizer = vocabulary(name)
    spelling = spelling_of(tokenizer)
    random = np.random.default_rng(seed)
    tokens: list[int] = []
    for _ in range(6):
        usable = (spelling.usable if tokens else spelling.usable_first).copy()
        usable[spelling.breaking(tokens)] = False
        few = risky(name)[usable[risky(name)]]
        ids = few if len(few) and random.random() < 0.8 else np.flatnonzero(usable)
        tokens.append(int(random.choice(ids)))
        text = spelling.text(tokens).decode("utf-8", "replace")
        assert text.strip() == text_of(tokenizer, tokens), tokens


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
    year, schema = Regex(tokenizer, "[0-9]{4}"), JsonSchema(tokenizer, SCHEMA)
    texts = ["[MASK]年，[MASK]。", "很长的一句话，说的是[MASK]", "x[MASK]"]
    limits = [[year, schema], year, None]
    chosen = DecodingSettings(max_new_tokens=24, **decoding)
    together = fill(model, tokenizer, texts, chosen, constraints=limits)
    assert re.fullmatch("[0-9]{4}", together[0].blanks[0])
    assert json.loads(together[0].blanks[1])["name"] in ("ann", "bob")
    assert re.fullmatch("[0-9]{4}", together[1].blanks[0])
    for text, limit, result in zip(texts, limits, together, strict=True):
        (alone,) = fill(model, tokenizer, [text], chosen, constraints=[limit])
        assert alone.blanks == result.blanks


def test_what_does_not_match_cannot_be_continued():
    tokenizer = vocabulary("tiny-chinese")
    limit = Regex(tokenizer, "[0-9]{4}")
    assert len(limit.allowed([5])) == 0
    assert len(limit.allowed([5, 6])) == 0
    assert len(limit.allowed([])) > 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda t: Regex(t, "(a"), r"(?s)regex='\(a' cannot be used.*unclosed group"),
        (lambda t: Regex(t, "a(?=b)"), "no look-around"),
        (lambda t: Regex(t, 3), "must be a string"),
        (lambda t: Regex(t, "\ud83d"), "half of a surrogate pair"),
        (lambda t: Regex(t, "龘"), "matches no text that this vocabulary can write"),
        (lambda t: Regex(t, r"a \."), "matches no text"),
        (lambda t: Regex(t, "a "), "matches no text"),
        (lambda t: JsonSchema(t, "{"), "is not JSON"),
        (lambda t: JsonSchema(t, 3), "must be a JSON object"),
        (lambda t: JsonSchema(t, {"type": "thing"}), "Invalid type: thing"),
        (lambda t: JsonSchema(t, {"not": {}}), "Unimplemented keys"),
        (lambda t: Grammar(t, 'start: "a'), "grammar cannot be used"),
        (lambda t: Grammar(t, 3), "must be a string in Lark's form"),
        (lambda t: Grammar(t, 'start: "\ud83d"'), "half of a surrogate pair"),
    ],
)
def test_mistakes_are_named(build, message: str):
    with pytest.raises(GenerationError, match=message) as caught:
        build(vocabulary("tiny-chinese"))
    assert len(str(caught.value)) < 500


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingDependencyError, match=r"glmkit\[control\]"):
        Regex(vocabulary("tiny-chinese"), "a")
