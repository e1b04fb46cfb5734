"""The lock (constraints.txt) is within the bounds of pyproject.toml, on each Python that is named there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PYTHONS = [
    one.rpartition(" ")[2] for one in PROJECT["classifiers"] if "Python :: 3." in one
]  # the lowest one first


def that_apply(lines: list[str], python: str) -> list[Requirement]:
    where = {"python_version": python, "python_full_version": f"{python}.9"}
    read = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return [one for one in read if one.marker is None or one.marker.evaluate(where)]


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_is_within_the_bounds(python: str):
    """On Python 3.10 nothing could be installed: its newest transformers, which the lock has, was below a new bound."""
    assert PYTHONS[0] == PROJECT["requires-python"].removeprefix(">=")
    locked = {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in that_apply(LOCK, python)
    }
    extras = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *(one for name in extras if name != "bench" for one in extras[name])]  # fmt: skip
    wanted = [one for one in that_apply(asked, python) if one.name != PROJECT["name"]]
    assert len(wanted) > 50
    for one in wanted:
        version = locked[canonicalize_name(one.name)]
        assert one.specifier.contains(version), f"{one} on Python {python}: the lock has {version}"
