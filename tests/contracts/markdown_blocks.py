"""Code blocks of a Markdown text, for the tests that run or read them."""

from __future__ import annotations

import re


def blocks(text: str, *languages: str) -> list[str]:
    """Returns the bodies of the fenced blocks in one of the languages ("" is a block without one), in their order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [body for language, body in found if language in languages]
