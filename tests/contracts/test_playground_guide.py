"""The guide to the playground: its Python and its command give a server that has the page, in both languages."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from markdown_blocks import blocks
from typer.testing import CliRunner

import glmkit
from conftest import golden_folder
from glmkit.cli.main import build_app

pytest.importorskip("gradio")

GUIDES = sorted((Path(__file__).resolve().parents[2] / "docs" / "guides").glob("playground*.md"))


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_its_python_and_its_command_give_the_page(guide: Path, monkeypatch):
    assert len(GUIDES) == 2
    tiny = golden_folder("tiny-chinese").path
    glm = glmkit.load(tiny, device="cpu")
    for place in ("glmkit.load", "glmkit.api.load"):
        monkeypatch.setattr(place, lambda *_, **__: glm)
    apps: list[Any] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server: apps.append(server.config.app))
    text, names = guide.read_text(encoding="utf-8"), {}
    [code] = blocks(text, "python")
    exec(compile(code, guide.name, "exec"), names)
    apps.append(names["app"])
    [commands] = blocks(text, "sh")
    line = next(line for line in commands.splitlines() if line.startswith("glmkit"))
    for options in ([], ["--no-playground"]):
        done = CliRunner().invoke(build_app(), [*shlex.split(line)[1:], *options])
        assert done.exit_code == 0, done.output
    with_page = [{"/", "/zh", "/en", "/login"} <= {getattr(one, "path", "") for one in app.routes} for app in apps]  # fmt: skip
    for app in apps:
        app.state.server.scheduler.close()
    assert with_page == [True, True, False]
