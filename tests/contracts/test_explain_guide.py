"""The guide to explanations: its Python runs as it stands, in both languages, and its numbers are those of the recorded page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markdown_blocks import blocks

import glmkit
from glmkit.explain.attribution import BASELINES, METHODS
from understanding_samples import random_glm

pytest.importorskip("captum", reason="captum is not installed")

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("guide", ["explain.md", "explain.zh.md"])
def test_its_python_runs(guide: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(glmkit, "load", random_glm)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    text = (DOCS / "guides" / guide).read_text(encoding="utf-8")
    for block in blocks(text, "python"):
        exec(compile(block, guide, "exec"), names)
    assert (tmp_path / "why.html").is_file()
    assert names["gradients"].complete
    assert len(names["shots"].evidence[0].examples) == 2
    assert "blank 1: 拿破仑" in capsys.readouterr().out
    for name in (*METHODS, *BASELINES):
        assert f"`{name}`" in text or f'"{name}"' in text


@pytest.mark.parametrize("guide", ["explain.md", "explain.zh.md"])
def test_its_table_is_the_recorded_one(guide: str):
    """To two places: 200 texts tell no more."""
    recorded = (DOCS / "results" / "explain_cpu_2026-11.md").read_text(encoding="utf-8")
    rounded = re.sub(r"([-+]?)(\d\.\d{4})", lambda found: f"{found[1]}{float(found[2]):.2f}", recorded)  # fmt: skip
    text = (DOCS / "guides" / guide).read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (?:integrated|ablation|attention|random).*\d\.\d\d.*$", text, re.MULTILINE
    )
    assert len(rows) == 8
    assert all(row in rounded for row in rows)
