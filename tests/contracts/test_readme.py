"""What the two READMEs say is true: their Python runs, their commands exist, their tree is the tree."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from markdown_blocks import blocks

from conftest import golden_folder

ROOT = Path(__file__).resolve().parents[2]
READMES = ("README.md", "README.zh.md")


def read(readme: str) -> str:
    return (ROOT / readme).read_text(encoding="utf-8")


def test_both_languages_have_the_same_code():
    english, chinese = (
        [ast.unparse(ast.parse(block)) for block in blocks(read(readme), "python")]
        for readme in READMES
    )
    assert english == chinese


@pytest.mark.parametrize(
    "readme",
    [pytest.param(one, marks=[pytest.mark.slow] * (".zh." in one)) for one in READMES],
)
def test_python_blocks_run(readme: str, capsys: pytest.CaptureFixture):
    """Every block runs as written, but for the checkpoint: a tiny one of the same kind."""
    path = golden_folder("tiny-chinese").path
    names: dict = {}
    for block in blocks(read(readme), "python"):
        exec(compile(block.replace("THUDM/glm-large-chinese", str(path)), readme, "exec"), names)
    assert "凯旋门位于意大利米兰市古城堡旁" in capsys.readouterr().out


@pytest.mark.parametrize("readme", READMES)
def test_commands_and_their_options_exist(readme: str):
    import typer

    from glmkit.cli.main import build_app

    group = typer.main.get_command(build_app())
    lines = [line for block in blocks(read(readme), "sh") for line in block.splitlines()]
    verbs = [shlex.split(line) for line in lines if line.startswith("glmkit ")]
    assert len(verbs) >= 6
    for _, verb, *arguments in verbs:
        known = {name for option in group.commands[verb].params for name in option.opts}
        assert {word for word in arguments if word.startswith("-")} <= known
        for word in arguments:
            if word.startswith("recipes/"):
                assert (ROOT / word).is_file()
    targets = re.findall(r"^make (\S+)", "\n".join(lines), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets
    assert all(f"\n{target}:" in makefile for target in targets)


@pytest.mark.parametrize("readme", READMES)
def test_tree_is_the_tree(readme: str):
    tree = next(block for block in blocks(read(readme), "") if block.startswith("src/glmkit/"))
    named = set(re.findall(r"^  ([a-z_]+)/", tree, re.MULTILINE))
    files = set(re.findall(r"\b([a-z_]+\.py)\b", tree))
    package = ROOT / "src" / "glmkit"
    packages = {path.name for path in package.iterdir() if list(path.glob("*.py"))}
    assert named == {*packages, "assets"}
    assert files == {path.name for path in package.glob("*.py")} - {"__init__.py"}
    for folder in re.findall(r"\b(recipes|tests|benchmarks|docs)/", tree.splitlines()[-1]):
        assert (ROOT / folder).is_dir()


@pytest.mark.parametrize("readme", READMES)
def test_links_lead_somewhere(readme: str):
    for link in re.findall(r"\]\(([^)]+)\)", read(readme)):
        assert link.startswith("https://") or (ROOT / link).exists()
