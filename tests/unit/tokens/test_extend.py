"""Words become tokens; all other text is encoded and decoded as before."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tokenizer_samples import SENTENCES

from conftest import golden_folder
from glmkit.errors import TokenizerError
from glmkit.tokens.extend import add_words, find_words, read_words, word_ids
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.tokens.train import train_tokenizer

WORDS = ["新冠肺炎", "糖化血红蛋白", "CRISPR"]
TEXTS = [
    "新冠肺炎患者使用CRISPR技术。",
    "a CRISPR test",
    "CRISPR",
    "糖尿病的糖化血红蛋白 升高\n糖化血红蛋白",
    "[MASK]糖化血红蛋白[gMASK]新冠肺炎",
]
KINDS = ("tiny-chinese", "tiny-gpt2", "tiny-roberta")


@pytest.fixture(
    scope="module",
    params=[
        "tiny-chinese",
        pytest.param("tiny-gpt2", marks=pytest.mark.slow),
        "tiny-roberta",
        "bpe",
        "unigram",
        "wordpiece",
    ],
)
def old(request) -> GLMTokenizer:
    if request.param in KINDS:
        return GLMTokenizer.from_pretrained(golden_folder(request.param).path)
    return train_tokenizer(SENTENCES * 5, 700, request.param)


@pytest.fixture(scope="module")
def grown(old):
    """The tokenizer with the words, and what each was before."""
    return add_words(old, WORDS)


def test_words_are_tokens_and_texts_come_back(old, grown):
    new, sources = grown
    assert [new.convert_ids_to_tokens(index) for index in sources] == WORDS
    assert min(sources) >= len(old)
    for index, word in zip(sources, WORDS, strict=True):
        assert sources[index] == word_ids(old, word)
    for text in TEXTS:
        ids = new(text)["input_ids"]
        expected = sum(text.count(word) for word in WORDS)
        if old.kind in ("gpt2", "roberta"):  # Latin words are found between spaces and punctuation
            expected -= len(re.findall(r"(?<=\w)CRISPR", text))
        assert sum(ids.count(index) for index in sources) == expected
        assert new.decode(ids) == old.decode(old(text)["input_ids"])


def test_text_without_the_words_is_encoded_as_before(old, grown):
    new, _ = grown
    texts = [*SENTENCES, "  two  spaces\n\nand lines ", "", " ", "新冠", "[MASK] 蛋白[sMASK]"]
    if old.kind != "glmkit":
        recorded = golden_folder(f"tiny-{old.kind}").json["tokenizer"]
        # the name of the reserved token becomes a token, as in a trained vocabulary
        texts += [case["text"] for case in recorded if "[dBLOCK]" not in case["text"]]
    for text in texts:
        assert new(text) == old(text)
        ids = old(text)["input_ids"]
        assert new.decode(ids) == old.decode(ids)
        assert new.decode(ids, skip_special_tokens=True) == old.decode(
            ids, skip_special_tokens=True
        )


def test_special_tokens_keep_their_ids_and_nothing_is_lost_on_disk(old, grown, tmp_path):
    new, _ = grown
    assert new.special_ids == old.special_ids
    assert new.kind == old.kind
    new.save_pretrained(tmp_path)
    again = GLMTokenizer.from_pretrained(tmp_path)
    assert again.fingerprint() == new.fingerprint() != old.fingerprint()
    assert again.special_ids == old.special_ids
    for text in TEXTS:
        ids = new(text)["input_ids"]
        assert again(text)["input_ids"] == ids
        assert again.decode(ids) == new.decode(ids)


def test_more_words_later_are_as_good_as_all_at_once(old, grown):
    at_once, _ = grown
    later, _ = add_words(add_words(old, WORDS[:2])[0], WORDS[2:])
    for text in [*TEXTS, *SENTENCES]:
        assert later(text) == at_once(text)


def test_words_that_are_tokens_already_are_left_out(old):
    new, sources = add_words(old, ["。", "CRISPR", "CRISPR"])
    assert len(sources) == len(new) - len(add_words(old, [])[0]) == 1


def test_a_piece_that_only_stands_inside_texts_is_a_token_already():
    """At the start of a text the space symbol takes its first character: `▁网`, `游`."""
    old = GLMTokenizer.from_pretrained(golden_folder("tiny-chinese").path)
    assert len(old.tokenize("网游")) == 2
    new, sources = add_words(old, ["网游", "糖化血红蛋白"])
    assert list(sources) == [len(new) - 1]


def test_english_words_are_not_found_inside_others():
    old = GLMTokenizer.from_pretrained(golden_folder("tiny-bert").path)
    new, sources = add_words(old, ["CRISPR"])
    [index] = sources
    assert new("CRISPR, crispr.")["input_ids"].count(index) == 2
    assert new("CRISPRs")["input_ids"] == old("CRISPRs")["input_ids"]
    with pytest.raises(TokenizerError, match="no space"):
        add_words(old, ["新冠"])


def test_mistakes(old):
    with pytest.raises(TokenizerError, match=r"4 words cannot be added: 'a b', '', 'x\\x00', 'yyy"):
        add_words(old, ["a b", "", "x\0", "y" * 33, "fine"])


def test_frequent_words_are_found(old):
    """The word stands in every second text, among characters drawn by chance."""
    rng = np.random.default_rng(0)
    common = [chr(0x4E00 + 7 * i) for i in range(300)]
    texts = [
        "".join(rng.choice(common, 5)) + "糖化血红蛋白" * (i % 2) + "".join(rng.choice(common, 5))
        for i in range(400)
    ]
    found = find_words(old, texts, 5)
    assert "糖化血红蛋白" in found
    assert all(len(word_ids(old, word)) > 1 for word in found)
    new, _ = add_words(old, found)
    assert len(new(texts[1])["input_ids"]) < len(old(texts[1])["input_ids"])


def test_files_of_words(tmp_path):
    (tmp_path / "words.txt").write_text("\ufeff新冠肺炎\n\n CRISPR \n", encoding="utf-8")
    assert read_words(tmp_path / "words.txt") == ["新冠肺炎", "CRISPR"]
    (tmp_path / "empty.txt").touch()
    for name in ("empty.txt", "absent.txt"):
        with pytest.raises(TokenizerError, match=name):
            read_words(tmp_path / name)
