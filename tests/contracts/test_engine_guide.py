"""The guide to the engine: its Python runs as it stands, in both languages, with a tiny model in glm-mini's place."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_blocks import blocks

import glmkit
from conftest import golden_folder

GUIDES = sorted((Path(__file__).resolve().parents[2] / "docs" / "guides").glob("engine*.md"))


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_its_python_runs(guide: Path, monkeypatch):
    assert len(GUIDES) == 2
    load, folder = glmkit.load, golden_folder("tiny-chinese").path
    tiny = load(folder, device="cpu")
    monkeypatch.setattr(glmkit, "load", lambda **options: load(folder, device="cpu", **options))
    names: dict = {}
    for block in blocks(guide.read_text(encoding="utf-8"), "python"):
        exec(compile(block, guide.name, "exec"), names)
    filled = tiny.fill("北京是[MASK]的首都，也是[MASK]。", max_new_tokens=8)
    assert [text.strip() for text in names["contents"]] == filled.blanks
    assert all(names[ticket].done for ticket in ("first", "drawn", "late"))
    assert len({tuple(blank.tokens) for [blank] in names["drawn"].samples}) > 1
    assert not names["engine"].busy
    assert names["logits"].shape == (1, tiny.model.config.vocab_size)
    runner = names["runner"]
    assert runner.length(names["other"]) == runner.length(names["text"]) + 1
