"""The guide to evaluation names every metric and kind of task, and its Python runs."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from markdown_blocks import blocks

from glmkit.evaluation.metrics import METRICS
from glmkit.tasks.task import Task

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "guides"


@pytest.fixture(params=["evaluate.md", "evaluate.zh.md"])
def text(request: pytest.FixtureRequest) -> str:
    return (FOLDER / request.param).read_text(encoding="utf-8")


def test_every_metric_and_kind_is_named(text: str):
    for name in METRICS:
        assert f"`{name}`" in text
    for kind in get_args(get_type_hints(Task)["kind"]):
        assert kind in text


def test_the_python_runs(text: str, capsys):
    for block in blocks(text, "python"):
        if (
            "lm_eval" not in block
        ):  # downloads data; the test below and test_harness.py run the adapter
            exec(block, {})
    value, *_ = capsys.readouterr().out.split(maxsplit=1)
    assert 0 < float(value) < 1


def test_the_harness_task_is_one(text: str, tmp_path: Path, monkeypatch):
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    from evaluation_samples import tiny_glm
    from glmkit.harness import HarnessModel, evaluate

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (task,) = blocks(text, "yaml")
    Path("last_word.yaml").write_text(task, "utf-8")
    Path("sentences.jsonl").write_text('{"context": "The rivers", "word": "remain"}\n', "utf-8")
    found = evaluate(HarnessModel(tiny_glm()), ["last_word.yaml"], bootstrap_iters=0)
    assert found["results"]["last_word"]["perplexity,none"] > 1
