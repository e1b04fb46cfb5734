"""What a run's records say about where they were made."""

from __future__ import annotations

from importlib import metadata

import glmkit
from glmkit.training.logs import versions


def test_a_source_tree_that_is_not_installed_knows_its_version(monkeypatch):
    """A run from `PYTHONPATH=src` failed at its end, before its model was written: no package called glmkit."""

    def not_installed(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", not_installed)
    assert versions()["glmkit"] == glmkit.__version__
