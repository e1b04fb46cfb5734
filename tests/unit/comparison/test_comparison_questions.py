"""Questions of all tasks: the same for all models of a seed, mistakes in files said with their line."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest

from glmkit import GLMTokenizer
from glmkit.comparison.questions import blanks, continuations, labelled
from glmkit.comparison.settings import (
    ClassificationSettings,
    GenerationSettings,
    InfillingSettings,
)
from glmkit.errors import DataError
from glmkit.tokens.store import TokenStore
from integration.pretrain_samples import write_prepared


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def store(prepared):
    return TokenStore.open(prepared / "train")


def whole(question) -> list[int]:
    right = [] if question.right is None else question.right.tolist()
    return [*question.left.tolist(), *question.answer.tolist(), *right]


def test_a_blank_lies_inside_a_part_of_a_text(store):
    documents = {tuple(store.document(i)[:-1].tolist()) for i in range(len(store))}
    settings = InfillingSettings(shortest=2, longest=4)
    sizes = set()
    for question in islice(blanks(store, settings, 24, 1), 200):
        text = whole(question)
        sizes.add(len(question.answer))
        assert len(text) <= 24
        assert question.left[0] == store.document(0)[0]
        assert len(question.left) > 1
        assert len(question.right) > 0
        assert any(_contains(one, text[1:]) for one in documents)
    assert sizes == {2, 3, 4}


def _contains(text, part) -> bool:
    return any(list(text[i : i + len(part)]) == part for i in range(len(text)))


def test_a_continuation_is_the_end_of_its_text(store):
    for question in islice(continuations(store, GenerationSettings(length=5), 16, 1), 100):
        assert len(question.answer) == 5
        assert question.right is None
        assert len(whole(question)) <= 16
        assert len(question.left) >= 2


def test_a_seed_decides_and_all_texts_come_before_one_comes_again(store):
    settings = GenerationSettings(length=3)

    def first(seed, count=40):
        return [whole(one) for one in islice(continuations(store, settings, 16, seed), count)]

    assert first(1) == first(1)
    assert first(1) != first(2)
    enough = int(np.sum(np.diff(store.offsets) - 2 >= 7))
    assert first(1, enough + 5)[:enough] == first(1, enough)


def test_texts_that_are_too_short_are_refused(store):
    with pytest.raises(DataError, match="no text has the 1002 tokens"):
        next(blanks(store, InfillingSettings(longest=1000), 2000, 1))


def write(path, records) -> tuple[str]:
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return (str(path),)


@pytest.mark.parametrize(
    ("train", "valid", "message"),
    [
        ([{"txt": "a", "label": 1}], [], r"train\.jsonl:1.*no field 'text'; did you mean 'txt'"),
        ([{"text": "a", "label": 1}], [{"text": "b", "label": 1}], "1 class"),
        (
            [{"text": "a", "label": 1}, {"text": "b", "label": 0}],
            [{"text": "b", "label": 7}],
            r"valid\.jsonl:1: label '7'",
        ),
    ],
)
def test_mistakes_in_labelled_files_are_said(tmp_path, prepared, train, valid, message):
    tokenizer = GLMTokenizer.from_pretrained(prepared / "tokenizer")
    files = ClassificationSettings(
        train=write(tmp_path / "train.jsonl", train),
        valid=write(tmp_path / "valid.jsonl", valid or train),
    )
    with pytest.raises(DataError, match=message):
        labelled(files, tokenizer, 20)


def test_labelled_texts_lose_their_end_and_special_strings_are_text(tmp_path, prepared):
    tokenizer = GLMTokenizer.from_pretrained(prepared / "tokenizer")
    records = [{"text": "春江潮水" * 3000, "label": "x"}, {"text": "[MASK]", "label": "y"}, {"text": "", "label": "y"}]  # fmt: skip
    files = ClassificationSettings(
        train=write(tmp_path / "train.jsonl", records),
        valid=write(tmp_path / "valid.jsonl", records),
    )
    found, _ = labelled(files, tokenizer, 20)
    assert found.names == ["x", "y"]
    assert max(map(len, found.ids)) == 20
    assert min(map(len, found.ids)) >= 1
    assert tokenizer.special_ids.mask not in np.concatenate(found.ids)
