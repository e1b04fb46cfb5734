"""Files that appear whole or not at all: written under a temporary name beside their own, then renamed; and their locks."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Holds a file's lock, which a process that ends lets go, however it ends.

    Args:
        path: A file that is made for it, and stays.
        wait: Wait while another process holds it, instead of yielding False.

    Yields:
        Whether no other process holds it. Always true where files cannot be locked: on Windows, and on some network drives.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    with path.open("a") as file:
        mine = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            mine = False
        except OSError:
            pass  # a drive without locks
        yield mine


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
