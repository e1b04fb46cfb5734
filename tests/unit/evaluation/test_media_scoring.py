"""Right answers to questions with media: rows that are words' embeddings make an answer as likely as the words do."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from glmkit.errors import ConfigError, GenerationError
from glmkit.evaluation.asking import Asked
from glmkit.evaluation.right_answers import greedily, likelihood
from glmkit.tasks.task import load_task
from media_samples import as_media, prompt_of, with_media
from understanding_samples import random_glm

QUESTIONS = [
    ("好吃，[MASK]足。", "味道"),
    ("The room was [MASK] and the staff were friendly.", "clean"),
    ("送餐太慢了，[MASK]", "菜都凉了，再也不会点了"),
]


def asked(glm, media: bool) -> list[Asked]:
    """The questions; with media every second one reads rows in the place of words."""
    found = []
    for number, (text, answer) in enumerate(QUESTIONS):
        prompt = as_media(glm, text, number) if media and number != 1 else prompt_of(glm, text)
        ids = glm.tokenizer(answer, add_special_tokens=False)["input_ids"]
        question: object = SimpleNamespace(answer=answer, before="")
        found.append(Asked(question, prompt, ids))  # type: ignore[arg-type]
    return found


def test_likelihood_and_greedy_answers_are_those_of_the_words():
    glm = random_glm()
    task = load_task("dialogue")
    sums, answers = [], []
    for media in (True, False):
        some = asked(glm, media)
        sums.append(likelihood(glm, some)["perplexity"])
        answers.append(greedily(glm, task, some, [({}, "")] * len(some), 0))
    np.testing.assert_array_equal(sums[0].numerators, sums[1].numerators)
    assert answers[0].outcomes == answers[1].outcomes
    assert answers[0].sums["perplexity"].numerators == answers[1].sums["perplexity"].numerators


def test_rows_that_are_missing_and_media_left_to_right():
    glm = random_glm()
    some = asked(glm, True)
    narrow = replace(some[0].prompt, embeddings=some[0].prompt.embeddings[:, 1:])
    with pytest.raises(GenerationError, match=r"\[rows, 32\]"):
        likelihood(glm, [replace(some[0], prompt=narrow)])
    task = load_task("dialogue")
    left_to_right = replace(task, reading=replace(task.reading, context="unidirectional"))
    prompt = with_media(glm, "<|image|>[MASK]", some[0].prompt.embeddings)
    with pytest.raises(ConfigError, match="where media have no place"):
        greedily(glm, left_to_right, [replace(some[0], prompt=prompt)], [({}, "")], 0)
