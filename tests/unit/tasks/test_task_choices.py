"""Choices: classification and multiple choice as ids, equal to prompts; what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers.normalizers import Lowercase

from glmkit.errors import ConfigError, DataError
from glmkit.generation.prompts import build_prompt
from glmkit.tasks.choices import encode_choices
from glmkit.tasks.encoding import encode_record
from glmkit.tasks.rendering import question
from glmkit.tasks.task import Task, load_task
from glmkit.tokens.train import train_tokenizer

TEXTS = ["总的来说，很好。评价：差。", "All in all, it was good. It was bad. Ann sat down."] * 30
FIELDS = {"start": "how it begins", "endings": "how it may go on", "right": "which one"}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 380, "bpe")


def task(**changes) -> Task:
    values = {
        "name": "story",
        "kind": "multiple_choice",
        "metric": "accuracy",
        "fields": FIELDS,
        "patterns": {"zh": ["{start}[MASK]"], "en": ["{start} [MASK]"]},
        "label": "right",
        "choices": ["{endings}"],
        **changes,
    }
    return Task(**values)


def record(right=1, **changes) -> dict:
    return {"start": "Ann", "endings": ["sat down.", "was bad.", "it."], "right": right, **changes}


@pytest.mark.parametrize("text", ["很快", "Cold food.", ""])
def test_part_a_and_words_are_those_of_the_question(tokenizer, text):
    sentiment, one = load_task("sentiment"), {"text": text, "label": "0"}
    found, shortened = encode_choices(sentiment, one, tokenizer, 64, "x:1", pattern=0)
    asked = question(sentiment, one, "x:1")
    prompt = build_prompt(tokenizer, asked.before + asked.mask + asked.after, 64)
    assert found.part_a.tolist() == prompt.ids.tolist()
    assert not shortened
    assert found.right == 1
    sample, *_ = encode_record(sentiment, one, tokenizer, 64, "x:1")
    assert sample[len(found.part_a) + 1 : -1].tolist() == found.contents[1].tolist()
    words = [tokenizer.decode(ids).strip() for ids in found.contents]
    assert words == [words[asked.language] for words in sentiment.labels.values()]


@pytest.mark.parametrize(("right", "place"), [(1, 1), ("1", 1), (" was bad. ", 1), (0, 0)])
def test_a_choice_is_named_by_number_or_text(tokenizer, right, place):
    found, _ = encode_choices(task(), record(right), tokenizer, 64, "x:1")
    assert found.right == place
    assert [tokenizer.decode(ids) for ids in found.contents] == [" sat down.", " was bad.", " it."]
    unknown, _ = encode_choices(task(), record(right), tokenizer, 64, "x:1", answered=False)
    assert unknown.right is None
    assert unknown.part_a.tolist() == found.part_a.tolist()


def test_choices_of_several_fields_and_numbers_from_one(tokenizer):
    several = task(choices=["{endings[0]}", "{endings[2]}!"], first_choice=1)
    found, _ = encode_choices(several, record(2), tokenizer, 64, "x:1")
    assert found.right == 1
    assert [tokenizer.decode(ids) for ids in found.contents] == [" sat down.", " it.!"]
    assert question(several, record(2), "x:1").answer == "it.!"


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (record(3), "x:1: the label '3' says no choice: allowed are the numbers 0 to 2"),
        (record(-1), "the label '-1' says no choice"),
        (record(endings=["one"]), "at least two choices, none of them empty"),
        (record(endings=["one", " "]), "at least two choices, none of them empty"),
        (record(endings=["one", "one"]), "two are the same in this vocabulary"),
        ({"start": "Ann", "endings": ["a", "b"]}, "no field 'right'"),
        ({"start": "Ann", "right": 1}, "no field 'endings'"),
    ],
)
def test_what_is_refused(tokenizer, one, message):
    with pytest.raises(DataError, match=message):
        encode_choices(task(), one, tokenizer, 64, "x:1")


def test_choices_that_a_vocabulary_takes_for_one_are_one():
    uncased = train_tokenizer(TEXTS, 380, "bpe")
    uncased.backend_tokenizer.normalizer = Lowercase()
    names = record("It.", endings=["Sat", "sat", "It."])
    found, _ = encode_choices(task(), names, uncased, 64, "x:1")
    assert [uncased.decode(ids) for ids in found.contents] == [" sat", " it."]
    assert found.right == 1


def test_long_records_are_shortened_and_choices_never(tokenizer):
    long = {"text": "很快，" * 500, "label": 1}
    found, shortened = encode_choices(load_task("sentiment"), long, tokenizer, 40, "x:1")
    assert shortened
    assert len(found.part_a) + max(map(len, found.contents)) + 1 <= 40
    assert encode_choices(task(), record(start="Ann " * 99), tokenizer, 40, "x:1") == (
        None,
        False,
    )


def test_masks_in_choices_are_no_blanks(tokenizer):
    tricky = record(endings=["[MASK] a", "<|endofpiece|>", "[gMASK]"])
    found, _ = encode_choices(task(), tricky, tokenizer, 64, "x:1")
    assert not set(np.concatenate(found.contents)) & set(tokenizer.all_special_ids)


def test_tasks_that_contradict_themselves():
    for changes in (
        {"choices": []},
        {"label": None},
        {"answer": "{start}"},
        {"choices": ["{end}"]},
    ):
        with pytest.raises(ConfigError, match="'story' cannot be used"):
            task(**changes)
