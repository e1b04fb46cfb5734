"""Every recipe reads strictly, and names a model and a trainer that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from glmkit.config import load_config
from glmkit.training.settings import PretrainConfig, check

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def test_there_are_recipes():
    assert {path.stem for path in RECIPES} >= {"pretrain-debug", "pretrain-mini"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_reads_strictly(path, monkeypatch):
    monkeypatch.setattr("glmkit.training.settings._check_folder", lambda *given: None)
    config = load_config(PretrainConfig, path)
    assert check(config).model["preset"]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 40
    assert f"glmkit pretrain recipes/{path.name}" in "\n".join(
        line for line in lines if line.startswith("#")
    )
