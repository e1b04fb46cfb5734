"""Code blocks of a Markdown text, for the tests that run or read them."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(text: str, *languages: str) -> list[str]:
    """Returns the bodies of the fenced blocks in one of the languages ("" is a block without one), in their order.

    Quotations are left out.
    """
    return [body for language, title, body in _BLOCK.findall(text) if language in languages and not title]  # fmt: skip


def quotations(text: str) -> list[tuple[str, str]]:
    """Returns (path, lines) of the blocks that quote a file of the repository: those with title="path"."""
    return [(title, body) for _, title, body in _BLOCK.findall(text) if title]
