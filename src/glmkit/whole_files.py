"""Files that appear whole or not at all: written under a temporary name beside their own, then renamed."""

from __future__ import annotations

from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, in place of the one that may be there; a kill leaves the old one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(path)
