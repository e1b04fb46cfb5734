"""The guide to writing: its Python runs as it stands, in both languages, with a tiny model in glm-mini's place."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from markdown_blocks import blocks
from typer.testing import CliRunner

import glmkit
from conftest import golden_folder
from glmkit.cli.main import build_app
from glmkit.multimodal.reader import MediaReader
from glmkit.native.model import as_torch
from media_samples import image_bytes, tiny_media, wav_bytes

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
def test_its_commands_with_media_run(guide: Path, tiny: glmkit.GLM, monkeypatch, tmp_path: Path):
    pytest.importorskip("av")
    pytest.importorskip("captum")
    monkeypatch.chdir(tmp_path)
    Path("picture.png").write_bytes(image_bytes())
    Path("sound.wav").write_bytes(wav_bytes())
    monkeypatch.setattr(tiny, "media", MediaReader(tiny_media(as_torch(tiny.model))))
    monkeypatch.setattr("glmkit.api.load", lambda *_, **__: tiny)
    lines = [line for block in blocks(guide.read_text(encoding="utf-8"), "sh") for line in block.splitlines()]  # fmt: skip
    lines = [line for line in lines if "--image" in line or "--audio" in line]
    assert len(lines) == 4
    for line in lines:
        said, _, command = line.rpartition(" | ")
        texts = shlex.split(said)[1].replace("\\n", "\n") if said else None
        done = CliRunner().invoke(build_app(), [*shlex.split(command)[1:], "--max-new-tokens", "3"], input=texts)  # fmt: skip
        assert done.exit_code == 0, done.output


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
