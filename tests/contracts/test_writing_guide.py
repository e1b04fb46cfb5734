"""The guide to writing: its Python runs as it stands, in both languages, with a tiny model in glm-mini's place."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_blocks import blocks

import glmkit
from conftest import golden_folder

GUIDES = sorted((Path(__file__).resolve().parents[2] / "docs" / "guides").glob("writing*.md"))


@pytest.fixture(scope="module")
def tiny() -> glmkit.GLM:
    """A model that has learnt nothing, whose blanks are kept short."""
    glm = glmkit.load(golden_folder("tiny-chinese").path, device="cpu")

    class Short(glmkit.GLM):
        def fill(self, texts, **settings):
            return super().fill(texts, **{"max_new_tokens": 3, **settings})

        def generate(self, texts, **settings):
            return super().generate(texts, **{"max_new_tokens": 8, **settings})

        def article(self, texts, **settings):
            lengths = {"max_characters": 20, "min_characters": 10}
            return super().article(texts, **{**settings, **lengths, "max_new_tokens": 12})

        def chat(self, messages, **settings):
            return super().chat(messages, **{"max_new_tokens": 8, **settings})

    return Short(glm.model, glm.tokenizer)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_its_python_runs(guide: Path, tiny: glmkit.GLM, monkeypatch, capsys):
    assert len(GUIDES) == 2
    monkeypatch.setattr(glmkit, "load", lambda *_: tiny)
    names: dict = {}
    for block in blocks(guide.read_text(encoding="utf-8"), "python"):
        exec(compile(block, guide.name, "exec"), names)
    assert len(names["best"].candidates) == 5
    assert names["article"].startswith("北京很大。")
    assert len(names["messages"]) == 4
    assert capsys.readouterr().out.startswith("The Great Wall\n")
