"""Tasks: the catalog loads and asks in both languages; records that do not fit are refused with all that helps."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from glmkit.errors import ConfigError, DataError
from glmkit.special_tokens import GMASK, MASK, SMASK
from glmkit.tasks.rendering import expand, language_of, question
from glmkit.tasks.task import Hide, Task, catalog, load_task

RECORDS = {
    "sentiment": ({"text": "很快，好吃", "label": 1}, {"text": "Cold food.", "label": "0"}),
    "topics": (
        {"text": "同步A股首秀：港股缩量回调", "label": "stocks"},
        {"text": "The keeper saved two penalties", "label": "sports"},
    ),
    "qa": (
        {"context": "长江长6300公里。", "question": "长江有多长？", "answers": ["6300公里"]},
        {"context": "The Nile is long.", "question": "What is long?", "answers": ["The Nile", "Nile"]},
    ),
    "summary": (
        {"text": "本文研究了空白填充的训练方法。", "summary": "空白填充训练"},
        {"text": "We study how blanks are filled.", "summary": "Filling blanks"},
    ),
    "dialogue": (
        {"turns": ["你好！", "你好，聊什么？", "电影。"]},
        {"turns": [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}]},
    ),
    "multimodal": (
        {"image": "a.png", "turns": ["图里有什么？", "一只猫。"]},
        {"audio": "a.wav", "turns": ["What is it?", "A cat."]},
    ),
    "poem": (
        {"title": "静夜思", "author": "李白", "form": "五言绝句", "lines": ["床前明月光，疑是地上霜。", "举头望明月，低头思故乡。"]},
        {"title": "The Tyger", "author": "William Blake", "form": "song", "lines": ["Tyger Tyger, burning bright,"]},
    ),
    "article": (
        {"title": "长城", "text": "长城是中国古代的防御工程。"},
        {"title": "The Nile", "text": "The Nile is a river."},
    ),
    "text": ({"text": "海上明月共潮生。"}, {"text": "Tyger Tyger, burning bright"}),
    **{
        f"{kind}_{unit}": records
        for kind, records in (
            ("fill", ({"text": "海上明月"}, {"text": "burning bright"})),
            ("poem", ({"title": "静", "lines": ["床前明月"]}, {"title": "The Tyger", "lines": ["a burning"]})),
        )
        for unit in ("character", "word", "line")
    },
}  # fmt: skip

ANSWERS = {
    "sentiment": ("好", "bad"),
    "topics": ("股票", "sports"),
    "qa": ("6300公里", "The Nile"),
    "summary": ("空白填充训练", "Filling blanks"),
    "dialogue": ("你好，聊什么？", "Hello."),
    "multimodal": ("一只猫。", "A cat."),
    "poem": ("床前明月光，疑是地上霜。\n举头望明月，低头思故乡。", "Tyger Tyger, burning bright,"),
    "article": ("长城是中国古代的防御工程。", "The Nile is a river."),
    "text": ("海上明月共潮生。", "Tyger Tyger, burning bright"),
    "fill_character": ("上", "r"),
    "fill_word": ("明月", "bright"),
    "fill_line": ("海上明月", "burning bright"),
    "poem_character": ("月", "u"),
    "poem_word": ("床前", "burning"),
    "poem_line": ("床前明月", "a burning"),
}


def test_the_tests_know_the_whole_catalog():
    # The benchmarks, in folders of their own, are known to test_benchmarks; what asks nothing, to test_tagging.
    asking = {n for n in catalog() if "/" not in n and load_task(n).kind != "tagging"}
    assert set(RECORDS) == set(ANSWERS) == asking


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_the_catalog_asks_in_both_languages(name):
    task = load_task(name)
    assert task.name == name
    for record, answer, language in zip(RECORDS[name], ANSWERS[name], ("zh", "en"), strict=True):
        assert language_of(task, record) == language
        first = next(iter(expand(task, record, "here:1")))
        for number in range(len(task.patterns[language])):
            asked = question(task, first, "here:1", pattern=number)
            assert asked.answer == answer
            assert asked.language == language
            assert asked.mask in (MASK, SMASK, GMASK)
            assert "{" not in asked.before + asked.after
            if language == "en":
                assert not any("\u4e00" <= c <= "\u9fff" for c in asked.before + asked.after)


def test_a_conversation_asks_for_each_reply_and_shows_nothing_later():
    task, record = load_task("dialogue"), RECORDS["dialogue"][0]
    asked = [question(task, one, "here:1") for one in expand(task, record, "here:1")]
    assert [one.before for one in asked] == [
        "甲：你好！\n乙：",
        "甲：你好！\n乙：你好，聊什么？\n甲：",
    ]
    assert [one.answer for one in asked] == ["你好，聊什么？", "电影。"]
    assert {one.after for one in asked} == {""}


def test_a_field_missing_shows_the_record_and_the_pattern():
    record = {"review": "很快", "label": 1}
    with pytest.raises(DataError) as caught:
        question(load_task("sentiment"), record, "data.jsonl:7")
    message = str(caught.value)
    for part in (
        "data.jsonl:7",
        "'text'",
        '{"review": "很快", "label": 1}',
        "{text}",
        "--rename text=",
    ):
        assert part in message


def test_a_record_that_json_cannot_hold_is_shown_all_the_same():
    """A date, as parquet has them, ended in a TypeError instead."""
    record = {"review": "很快", "when": datetime.date(2020, 5, 1)}
    with pytest.raises(DataError, match=r"(?s)no field 'label'.*2020-05-01"):
        question(load_task("sentiment"), record, "data.parquet:7")


def test_a_label_outside_the_verbalizer_names_those_there_are():
    with pytest.raises(DataError, match=r"(?s)x:3: the label '2' is not one.*1, 0.*很慢"):
        question(load_task("sentiment"), {"text": "很慢", "label": 2}, "x:3")


def test_wrong_lists_are_refused():
    qa, dialogue = load_task("qa"), load_task("dialogue")
    with pytest.raises(DataError, match="needs a list of more than 0"):
        question(qa, {"context": "甲", "question": "乙", "answers": []}, "x:1")
    with pytest.raises(DataError, match="must be a list of turns, it is a str"):
        list(expand(dialogue, {"turns": "你好"}, "x:1"))


def test_a_blank_in_the_data_is_no_blank():
    asked = question(load_task("sentiment"), {"text": "写了[MASK]和[gMASK]", "label": 1}, "x:1")
    assert MASK not in asked.before
    assert GMASK not in asked.before


def test_a_task_with_one_language_asks_in_that_one():
    task = load_task("sentiment")
    only = replace(task, patterns={"zh": task.patterns["zh"]})
    asked = question(only, {"text": "Cold food.", "label": 0}, "x:1")
    assert (asked.language, asked.answer) == ("zh", "差")


def test_tasks_that_contradict_themselves_are_refused():
    good = vars(load_task("sentiment"))
    for changes, message in (
        ({"patterns": {"zh": ["{text}很好"]}}, "must have one blank"),
        (
            {"patterns": {"zh": ["{txt}[MASK]"]}},
            "'txt', which is not under fields; did you mean 'text'",
        ),
        ({"patterns": {}}, "at least one is needed"),
        ({"labels": {}}, "a classification or tagging has labels"),
        ({"answer": "{text}"}, "has an answer"),
        ({"hide": Hide("text", "word")}, "a filling task has hide, and nothing else has"),
        ({"kind": "filling", "hide": Hide("text", "word")}, "once, in which something is hidden"),
        ({"kind": "filling", "hide": Hide("txt", "word")}, "hide.field: 'txt' is not under fields"),
        ({"label": "lable"}, "'lable' is not under fields"),
        ({"labels": {"1": {"zh": "好"}}}, "labels.1: there is no word in 'en'"),
    ):
        with pytest.raises(ConfigError, match=message):
            Task(**{**good, **changes})


def test_own_files_and_unknown_names(tmp_path):
    text = catalog()["topics"].read_text(encoding="utf-8").replace("name: topics", "name: mine")
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    assert load_task(tmp_path / "mine.yaml").name == "mine"
    with pytest.raises(ConfigError, match="did you mean 'sentiment'"):
        load_task("sentimen")
    (tmp_path / "bad.yaml").write_text("nmae: x\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown key 'nmae'; did you mean 'name'"):
        load_task(tmp_path / "bad.yaml")
