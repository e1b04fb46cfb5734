"""Recipes: what wins over what, and what is said about mistakes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from glmkit.config import from_values, load_config, save_config
from glmkit.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = (1, 2)

    def __post_init__(self):
        if self.rate < 0:
            raise ConfigError(f"rate={self.rate} must not be negative")


@dataclass(frozen=True)
class Run:
    folder: Path = Path("runs")
    steps: int = 10
    name: str | None = None
    inner: Inner = field(default_factory=Inner)
    free: dict[str, Any] = field(default_factory=lambda: {"x": 1, "y": 2})


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_overrides_win_over_the_recipe_which_wins_over_defaults(tmp_path):
    path = recipe(tmp_path, "steps: 20\ninner: {rate: 4e-4, sizes: [3]}\nfree: {y: 5}\n")
    run = load_config(Run, path, ["steps=30", "inner.kind=b", "free.z.q=诗", "name=null"])
    assert run == Run(
        steps=30,
        inner=Inner(rate=4e-4, kind="b", sizes=(3,)),
        free={"x": 1, "y": 5, "z": {"q": "诗"}},
    )
    assert load_config(Run) == Run()


def test_saved_configuration_reads_back(tmp_path):
    run = load_config(Run, None, ["folder=out/x", "inner.rate=1", "name=诗"])
    save_config(run, tmp_path / "config.yaml")
    assert load_config(Run, tmp_path / "config.yaml") == run
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_all_mistakes_are_in_one_message(tmp_path):
    path = recipe(
        tmp_path, "stepz: 3\nsteps: many\nname: 3\ninner: {kind: c, rate: true, sizes: [x]}\n"
    )
    with pytest.raises(ConfigError) as error:
        load_config(Run, path)
    message = str(error.value)
    assert "'stepz'; did you mean 'steps'?" in message
    assert "steps = 'many' is not allowed; allowed: a whole number" in message
    assert "name = 3 is not allowed; allowed: a text or null" in message
    assert "inner.kind = 'c' is not allowed; allowed: 'a', 'b'" in message
    assert "inner.rate = True" in message
    assert "inner.sizes = ['x'] is not allowed; allowed: a list of a whole number" in message


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["steps"], "write key=value"),
        (["=3"], "write key=value"),
        (["steps=3", "steps.x=1"], "steps is a value, not a section"),
        (["inner=3"], "must be a section"),
        (["inner.rate=-1"], "inner: rate=-1.0 must not be negative"),
        (["steps=[1"], "not valid YAML"),
        (["steps=2023-13-45"], "not valid YAML: month must be in 1..12"),
        (["steps=!!int one"], "not valid YAML: invalid literal"),
        (["free=3"], "allowed: a section"),
    ],
)
def test_mistakes_in_overrides(overrides, said):
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        load_config(Run, None, overrides)


def test_recipes_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(Run, tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="made of `key: value` lines"):
        load_config(Run, recipe(tmp_path, "just a text"))
    assert load_config(Run, recipe(tmp_path, "")) == Run()
    with pytest.raises(ConfigError, match="needed is missing"):
        load_config(Needy, recipe(tmp_path, "# nothing"))


@dataclass(frozen=True)
class Needy:
    needed: int


@dataclass(frozen=True)
class Section:
    """A section that may be left out."""

    folder: Path


@dataclass(frozen=True)
class Parts:
    """Values inside sections."""

    sizes: dict[str, float] = field(default_factory=dict)
    words: dict[Literal["zh", "en"], list[str]] = field(default_factory=dict)
    inner: Section | None = None
    limits: dict[int, float] = field(default_factory=dict)


def test_values_inside_sections_are_converted_and_checked():
    parts = from_values(
        Parts, {"sizes": {"a": 1}, "words": {"zh": ["一"]}, "inner": {"folder": "x"}}
    )
    assert parts == Parts({"a": 1.0}, {"zh": ["一"]}, Section(Path("x")))
    assert isinstance(parts.sizes["a"], float)
    assert from_values(Parts, {"inner": None}).inner is None
    for wrong, message in (
        ({"sizes": {"a": "one"}}, r"sizes\.a = 'one' is not allowed; allowed: a number"),
        ({"words": {"de": ["eins"]}}, "words: the key 'de' is not allowed; allowed: 'zh', 'en'"),
        ({"inner": {"folders": "x"}}, "unknown key 'inner.folders'; did you mean 'folder'"),
    ):
        with pytest.raises(ConfigError, match=message):
            from_values(Parts, wrong)


def test_a_number_in_a_dotted_key_is_a_number(tmp_path):
    (tmp_path / "recipe.yaml").write_text("limits: {2: 0.1, 3: 0.2}")
    found = load_config(Parts, tmp_path / "recipe.yaml", ["limits.2=0.3", "limits.4=1"])
    assert found.limits == {2: 0.3, 3: 0.2, 4: 1.0}
    with pytest.raises(ConfigError, match="limits: the key 'x' is not allowed; allowed: a whole"):
        load_config(Parts, overrides=["limits.x=0.3"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sizes: {1: 2.0}", "sizes: the key 1 is not allowed; allowed: a text; put it in quotes"),
        ("words: {zh: 一}", "words.zh = '一' is not allowed; allowed: a list of a text"),
    ],
)
def test_a_mistake_inside_a_section_is_named_alone(tmp_path, text, said):
    """The whole section was shown, and not which of its values is wrong, nor that YAML takes 1 and yes for no text."""
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_config(Parts, recipe(tmp_path, text))
    with pytest.raises(ConfigError, match="name = True is not allowed.*put it in quotes"):
        load_config(Run, recipe(tmp_path, "name: yes"))
