"""What the guides say exists: commands, options, recipes, keys of recipes, links; in both languages alike."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path

import pytest
import typer
from markdown_blocks import blocks

from glmkit.cli.main import build_app

ROOT = Path(__file__).resolve().parents[2]
GUIDES = sorted((ROOT / "docs").rglob("*.md"))


@functools.cache
def command_line() -> typer.core.TyperGroup:
    """Returns the command with its verbs; made once for all guides."""
    return typer.main.get_command(build_app())  # type: ignore[return-value]


def commands(guide: Path) -> list[list[str]]:
    """Returns the words of each `glmkit …` line of its shell blocks, continued lines joined, comments gone."""
    shell = blocks(guide.read_text(encoding="utf-8"), "sh", "bash")
    lines = "\n".join(shell).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("glmkit ")]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_commands_options_and_recipes_exist(guide: Path):
    group = command_line()
    for _, verb, *arguments in commands(guide):
        options = {name for one in group.commands[verb].params for name in one.opts}
        options |= {name for one in group.commands[verb].params for name in one.secondary_opts}
        given = {word.split("=")[0] for word in arguments if re.match(r"--?[a-z]", word)}
        assert given <= options, f"{verb} has no {given - options}"
    for recipe in re.findall(
        r"`?(?:recipes/)?((?:glm-mini/)?(?:pretrain|continue|finetune)-[\w-]+\.yaml)`?",
        guide.read_text("utf-8"),
    ):
        assert (ROOT / "recipes" / recipe).is_file(), recipe


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_links_and_pictures_are_there(guide: Path):
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", guide.read_text("utf-8")):
        assert link.startswith("https://") or (guide.parent / link).exists(), link


@pytest.mark.parametrize(
    "guide", [g for g in GUIDES if g.name.endswith(".zh.md")], ids=lambda p: p.name
)
def test_both_languages_show_the_same_commands(guide: Path):
    english = guide.with_name(guide.name.replace(".zh.md", ".md"))
    assert english.is_file()
    verbs = [words[:2] for words in commands(guide)]
    assert verbs == [words[:2] for words in commands(english)]
