"""Training a vocabulary: nothing is lost, the same corpus gives the same vocabulary, words stay apart."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizer_samples import SENTENCES

from glmkit.errors import DataError, TokenizerError
from glmkit.special_tokens import MASKS
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.tokens.train import measure, train_from_files, train_tokenizer

KINDS = ("unigram", "bpe", "wordpiece")
CORPUS = [
    *SENTENCES,
    "春眠不觉晓，处处闻啼鸟。\n夜来风雨声，花落知多少？",
    "In 2023,  they didn't go…\tIt's 3.14!",
    "<0x41> is not a byte, [UNK] not a word.",
] * 3
_rng = random.Random(0)
_WORDS = [
    "".join(_rng.choices(letters, k=_rng.randint(2, 6)))
    for letters in ("天地日月山水人风花雪", "abcdefghij") * 300
]
VARIED = ["，".join(_rng.choices(_WORDS, k=8)) + "。" for _ in range(300)]
"""Enough different words for a vocabulary of any size that the tests ask for."""
WITHOUT_SURROGATES = st.text(st.characters(exclude_categories=("Cs",)))
AWKWARD = st.sampled_from(
    [" ", "  ", "\n", "\t", "\r\n", "a", "今", "'s", "<0x41>", "##", "＃＃", "▁", "[UNK]", "[MASK]"]
    + ["<|endoftext|>", "\u0301", "\u200d", "🎉", "\0", "\ufffd", "。", "！！", "2023", "ﷺ", "\U00020000"]
)  # fmt: skip


@cache
def trained(kind: str, vocab_size: int = 700) -> GLMTokenizer:
    return train_tokenizer(CORPUS, vocab_size, kind)


def plain(tokenizer: GLMTokenizer, text: str, **options: object) -> list[int]:
    return tokenizer(text, add_special_tokens=False, **options)["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(text=st.one_of(WITHOUT_SURROGATES, st.lists(AWKWARD | WITHOUT_SURROGATES).map("".join)))
@example("  leading, and trailing  \n")
@example("\u2581\u00a0\u3000\u2028\x85\x1c")
def test_no_text_is_lost(kind: str, text: str) -> None:
    tokenizer = trained(kind)
    assert tokenizer.decode(plain(tokenizer, text)) == text
    assert tokenizer.decode(plain(tokenizer, text, split_special_tokens=True)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_no_character_of_unicode_is_lost(kind: str) -> None:
    tokenizer = trained(kind)
    characters = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    texts = ["".join(characters[i : i + 500]) for i in range(0, len(characters), 500)]
    texts = texts[::7]  # every seventh block keeps the test short
    for text, ids in zip(
        texts, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True
    ):
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_behind_the_learned_ones(kind: str) -> None:
    tokenizer = trained(kind)
    special = tokenizer.special_ids
    ids = (special.cls, special.eos, special.mask, special.smask, special.gmask)
    ids += (special.sop, special.eop, special.block)
    assert len(set(ids)) == 8
    assert min(ids) >= tokenizer.vocab_size
    assert max(ids) == len(tokenizer) - 1
    assert special.pad == special.eos
    assert tokenizer.kind == "glmkit"
    text = "今天[MASK]，[sMASK]a [gMASK]"
    encoded = tokenizer.encode(text)
    assert (encoded[0], encoded[-1]) == (special.cls, special.eos)
    assert [i for i in encoded if i in special.masks] == tokenizer.mask_token_ids
    assert tokenizer.decode(encoded[1:-1]) == text
    assert tokenizer.decode(encoded, skip_special_tokens=True) == "今天，a "
    assert tokenizer.clean_up_tokenization_spaces is False


@pytest.mark.parametrize("kind", KINDS)
def test_special_strings_as_plain_text_give_no_special_id(kind: str) -> None:
    tokenizer = trained(kind)
    for text in (*MASKS, "<|endoftext|>", "[UNK]", "[CLS][dBLOCK]"):
        ids = plain(tokenizer, text, split_special_tokens=True)
        assert max(ids) < tokenizer.vocab_size
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("kind", KINDS)
def test_saving_changes_nothing(kind: str, tmp_path: Path) -> None:
    tokenizer = trained(kind)
    tokenizer.save_pretrained(tmp_path)
    again = GLMTokenizer.from_pretrained(tmp_path)
    assert again.fingerprint() == tokenizer.fingerprint()
    assert again.special_ids == tokenizer.special_ids
    assert again.kind == "glmkit"
    for text in CORPUS:
        ids = tokenizer.encode(text)
        assert again.encode(text) == ids
        assert again.decode(ids) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_do_not_cross_words(kind: str) -> None:
    corpus = [
        f"{word}。\n天地！ the end?\nthe end. 12 12" for word in ("天地", "山水", "风花") * 20
    ]
    tokenizer = train_tokenizer(corpus, 800, kind)
    text = "天地。\n天地！ the end?\nthe end. 12 12"
    pieces = [tokenizer.decode([i]) for i in plain(tokenizer, text)]
    words = ["天地", "。", "\n", "天地", "！", " the", " end", "?", "\n", "the", " end", "."]
    words += [" ", "1", "2", " ", "1", "2"]
    # every word begins with a new token and ends with the end of one
    assert "".join(pieces) == text
    ends = set(itertools.accumulate(map(len, pieces)))
    assert ends >= set(itertools.accumulate(map(len, words)))
    if kind != "unigram":  # which may find that two short tokens are more likely than one long
        assert pieces == words


def test_frequent_chinese_words_and_characters_become_tokens() -> None:
    for kind in KINDS:
        tokenizer = train_tokenizer(["我们在北京大学。我们去北京！"] * 20, 1000, kind)
        pieces = [tokenizer.decode([i]) for i in plain(tokenizer, "我们去北京。")]
        assert "。" in pieces
        assert len(pieces) <= 4, (kind, pieces)


def test_rare_characters_fall_back_to_their_bytes() -> None:
    tokenizer = trained("bpe")
    tokens = tokenizer.convert_ids_to_tokens(plain(tokenizer, "龘"))
    assert tokens == ["<0xE9>", "<0xBE>", "<0x98>"]
    report = measure(tokenizer, ["龘今"])
    assert (report.documents, report.characters, report.tokens, report.byte_tokens) == (1, 2, 4, 3)
    assert report.characters_per_token == 0.5
    assert report.byte_token_ratio == 0.75
    assert "0.500 characters per token" in str(report)


SCRIPT = """
import sys, json
from glmkit.tokens.train import train_tokenizer
corpus = json.loads(sys.stdin.read())
for kind in ("unigram", "bpe", "wordpiece"):
    print(train_tokenizer(corpus, 1200, kind).fingerprint())
