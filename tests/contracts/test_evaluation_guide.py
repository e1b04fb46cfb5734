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
        exec(block, {})
    value, *_ = capsys.readouterr().out.split(maxsplit=1)
    assert 0 < float(value) < 1
