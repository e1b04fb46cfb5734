"""The guide to serving: its Python, its curl and its commands run as they stand, in both languages, on a tiny model."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from markdown_blocks import blocks
from typer.testing import CliRunner

import glmkit
from conftest import golden_folder
from glmkit.cli.main import build_app
from glmkit.multimodal.reader import MediaReader
from glmkit.native.model import as_torch
from media_samples import tiny_media
from serving_samples import running

GUIDES = sorted((Path(__file__).resolve().parents[2] / "docs" / "guides").glob("serve*.md"))
ADDRESS = "http://127.0.0.1:8000"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_its_python_and_its_curl_run(guide: Path, monkeypatch, capsys):
    assert len(GUIDES) == 2
    tiny = glmkit.load(golden_folder("tiny-chinese").path, device="cpu")
    tiny.media = MediaReader(tiny_media(as_torch(tiny.model)))
    monkeypatch.setattr(glmkit, "load", lambda *_: tiny)
    text = guide.read_text(encoding="utf-8")
    names: dict = {}
    with running(tiny, name="glm-mini") as server:
        for block in blocks(text, "python"):
            code = block.replace(ADDRESS, server.address).replace("此处不需要", "none")
            code = code.replace("glm-media", "glm-mini")
            exec(compile(code, guide.name, "exec", dont_inherit=True), names)
        names["app"].state.server.scheduler.close()
        expected = tiny.chat("冬天，中国哪座城市最适合避寒？", max_new_tokens=32)
        assert names["reply"].choices[0].message.content == expected
        assert capsys.readouterr().out == f"{expected}\n{tiny.generate('长城', max_new_tokens=32)}"
        assert len({choice.text for choice in names["drawn"].choices}) == 3
        assert len(names["vectors"].data) == 2
        assert isinstance(names["review"], names["Review"])
        assert re.fullmatch("[0-9]{4}", names["year"].choices[0].text)
        asked, url = [{"role": "user", "content": names["content"]}], names["url"]
        assert names["seen"].choices[0].message.content == tiny.chat(asked, max_new_tokens=16)
        told = tiny.generate("图里是[MASK]色。", images=url, max_new_tokens=4)
        assert names["told"].choices[0].text == told.strip()
        if shutil.which("curl") is None:
            return
        for block in blocks(text, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("curl"):
                    words = shlex.split(line.replace(ADDRESS, server.address))
                    done = subprocess.run(words, capture_output=True, check=True, timeout=30)
                    assert json.loads(done.stdout)["data"], done.stdout


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_its_commands_start_the_server_that_they_describe(guide: Path, monkeypatch, tmp_path):
    """All of it but the loop that waits for requests."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys.txt").write_text("key  # of the test\n", encoding="utf-8")
    found: list[Any] = []

    def run(server: uvicorn.Server) -> None:
        served = server.config.app.state.server
        found.append((served.settings, server.config))
        served.scheduler.close()

    monkeypatch.setattr(uvicorn.Server, "run", run)
    many: list[Any] = []
    monkeypatch.setattr("glmkit.serving.replicas.serve_replicas", lambda *given: many.append(given))
    load, tiny = glmkit.api.load, golden_folder("tiny-chinese").path
    monkeypatch.setattr("glmkit.api.load", lambda _, **options: load(tiny, **options))
    for block in blocks(guide.read_text(encoding="utf-8"), "sh"):
        for line in block.splitlines():
            if line.startswith("glmkit"):
                done = CliRunner().invoke(build_app(), shlex.split(line)[1:])
                assert done.exit_code == 0, done.output
    (plain, config), (seeing, _), (public, _) = found
    assert seeing.name == "glm-media"
    assert (plain.name, plain.host, plain.port, plain.api_keys) == (
        "glm-mini",
        "127.0.0.1",
        8000,
        (),
    )
    assert (public.host, public.api_keys, public.requests_per_minute) == ("0.0.0.0", ("key",), 60)
    assert not config.access_log
    [(_, settings, replicas, _)] = many
    assert (settings.name, replicas.least, replicas.largest) == ("glm-mini", 2, 4)
    refused = CliRunner().invoke(build_app(), ["serve", "--host", "0.0.0.0"])
    assert "there is no API key" in str(refused.exception)
