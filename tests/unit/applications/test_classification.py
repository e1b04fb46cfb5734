"""Classification by cloze: against its definition, in batches, long texts, labels alone, calibrated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import glmkit
from glmkit.applications.classification import label_scores
from glmkit.applications.labels import labels_task
from glmkit.errors import ConfigError, DataError, GenerationError
from glmkit.generation.choices import score_choices
from glmkit.tasks.task import load_task
from understanding_samples import TEXTS, random_glm


@pytest.fixture(scope="module")
def loaded() -> glmkit.GLM:
    return random_glm()


def test_scores_are_the_mean_over_the_patterns_of_the_texts_language(loaded: glmkit.GLM):
    task = load_task("sentiment")
    scores = label_scores(loaded.model, loaded.tokenizer, TEXTS[:3], task)
    for text, found, language, words in zip(
        TEXTS,
        scores,
        ("zh", "zh", "en"),
        (["好", "差"], ["好", "差"], ["good", "bad"]),
        strict=False,
    ):
        prompts = [one.replace("{text}", text) for one in task.patterns[language]]
        expected = score_choices(loaded.model, loaded.tokenizer, prompts, words)
        np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-5)


def test_sentiment_of_one_and_of_many(loaded: glmkit.GLM):
    many = loaded.sentiment(TEXTS, batch_size=3)
    for text, result in zip(TEXTS, many, strict=True):
        assert list(result.probabilities) == ["positive", "negative"]
        assert sum(result.probabilities.values()) == pytest.approx(1)
        assert result.label == max(result.probabilities, key=result.probabilities.get)
        alone = loaded.sentiment(text)
        assert alone.probabilities == pytest.approx(result.probabilities, abs=1e-5)
        assert str(alone).startswith(alone.label)
    assert loaded.sentiment([]) == []


def test_topics_and_the_users_own_task(loaded: glmkit.GLM, tmp_path):
    assert len(loaded.classify("港股缩量回调", "topics").probabilities) == 10
    own = tmp_path / "entailment.yaml"
    own.write_text(
        "name: entailment\nkind: classification\nmetric: accuracy\n"
        "fields: {premise: first, hypothesis: second, label: yes or no}\nlabel: label\n"
        'labels: {"yes": {zh: 是}, "no": {zh: 否}}\n'
        'patterns: {zh: ["{premise}\\n{hypothesis}\\n对吗？[MASK]"]}\n',
        encoding="utf-8",
    )
    record = {"premise": "下雨了", "hypothesis": "天晴"}
    results = loaded.classify([record, record], own)
    assert set(results[0].probabilities) == {"yes", "no"}
    for same in (results[1], loaded.classify(record, own)):
        assert same.label == results[0].label
        assert same.probabilities == pytest.approx(results[0].probabilities, abs=1e-5)
    with pytest.raises(DataError, match="takes records with premise, hypothesis, not str"):
        loaded.classify("下雨了", own)
    with pytest.raises(DataError, match="no field 'hypothesis'"):
        loaded.classify({"premise": "下雨了"}, own)
    with pytest.raises(GenerationError, match="could not be shortened"):
        loaded.classify({"premise": "雨" * 500, "hypothesis": "天晴"}, own)


def test_labels_alone_and_their_prejudice(loaded: glmkit.GLM):
    """With `contextual`, a text that says nothing more than the content-free ones is undecided."""
    labels = ["体育", "财经新闻", "sports"]
    found = loaded.classify("中超联赛今晚开打", labels=labels)
    assert list(found.probabilities) == labels
    raw = loaded.classify("", labels=labels, contextual=False).probabilities
    mended = loaded.classify("", labels=labels).probabilities
    spread = [max(one.values()) - min(one.values()) for one in (raw, mended)]
    assert spread[1] < spread[0]
    words = {"s": "体育", "f": "财经"}
    assert set(loaded.classify("中超", labels=words).probabilities) == {"s", "f"}
    own = loaded.classify("中超", labels=words, template="{text}属于[MASK]", contextual=False)
    [scores] = score_choices(
        loaded.model, loaded.tokenizer, ["中超属于[MASK]"], list(words.values())
    )
    assert own.probabilities["s"] == pytest.approx(
        1 / (1 + np.exp(scores[1] - scores[0])), abs=1e-5
    )


@pytest.mark.parametrize(
    "text", ["味道好极了。" * 1700, "The room was clean. " * 520, "好" * 10_000]
)
def test_long_texts_are_shortened_or_read_in_windows(loaded: glmkit.GLM, text: str):
    short = loaded.sentiment([text, TEXTS[0]])
    alone = loaded.sentiment(TEXTS[0])
    assert short[1].probabilities == pytest.approx(alone.probabilities, abs=1e-5)
    assert short[0].label in short[0].probabilities
    windowed = loaded.sentiment(text, long_texts="windows", batch_size=64)
    assert sum(windowed.probabilities.values()) == pytest.approx(1)
    # The windows of a text that says one thing again and again are about alike, and so is their mean.
    start = loaded.sentiment(text[: len(text) // 200], long_texts="windows").probabilities
    assert windowed.probabilities["positive"] == pytest.approx(start["positive"], abs=0.3)


def test_a_task_reads_no_more_than_it_was_trained_to(loaded: glmkit.GLM):
    """A fine-tuned folder's task says how long its samples were: the rest of a text changes nothing."""
    task = replace(load_task("sentiment"), max_length=40)
    long, other = ("房间很干净。" * 10 + digit * 40 for digit in "12")  # a digit is a token
    scores = label_scores(loaded.model, loaded.tokenizer, [long, other], task)
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)
    whole = label_scores(loaded.model, loaded.tokenizer, [long, other], load_task("sentiment"))
    assert np.abs(whole - scores).max() > 1e-3


