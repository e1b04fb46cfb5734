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


def test_texts_are_led_and_chosen():
    """Beside constraints: another prompt that leads away, and a label that the best of some draws has."""
    plain = run("fill", "北京是[MASK]", "--max-new-tokens", "5")
    options = (
        "--negative-prompt",
        "[MASK]上海是",
        "--guidance-scale",
        "4",
        "--max-new-tokens",
        "5",
    )
    led, both = (
        run("fill", "北京是[MASK]", *options),
        run("fill", "北京是[MASK]", "北京是[MASK]", *options),
    )
    assert led.returncode == 0, led.stderr
    assert led.stdout != plain.stdout
    assert both.stdout == led.stdout * 2
    wish = (
        "--prefer",
        "sentiment=negative",
        "--candidates",
        "3",
        "--seed",
        "1",
        "--max-new-tokens",
        "5",
    )
    filled = run("fill", "北京是[MASK]", *wish, "--json")
    record = json.loads(filled.stdout)
    shares = [one["preference"] for one in record["candidates"]]
    assert shares == sorted(shares, reverse=True)
    assert 1 < len(shares) <= 3
    table = run("fill", "北京是[MASK]", *wish)
    assert f"{shares[0]:.1%}" in table.stdout
    written = run("generate", "北京是[MASK]", *wish)
    assert written.stdout.strip() == record["blanks"][0]


def test_what_cannot_lead_is_refused():
    for arguments, message in (
        (("--prefer", "sentiment"), "--prefer sentiment=positive"),
        (("--prefer", "sentiment=x"), "positive, negative"),
        (("--guidance-scale", "2"), "negative_prompt"),
        (("--negative-prompt", "[MASK][MASK]"), "the one against it 2"),
    ):
        result = run("fill", "x[MASK]", *arguments)
        assert result.returncode == 2
        assert message in result.stderr


def test_nothing_given_is_no_constraint():
    defaults = {name: default for name, _, default, *_ in controlling.OPTIONS}
    assert controlling.constraint_of(None, defaults) is None
