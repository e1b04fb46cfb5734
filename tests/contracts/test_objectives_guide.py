"""What the guide on objectives says is true: its options and defaults, its recipes, its task, its commands."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from markdown_blocks import blocks

from glmkit.blanks.objectives import ObjectiveSettings, find_sentinels, make_example
from glmkit.config import from_values
from glmkit.tasks.mixture import MixtureSettings
from glmkit.tasks.rendering import question
from glmkit.tasks.task import Task, catalog, load_task
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.tokens.train import train_tokenizer

GUIDES = sorted((Path(__file__).parents[2] / "docs" / "guides").glob("objectives*.md"))


@pytest.fixture(params=GUIDES, ids=lambda path: path.name)
def text(request) -> str:
    return request.param.read_text(encoding="utf-8")


def table(text: str) -> dict[str, str]:
    """Option -> default, of all tables whose first column is an option in backticks."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            names, value = (cell.strip() for cell in line.split("|")[1:3])
            values = value.split(", ") if value.count(",") else [value] * 9
            found.update(zip(re.findall(r"`(\w+)`", names), values, strict=False))
    return found


def test_every_option_is_there_with_its_default(text):
    assert len(GUIDES) == 2
    named = table(text)
    for field in fields(ObjectiveSettings):
        assert yaml.safe_load(named[field.name]) == field.default, field.name
    for field in fields(MixtureSettings):
        assert field.name in named
    assert float(named["temperature"]) == MixtureSettings().temperature
    assert float(named["max_share"]) == MixtureSettings().max_share
    tasks = {name: load_task(name) for name in catalog() if "/" not in name}
    mixed = {name for name, task in tasks.items() if task.kind != "tagging" and not task.media}
    assert mixed <= set(named)


def test_the_recipes_and_the_task_read(text, tmp_path):
    for block in blocks(text, "yaml"):
        values = yaml.safe_load(block)
        if "objectives" in values:
            assert from_values(ObjectiveSettings, values["objectives"]) == ObjectiveSettings()
        elif "tasks" in values:
            assert from_values(MixtureSettings, values["tasks"]).weights == {"qa": 2.0}
        else:
            (tmp_path / "intent.yaml").write_text(block, encoding="utf-8")
    task = load_task(tmp_path / "intent.yaml")
    assert isinstance(task, Task)
    assert question(task, {"query": "不去了", "intent": "cancel"}, "x:1").answer == "取消"


def test_the_records_of_the_table_are_those_of_the_tasks(text):
    for name, record in re.findall(r"^\| `(\w+)` \| `(\{.*?\})` \|", text, re.MULTILINE):
        assert set(yaml.safe_load(record)) == set(load_task(name).fields) & set(
            yaml.safe_load(record)
        )
        assert set(yaml.safe_load(record)) >= set(load_task(name).fields)


def test_the_commands_and_their_options_exist(text):
    import typer

    from glmkit.cli.main import build_app

    group = typer.main.get_command(build_app())
    for line in "".join(blocks(text, "sh")).splitlines():
        _, verb, *arguments = shlex.split(line)
        known = {name for option in group.commands[verb].params for name in option.opts}
        assert {word for word in arguments if word.startswith("-")} <= known


def test_sentinels_are_added_as_the_guide_says(text, tmp_path, monkeypatch):
    import numpy as np

    monkeypatch.chdir(tmp_path)
    train_tokenizer(["春江潮水连海平，海上明月共潮生。"] * 20, 330, "bpe").save_pretrained(
        "runs/vocabulary"
    )
    exec(compile(blocks(text, "python")[0], "guide", "exec"), {})
    tokenizer = GLMTokenizer.from_pretrained("runs/vocabulary-with-sentinels")
    sentinels = find_sentinels(tokenizer.get_vocab())
    assert len(sentinels) == 40
    ids = np.array(tokenizer("春江潮水连海平，海上明月共潮生。" * 9)["input_ids"])
    example = make_example(
        ids,
        "token",
        np.random.default_rng(0),
        tokenizer.special_ids,
        ObjectiveSettings(sentinel_tokens=True),
        sentinels=sentinels,
    )
    assert "[MASK1]" in tokenizer.decode(example.input_ids)
