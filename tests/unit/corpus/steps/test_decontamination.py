"""Decontamination: a passage of an evaluation text is found wherever it stands; less than a passage is not."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from glmkit.corpus.steps.decontamination import DecontaminationRule, PassageIndex, build_index
from glmkit.corpus.steps.settings import DecontaminationSettings
from glmkit.errors import DataError

ENGLISH = "The quick brown fox jumps over the lazy dog while seventeen silent owls watch from the old barn."
CHINESE = "凯旋门位于意大利米兰市古城堡旁，一八〇七年为纪念拿破仑征服米兰而建，门高二十五米。"


@pytest.fixture
def evaluation(tmp_path):
    records = [
        {"question": CHINESE, "answers": ["唐代诗人张若虚作春江花月夜"]},
        {"question": ENGLISH, "answers": ["an owl"]},
    ]
    path = tmp_path / "eval.jsonl"
    path.write_text("\n".join(json.dumps(one, ensure_ascii=False) for one in records), "utf-8")
    return path


@pytest.fixture
def rule(evaluation, tmp_path):
    settings = DecontaminationSettings(against=[str(evaluation)], text_field="question,answers")
    build_index(settings).save(tmp_path / "index.npz")
    return DecontaminationRule(tmp_path / "index.npz")


def test_passages_are_found(rule):
    words = ENGLISH.split()
    characters = [one for one in CHINESE if one not in "，。"]
    assert rule("Before. " + " ".join(words[3:16]).upper() + ", after") == "evaluation text"
    assert rule("Before. " + " ".join(words[3:15]) + " after") is None
    assert rule("前文。" + "\n".join(characters[5:25]) + "后文") == "evaluation text"
    assert rule("前文。" + "".join(characters[5:24]) + "后文") is None
    assert rule("他说：唐代诗人张若虚作春江花月夜。") == "evaluation text"  # 13 characters, whole
    assert rule("an owl, an owl") is None
    assert rule("") is None


def test_index_round_trip(tmp_path):
    index = PassageIndex({13: np.arange(3, dtype=np.uint64), 20: np.arange(2, dtype=np.uint64)})
    index.save(tmp_path / "a.npz")
    loaded = PassageIndex.load(tmp_path / "a.npz")
    assert len(loaded) == len(index) == 5
    assert loaded.passages[20].tolist() == [0, 1]


def test_short_texts_are_reported(evaluation, caplog):
    with caplog.at_level(logging.WARNING):
        build_index(
            DecontaminationSettings(against=[str(evaluation)], text_field="answers,question")
        )
    assert "1 of 4 evaluation texts are shorter than 10" in caplog.text
    with pytest.raises(DataError, match="none of the 2 texts"):
        build_index(
            DecontaminationSettings(against=[str(evaluation)], text_field="question", min_units=99)
        )
    with pytest.raises(DataError, match="no field 'answer'"):
        build_index(
            DecontaminationSettings(against=[str(evaluation)], text_field="question,answer")
        )
