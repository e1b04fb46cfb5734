"""Recipes: dataclass defaults < a YAML file < `key=value` on the command line.

In: a dataclass that describes a run, the path of a recipe, and overrides with dotted keys. Out: the dataclass, with
every value checked against its annotation. All that is wrong is said in one message. Knows no command and no model.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from glmkit.errors import ConfigError, nearest
from glmkit.whole_files import write_text

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """Safe YAML that also reads `4e-4` as a number, which YAML 1.1 takes for a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_config(cls: type[T], recipe: str | Path | None = None, overrides: Sequence[str] = ()) -> T:
    """Returns the configuration of a run.

    Args:
        cls: A dataclass; its fields may be dataclasses (sections) and `dict[str, Any]` (free sections, where a
            recipe's keys are added to the default's).
        recipe: A YAML file, or None for the defaults alone.
        overrides: `section.key=value`, the value written as in YAML.

    Raises:
        ConfigError: No such file, no YAML, an unknown key or a value of a wrong type; names all of them.
    """
    values = {} if recipe is None else _read(Path(recipe))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                f"{override!r} is no setting; write key=value, for example trainer.max_steps=100"
            )
        _set(values, key.strip().split("."), _parse(text, override), override)
    return from_values(cls, values, source="the recipe" if recipe is None else str(recipe))


def from_values(cls: type[T], values: Mapping[str, Any], *, source: str = "the recipe") -> T:
    """Returns dataclass `cls` made of nested plain values, all checked; see `load_config`."""
    problems: list[str] = []
    config = _build(cls, values, "", problems)
    if problems:
        raise ConfigError(f"{source} cannot be used: " + "; ".join(problems))
    return config


def check_values(
    hints: Mapping[str, Any], values: Mapping[str, Any], where: str, problems: list[str]
) -> dict[str, Any]:
    """Returns `values` converted to the annotations in `hints`; adds what is wrong to `problems`."""
    converted = {}
    for key, value in values.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in hints:
            problems.append(
                f"unknown key {name!r}{nearest(str(key), hints)} (known: {', '.join(sorted(hints))})"
            )
        else:
            converted[key] = _convert(hints[key], value, name, problems)
    return converted


def to_values(config: Any) -> dict[str, Any]:
    """Returns a configuration as nested plain values: what `from_values` takes and YAML or JSON can hold."""
    return _plain(dataclasses.asdict(config))


def save_config(config: Any, path: str | Path) -> None:
    """Writes the resolved configuration as YAML; `load_config` reads it back."""
    text = yaml.safe_dump(to_values(config), sort_keys=False, allow_unicode=True)
    write_text(Path(path), text)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    values = _parse(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {values!r:.60}; a recipe is made of `key: value` lines")
    return values


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # ValueError: no such date or number
        raise ConfigError(f"{source} is not valid YAML: {error}") from error


def _set(values: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{override!r}: {key} is a value, not a section")
    values[keys[-1]] = value


def _build(cls: Any, values: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(values, Mapping):
        problems.append(f"{where} = {values!r} must be a section with keys of its own")
        return None
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    before = len(problems)
    converted = check_values({name: hints[name] for name in fields}, values, where, problems)
    for name, field in fields.items():
        default = field.default_factory
        if name not in values and field.default is default is dataclasses.MISSING:
            problems.append(f"{where + '.' if where else ''}{name} is missing")
        if isinstance(value := converted.get(name), dict) and callable(default):
            converted[name] = {**default(), **value}
    if len(problems) > before:
        return None
    try:
        return cls(**converted)
    except ConfigError as error:  # a dataclass that checks itself
        problems.append(f"{where}: {error}" if where else str(error))
        return None


def _convert(hint: Any, value: Any, name: str, problems: list[str]) -> Any:
    """Returns `value` as the annotation wants it, or adds a problem."""
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, name, problems)
    item = typing.get_args(hint)[-1] if typing.get_origin(hint) is dict else None
    if dataclasses.is_dataclass(item) and isinstance(value, Mapping):
        # Sections with names of the user's.
        return {
            str(key): _build(item, one, f"{name}.{key}", problems) for key, one in value.items()
        }
    if item is not None and isinstance(value, Mapping):
        wanted = typing.get_args(hint)[0]
        return {
            _convert_key(wanted, key, name, problems): _convert(
                item, one, f"{name}.{key}", problems
            )
            for key, one in value.items()
        }
    sections = [one for one in typing.get_args(hint) if dataclasses.is_dataclass(one)]
    if sections and value is not None:  # a section that may be left out
        return _build(sections[0], value, name, problems)
    found = _fit(hint, value)
    if found is _NO:
        problems.append(
            f"{name} = {value!r} is not allowed; allowed: {describe(hint)}{_quotes(hint, value)}"
        )
        return None
    return found


def _convert_key(hint: Any, key: Any, name: str, problems: list[str]) -> Any:
    """Returns a section's key as the annotation wants it, or adds a problem; of an override's dotted key a number is a text."""
    if hint is int and isinstance(key, str) and key.isdecimal():
        return int(key)
    if _fit(hint, key) is _NO:
        problems.append(
            f"{name}: the key {key!r} is not allowed; allowed: {describe(hint)}{_quotes(hint, key)}"
        )
    return key


def _quotes(hint: Any, value: Any) -> str:
    """Returns the remedy where YAML takes what is meant as a text (yes, no, 1) for something else."""
    wanted = str in (hint, *typing.get_args(hint))
    return "; put it in quotes" if wanted and isinstance(value, bool | int | float) else ""


_NO = object()


def _fit(hint: Any, value: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        exact = [one for one in args if isinstance(one, type) and type(value) is one]
        fits = (_fit(one, value) for one in (*exact, *args))
        return next((fit for fit in fits if fit is not _NO), _NO)
    if origin is Literal:
        return value if value in args else _NO
    if origin in (list, tuple, Sequence):
        if not isinstance(value, list | tuple):
            return _NO
        item = args[0] if args else Any
        items = [_fit(item, one) for one in value]
        if origin is tuple and args and args[-1] is not Ellipsis and len(args) != len(items):
            return _NO
        return (
            _NO if any(one is _NO for one in items) else (tuple if origin is tuple else list)(items)
        )
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping):
            return _NO
        key_hint, value_hint = args or (Any, Any)
        pairs = [(_fit(key_hint, key), _fit(value_hint, one)) for key, one in value.items()]
        return _NO if any(one is _NO for pair in pairs for one in pair) else dict(pairs)
    if hint in (None, type(None)):
        return None if value is None else _NO
    if hint is float:
        return (
            float(value) if isinstance(value, int | float) and not isinstance(value, bool) else _NO
        )
    if hint in (bool, str):
        return value if isinstance(value, hint) else _NO
    if hint is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else _NO
    if hint is Path:
        return Path(value) if isinstance(value, str | Path) else _NO
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return value if value in [one.value for one in hint] else _NO
    return value  # a type that a recipe cannot describe: left to its owner


def describe(hint: Any) -> str:
    """Returns what an annotation allows, in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(one) for one in args)
    if origin is Literal:
        return ", ".join(repr(one) for one in args)
    if origin in (list, tuple, Sequence):
        return f"a list of {describe(args[0])}" if args else "a list"
    if origin is dict and args[1] is not Any:
        return f"a section whose values are {describe(args[1])}"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return ", ".join(repr(one.value) for one in hint)
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        Path: "a path",
        dict: "a section",
        type(None): "null",
    }
    # Python 3.10 takes dict[str, int] for a type too.
    return words.get(origin or hint, getattr(hint, "__name__", str(hint)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, enum.Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value
