"""The guide to speed: its Python and its commands run as they stand, in both languages, on a tiny model."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from markdown_blocks import blocks
from typer.testing import CliRunner

import glmkit
from conftest import golden_folder
from glmkit.checkpoint.packing import pack
from glmkit.cli.main import build_app
from glmkit.native import library
from glmkit.native.model import NativeModel

GUIDES = sorted((Path(__file__).resolve().parents[2] / "docs" / "guides").glob("speed*.md"))


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_its_python_and_its_commands_run(guide: Path, monkeypatch, tmp_path):
    assert len(GUIDES) == 2
    folder, text = golden_folder("tiny-chinese").path, guide.read_text(encoding="utf-8")
    monkeypatch.setattr(glmkit, "load", functools.partial(glmkit.load, folder, device="cpu"))
    names: dict = {}
    for block in blocks(text, "python"):
        exec(compile(block, guide.name, "exec"), names)
    assert isinstance(names["glm"].model, NativeModel) == (library.why_not() is None)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "model").symlink_to(folder)
    for line in "\n".join(blocks(text, "sh")).splitlines():
        program, *arguments = line.replace('"', "").split()
        assert program == "glmkit"
        done = CliRunner().invoke(build_app(), [*arguments, *(["--max-new-tokens", "2"] if "fill" in arguments else [])])  # fmt: skip
        assert done.exit_code == 0, done.output
    assert (tmp_path / "runs" / "mine-int8" / "quantized.safetensors").is_file()
    assert "native decoder" in CliRunner().invoke(build_app(), ["info"]).output


def test_its_bytes_are_those_of_the_packed_matrices():
    import torch

    weights = torch.randn(256, 1024)
    for format, stated in (("float32", 4), ("bfloat16", 1.5), ("int8", 1), ("int4", 0.6)):
        packed = pack(weights, format)
        found = sum(part.nbytes for part in packed.parts.values()) / weights.numel()
        assert found == pytest.approx(stated, abs=0.01)
