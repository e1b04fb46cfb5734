"""The recipes of the paper's tables, from records in the published formats to numbers, on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
from finetune_samples import base_model, write_jsonl

import glmkit
from benchmark_samples import QUESTIONS, RECORDS, other
from glmkit.config import load_config
from glmkit.evaluation.suite import evaluate_tasks, parse_runs
from glmkit.tasks.task import load_task
from glmkit.training.finetune import finetune
from glmkit.training.finetune_settings import FinetuneConfig

PAPER = sorted((Path(__file__).parents[2] / "recipes" / "paper").glob("*.yaml"))
QUICK = ("superglue-copa", "superglue-multirc", "clue-cmrc")


base = base_model(max_sequence_length=512)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem in QUICK else pytest.mark.slow)
        for path in PAPER
    ],
)
def test_from_published_records_to_numbers(path, base, tmp_path):
    [(name, data)] = load_config(FinetuneConfig, path).tasks.items()
    records = RECORDS[data.task]
    train = write_jsonl(tmp_path / "train.jsonl", other(records))
    valid = write_jsonl(tmp_path / "valid.jsonl", records)
    length = min(512, load_config(FinetuneConfig, path).max_length or 512)
    config = load_config(
        FinetuneConfig,
        path,
        [
            f"model.from={base}",
            f"tasks.{name}.train=[{train}]",
            f"tasks.{name}.valid=[{valid}]",
            f"max_length={length}",
            "trainer.num_train_epochs=1",
            "trainer.use_cpu=true",
            "trainer.bf16=false",
            f"trainer.output_dir={tmp_path / 'run'}",
        ],
    )
    report = finetune(config)
    assert set(report.after) == {name}
    stored = load_task(report.model / "tasks" / f"{name}.yaml")
    # The model asks what the recipe asked: the paper's pattern alone.
    [patterns] = stored.patterns.values()
    assert len(patterns) == 1
    glm = glmkit.load(report.model, device="cpu")
    runs = parse_runs([], [f"{report.model / 'tasks' / f'{name}.yaml'}={valid}"])
    result = evaluate_tasks(glm, runs, tmp_path / "out").runs[runs[0].name]
    assert result["examples"] == len(QUESTIONS[data.task])
    if stored.kind == "classification":
        # What training measured of its held-out records is what evaluation finds.
        assert result["metrics"]["accuracy"]["value"] == report.after[name]["accuracy"]