def test_windows_of_a_short_text_are_the_text(loaded: glmkit.GLM):
    plain, windowed = loaded.sentiment(TEXTS[0]), loaded.sentiment(TEXTS[0], long_texts="windows")
    assert windowed.probabilities == pytest.approx(plain.probabilities, abs=1e-5)


def test_calibration_is_fitted_used_saved_and_loaded(loaded: glmkit.GLM, tmp_path):
    glm = glmkit.GLM(loaded.model, loaded.tokenizer)
    before = glm.sentiment(TEXTS)
    texts, labels = TEXTS * 4, [1, 0, 1, 0, 1] * 4
    found = glm.fit_calibration(texts, labels)
    assert glm.calibrations == {"sentiment": found}
    after = glm.sentiment(TEXTS)

    def loss(results: list) -> float:
        right = ["positive", "negative", "positive", "negative", "positive"]
        return -sum(
            np.log(one.probabilities[label]) for one, label in zip(results, right, strict=True)
        )

    assert loss(after) < loss(before)
    glm.model.save_pretrained(tmp_path)
    glm.tokenizer.save_pretrained(tmp_path)
    glm.save_calibrations(tmp_path)
    again = glmkit.load(tmp_path, device="cpu")
    assert again.calibrations == glm.calibrations
    assert again.sentiment(TEXTS[0]).probabilities == pytest.approx(
        after[0].probabilities, abs=1e-5
    )
    with pytest.raises(DataError, match="'7' is not one of 1, 0"):
        glm.fit_calibration(["好"], [7])
    with pytest.raises(DataError, match="2 labels were given for 1 texts"):
        glm.fit_calibration(["好"], [1, 0])
    with pytest.raises(ConfigError, match="is not a folder"):
        glm.save_calibrations(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "say which labels there are"),
        ({"task": "topics", "labels": ["a", "b"]}, "either task or labels"),
        ({"labels": ["a"]}, "at least two"),
        ({"labels": ["a", "a"]}, "at least two strings, different"),
        ({"labels": "ab"}, "must be a list"),
        ({"labels": [1, 2]}, "at least two strings"),
        ({"labels": ["a", "b"], "template": "{text}"}, "must have one blank"),
        ({"task": "topics", "template": "{text}[MASK]"}, "a template needs labels"),
        ({"task": "topic"}, "did you mean 'topics'"),
        ({"task": "qa"}, "is not a classification"),
        ({"task": "topics", "long_texts": "cut"}, "long_texts='cut' must be"),
    ],
)
def test_what_cannot_be_meant_is_named(loaded: glmkit.GLM, arguments: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        loaded.classify("文本", **arguments)


def test_only_texts_are_classified(loaded: glmkit.GLM):
    with pytest.raises(DataError, match="takes a text or a record with text, not int"):
        loaded.sentiment([3])
    assert labels_task(["a", "b"]).name == "labels"
