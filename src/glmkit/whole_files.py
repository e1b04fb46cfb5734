"""Files that appear whole or not at all: written under a temporary name beside their own, then renamed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, in place of the one that may be there; a kill leaves the old one.

    Half of a surrogate pair, which UTF-8 has no bytes for, is written as its escape: what JSON reads back as the same.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    temporary.rename(path)


def write_figure(path: Path, figure: Figure) -> None:
    """Writes a picture in the format that the path's suffix names, as `write_text` writes text."""
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    figure.savefig(temporary)
    temporary.rename(path)


def copy_matching(source: Path, target: Path, patterns: Iterable[str]) -> tuple[str, ...]:
    """Copies the files of a folder that patterns of `Path.glob` name to the same places in another; returns these places.

    The target folder is one that is not there for readers yet.
    """
    files = [file for pattern in patterns for file in sorted(source.glob(pattern))]
    places = tuple(str(file.relative_to(source)) for file in files)
    for file, place in zip(files, places, strict=True):
        (target / place).parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target / place)
    return places
