"""The guide to choosing: its Python runs, its commands parse, its thresholds and factors are the code's, in both languages."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from markdown_blocks import blocks

from glmkit.choosing import judging, speed
from glmkit.cli.main import build_app

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "guides"


@pytest.fixture(params=["choose.md", "choose.zh.md"])
def text(request: pytest.FixtureRequest) -> str:
    return (FOLDER / request.param).read_text(encoding="utf-8")


def test_the_python_runs(text: str, capsys):
    names: dict = {}
    for block in blocks(text, "python"):
        exec(block, names)
    assert names["everything"]["best"] == names["best"].candidate.name
    assert names["best"].command in capsys.readouterr().out


def test_the_commands_options_exist(text: str):
    known = {
        option
        for one in typer.main.get_command(build_app()).commands["choose"].params
        for option in one.opts
    }
    for line in blocks(text, "bash")[0].splitlines():
        words = shlex.split(line)
        assert words[:2] == ["glmkit", "choose"]
        assert {word for word in words if word.startswith("-")} <= known


def test_rules_and_factors_are_the_codes(text: str):
    rows = [line.split("|")[1].strip(" `") for line in text.splitlines() if line.startswith("| `")]
    assert tuple(rows) == judging.PROBLEMS
    for number in (judging.FEW, judging.MANY, speed.EPOCHS):
        assert re.search(rf"(?<!\d){number}(?!\d)", text)
    for share in (
        *speed.COMPUTE_SHARE.values(),
        speed.BANDWIDTH_SHARE,
        speed.NATIVE_BANDWIDTH_SHARE,
    ):
        assert re.search(rf"{100 * share:.0f} ?%", text)
    assert f"{1000 * speed.LAYER_SECONDS:.2f} m" in text or f"{1000 * speed.LAYER_SECONDS:.2f} 毫秒" in text  # fmt: skip
    assert f"{1000 * speed.NATIVE_LAYER_SECONDS:.2f} m" in text or f"{1000 * speed.NATIVE_LAYER_SECONDS:.2f} 毫秒" in text  # fmt: skip
    assert speed.NATIVE_SHARE == {"float32": 1, "int8": 2.2, "int4": 2.2}
    assert "2.2 times" in text or "2.2 倍" in text
    assert judging.LARGE == 1e9


def test_links_lead_somewhere(text: str):
    for link in re.findall(r"\]\(([\w./-]+\.md)", text):
        assert (FOLDER / link).is_file(), link
