"""A font on this machine that has the characters of a text.

In: a text. Out: names of font families for matplotlib, tried in their order. Nothing is downloaded.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from glmkit.errors import UserError
from glmkit.explain.units import FIRST_IDEOGRAPH

KNOWN = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Heiti SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "SimHei",
    "Arial Unicode MS",
)
"""Fonts with Chinese that are often there, the clearest first; others are found too."""


def families(text: str) -> list[str]:
    """Returns the families that draw a text: matplotlib's own, before it one with Chinese where the text has some.

    Raises:
        UserError: The text has Chinese (or Japanese, Korean) characters, and no font here has them.
    """
    needed = {ord(character) for character in text if ord(character) >= FIRST_IDEOGRAPH}
    if not needed:
        return ["DejaVu Sans"]
    best, most = "", 0
    for name, path in _candidates():
        covered = len(needed & _characters(path))
        if covered > most:
            best, most = name, covered
        if covered == len(needed):
            break
    if not best:
        raise UserError(
            "the picture has Chinese characters, and no font on this machine has them. Install one, on Debian or Ubuntu "
            'with "apt-get install fonts-noto-cjk" or "apt-get install fonts-wqy-microhei"; or save a page (.html), which '
            "uses the reader's fonts"
        )
    return [best, "DejaVu Sans"]


def _candidates() -> list[tuple[str, str]]:
    """Returns (family, file) of all fonts, known ones first; fonts installed since matplotlib last looked are found."""
    from matplotlib import font_manager

    manager: Any = font_manager.fontManager
    there = {entry.fname for entry in manager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in there:
            try:
                manager.addfont(path)
            except Exception:  # noqa: S112 - a damaged font of the machine is no reason to stop
                continue
    fonts = {(entry.name, entry.fname) for entry in manager.ttflist if entry.weight in (400, "normal", "regular")}  # fmt: skip
    rank = {name: number for number, name in enumerate(KNOWN)}
    return sorted(fonts, key=lambda font: (rank.get(font[0], len(KNOWN)), font))


@cache
def _characters(path: str) -> frozenset[int]:
    """Returns the characters that a font file has."""
    from matplotlib.font_manager import get_font

    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
