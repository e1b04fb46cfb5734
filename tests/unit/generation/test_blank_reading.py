"""Reading trees of contents: the native decoder's forks see what torch's masks let nodes see."""

from __future__ import annotations

import numpy as np
import pytest

import glmkit
from conftest import golden_folder
from glmkit.generation import reading, spans
from glmkit.generation.choices import score_choices
from glmkit.generation.prompts import build_prompt
from glmkit.generation.reading import ForkReader, make_reader
from glmkit.generation.spans import SpanSearch
from glmkit.generation.torch_reader import BlankReader
from glmkit.native import library
from glmkit.tasks.task import load_task

TEXTS = ["北京是[MASK]的首都。", "这家店总的来说，很[MASK]，下次还来。"]


@pytest.fixture(scope="module")
def pair():
    """The same weights on the native decoder, in float32, and on torch."""
    if (reason := library.why_not()) is not None:
        pytest.skip(reason)
    folder = golden_folder("tiny-chinese").path
    return glmkit.load(folder, dtype="float32"), glmkit.load(folder, backend="torch")


@pytest.mark.parametrize("forks", [64, 3])
def test_random_trees_are_read_alike_in_any_steps(pair, monkeypatch, forks: int):
    monkeypatch.setattr(reading, "FORKS", forks)
    native, plain = pair
    ids, rng = plain.tokenizer.special_ids, np.random.default_rng(0)
    prompts = [build_prompt(plain.tokenizer, text, 128) for text in TEXTS]
    readers = [make_reader(one.model, prompts, ids) for one in pair]
    assert list(map(type, readers)) == [ForkReader, BlankReader]
    sees = np.zeros((2, 0, 0), bool)
    for queries in (1, 5, 9, 2):
        before = sees.shape[2]
        sees = np.pad(sees, ((0, 0), (0, queries), (0, queries)))
        tokens = rng.integers(0, 1000, (2, queries))
        positions = np.zeros((2, 2, queries), np.int64)
        for row, prompt in enumerate(prompts):
            for node in range(before, before + queries):
                if node:
                    sees[row, node] = sees[row, rng.integers(0, node)]  # its parent's path
                sees[row, node, node] = True
                place = int(prompt.mask_indices[0]), sees[row, node].sum()
                positions[row, :, node - before] = place
        states = [one.read(tokens, positions, sees[:, before:]) for one in readers]
        np.testing.assert_allclose(*states, rtol=1e-3, atol=1e-3)


def test_scores_and_spans_are_those_of_torch(pair):
    choices = ["好", "好吃", "好吃极了", "差", "", "凯旋门凯旋门"]
    scores = [score_choices(one.model, one.tokenizer, TEXTS, choices) for one in pair]
    np.testing.assert_allclose(*map(np.concatenate, scores), rtol=1e-4, atol=1e-4)
    text = "北京是中国的首都，上海是最大的城市。"
    found = [
        SpanSearch(one.model, one.tokenizer, build_prompt(one.tokenizer, text + "答：[MASK]", 128), text).best(3)
        for one in pair
    ]  # fmt: skip
    assert [(s.start, s.end) for s in found[0]] == [(s.start, s.end) for s in found[1]]
    assert len(found[0]) == 3


@pytest.mark.parametrize(
    ("language", "question", "context", "no_answer"),
    [
        ("zh", "门在哪里？", "凯旋门位于米兰市古城堡旁。1807年为纪念拿破仑而建，门高25米；", "无"),
        ("en", "Where is it?", "It is in Milan, near the old castle. It was built in 1807. ", ""),
    ],
)
def test_an_answer_reads_each_part_a_once(
    pair, monkeypatch, language, question, context, no_answer
):
    monkeypatch.setattr(spans, "MAX_NODES", 64)  # random weights make all spans about alike
    read = []
    for reader in (ForkReader, BlankReader):
        monkeypatch.setattr(reader, "__init__", noting_prompts(reader.__init__, read))
    patterns = load_task("qa").patterns[language]
    prompts = [one.format(context=context, question=question) for one in patterns]
    found = []
    for one in pair:
        read.clear()
        found.append(one.answer(question, context * 6, no_answer=None, max_words=2))
        assert len(read) == len(set(read)) >= 2 * len(patterns)  # two windows or more
        # In one window: what all patterns say of it, from scratch.
        alone = one.answer(question, context, no_answer=None, max_words=2)
        scores = score_choices(one.model, one.tokenizer, prompts, [alone.text, no_answer])
        span, nothing = np.mean(scores, axis=0)
        assert np.log(alone.score) == pytest.approx(span, rel=1e-4)
        other = one.answer(question, context, no_answer=no_answer, max_words=2)
        assert other.text == ("" if nothing > span else alone.text)
        assert other.score == alone.score
    native, plain = found
    assert (native.text, native.start, native.end) == (plain.text, plain.start, plain.end)
    assert native.score == pytest.approx(plain.score, rel=1e-3)


def noting_prompts(make, noted: list):
    def noting(self, owner, prompts, *rest):
        noted.extend(tuple(one.ids) for one in prompts)
        make(self, owner, prompts, *rest)

    return noting


def test_the_torch_model_is_not_built_for_it(pair, monkeypatch):
    native, _ = pair
    monkeypatch.delitem(vars(native.model), "torch_model", raising=False)
    score_choices(native.model, native.tokenizer, TEXTS, ["好", "差"])
    assert "torch_model" not in vars(native.model)
