"""Text that every machine has: this project's own documents and Python's documentation strings.

In: nothing. Out: JSON lines with `text`, the same on each run.
"""

from __future__ import annotations

import ast
import json
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from glmkit.whole_files import write_text

FEWEST_CHARACTERS = 80


def write_corpus(path: Path) -> tuple[int, int]:
    """Writes the demo's documents as JSON lines; returns their number and their characters."""
    documents = sorted({*own_documents(), *documentation_strings()})
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents]
    write_text(path, "".join(lines))
    return len(documents), sum(map(len, documents))


def own_documents() -> Iterator[str]:
    """This project's documents, by paragraph: those of the checkout if there is one, and its docstrings."""
    import glmkit

    package = Path(glmkit.__file__).parent
    checkout = package.parents[1]
    for file in sorted([*checkout.glob("*.md"), *checkout.glob("docs/**/*.md")]):
        for paragraph in re.split(r"\n(?=#)", file.read_text(encoding="utf-8")):
            if len(paragraph) >= FEWEST_CHARACTERS:
                yield paragraph.strip()
    yield from _docstrings_under(package, "**/*.py")


def documentation_strings() -> Iterator[str]:
    """The documentation strings of Python's standard library."""
    standard_library = Path(sysconfig.get_paths()["stdlib"])
    for pattern in ("*.py", "*/*.py"):
        yield from _docstrings_under(standard_library, pattern)


def _docstrings_under(folder: Path, pattern: str) -> Iterator[str]:
    for file in sorted(folder.glob(pattern)):
        if {"test", "tests", "site-packages", "idlelib", "lib2to3"} & set(file.parts):
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) >= FEWEST_CHARACTERS:
                    yield re.sub(r"(?<=\S)\n(?=[A-Za-z])", " ", text)  # one line a paragraph
