"""Constraints on the command line: what is printed keeps all of them; a mistake is a sentence."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("llguidance")

from test_cli import run

from conftest import golden_folder
from glmkit.cli import controlling, writing


@pytest.fixture(scope="module")
def model() -> str:
    return str(golden_folder("tiny-chinese").path)


@pytest.fixture(autouse=True)
def _loaded_once(monkeypatch, model: str):
    import glmkit

    loaded = _models.setdefault(model, glmkit.load(model, device="cpu"))
    monkeypatch.setattr(writing, "load_model", lambda *_: loaded)


_models: dict = {}


@pytest.mark.parametrize("verb", ["fill", "generate"])
def test_all_options_are_kept_together(verb: str):
    options = ("--regex", "[a-z]+", "--include", "cat", "--exclude", "e", "--max-characters", "8")
    result = run(verb, "x[MASK]", "--json", *options)
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)
    text = record["blanks"][0] if verb == "fill" else record["text"]
    assert re.fullmatch("[a-df-z]{3,8}", text)
    assert "cat" in text


def test_choices_and_files(tmp_path):
    chosen = run("fill", "[MASK]和[MASK]", "--choices", "北京", "--choices", "上海", "--json")
    assert set(json.loads(chosen.stdout)["blanks"]) <= {"北京", "上海"}
    (tmp_path / "s.json").write_text('{"enum": [1, 22]}')
    (tmp_path / "g.lark").write_text('start: "a" | "bc"')
    number = run("generate", "x", "--json-schema", str(tmp_path / "s.json"))
    assert number.stdout.strip() in ("1", "22")
    letters = run("generate", "x", "--grammar", str(tmp_path / "g.lark"), "--num-beams", "2")
    assert letters.stdout.strip() in ("a", "bc")


def test_mistakes_are_sentences(tmp_path):
    for arguments, message in (
        (("--json-schema", str(tmp_path / "none.json")), "none.json cannot be read"),
        (("--regex", "("), "regex='(' cannot be used"),
        (("--include", "北京", "--max-characters", "1"), "takes 2 characters"),
    ):
        result = run("fill", "x[MASK]", *arguments)
        assert result.returncode == 2
        assert message in result.stderr


def test_nothing_given_is_no_constraint():
    defaults = {name: default for name, _, default, *_ in controlling.OPTIONS}
    assert controlling.constraint_of(None, defaults) is None
