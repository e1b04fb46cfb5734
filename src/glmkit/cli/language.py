"""The command speaks Chinese where the terminal does, English elsewhere."""

from __future__ import annotations

import os


def speaks_chinese() -> bool:
    """Returns whether `GLMKIT_LANG`, or else the first locale variable that is set, asks for Chinese."""
    for name in ("GLMKIT_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return value.lower().startswith("zh")
    return False


def say(english: str, chinese: str) -> str:
    """Returns the text in the user's language."""
    return chinese if speaks_chinese() else english
