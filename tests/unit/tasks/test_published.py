"""Published formats: whole files and single records, what is marked and joined, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmark_samples import RECORDS, squad
from glmkit.errors import ConfigError, DataError
from glmkit.tasks.encoding import encode_record
from glmkit.tasks.published import VIEWS, unfold
from glmkit.tasks.records import drawn_share, read_questions
from glmkit.tasks.rendering import expand, question
from glmkit.tasks.task import Reading, catalog, load_task
from glmkit.tokens.train import train_tokenizer


def test_every_format_has_a_task():
    assert {load_task(name).view for name in catalog()} - {None} == set(VIEWS)


@pytest.mark.parametrize("name", [name for name in RECORDS if load_task(name).view])
def test_what_is_not_in_the_format_is_refused(name):
    task = load_task(name)
    for record in ({}, {"text": 3, "label": "true"}, dict.fromkeys(RECORDS[name][0])):
        with pytest.raises(DataError, match=r"data.jsonl:7: this is no record of the published"):
            list(expand(task, record, "data.jsonl:7"))


def test_what_a_view_made_it_leaves_alone():
    for name, records in RECORDS.items():
        task = load_task(name)
        once = [one for record in records for one in expand(task, record, "x:1")]
        assert [two for one in once for two in expand(task, one, "x:1")] == once


def test_a_file_of_squad_and_its_parts_make_the_same_questions(tmp_path):
    task = load_task("clue/cmrc")
    whole = squad("甲在乙旁。", ("谁在乙旁？", ["甲"]), ("甲在哪里？", ["乙旁", "在乙旁"]))
    [article] = whole["data"]
    (tmp_path / "whole.json").write_text(json.dumps(whole), encoding="utf-8")
    (tmp_path / "article.jsonl").write_text(json.dumps(article), encoding="utf-8")
    flat = [
        {"context": "甲在乙旁。", "question": "谁在乙旁？", "answers": ["甲"]},
        {
            "context": "甲在乙旁。",
            "question": "甲在哪里？",
            "answers": {"text": ["乙旁", "在乙旁"]},
        },
    ]
    (tmp_path / "flat.jsonl").write_text("\n".join(map(json.dumps, flat)), encoding="utf-8")
    found = []
    for name in ("whole.json", "article.jsonl", "flat.jsonl"):
        records = [one for one, _ in read_questions(task, tmp_path / name)]
        found.append([(one["question"], one["answers"]) for one in records])
        assert len({drawn_share(task, one) for one in records}) == 1, "one text, two sides"
    assert found[0] == found[1] == found[2] == [("谁在乙旁？", ["甲"]), ("甲在哪里？", ["乙旁", "在乙旁"])]  # fmt: skip
    [unanswerable] = unfold("squad", {**flat[0], "answers": []}, "x:1")
    assert question(task, unanswerable, "x:1").answer == ""


@pytest.mark.parametrize(
    ("text", "index", "pronoun", "marked"),
    [
        ("It fell with it.", 3, "it", "It fell with *it*."),
        ("It fell with it.", 2, "it", "It fell with *it*."),  # the published index is one off
        ("Then it fell; it broke.", 1, "it", "Then *it* fell; it broke."),
        ('He said "his" twice.', 2, "his", 'He said "*his*" twice.'),
        ("IT fell.", 0, "it", "*IT* fell."),
    ],
)
def test_the_pronoun_that_is_meant_is_marked(text, index, pronoun, marked):
    target = {"span2_index": index, "span2_text": pronoun, "span1_text": "x"}
    [found] = unfold("wsc", {"text": text, "target": target, "label": True}, "x:1")
    assert found["text"] == marked


@pytest.mark.parametrize("index", [0, 2, 9])
def test_a_pronoun_elsewhere_is_refused(index):
    target = {"span2_index": index, "span2_text": "it", "span1_text": "x"}
    record = {"text": "Bob fell with all that it had.", "target": target, "label": True}
    with pytest.raises(DataError, match=f"'it' is not word {index} of the text"):
        unfold("wsc", record, "x:1")


def test_wikitext_reads_like_text():
    published = ' \n = A = \n \n = = B = = \n \n He said : " well , it \'s 1 @.@ 5 m [ sic ] . " \n End . \n'
    [found] = unfold("wikitext", {"text": published}, "x:1")
    assert found["text"] == '= A =\n\n== B ==\n\nHe said: "well, it\'s 1.5 m [sic]."\nEnd.'
    assert found["words"] == len(published.split())


def test_questions_are_shortened_around_their_answer():
    tokenizer = train_tokenizer(["春江花月夜 Question: Answer: what"] * 20, 330, "bpe")
    record = {"context": "江" * 900 + "花月" + "江" * 900, "question": "what", "answers": ["花月"]}
    ids, _, shortened = encode_record(load_task("seq2seq/squad_questions"), record, tokenizer, 120, "x:1")  # fmt: skip
    assert shortened
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert text.count("花月") == 2, "the answer was cut out of the paragraph"


def test_spaces_stay_where_the_pattern_says_so():
    task = replace(load_task("text"), answer="<{text}|{text!}>", patterns={"en": ["[gMASK]"]})
    assert question(task, {"text": " a "}, "x:1").answer == "<a| a >"


def test_tasks_that_contradict_themselves():
    good = load_task("lm/lambada")
    for changes, message in (
        ({"view": "sqaud"}, "no 'sqaud'; did you mean 'squad'"),
        ({"group": "x"}, "the field 'x' is not under fields"),
        ({"reading": Reading("unidirectional"), "patterns": {"en": ["[MASK]{context}"]}}, "must end"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            replace(good, **changes)
