from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.utils import filter_repo_objects

from glmkit.checkpoint import resolve
from glmkit.errors import CheckpointError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(cache: Path, name: str, *files: str) -> Path:
    """Lays out a download as huggingface-hub keeps it."""
    repo = cache / f"models--{name.replace('/', '--')}"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    for file in files:
        (snapshot / file).write_text("{}")
    return snapshot


def test_an_existing_path_is_itself(tmp_path, monkeypatch):
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path)) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~") == tmp_path


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_cached_name_needs_no_network(tmp_path, weights):
    snapshot = cached(tmp_path, "THUDM/glm-large-chinese", "config.json", weights)
    found = resolve("THUDM/glm-large-chinese", cache_dir=tmp_path, local_files_only=True)
    assert found == snapshot


def test_everything_that_a_model_of_glmkit_has_is_downloaded_and_no_more(tmp_path, monkeypatch):
    files = [
        "adapter_model.safetensors",
        "calibration.json",
        "head.safetensors",
        "media/model.safetensors",
        "media/tokens.txt",
        "quantized.safetensors",
        "tasks/sentiment.yaml",
        "tokenizer_config.json",
    ]
    wanted: list[str] = []

    def download(name, allow_patterns, **options):
        wanted[:] = filter_repo_objects([*files, "pytorch_model.bin", "logs/events.1"], allow_patterns=allow_patterns)  # fmt: skip
        (tmp_path / "adapter_model.safetensors").touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    resolve("somebody/fine-tuned")
    assert wanted == files


def test_offline_says_how_to_get_it(tmp_path):
    with pytest.raises(CheckpointError) as error:
        resolve("THUDM/glm-10b", "main", cache_dir=tmp_path, local_files_only=True)
    text = str(error.value)
    assert "'THUDM/glm-10b'" in text
    assert "the local cache has no copy" in text
    assert "hf download THUDM/glm-10b --local-dir" in text


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_that_is_not_there_names_its_neighbours(tmp_path, kind):
    (tmp_path / "glm-large").mkdir()
    with pytest.raises(CheckpointError, match="There is no .*did you mean 'glm-large'"):
        resolve(kind(tmp_path / "glm-larg"))
    with pytest.raises(CheckpointError, match="nor a folder"):
        resolve(kind(tmp_path / "none" / "glm"))


def test_a_mistyped_folder_that_could_be_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    with pytest.raises(
        CheckpointError, match="no folder 'runs/frist' here; did you mean 'first'\\? It could"
    ):
        resolve("runs/frist", cache_dir=tmp_path / "cache", local_files_only=True)
    with pytest.raises(CheckpointError, match="There is no runs/frist"):
        resolve("./runs/frist")
