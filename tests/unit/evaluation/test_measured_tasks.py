"""Tasks measured: numbers against another way to get them, groups, long and empty records, both languages."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from evaluation_samples import POEMS, REVIEWS, TALKS, tiny_glm
from glmkit.applications.prompts import question_prompt
from glmkit.errors import ConfigError, DataError
from glmkit.evaluation.answers import MAX_NEW_TOKENS
from glmkit.evaluation.contents import WITHIN_WORDS, Contents, Letters
from glmkit.evaluation.perplexity import left_to_right, on_blanks
from glmkit.evaluation.tasks import evaluate_task
from glmkit.generation.choices import score_choices
from glmkit.tasks.rendering import expand, question
from glmkit.tasks.task import Task, load_task

TEXTS = [f"{poem['title']}\n" + "\n".join(poem["lines"]) for poem in POEMS]


@pytest.fixture(scope="module")
def glm():
    return tiny_glm()


def numbered(records: list[dict]) -> list[tuple[dict, str]]:
    return [(record, f"here:{number}") for number, record in enumerate(records, 1)]


def test_texts_cost_what_perplexity_says(glm):
    """Poems without a field `text` are read as `glmkit evaluate --data` reads them: title and lines."""
    result, predictions = evaluate_task(glm, load_task("text"), numbered(POEMS))
    totals = left_to_right(glm.model, glm.tokenizer, TEXTS)
    assert list(result.metrics)[0] == "bits_per_character"
    number = result.metrics["bits_per_character"]
    assert number.value == pytest.approx(totals.bits_per_character, rel=1e-6)
    assert number.low < number.value < number.high
    assert result.metrics["perplexity"].value == pytest.approx(totals.perplexity(), rel=1e-6)
    blanks = on_blanks(glm.model, glm.tokenizer, TEXTS, objective="token")
    assert result.metrics["bits_per_character_token_blanks"].value == pytest.approx(
        blanks.bits_per_character, rel=1e-5
    )
    assert [one["where"] for one in predictions] == ["here:1", "here:2", "here:3"]


def test_a_uniform_model_has_the_bits_of_its_vocabulary(glm):
    flat = tiny_glm()
    with torch.no_grad():
        flat.model.glm.word_embeddings.weight.zero_()
    result, _ = evaluate_task(flat, load_task("dialogue"), numbered(TALKS))
    assert result.metrics["perplexity"].value == pytest.approx(len(flat.tokenizer), rel=1e-5)


def test_the_likelihood_of_replies_is_that_of_the_choice(glm):
    task = load_task("dialogue")
    result, predictions = evaluate_task(glm, task, numbered(TALKS))
    asked = [question(task, one, "") for talk in TALKS for one in expand(task, talk, "")]
    prompts = [question_prompt(one, glm.tokenizer) for one in asked]
    scores = score_choices(glm.model, glm.tokenizer, prompts, [[one.answer] for one in asked])
    nats = [one["perplexity_sums"][0] for one in predictions]
    assert nats == pytest.approx([-float(score[0]) for score in scores], rel=1e-4)
    assert result.examples == len(asked) == 3
    assert [one["references"] for one in predictions] == [[one.answer] for one in asked]
    assert {"bleu", "chrf", "distinct_2", "distinct_3"} <= set(result.metrics)
    settings = {"max_new_tokens": MAX_NEW_TOKENS}
    alone = [glm.fill(one.before + one.mask + one.after, **settings).blanks[0] for one in asked]
    assert [one["prediction"] for one in predictions] == alone


def test_filled_characters_are_those_of_fill(glm):
    task = load_task("poem_character")
    result, predictions = evaluate_task(glm, task, numbered(POEMS))
    one_character = Contents(Letters(glm.tokenizer), 1)
    for (record, where), one in zip(numbered(POEMS), predictions, strict=True):
        asked = question(task, record, where)
        text = asked.before + asked.mask + asked.after
        (found,) = glm.fill([text], n=10, max_new_tokens=3, constraints=[one_character])
        assert one["references"] == [asked.answer]
        assert one["prediction"] == found.blanks[0]
        expected = {character: math.exp(score) for character, score in found.alternatives[0]}
        assert one["probabilities"] == pytest.approx(expected, abs=1e-5)
        assert list(one["probabilities"]) == list(expected)
        assert one["free_prediction"] == glm.fill(text, max_new_tokens=10).blanks[0]
    assert list(result.metrics) == ["exact_match", "top_10", "free_exact_match"]


@pytest.mark.parametrize("name", ["poem_word", "poem_line", "fill_word", "fill_line"])
def test_filled_contents_have_the_right_length(glm, name: str):
    records = POEMS if name.startswith("poem") else [{"text": text} for text in TEXTS]
    result, predictions = evaluate_task(glm, load_task(name), numbered(records))
    assert result.examples == 3
    for one in predictions:
        for text in one["probabilities"]:
            assert len(text) == len(one["references"][0])
            assert all(c.isalnum() or c in WITHIN_WORDS for c in text)


@pytest.mark.parametrize("favourite", ["\n", " ", "。", "end"])
def test_what_a_model_likes_to_write_cannot_end_the_search(favourite: str):
    """A search that began with line ends, which count for nothing, found no contents of the right length."""
    glm = tiny_glm()
    ids = glm.tokenizer.special_ids
    texts = glm.tokenizer.batch_decode([[n] for n in range(len(glm.tokenizer))])
    liked = [n for n, text in enumerate(texts) if text.strip(" ") == favourite.strip(" ")]
    liked = [ids.eop] if favourite == "end" else liked
    with torch.no_grad():
        weight = glm.model.glm.word_embeddings.weight
        bias = glm.model.glm.transformer.final_layernorm.bias
        bias.copy_(torch.ones_like(bias))
        weight[liked] += 2.0
    result, predictions = evaluate_task(glm, load_task("poem_line"), numbered(POEMS))
    assert result.examples == 3
    assert all(len(one["prediction"]) == len(one["references"][0]) for one in predictions)


def test_what_is_hidden_depends_on_the_seed_alone(glm):
    task = load_task("poem_character")
    (first, one), (again, other) = (
        evaluate_task(glm, task, numbered(POEMS), seed=3) for _ in range(2)
    )
    assert one == other
    assert first.metrics == again.metrics
    assert one != evaluate_task(glm, task, numbered(POEMS), seed=4)[1]


def test_long_texts_are_cut_around_the_blank(glm):
    long = {"text": "国破山河在，城春草木深。" * 300 + "床前明月光。" + "感时花溅泪，" * 300}
    short, huge = {"text": "城春草木深。"}, {"text": "x" * 10_000}
    result, predictions = evaluate_task(
        glm, load_task("fill_character"), numbered([long, short, huge, {"text": "。"}])
    )
    assert (result.examples, result.skipped) == (3, 1)
    assert all(len(one["prediction"]) == 1 for one in predictions)


def test_numbers_by_a_field(glm):
    task = load_task("poem_character")
    result, _ = evaluate_task(glm, task, numbered(POEMS), by="kind")
    assert result.group_sizes == {"kind=verse": 1, "kind=诗": 2}
    only, _ = evaluate_task(glm, task, numbered(POEMS[:2]))
    assert result.groups["kind=诗"] == only.metrics


def test_labels_are_those_of_classify(glm):
    task = load_task("sentiment")
    result, predictions = evaluate_task(glm, task, numbered(REVIEWS), by="domain")
    found = glm.classify([one["text"] for one in REVIEWS], task="sentiment")
    assert [one["prediction"] for one in predictions] == [one.label for one in found]
    right = [one.label == str(review["label"]) for one, review in zip(found, REVIEWS, strict=True)]
    assert result.metrics["accuracy"].value == pytest.approx(np.mean(right))
    assert list(result.metrics) == ["accuracy", "macro_f1", "calibration_error"]
    assert result.group_sizes == {"domain=food": 2, "domain=hotel": 1}
    with pytest.raises(DataError, match="here:1: the label '7' is not one"):
        evaluate_task(glm, task, numbered([{"text": "好", "label": 7}]))


def test_answers_and_summaries_are_those_of_the_applications(glm):
    records = [
        {
            "context": "国破山河在，城春草木深。",
            "question": "什么在？",
            "answers": ["山河", "国破山河"],
        },
        {
            "context": "The town is deep in green.",
            "question": "What is green?",
            "answers": ["town"],
        },
    ]
    result, predictions = evaluate_task(glm, load_task("qa"), numbered(records))
    found = glm.answer([one["question"] for one in records], [one["context"] for one in records])
    assert [one["prediction"] for one in predictions] == [one.text for one in found]
    assert predictions[0]["references"] == ["山河", "国破山河"]
    assert list(result.metrics) == ["exact_match", "f1"]
    texts = [{"text": record["context"] * 2, "summary": "春"} for record in records]
    result, predictions = evaluate_task(glm, load_task("summary"), numbered(texts))
    assert [one["prediction"] for one in predictions] == glm.summarize(
        [one["text"] for one in texts]
    )
    assert list(result.metrics) == ["rouge1", "rouge2", "rougeL"]


def test_multiple_choice_takes_the_likeliest_choice(glm):
    task = Task(
        name="next",
        kind="multiple_choice",
        metric="accuracy",
        fields={"text": "a", "options": "b", "right": "c"},
        patterns={"zh": ["{text}[MASK]"]},
        label="right",
        choices=["{options}"],
    )
    records = [{"text": "国破山河", "options": ["在", "深", "泪"], "right": n} for n in range(3)]
    result, predictions = evaluate_task(glm, task, numbered(records))
    (scores,) = score_choices(glm.model, glm.tokenizer, ["国破山河[MASK]"], records[0]["options"])
    best = records[0]["options"][int(np.argmax(scores))]
    assert {one["prediction"] for one in predictions} == {best}
    assert result.metrics["accuracy"].value == pytest.approx(1 / 3)


def test_special_strings_in_records_are_text(glm):
    record = {"text": "他写了[MASK]和<|endofpiece|>，又写[gMASK]。"}
    result, predictions = evaluate_task(glm, load_task("fill_character"), numbered([record] * 2))
    assert result.examples == 2
    assert predictions[0]["prediction"] == predictions[1]["prediction"]


def test_mistakes_say_what_to_do(glm):
    task = load_task("fill_word")
    with pytest.raises(DataError, match="nothing to ask: 1 records, 1 of which"):
        evaluate_task(glm, task, numbered([{"text": "3.14"}]))
    with pytest.raises(DataError, match=r"here:1: the record has no field 'text'"):
        evaluate_task(glm, task, numbered([{"body": "花"}]))
    for metric, said in (("美感", ", which is unknown."), ("blue", "; did you mean 'bleu'?")):
        with pytest.raises(ConfigError, match=re.escape(f"the metric '{metric}'{said} There are accuracy")):  # fmt: skip
            evaluate_task(glm, replace(task, metric=metric), numbered(POEMS))
