"""Fine-tuning end to end on a tiny model: it learns, goes on exactly, keeps the best, saves only what was trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from finetune_samples import base_model, kill_at, make_config, reviews, write_jsonl
from pretrain_samples import curve

import glmkit
from glmkit.config import to_values
from glmkit.errors import ConfigError
from glmkit.model import GLMForConditionalGeneration, GLMForSequenceClassification
from glmkit.model.adapters import load_merged
from glmkit.tasks.task import load_task
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.training.finetune import finetune
from glmkit.training.finetune_data import read_task
from glmkit.training.finetune_measuring import measure
from glmkit.training.finetune_report import FinetuneReport
from glmkit.training.finetune_settings import TaskData
from glmkit.training.finetune_trainer import read_weights

base = base_model()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("data")
    train = write_jsonl(folder / "train.jsonl", reviews(200))
    valid = write_jsonl(folder / "valid.jsonl", reviews(60, seed=1))
    return {"train": [str(train)], "valid": [str(valid)]}


@pytest.fixture(scope="module")
def learnt(base, data, tmp_path_factory) -> dict:
    """A run of each way to classify."""
    folder = tmp_path_factory.mktemp("learnt")
    ways = {
        "cloze": (base, {}, {}),
        "head": (base, {"method": "head"}, {"num_train_epochs": 4}),
    }
    tasks = {"sentiment": data}
    found = {
        name: finetune(make_config(model, folder / name, tasks, sections, **trainer))
        for name, (model, sections, trainer) in ways.items()
    }
    # Random weights that stay as they are have little to adapt; these have seen the words.
    sections = {"method": "head", "lora": {"rank": 8}}
    found["adapter"] = finetune(
        make_config(found["cloze"].model, folder / "adapter", tasks, sections, num_train_epochs=3)
    )
    return found


def samples(folder: Path, data: dict):
    tokenizer = GLMTokenizer.from_pretrained(folder)
    given = TaskData(train=data["train"], valid=data["valid"])
    return tokenizer, read_task("sentiment", load_task("sentiment"), given, tokenizer, 64, 0)


@pytest.mark.parametrize("way", ["cloze", "head", "adapter"])
def test_200_records_take_it_from_chance_to_knowledge(learnt, data, way):
    report = learnt[way]
    assert report.before["sentiment"]["accuracy"] < 0.7
    assert report.after["sentiment"]["accuracy"] > 0.9
    # What was predicted is written, and is what was counted.
    lines = (report.folder / "predictions" / "sentiment.jsonl").read_text("utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    hits = sum(line["right"] == line["chosen"] for line in found)
    assert hits / len(found) == pytest.approx(report.after["sentiment"]["accuracy"])
    # The folder holds these weights.
    classes = {"cloze": GLMForConditionalGeneration}.get(way, GLMForSequenceClassification)
    model = load_merged(classes, report.model).eval()
    tokenizer, task = samples(report.model, data)
    again = measure(model, task, tokenizer.special_ids, rows=16, head=way != "cloze")
    assert again.metrics == pytest.approx(report.after["sentiment"], abs=1e-4)
    for name in ("report.txt", "curve.png", "report.html"):
        assert (report.folder / name).stat().st_size > 100
    stored = load_task(report.model / "tasks" / "sentiment.yaml")
    assert stored == load_task("sentiment")


def test_a_finished_run_is_not_run_again_and_another_is_refused(learnt, base, data):
    run = learnt["head"].folder
    trainer = {"num_train_epochs": 4}
    same = make_config(base, run, {"sentiment": data}, {"method": "head"}, **trainer)
    assert finetune(same) == learnt["head"]
    other = make_config(base, run, {"sentiment": data}, {"method": "head"}, seed=7, **trainer)
    with pytest.raises(ConfigError, match=r"other settings \(different: trainer.seed\)"):
        finetune(other)


@pytest.mark.parametrize("way", ["cloze", "head", "adapter"])
def test_training_measures_what_inference_does(learnt, way):
    """A loaded model gives the shares of the report: words in the blank, a head, an adapter in its base."""
    glm = glmkit.load(learnt[way].model, device="cpu")
    path = learnt[way].folder / "predictions" / "sentiment.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    texts = [record["text"] for record in reviews(60, seed=1)][:8]
    for found, expected in zip(glm.classify(texts, "sentiment"), lines, strict=False):
        assert found.probabilities == pytest.approx(expected["probabilities"], abs=1e-4)
        assert found.label == expected["chosen"]
    assert (glm.head is None) == (way == "cloze")


@pytest.mark.parametrize("way", ["cloze", "head"])
def test_a_batch_is_its_samples_one_by_one(learnt, data, way):
    classes = {"cloze": GLMForConditionalGeneration, "head": GLMForSequenceClassification}
    model = classes[way].from_pretrained(learnt[way].model).eval()
    tokenizer, task = samples(learnt[way].model, data)
    one, many = (
        measure(model, task, tokenizer.special_ids, rows=rows, head=way == "head")
        for rows in (1, 60)
    )
    assert [x["chosen"] for x in one.predictions] == [x["chosen"] for x in many.predictions]
    assert one.metrics == pytest.approx(many.metrics, abs=1e-5)


def test_an_adapter_is_all_that_is_saved_and_merges(learnt, base, data, tmp_path):
    report = learnt["adapter"]
    weights = read_weights(report.model)
    assert all("lora_" in name or name.startswith(("dense.", "out_proj.")) for name in weights)
    assert sum(one.numel() for one in weights.values()) == report.trained_parameters
    assert not (report.model / "model.safetensors").exists()
    sections = {"method": "head", "lora": {"rank": 8, "merge": True}}
    config = make_config(
        base, tmp_path / "merged", {"sentiment": data}, sections, learning_rate=2e-2, max_steps=3
    )
    merged = finetune(config)
    assert (merged.folder / "adapter" / "adapter_model.safetensors").is_file()
    plain = GLMForSequenceClassification.from_pretrained(merged.model)
    adapted = load_merged(GLMForSequenceClassification, merged.folder / "adapter")
    for (name, one), (_, other) in zip(
        plain.state_dict().items(), adapted.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name
    assert plain.config.id2label == {0: "1", 1: "0"}


JOINT = {
    "qa": {"limit": 20, "weight": 0.5},
    "sentiment": {"limit": 24, "class_weights": {"1": 2.0}},
}


def joint(data, folder: Path) -> dict:
    """Two tasks of two kinds."""
    records = [
        {"context": f"老板{n}，味道好。", "question": "味道？", "answers": ["好"]}
        for n in range(24)
    ]
    path = str(write_jsonl(folder / "qa.jsonl", records))
    return {"qa": {"train": [path], **JOINT["qa"]}, "sentiment": {**data, **JOINT["sentiment"]}}


@pytest.mark.parametrize("lora", [0, pytest.param(4, marks=pytest.mark.slow)])
def test_resumed_is_uninterrupted(base, data, tmp_path, monkeypatch, lora):
    tasks = joint(data, tmp_path)
    sections = {"lora": {"rank": lora}, "label_smoothing": 0.1}
    sections["model"] = {"from": str(base), "output_dropout_prob": 0.1}
    trainer = {
        "max_steps": 9,
        "eval_steps": 3,
        "gradient_accumulation_steps": 2,
        "logging_steps": 2,
    }
    whole = finetune(make_config(base, tmp_path / "one", tasks, sections, **trainer))
    kill_at(5, make_config(base, tmp_path / "two", tasks, sections, **trainer), monkeypatch)
    resumed = finetune(make_config(base, tmp_path / "two", tasks, sections, **trainer))
    assert resumed.resumed_from == 3
    assert curve(tmp_path / "one") == curve(tmp_path / "two")
    assert resumed.after == whole.after
    assert set(whole.after) == {"qa", "sentiment"}
    one, two = read_weights(whole.model), read_weights(resumed.model)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [0, 4])
def test_two_processes_train_what_one_does(base, data, tmp_path, lora):
    def values(processes: int) -> str:
        trainer = {
            "max_steps": 4,
            "eval_steps": 2,
            "per_device_train_batch_size": 8 // processes,
            "gradient_accumulation_steps": 2,
        }
        run = tmp_path / str(processes)
        config = make_config(base, run, joint(data, tmp_path), {"lora": {"rank": lora}}, **trainer)
        return json.dumps(to_values(config))

    script = str(Path(__file__).with_name("finetune_samples.py"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    for processes in (1, 2):
        command = [*torchrun, str(processes), script, values(processes)]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    one, two = (FinetuneReport.load(tmp_path / str(n)) for n in (1, 2))
    for task in one.after:
        assert two.after[task] == pytest.approx(one.after[task], rel=1e-5)
    one, two = read_weights(one.model), read_weights(two.model)
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=0)


def test_the_best_is_kept_and_patience_ends(base, data, tmp_path):
    """Nothing is better than all right: two evaluations later it stops, and has kept the first such weights."""
    sections = {"best": {"patience": 2}}
    config = make_config(
        base, tmp_path / "run", {"sentiment": data}, sections, eval_steps=24, max_steps=400
    )
    report = finetune(config)
    assert report.stopped_early
    assert report.steps == report.best_step + 2 * 24 < 400
    found = {x["step"]: x["eval_accuracy"] for x in curve(report.folder) if "eval_loss" in x}
    assert found[report.best_step] > max(found[step] for step in found if step < report.best_step)
    assert report.after["sentiment"]["accuracy"] == found[report.best_step]
    assert finetune(config) == report


def test_records_that_change_are_noticed(base, data, tmp_path, monkeypatch):
    path = write_jsonl(tmp_path / "train.jsonl", reviews(40))
    tasks = {"sentiment": {**data, "train": [str(path)]}}
    trainer = {"max_steps": 4, "eval_steps": 2}
    config = make_config(base, tmp_path / "run", tasks, **trainer)
    kill_at(3, config, monkeypatch)
    write_jsonl(path, reviews(41))
    with pytest.raises(ConfigError, match="records to train on are not those"):
        finetune(config)


KINDS = {
    "summary": [{"text": f"味道{n}很快", "summary": "很快"} for n in range(30)],
    "dialogue": [{"turns": ["今天？", "很快", f"老板{n}", "好吃"]} for n in range(20)],
    "text": [{"text": "味道，位置，" * (n + 1)} for n in range(20)],
    "choice": [
        {"a": f"早餐{n}", "options": ["好吃", "太慢", "很脏"][: 2 + n % 2], "right": n % 2 * 2}
        for n in range(30)
    ],
}

CHOICE = """
name: choice
kind: multiple_choice
metric: accuracy
fields: {a: the question, options: the choices, right: which}
label: right
choices: ["{options}"]
patterns: {zh: ["{a}：[MASK]"]}
"""


def test_every_kind_of_task_is_learnt_in_one_run(base, tmp_path):
    (tmp_path / "choice.yaml").write_text(CHOICE, encoding="utf-8")
    tasks = {}
    for kind, records in KINDS.items():
        path = str(write_jsonl(tmp_path / f"{kind}.jsonl", records))
        task = str(tmp_path / "choice.yaml") if kind == "choice" else kind
        tasks[kind] = {"train": [path], "task": task, "valid_ratio": 0.3}
    report = finetune(make_config(base, tmp_path / "run", tasks, max_steps=60, eval_steps=30))
    assert set(report.after) == set(KINDS)
    for kind, after in report.after.items():
        assert after["loss"] < report.before[kind]["loss"] - 0.3, kind
    assert report.after["choice"]["accuracy"] > 0.9
