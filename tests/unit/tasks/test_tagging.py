"""Tagging: records become tags of units and tags become spans again; windows lose nothing; files of columns; F1 by hand."""

from __future__ import annotations

import numpy as np
import pytest

from glmkit.errors import ConfigError, DataError
from glmkit.tasks.agreement import entity_f1, macro_f1
from glmkit.tasks.records import read_records
from glmkit.tasks.tagging import (
    decode_tags,
    encode_tagged,
    tag_names,
    tagged_text,
)
from glmkit.tasks.task import Task, load_task
from glmkit.tokens.train import train_tokenizer

NER, WORDS = load_task("ner"), load_task("segmentation")
TEXT = "鲁迅生于绍兴，在Peking University任教 12年。"
SPANS = [(0, 2, "PER"), (4, 6, "LOC"), (8, 25, "ORG")]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([TEXT, "鲁迅在北京大学。Lu Xun was in Peking."] * 60, 330, "bpe")


def scores_of(tags) -> np.ndarray:
    """Log-probabilities that are sure of tags."""
    return np.log(np.eye(len(tag_names(NER)))[tags] * 0.93 + 0.01)


def test_tags_of_a_text_are_its_spans_again(tokenizer):
    [sample] = encode_tagged(NER, TEXT, SPANS, tokenizer, 200)
    shown = [TEXT[a:b] for a, b in sample.units]
    assert shown == [*"鲁迅生于绍兴，在", "Peking", "University", *"任教", "12", "年", "。"]
    names = [tag_names(NER)[tag] for tag in sample.tags]
    assert names[:7] == ["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC", "O"]
    assert names[8:10] == ["B-ORG", "I-ORG"]
    found = decode_tags(NER, sample.units, scores_of(sample.tags))
    assert [span for span, _ in found] == SPANS
    assert {round(score, 2) for _, score in found} == {0.94}
    # Each unit's first token is where its tag is read, and all tokens are those of the text.
    ids = sample.part_a.tolist()
    assert len(sample.places) == len(sample.units) == len(set(sample.places.tolist()))
    starts = [*sample.places.tolist(), len(ids) - 1]
    decoded = [tokenizer.decode(ids[a:b]).strip() for a, b in zip(starts, starts[1:], strict=False)]
    assert decoded == shown


def test_what_goes_on_follows_what_it_goes_on():
    """A tag that no span can have is overruled: here I-LOC behind B-PER, and I-PER at the start."""
    names = tag_names(NER)
    wanted = [names.index(one) for one in ("I-PER", "B-PER", "I-LOC", "O")]
    scores = scores_of(wanted)
    scores[0, names.index("B-PER")] = np.log(0.05)
    scores[2, names.index("I-PER")] = np.log(0.05)
    found = decode_tags(NER, [(0, 1), (1, 2), (2, 3), (3, 4)], scores)
    assert [span for span, _ in found] == [(0, 1, "PER"), (1, 3, "PER")]
    assert decode_tags(NER, [], np.zeros((0, len(names)))) == []


def test_windows_hold_every_unit_once(tokenizer):
    text = TEXT * 6
    spans = [(a + n * len(TEXT), b + n * len(TEXT), label) for n in range(6) for a, b, label in SPANS]  # fmt: skip
    [whole] = encode_tagged(NER, text, spans, tokenizer, 1000)
    windows = encode_tagged(NER, text, spans, tokenizer, 60)
    assert len(windows) > 2
    assert all(len(one.part_a) <= 60 for one in windows)
    assert [unit for one in windows for unit in one.units] == whole.units
    assert np.concatenate([one.tags for one in windows]).tolist() == whole.tags.tolist()
    assert [span for one in windows for span in one.spans] == spans
    assert {text[one.units[-1][0]] for one in windows} == {"。"}  # cut behind sentences
    assert encode_tagged(NER, "", None, tokenizer, 60) == []


