"""Checkpoints of a run: folders `checkpoint-N` that appear when they are whole, and the newest of them.

Knows files only. A checkpoint is written under a hidden name, flushed to the disk, then renamed, so one that has its
name is complete; what an interrupted run left under hidden names is removed.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

_NAME = re.compile(r"checkpoint-(\d+)")
PARTIAL = ".partial"
"""Folder, in that of the run, where checkpoints are written."""


def checkpoints(run: Path) -> list[Path]:
    """Returns the run's complete checkpoints, oldest first."""
    if not run.is_dir():
        return []
    found = [path for path in run.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """Returns the number of optimizer steps behind a checkpoint."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match is not None
    return int(match[1])


def publish(written: Path, target: Path) -> None:
    """Moves a finished folder to its name, once all of it is on the disk."""
    for path in sorted(written.rglob("*")):
        if path.is_file():
            _flush(path)
    _flush(written)
    remove(target)
    written.rename(target)
    _flush(target.parent)


def keep_newest(run: Path, limit: int | None) -> None:
    """Removes all but the newest `limit` checkpoints (None keeps all)."""
    for old in checkpoints(run)[: -limit if limit else 0]:
        remove(old)


def remove(folder: Path) -> None:
    """Removes a folder so that it is never seen half removed under its name."""
    if folder.exists():
        hidden = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(hidden, ignore_errors=True)
        folder.rename(hidden)
        shutil.rmtree(hidden)


def clean(run: Path) -> None:
    """Removes what an interrupted run left half written or half removed."""
    for path in run.glob(".*"):
        if path.name == PARTIAL or path.name.endswith(".old"):
            shutil.rmtree(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
