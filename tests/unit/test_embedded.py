"""The name of an embedded model means it everywhere; a folder of that name is reached by a path."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

import glmkit
from conftest import golden_folder
from glmkit import GLMForConditionalGeneration, GLMTokenizer, embedded
from glmkit.checkpoint import resolve
from glmkit.errors import CheckpointError, TokenizerError


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of assets in which glm-mini is the tiny checkpoint, and an empty working directory."""
    monkeypatch.setattr(embedded, "ASSETS", tmp_path / "assets")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.copytree(golden_folder("tiny-chinese").path, tmp_path / "assets" / "glm-mini")
    return tmp_path / "assets"


def test_the_name_is_the_default_and_means_the_embedded_model(assets: Path):
    assert resolve("glm-mini") == assets / "glm-mini"
    assert glmkit.load(device="cpu").generate("今天", max_new_tokens=2) == (
        glmkit.load("glm-mini", device="cpu").generate("今天", max_new_tokens=2)
    )
    tokenizer = GLMTokenizer.from_pretrained("glm-mini")
    model = GLMForConditionalGeneration.from_pretrained("glm-mini")
    assert model.config.vocab_size >= len(tokenizer)


def test_a_folder_of_that_name_here_is_reached_by_a_path(assets: Path, caplog):
    Path("glm-mini").mkdir()
    with caplog.at_level(logging.WARNING):
        assert resolve("glm-mini") == assets / "glm-mini"
    assert "'./glm-mini'" in caplog.text
    assert resolve("./glm-mini") == resolve(Path("glm-mini")) == Path("glm-mini")


def test_an_installation_without_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded, "ASSETS", tmp_path)
    with pytest.raises(CheckpointError, match="comes with glmkit, but this installation lacks it"):
        glmkit.load()
    with pytest.raises(TokenizerError, match="Install a release"):
        GLMTokenizer.from_pretrained("glm-mini")


def test_a_mistyped_name_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="did you mean 'glm-mini'"):
        resolve("glm-mimi", local_files_only=True)
