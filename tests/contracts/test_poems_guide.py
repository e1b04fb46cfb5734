"""What the guide on poems shows runs, and what it says of its examples is so."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_blocks import blocks

import glmkit
from glmkit.applications.poetry.forms import forms
from poem_samples import random_glm

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"


@pytest.mark.parametrize("guide", ["poems.md", "poems.zh.md"])
def test_python_blocks_run(guide: str, monkeypatch: pytest.MonkeyPatch):
    """On a tiny random model in place of the embedded one; its poems keep the form all the same."""
    monkeypatch.setattr(glmkit, "load", random_glm)
    names: dict = {}
    text = (GUIDES / guide).read_text(encoding="utf-8")
    for block in blocks(text, "python"):
        exec(compile(block, guide, "exec"), names)
    tunes = sum(form.tune for form in forms().values())
    assert f"{tunes} tunes" in text or f"{tunes} 个词牌" in text
