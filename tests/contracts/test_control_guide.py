"""The guide to control: its Python runs as it stands, in both languages, and what comes out is what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from markdown_blocks import blocks

import glmkit
from conftest import golden_folder

pytest.importorskip("llguidance")

GUIDES = sorted((Path(__file__).resolve().parents[2] / "docs" / "guides").glob("control*.md"))


@pytest.fixture(scope="module")
def tiny() -> glmkit.GLM:
    """A model that has learnt nothing."""
    return glmkit.load(golden_folder("tiny-chinese").path, device="cpu")


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_its_python_runs(guide: Path, tiny: glmkit.GLM, monkeypatch):
    assert len(GUIDES) == 2
    monkeypatch.setattr(glmkit, "load", lambda *_: tiny)
    names: dict = {}
    for block in blocks(guide.read_text(encoding="utf-8"), "python"):
        exec(compile(block, guide.name, "exec"), names)
    assert re.fullmatch("[0-9]{4}", names["filled"].blanks[0])
    assert names["filled"].blanks[1] in ("北京", "上海", "南京")
    assert "花" in names["spring"]
    assert "冬天" not in names["spring"]
    assert len(names["spring"]) <= 20
    assert re.fullmatch("[a-z]{5,8}", names["letters"])
    assert "cat" in names["letters"]
    assert set(json.loads(names["answer"])) == {"city", "year"}
    assert re.match("[0-9]", names["expression"])
