"""The quickstart's Python runs as written; the gallery is made of every application."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import yaml
from markdown_blocks import blocks

import glmkit

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "glm-mini"


def test_python_runs_from_top_to_bottom(capsys: pytest.CaptureFixture):
    names: dict = {}
    python = blocks((ROOT / "docs" / "quickstart.md").read_text("utf-8"), "python")
    for block in python:
        exec(compile(block, "quickstart.md", "exec"), names)
    assert len(python) >= 6
    assert names["poem"].form == "七言绝句"
    assert names["context"][names["answer"].start : names["answer"].end] == names["answer"].text
    assert "床前" in capsys.readouterr().out


def test_both_languages_have_the_same_python():
    """But for comments, which are in the guide's language."""
    english, chinese = (
        [line.split("  #")[0] for block in blocks((ROOT / "docs" / name).read_text("utf-8"), "python") for line in block.splitlines()]
        for name in ("quickstart.md", "quickstart.zh.md")
    )  # fmt: skip
    assert english == chinese


def test_the_gallery_has_every_application_in_both_languages(monkeypatch: pytest.MonkeyPatch):
    """With one question each; the real pages are made by the same function."""
    monkeypatch.syspath_prepend(str(RECIPE))
    gallery = importlib.import_module("gallery")
    asked = yaml.safe_load((RECIPE / "gallery.yaml").read_text("utf-8"))
    assert set(asked) == {"seed", *gallery.SECTIONS}
    one = {name: value[:1] if isinstance(value, list) else value for name, value in asked.items()}
    one["answers"] = [{**one["answers"][0], "questions": one["answers"][0]["questions"][:1]}]
    pages = gallery.make_pages(glmkit.load(device="cpu"), one, "abc123")
    assert set(pages) == set(gallery.PAGES)
    for page in pages.values():
        assert page.count("\n## ") == len(gallery.SECTIONS)
        assert "abc123" in page
        assert "{" not in page
    english, chinese = (
        [line for line in page.splitlines() if line.startswith(">")] for page in pages.values()
    )
    assert english == chinese
    assert len(english) >= 6
    sys.modules.pop("gallery")
