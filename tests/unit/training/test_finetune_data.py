"""Records to fine-tune on: what is refused says file, line and remedy; what is read is divided, limited, weighed."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from glmkit.blanks.layout import IGNORE_INDEX
from glmkit.errors import ConfigError, DataError
from glmkit.multimodal.media import Medium
from glmkit.tasks.choices import Choices
from glmkit.tasks.task import load_task
from glmkit.tokens.train import train_tokenizer
from glmkit.training.finetune_data import Sample, TaskSamples, _weigh, read_task
from glmkit.training.finetune_settings import FinetuneConfig, TaskData, check


@pytest.fixture(scope="module")
def tokenizer():
    texts = ["总的来说，很好。评价：差。这个评价的意思是很快太慢", "All in all, it was good."] * 30
    return train_tokenizer(texts, 380, "bpe")


def good(number: int) -> dict:
    return {"text": f"第{number}次，{'很快' if number % 2 else '太慢'}", "label": number % 2}


def write(path, lines: list, encoding="utf-8"):
    text = "\n".join(
        one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in lines
    )
    path.write_bytes((text + "\n").encode(encoding))
    return path


def read(path, tokenizer, task="sentiment", length=64, seed=0, **data):
    given = TaskData(train=[str(path)], **{"valid_ratio": 0.3, **data})
    return read_task("mood", load_task(task), given, tokenizer, length, seed)


BROKEN = {
    "field": ({"txt": "很快", "label": 1}, r"data.jsonl:31: .*no field 'text'; did you mean 'txt'.*--rename text=txt"),
    "other": ({"id": 3, "text": "很快", "lable": 1}, r"data.jsonl:31: .*no field 'label'; did you mean 'lable'.*--rename label=lable"),
    "label": ({"text": "很快", "label": 7}, r"data.jsonl:31: the label '7' is not one of.*1, 0.*correct the record"),
    "line": ('{"text": "很快", "label"', r"data.jsonl:31: not valid JSON.*The line begins: '\{\"text\""),
    "kind": ("[1, 2]", r"data.jsonl:31"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_one_broken_line_is_named_before_anything_is_trained(tmp_path, tokenizer, what):
    line, message = BROKEN[what]
    lines = [*(good(n) for n in range(30)), line, *(good(n) for n in range(5))]
    with pytest.raises(DataError, match=f"(?s){message}"):
        read(write(tmp_path / "data.jsonl", lines), tokenizer)


def test_files_that_cannot_be_used(tmp_path, tokenizer):
    with pytest.raises(DataError, match=r"(?s)gb.jsonl:1: .*UTF-8"):
        read(write(tmp_path / "gb.jsonl", [good(1), good(2)], "gb18030"), tokenizer)
    with pytest.raises(DataError, match="empty.jsonl is empty"):
        read(write(tmp_path / "empty.jsonl", [""]), tokenizer)
    with pytest.raises(DataError, match=r"none.jsonl"):
        read(tmp_path / "none.jsonl", tokenizer)
    sorted_by_label = [good(2 * n) for n in range(20)]
    with pytest.raises(DataError, match="all .* records have the label '0'.*sorted and cut"):
        read(write(tmp_path / "one.jsonl", sorted_by_label), tokenizer)
    with pytest.raises(
        DataError,
        match=r"no record is left for (valid|train) of the task 'mood'; equal .*raise valid_ratio or max_length",
    ):
        read(write(tmp_path / "two.jsonl", [good(1)]), tokenizer)


def test_held_out_records_are_apart_and_always_the_same(tmp_path, tokenizer):
    path = write(tmp_path / "data.jsonl", [good(n) for n in range(100)])
    found = read(path, tokenizer)
    train, valid = ({one.where for one in side} for side in (found.train, found.valid))
    assert not train & valid
    assert len(train) + len(valid) == 100
    assert 15 < len(valid) < 45
    again = read(path, tokenizer, seed=3)
    assert {one.where for one in again.valid} == valid
    # What is held out is not trained on, wherever it stands.
    both = read(
        path, tokenizer, valid=[str(write(tmp_path / "v.jsonl", [good(n) for n in range(10)]))]
    )
    assert (len(both.train), len(both.valid)) == (90, 10)
    assert "10 sample(s) of train left out: valid has the same" in both.notes[0]


def test_few_records_are_of_all_classes(tmp_path, tokenizer):
    rare = [{"text": f"差{n}", "label": 0} for n in range(6)]
    path = write(tmp_path / "data.jsonl", [*(good(2 * n + 1) for n in range(60)), *rare])
    found = read(path, tokenizer, limit=8, valid_ratio=0.1)
    assert Counter(one.right for one in found.train) == {0: 4, 1: 4}
    assert [one.where for one in found.train] != [
        one.where for one in read(path, tokenizer, limit=8, valid_ratio=0.1, seed=1).train
    ]


def test_class_weights(tmp_path, tokenizer):
    lines = [*(good(2 * n + 1) for n in range(60)), *(good(2 * n) for n in range(20))]
    path = write(tmp_path / "data.jsonl", lines)
    balanced = read(path, tokenizer, class_weights="balanced").train
    sums: Counter = Counter()
    for one in balanced:
        sums[one.right] += one.weight
    assert sums[0] == pytest.approx(sums[1])
    assert sum(sums.values()) == pytest.approx(len(balanced))
    given = read(path, tokenizer, class_weights={"0": 3.0}).train
    assert {(one.right, one.weight) for one in given} == {(0, 1.0), (1, 3.0)}


def test_a_weighted_sample_keeps_its_media():
    question = Choices(np.array([1]), [np.array([2])], 0)
    medium = Medium("image", b"", "one.png")
    found = TaskSamples("mood", load_task("sentiment"), [Sample("a:1", (question,), 1.0, (medium,))], [], Counter())  # fmt: skip
    _weigh(found, "balanced")
    assert found.train[0].media == (medium,)


def test_only_answers_are_predicted_and_long_texts_give_way(tmp_path, tokenizer):
    record = {"context": "很快，" * 90 + "太慢。", "question": "很？", "answers": ["太慢"]}
    lines = [{**record, "context": record["context"] + f"第{n}次"} for n in range(20)]
    found = read(
        write(tmp_path / "qa.jsonl", lines), tokenizer, task="qa", valid_ratio=0.5, length=60
    )
    assert found.counts["shortened"] == 20
    for sample in (*found.train, *found.valid):
        for example in sample.variants:
            assert len(example) <= 60
            predicted = example.labels[example.labels != IGNORE_INDEX]
            assert tokenizer.decode(predicted[:-1]).strip() == "太慢"
            assert predicted[-1] == tokenizer.special_ids.eop
            assert (example.labels[: example.prefix_length] == IGNORE_INDEX).all()


def test_a_text_is_read_in_windows_each_token_once(tmp_path, tokenizer):
    lines = [{"text": f"第{n}次很快，" * 12} for n in range(8)]
    found = read(
        write(tmp_path / "t.jsonl", lines), tokenizer, task="text", length=32, valid_ratio=0.4
    )
    by_text: dict[str, list[np.ndarray]] = {}
    for sample in (*found.train, *found.valid):
        (example,) = sample.variants
        part = example.labels[example.labels != IGNORE_INDEX]
        by_text.setdefault(sample.where, []).append(part)
    assert len(by_text) == 8
    for where, parts in by_text.items():
        *ids, end = np.concatenate(parts).tolist()
        assert end == tokenizer.special_ids.eos
        assert tokenizer.decode(ids) == lines[int(where.split(":")[1]) - 1]["text"]


def test_settings_that_contradict_themselves_are_all_named():
    config = FinetuneConfig(
        model={"from": "nowhere/at-all/x", "dropout": 1},
        tasks={
            "sentiment": TaskData(train=[], class_weights={"2": 1.0}, weight=0, limit=0),
            "sentimen": TaskData(train=["x"]),
            "qa": TaskData(train=["x"], valid_ratio=0, class_weights="balanced"),
        },
        method="head",
        label_smoothing=1.0,
        trainer={"output_dir": "x", "label_smoothing_factor": 0.1, "max_step": 3},
    )
    with pytest.raises(ConfigError) as caught:
        check(config)
    message = str(caught.value)
    for part in (
        "model.from = 'nowhere/at-all/x'",
        "unknown key 'model.dropout'",
        "unknown key 'trainer.max_step'; did you mean 'max_steps'",
        "trainer.label_smoothing_factor = 0.1 is not supported in fine-tuning; set label_smoothing",
        "tasks.sentiment.train: no file is named",
        "tasks.sentiment.weight = 0",
        "tasks.sentiment.limit = 0",
        "tasks.sentiment.class_weights.2 = 1.0: no such label (there are 1, 0)",
        "tasks.sentimen: there is no task 'sentimen'; did you mean 'sentiment'",
        "tasks.qa.valid_ratio = 0",
        "tasks.qa.class_weights: only a classification has classes",
        "method = 'head' is for one classification task",
        "label_smoothing = 1.0",
    ):
        assert part in message, part
