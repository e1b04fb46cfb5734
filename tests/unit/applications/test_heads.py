"""Classification heads through the same calls as the blank."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import glmkit
from glmkit.applications.calibration import Calibration, save_calibrations
from glmkit.applications.classification import label_scores
from glmkit.config import save_config
from glmkit.errors import CheckpointError, ConfigError
from glmkit.model import GLMForSequenceClassification
from glmkit.model.convert import convert
from glmkit.native.quantizing import quantize
from glmkit.tasks.encoding import encode_question
from glmkit.tasks.rendering import question
from glmkit.tasks.task import load_task
from understanding_samples import TEXTS, random_glm

TASK = load_task("sentiment")


def head_folder(folder: Path, *, named: bool = True, task: bool = True) -> Path:
    """Writes a random head over the sample's backbone, as fine-tuning leaves it."""
    glm = random_glm()
    torch.manual_seed(1)
    model = GLMForSequenceClassification(copy.deepcopy(glm.model.config))
    model.glm.load_state_dict(glm.model.glm.state_dict())
    torch.nn.init.normal_(model.out_proj.weight, std=2.0)
    if named:
        model.config.id2label, model.config.label2id = {0: "1", 1: "0"}, {"1": 0, "0": 1}
    model.save_pretrained(folder)
    glm.tokenizer.save_pretrained(folder)
    if task:
        (folder / "tasks").mkdir()
        save_config(TASK, folder / "tasks" / "sentiment.yaml")
    return folder


def by_hand(folder: Path, text: str) -> np.ndarray:
    """The head's log-probabilities, each pattern's prompt run by itself, and their mean."""
    model = GLMForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = random_glm().tokenizer
    rows = []
    for pattern in range(2):
        asked = question(TASK, {"text": text}, "", pattern=pattern, answered=False)
        ids = torch.tensor([encode_question(asked, tokenizer)[0]])
        with torch.no_grad():
            rows.append(model(input_ids=ids).logits[0].log_softmax(-1).numpy())
    return np.mean(rows, axis=0)


def test_a_head_is_asked_as_it_was_trained(tmp_path):
    folder, glm = head_folder(tmp_path / "head"), random_glm()
    head = glm.load_head(folder)
    scores = label_scores(head.model, head.tokenizer, TEXTS, head.task, batch_size=3)
    for text, row in zip(TEXTS[:3], scores, strict=False):
        np.testing.assert_allclose(row, by_hand(folder, text), rtol=1e-4, atol=1e-5)


def test_sentiment_with_a_head_by_folder_loaded_once_or_as_the_model(tmp_path):
    folder, glm = head_folder(tmp_path / "head"), random_glm()
    by_folder = glm.sentiment(TEXTS, head=folder)
    assert glm.sentiment(TEXTS, head=glm.load_head(folder)) == by_folder
    loaded = glmkit.load(folder, device="cpu")
    assert loaded.head.model.glm is loaded.model.glm  # one copy of the weights
    for mine, theirs in zip(loaded.sentiment(TEXTS), by_folder, strict=True):
        assert mine.probabilities == pytest.approx(theirs.probabilities, abs=1e-5)
    shares = np.exp(by_hand(folder, TEXTS[0]))
    assert by_folder[0].probabilities["positive"] == pytest.approx(
        shares[0] / shares.sum(), abs=1e-5
    )
    assert glm.sentiment(TEXTS[0]) != by_folder[0]
    # The task is the head's own where none is named; other tasks still go through the blank.
    assert set(loaded.classify(TEXTS[0]).probabilities) == {"1", "0"}
    assert set(glm.classify(TEXTS[0], head=folder).probabilities) == {"1", "0"}
    assert len(loaded.classify(TEXTS[0], "topics").probabilities) == 10


def test_labels_go_by_name_not_by_place(tmp_path):
    """The head's order wins: a task whose labels stand the other way round names the same classes."""
    folder, glm = head_folder(tmp_path / "head"), random_glm()
    turned = replace(TASK, labels=dict(reversed(TASK.labels.items())))
    assert list(glm.load_head(folder, turned).task.labels) == ["1", "0"]


def test_what_is_no_head_or_another_tasks_is_named(tmp_path):
    glm = random_glm()
    glm.model.save_pretrained(tmp_path / "plain")
    glm.tokenizer.save_pretrained(tmp_path / "plain")
    with pytest.raises(ConfigError, match="holds no classification head"):
        glm.sentiment("好", head=tmp_path / "plain")
    bare = head_folder(tmp_path / "bare", task=False)
    with pytest.raises(ConfigError, match="does not say how its head was asked"):
        glm.classify("好", head=bare)
    assert glm.sentiment("好", head=bare).label in {"positive", "negative"}
    with pytest.raises(ConfigError, match=r"tells 1, 0; the task 'topics' has"):
        glm.classify("好", "topics", head=bare)
    assert glmkit.load(bare, device="cpu").head is None


@pytest.mark.parametrize("to", ["glmkit", "hub"])
def test_a_converted_classifier_answers_as_before(tmp_path, to):
    folder = head_folder(tmp_path / "head")
    save_calibrations({"sentiment": Calibration(2.0, {"1": 0.1, "0": -0.1})}, folder)
    convert(folder, tmp_path / "there", to)
    convert(tmp_path / "there", tmp_path / "back")
    expected = glmkit.load(folder, device="cpu").classify(TEXTS, "sentiment")
    for converted in ("there", "back"):
        found = glmkit.load(tmp_path / converted, device="cpu").classify(TEXTS, "sentiment")
        for one, other in zip(found, expected, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
    with pytest.raises(CheckpointError, match="labels by a head, which a quantized folder has no"):
        quantize(folder, tmp_path / "small", "int8")
