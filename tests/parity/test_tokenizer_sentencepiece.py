"""The Rust tokenizer of the Chinese vocabulary against the sentencepiece library: real text, then all of Unicode.

Real text: no difference. Unicode: differences only where SentencePiece's own table is incomplete, see
`test_random_unicode_differs_only_in_the_order_or_composition_of_marks`.
"""

from __future__ import annotations

import gzip
import json
import random
import unicodedata
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from conftest import golden_folder
from glmkit.tokens.tokenizer import GLMTokenizer

sentencepiece = pytest.importorskip("sentencepiece")

FAST_SAMPLE = {
    "poems.train": 60_000,
    "topics.train": 20_000,
    "dialogues.train": 18_000,
    "sentiment.train": 6_000,
    "qa.train": 300,
    "summaries.valid": 196,
    "wiki_zh.train": 400,
    "wiki_en.valid": 12,
    "articles_zh.valid": 27,
}
"""Strings taken from each corpus: more than 100,000 in all."""


@pytest.fixture(scope="module")
def folder() -> Path:
    return golden_folder("tiny-chinese").path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> GLMTokenizer:
    # SentencePiece knows no special tokens, so their strings are plain text here
    return GLMTokenizer.from_pretrained(folder, split_special_tokens=True)


@pytest.fixture(scope="module")
def reference(folder: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(str(folder / "cog-pretrain.model"))


def strings(value: object) -> Iterator[str]:
    """Yields all strings of a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def read(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield from strings(json.loads(line))


def ids_of(tokenizer: GLMTokenizer, texts: list[str]) -> list[list[int]]:
    encodings = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def test_a_hundred_thousand_lines_of_real_text(
    tokenizer: GLMTokenizer, reference, shared_data: Path
) -> None:
    texts = [
        text
        for name, count in FAST_SAMPLE.items()
        for text in islice(read(shared_data / f"{name}.jsonl.gz"), count)
    ]
    assert len(texts) >= 100_000
    assert ids_of(tokenizer, texts) == reference.encode(texts)


@pytest.mark.slow
def test_all_real_text(tokenizer: GLMTokenizer, reference, shared_data: Path) -> None:
    for path in sorted(shared_data.glob("*.jsonl.gz")):
        texts = read(path)
        while batch := list(islice(texts, 50_000)):
            assert ids_of(tokenizer, batch) == reference.encode(batch), path.name


def test_decoding_of_any_ids(tokenizer: GLMTokenizer, reference) -> None:
    rng = random.Random(0)
    for _ in range(5000):
        # ▁, <unk>, the two control pieces, <n>, then anything
        ids = [
            rng.choice((43358, 0, 1, 2, 3, rng.randrange(50000))) for _ in range(rng.randint(0, 8))
        ]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == reference.decode(ids)


def test_every_single_character(tokenizer: GLMTokenizer, reference) -> None:
    """Only U+0344 differs: Unicode decomposes it to two marks, SentencePiece's table does not compose these."""
    texts = [f"a{chr(c)}b" for c in range(0x30000) if not 0xD800 <= c < 0xE000]
    got, expected = ids_of(tokenizer, texts), reference.encode(texts)
    different = [text for text, a, b in zip(texts, got, expected, strict=True) if a != b]
    assert set(different) <= {"a\u0344b"}


def test_random_unicode_differs_only_in_the_order_or_composition_of_marks(
    tokenizer: GLMTokenizer, reference
) -> None:
    """Where several marks follow each other, NFC sorts them as Unicode demands; SentencePiece's table composes what
    is next to each other and sorts nothing. Likewise a final consonant after a compatibility Hangul syllable is
    composed. A text in either normal form has neither, so no corpus above shows it.
    """
    rng = random.Random(0)
    assigned = [
        chr(c)
        for c in range(1, 0x30000)
        if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) != "Cn"
    ]
    marks = [c for c in assigned if unicodedata.category(c)[0] == "M"]
    spaces = [c for c in assigned if unicodedata.category(c)[0] in "CZ" and ord(c) < 0xE000]
    compatible = [c for c in assigned if unicodedata.normalize("NFKC", c) != c]
    pools = (assigned, marks, spaces, compatible, [c for c in assigned if ord(c) < 0x500])
    texts = [
        "".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, 6)))
        for _ in range(20_000)
    ]
    got, expected = ids_of(tokenizer, texts), reference.encode(texts)
    different = [text for text, a, b in zip(texts, got, expected, strict=True) if a != b]
    assert len(different) < len(texts) * 0.003
    for text in different:
        composed = sum(
            unicodedata.category(c)[0] == "M" for c in unicodedata.normalize("NFKD", text)
        )
        hangul = any("HANGUL" in unicodedata.name(c, "") for c in text)
        assert composed >= 2 or hangul, ascii(text)
