"""A checkpoint's folder that appears whole or not at all: it is written under a temporary name beside the target and renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glmkit.checkpoint.reading import detect_format
from glmkit.errors import CheckpointError


@contextmanager
def new_folder(folder: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary folder that becomes `folder` when the block ends, and vanishes when it fails.

    Args:
        folder: The target; its parents are made.
        overwrite: Replace an existing checkpoint.

    Raises:
        CheckpointError: The target is a file, or not empty and either `overwrite` is off or it is no
            checkpoint.
    """
    folder = Path(folder)
    if folder.exists():
        _require_replaceable(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():
            old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
            folder.rename(old)
            temporary.rename(folder)
            shutil.rmtree(old)
        else:
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _require_replaceable(folder: Path, overwrite: bool) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} exists and is a file; give a folder to write.")
    if not any(folder.iterdir()):
        return
    if not overwrite:
        raise CheckpointError(
            f"{folder} exists and is not empty; give another folder, or overwrite=True to replace it."
        )
    try:
        detect_format(folder)
    except CheckpointError as error:
        raise CheckpointError(
            f"{folder} is not replaced, because it is no checkpoint: {error}"
        ) from error
