"""The guide to images, sounds and clips: its Python runs as it stands, its records are read, its tables are the code's."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import yaml
from markdown_blocks import blocks

from glmkit.config import from_values
from glmkit.multimodal.encoders import ENCODERS
from glmkit.multimodal.media import KINDS
from glmkit.tasks.records import read_questions
from glmkit.tasks.rendering import expand
from glmkit.tasks.task import load_task
from glmkit.training.adapter_settings import MediaSettings
from media_samples import clip_bytes, image_bytes, wav_bytes, write_media_model

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
NAMES = ["multimodal.md", "multimodal.zh.md"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the model and the media that the guide names."""
    path = tmp_path_factory.mktemp("guide")
    write_media_model(path / "runs" / "multimodal" / "model")
    files = {"scene.png": image_bytes(), "other.png": image_bytes(), "beeps.wav": wav_bytes(), "moving.mp4": clip_bytes()}  # fmt: skip
    for name, contents in files.items():
        (path / name).write_bytes(contents)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_its_python_runs(name: str, folder: Path, monkeypatch):
    monkeypatch.chdir(folder)
    names: dict = {}
    for block in blocks((GUIDES / name).read_text("utf-8"), "python"):
        exec(compile(block, name, "exec"), names)
    assert names["glm"].media.kinds == KINDS
    assert names["model"].media.config.kinds == KINDS


def test_both_languages_have_the_same_code():
    texts = [(GUIDES / name).read_text("utf-8") for name in NAMES]
    assert blocks(texts[0], "json") == blocks(texts[1], "json")
    code = [ast.unparse(ast.parse("\n".join(blocks(text, "python")))) for text in texts]
    assert code[0] == code[1]


@pytest.mark.parametrize("name", NAMES)
def test_its_records_and_settings_are_read(name: str, tmp_path: Path):
    text = (GUIDES / name).read_text("utf-8")
    [records] = blocks(text, "json")
    path = tmp_path / "records.jsonl"
    path.write_text(records, encoding="utf-8")
    task = load_task("multimodal")
    found = [one for record, where in read_questions(task, path) for one in expand(task, record, where)]  # fmt: skip
    assert [one["reply"] for one in found] == ["red", "绿色", "一个", "左", "快", "而对楼市成交抑制作用最大的限购", "不一样"]  # fmt: skip
    assert all(json.loads(line) for line in records.splitlines())
    [settings] = blocks(text, "yaml")
    media = from_values(MediaSettings, yaml.safe_load(settings)["media"])
    assert media.given().keys() == {"image", "video"}
    assert [name for name in ENCODERS if f"`{name}`" not in text] == []