@pytest.mark.parametrize(
    ("tokens", "tags", "text", "spans"),
    [
        (["Lu", "Xun", "在", "北", "京"], ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"], "Lu Xun在北京", [(0, 6, "PER"), (7, 9, "LOC")]),
        (["北", "京", "大", "学"], ["B_ORG", "M_ORG", "M_ORG", "E_ORG"], "北京大学", [(0, 4, "ORG")]),
        (["甲", "乙"], ["S-PER", "S-PER"], "甲乙", [(0, 1, "PER"), (1, 2, "PER")]),
        (["甲", "乙"], ["B-PER", "I-LOC"], "甲乙", [(0, 1, "PER"), (1, 2, "LOC")]),
    ],
)  # fmt: skip
def test_tokens_with_tags_are_a_text_with_spans(tokens, tags, text, spans):
    assert tagged_text(NER, {"tokens": tokens, "tags": tags}, "x:1") == (text, spans)


def test_a_task_of_one_label_needs_none_in_its_tags():
    record = {"tokens": list("我们来"), "tags": ["B", "E", "S"]}
    assert tagged_text(WORDS, record, "x:1")[1] == [(0, 2, "word"), (2, 3, "word")]


def test_files_of_columns(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("-DOCSTART- O\n\n鲁 x B-PER\n迅 x I-PER\n\n\n来 x O\n", encoding="utf-8")
    found = list(read_records(path))
    assert [record["tags"] for record, _ in found] == [["B-PER", "I-PER"], ["O"]]
    assert [where for _, where in found] == [f"{path}:3", f"{path}:7"]
    path.write_text("鲁\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a.conll:1: '鲁' has no tag"):
        list(read_records(path))
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no sentence"):
        list(read_records(path))
    path.write_bytes("中文 O\n".encode("gbk"))
    with pytest.raises(DataError, match="is not UTF-8"):
        list(read_records(path))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "鲁迅"}, "has no field 'spans'"),
        ({"text": "鲁迅", "spans": [[0, 3, "PER"]]}, "not inside the text, which has 2 characters"),
        ({"text": "鲁迅", "spans": [[0, 1, "PERS"]]}, "'PERS' is not one of the task.*did you mean 'PER'"),
        ({"text": "鲁迅", "spans": [[0, 2, "PER"], [1, 2, "LOC"]]}, "overlap at character 1"),
        ({"text": "鲁迅", "spans": ["PER"]}, r"'PER' is not \[start, end, label\]"),
        ({"tokens": ["鲁"], "tags": []}, "lists of the same length"),
        ({"tokens": ["鲁"], "tags": ["X-PER"]}, "'X-PER' is none of O, B-"),
        ({"tokens": ["鲁"], "tags": ["B"]}, "'B' says no label"),
    ],
)  # fmt: skip
def test_records_that_cannot_be_used_are_named(record, message):
    with pytest.raises(DataError, match=f"(?s)data.jsonl:7.*({message})"):
        tagged_text(NER, record, "data.jsonl:7")


def test_entity_f1_by_hand():
    right = [[(0, 2, "PER"), (4, 6, "LOC")], [(1, 2, "ORG")], []]
    assert entity_f1(right, right) == 1
    # One of three right spans found, beside a wrong label and a wrong end: 2 · 1 / (3 + 3).
    found = [[(0, 2, "PER"), (4, 6, "ORG")], [(1, 3, "ORG")], []]
    assert entity_f1(found, right) == pytest.approx(1 / 3)
    assert entity_f1([[], [], []], right) == 0
    assert entity_f1([[]], [[]]) == 1
    assert macro_f1([1, 1, 2], [1, 2, 2]) == pytest.approx(2 / 3)
    assert macro_f1(["a", "b"], ["a", "c"]) == pytest.approx(1 / 3)


def test_a_task_without_labels_or_with_a_pattern_is_refused():
    fields = {"text": "the text", "spans": "spans"}
    common = {"name": "x", "kind": "tagging", "metric": "entity_f1", "fields": fields}
    labels = {"A": {"zh": "甲", "en": "a"}}
    with pytest.raises(ConfigError, match="tagging has labels"):
        Task(**common, label="spans")
    with pytest.raises(ConfigError, match="of tagging none"):
        Task(**common, label="spans", labels=labels, patterns={"zh": ["{text}[MASK]"]})
    with pytest.raises(ConfigError, match="tagging has a label"):
        Task(**common, labels=labels)
