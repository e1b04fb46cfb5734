"""What the guides on training tell to write is read strictly; both languages tell the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from markdown_blocks import blocks

from glmkit.cli.main import VERBS
from glmkit.config import from_values
from glmkit.training.settings import PretrainConfig

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
NAMES = ("training", "continue-pretraining")


@pytest.mark.parametrize("name", [f"{name}{end}" for name in NAMES for end in (".md", ".zh.md")])
def test_settings_and_commands_exist(name):
    path = GUIDES / name
    for block in blocks(path.read_text("utf-8"), "yaml"):
        from_values(PretrainConfig, {"data": {"folder": "runs/data"}, **yaml.safe_load(block)})
    verbs = {verb for verb, *_ in VERBS}
    for block in blocks(path.read_text("utf-8"), "bash"):
        for command in block.strip().splitlines():
            assert command.split()[0] == "glmkit"
            assert command.split()[1] in verbs
    root = GUIDES.parents[1]
    text = path.read_text(encoding="utf-8")
    for recipe in re.findall(r"recipes/[\w-]+\.yaml", text):
        assert (root / recipe).is_file()
    for link in re.findall(r"\]\(([\w.-]+\.md)\)", text):
        assert (GUIDES / link).is_file(), link


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_have_the_same_commands_and_settings(name):
    english, chinese = ((GUIDES / f"{name}{end}").read_text("utf-8") for end in (".md", ".zh.md"))
    assert blocks(english, "bash") == blocks(chinese, "bash")
    settings = [[yaml.safe_load(b) for b in blocks(one, "yaml")] for one in (english, chinese)]
    assert settings[0] == settings[1]
