"""A model that learnt some records by heart, in training's own layout, tells them through the calls that people use."""

from __future__ import annotations

import copy

import pytest
import torch

import glmkit
from glmkit.blanks.layout import collate
from glmkit.model import GLMForConditionalGeneration
from glmkit.tasks.encoding import decode_sample, encode_record
from glmkit.tasks.task import load_task
from understanding_samples import random_glm

REVIEWS = [
    ("好吃，量大。", 1),
    ("菜都凉了！", 0),
    ("很快。", 1),
    ("太慢了，再也不会点了。", 0),
    ("The room was clean.", 1),
    ("The staff were slow.", 0),
]
FACTS = [
    ("凯旋门位于米兰市，高25米。", "门在哪里？", "米兰市"),
    ("凯旋门位于米兰市，高25米。", "门高多少？", "25米"),
    ("纪念拿破仑，1807年建。", "纪念谁？", "拿破仑"),
    ("It is in Milan, near the castle.", "Where is it?", "Milan"),
    ("好吃，量大。", "门在哪里？", "无"),
]
"""The last one has no answer in its text."""
ARTICLES = [("上有车，门高25米。", "门高25米"), ("送餐太慢，菜凉，味道不好。", "送餐太慢")]


@pytest.fixture(scope="module")
def learnt() -> glmkit.GLM:
    """Trains for a second or two on every pattern of every record."""
    tokenizer = random_glm().tokenizer
    config = copy.deepcopy(random_glm().model.config)
    config.initializer_range, config.hidden_size = 0.05, 48
    config.intermediate_size = 96
    for name in ("embedding", "attention", "output"):
        setattr(config, f"{name}_dropout_prob", 0.0)
    torch.manual_seed(0)
    model = GLMForConditionalGeneration(config)
    records = [
        *(("sentiment", {"text": text, "label": label}) for text, label in REVIEWS),
        *(("qa", {"context": c, "question": q, "answers": [a]}) for c, q, a in FACTS),
        *(("summary", {"text": text, "summary": title}) for text, title in ARTICLES),
    ]
    ids = tokenizer.special_ids
    examples = []
    for name, record in records:
        for pattern in range(2):
            sample, *_ = encode_record(load_task(name), record, tokenizer, 96, "", pattern=pattern)
            assert sample is not None
            examples.append(decode_sample(sample, ids))
    batch = {n: torch.from_numpy(a) for n, a in collate(examples, ids.pad).items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(90):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    return glmkit.GLM(model, tokenizer)


def test_sentiment_is_learnt(learnt: glmkit.GLM):
    found = learnt.sentiment([text for text, _ in REVIEWS])
    assert [one.label == "positive" for one in found] == [bool(label) for _, label in REVIEWS]
    assert min(one.probabilities[one.label] for one in found) > 0.9


def test_answers_are_learnt_as_spans_and_freely(learnt: glmkit.GLM):
    contexts, questions = [c for c, _, _ in FACTS[:4]], [q for _, q, _ in FACTS[:4]]
    for mode in ("span", "free"):
        found = learnt.answer(questions, contexts, mode=mode)
        assert [one.text for one in found] == [answer for _, _, answer in FACTS[:4]]
        assert min(one.score for one in found) > 0.5
        for one, (context, _, answer) in zip(found, FACTS, strict=False):
            assert one.start == context.index(answer)


@pytest.mark.parametrize("mode", ["span", "free"])
def test_no_answer_is_learnt_by_its_word(learnt: glmkit.GLM, mode: str):
    context, question, word = FACTS[4]
    assert learnt.answer(question, context, mode=mode, no_answer=word).text == ""
    assert learnt.answer(question, context, mode=mode).text != ""
    known = learnt.answer(FACTS[0][1], FACTS[0][0], mode=mode, no_answer=word)
    assert known.text == FACTS[0][2]


def test_the_right_one_of_several_windows_answers(learnt: glmkit.GLM):
    """Far more text than the model reads; the window with the sentence that it knows gives the likeliest answer."""
    known, question, answer = FACTS[2]
    filler = "，".join(["好吃量大很快味道足"] * 9) + "。"
    context = filler * 3 + known
    found = learnt.answer(question, context)
    assert learnt.answer(question, filler * 3).score < learnt.answer(question, known).score
    assert context[found.start : found.end] == found.text
    assert found.score >= learnt.answer(question, filler).score
    assert answer in known


def test_summaries_are_learnt_and_cut_where_asked(learnt: glmkit.GLM):
    texts = [text for text, _ in ARTICLES]
    assert learnt.summarize(texts) == [title for _, title in ARTICLES]
    cut = learnt.summarize(texts[0], max_characters=2, num_beams=1)
    assert cut[0] == "门"
    assert len(cut) <= 2