"""


@pytest.mark.slow
def test_the_same_corpus_gives_the_same_vocabulary_in_every_process() -> None:
    """The library's hash maps have another order in each process."""
    corpus = json.dumps([text[i:] for text in CORPUS for i in range(3)] + VARIED)
    runs = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            input=corpus,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel},
        ).stdout
        for seed, parallel in (("1", "true"), ("2", "false"))
    }
    assert len(runs) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_vocab_size_is_reached_exactly_where_the_corpus_allows(kind: str) -> None:
    assert len(train_tokenizer(VARIED, 600, kind)) == 600


def test_a_small_corpus_gives_fewer_tokens_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    for kind in KINDS:
        tokenizer = train_tokenizer(["a"], 5000, kind)
        assert len(tokenizer) < 600
        assert f"only {len(tokenizer)} tokens" in caplog.text
        assert tokenizer.decode(plain(tokenizer, "b a\n")) == "b a\n"


def test_only_evenly_spread_texts_are_learned_from() -> None:
    texts = [f"{'天地' if i % 8 == 0 else '日月'}。" for i in range(800)]
    tokenizer = train_tokenizer(iter(texts), 400, "bpe", max_characters=300)
    # every eighth text is kept, so the other word is never seen
    assert "日" not in tokenizer.get_vocab()
    assert "天地" in tokenizer.get_vocab()


def test_one_long_text_is_sampled_too() -> None:
    text = "天地。" * 20_000 + "日月。" * 20_000
    vocab = train_tokenizer([text], 400, "bpe", max_characters=30_000).get_vocab()
    assert {"天地", "日月"} <= set(vocab)


@pytest.mark.parametrize("kind", KINDS)
def test_odd_corpora_are_no_problem(kind: str) -> None:
    for corpus in (["\0"], ["\ud800z"], [" a"], ["", "x", ""], ["x" * 2000], ["中" * 2000]):
        tokenizer = train_tokenizer(corpus, 800, kind)
        assert tokenizer.decode(plain(tokenizer, "\0z")) == "\0z"


@pytest.mark.parametrize("corpus", [[], [""], [" \n"], iter(())])
def test_an_empty_corpus_is_an_error(corpus) -> None:
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(corpus, 1000)


@pytest.mark.parametrize(("kind", "fewest"), [("unigram", 282), ("bpe", 282), ("wordpiece", 538)])
def test_too_small_a_size_names_the_smallest(kind: str, fewest: int) -> None:
    with pytest.raises(TokenizerError, match=f"at least {fewest}"):
        train_tokenizer(CORPUS, fewest - 1, kind)
    tokenizer = train_tokenizer(VARIED, fewest, kind)
    assert fewest - 2 <= len(tokenizer) <= fewest  # Unigram leaves out what it never needs
    assert tokenizer.decode(plain(tokenizer, CORPUS[0])) == CORPUS[0]


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(TokenizerError, match="did you mean 'wordpiece'"):
        train_tokenizer(CORPUS, 1000, "wordpeice")  # type: ignore[arg-type]


def test_training_from_files(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in VARIED)
    (tmp_path / "b.txt").write_text("纯文本。\n", encoding="utf-8")
    report = train_from_files(
        [tmp_path / "a.jsonl.gz", tmp_path / "b.txt"], tmp_path / "out", 600, "bpe"
    )
    tokenizer = GLMTokenizer.from_pretrained(tmp_path / "out")
    assert report.vocab_size == len(tokenizer) == 600
    assert report.documents == len(VARIED) + 1
    assert report.characters_per_token > 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_very_long_text_takes_linear_time(kind: str) -> None:
    tokenizer = trained(kind)
    for text in ("今", "a", " ", "!", "\u0301", "\n"):
        assert tokenizer.decode(plain(tokenizer, text * 50_000)) == text * 50_000
