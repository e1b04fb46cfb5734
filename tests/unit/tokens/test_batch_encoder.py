"""Encoding by segments: the ids are those of the tokenizer, for every text."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare_samples import CharacterTokenizer
from tokenizer_samples import SENTENCES

from glmkit.tokens import batch_encoder
from glmkit.tokens.batch_encoder import BatchEncoder
from glmkit.tokens.train import train_tokenizer

TEXTS = [
    *SENTENCES,
    "春江潮水连海平，海上明月共潮生。\n滟滟随波千万里，何处春江无月明！",
    "哈哈哈哈，哈哈。The banana, bananas and an anagram; 1234 tokens in 2024.",
    "用填空的方式学习语言：Blank infilling 把文本中的片段挖去，again and again。",
]
DATA = Path(__file__).parents[4] / "shared" / "data"
KINDS = ("unigram", "bpe", "wordpiece")


@pytest.fixture(scope="module")
def tokenizers():
    return {kind: train_tokenizer(iter(TEXTS), 600, kind) for kind in KINDS}


def check(tokenizer, texts: list[str], encoder: BatchEncoder | None = None) -> None:
    ids, lengths = (encoder or BatchEncoder(tokenizer))(texts)
    special = tokenizer.special_ids
    found = [one.tolist() for one in np.split(ids, np.cumsum(lengths)[:-1])] if texts else []
    expected = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"] if texts else []  # fmt: skip
    assert found == [[special.cls, *one, special.eos] for one in expected]


@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_are_the_tokenizers(tokenizers, kind):
    encoder = BatchEncoder(tokenizers[kind])
    assert (encoder._cutter is not None) == (kind != "wordpiece")
    odd = [
        "",
        " ",
        "  a  b \n\n",
        "哈哈哈哈哈",
        "a" * 100,
        "中" * 70,
        "[MASK]<|endoftext|>",
        "\ud800x",
        "𠮷野家 👩‍👧",
        "ǅ１２３",
    ]
    for batch in (TEXTS, odd, TEXTS[::-1], []):
        check(tokenizers[kind], batch, encoder)


@pytest.fixture(scope="module")
def encoders(tokenizers):
    return {kind: BatchEncoder(tokenizers[kind]) for kind in ("unigram", "bpe")}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.text(alphabet="哈中文 a b\n。，!1é𠮷\ud800", max_size=60) | st.text(max_size=40),
        max_size=5,
    )
)
def test_any_text(tokenizers, encoders, texts):
    for kind, encoder in encoders.items():
        check(tokenizers[kind], texts, encoder)


def test_tables_that_are_too_small(tokenizers, monkeypatch):
    """Segments that find no place, and tables that are emptied between batches, cost time, not ids."""
    monkeypatch.setattr(batch_encoder, "_SLOTS", 64)
    monkeypatch.setattr(batch_encoder, "_PAIRS", 2**22)
    monkeypatch.setattr(batch_encoder, "MAX_SEGMENTS", 20)
    encoder = BatchEncoder(tokenizers["unigram"])
    for _ in range(2):
        check(tokenizers["unigram"], TEXTS, encoder)


def test_other_tokenizers_go_the_ordinary_way():
    encoder = BatchEncoder(CharacterTokenizer())
    ids, lengths = encoder(["ab", ""])
    assert lengths.tolist() == [4, 2]
    assert ids[-2:].tolist() == [
        CharacterTokenizer.special_ids.cls,
        CharacterTokenizer.special_ids.eos,
    ]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not here")
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_real_texts(kind):
    texts = []
    for name in ("wiki_zh", "wiki_en", "articles_zh", "poems"):
        with gzip.open(DATA / f"{name}.train.jsonl.gz", "rt", encoding="utf-8") as lines:
            for _, line in zip(range(20_000), lines, strict=False):
                record = json.loads(line)
                texts.append(record.get("text") or "\n".join(record["lines"]))
    tokenizer = train_tokenizer(iter(texts[:2000]), 4000, kind)
    encoder = BatchEncoder(tokenizer)
    for start in range(0, len(texts), 1000):
        check(tokenizer, texts[start : start + 1000], encoder)
