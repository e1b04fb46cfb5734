"""A text in both languages that glmkit speaks."""

from __future__ import annotations

from typing import NamedTuple


class Text(NamedTuple):
    """The same in English and in Chinese."""

    en: str
    zh: str

    def say(self, chinese: bool) -> str:
        """Returns it in one of them."""
        return self.zh if chinese else self.en


def time_words(seconds: float) -> Text:
    """Returns a time for people."""
    for size, en, zh in ((3600, "h", "小时"), (60, "min", "分钟"), (1, "s", "秒")):
        if seconds >= size:
            value = f"{seconds / size:.1f}" if seconds < 10 * size else f"{seconds / size:.0f}"
            return Text(f"{value} {en}", f"{value} {zh}")
    return Text(f"{1000 * seconds:.0f} ms", f"{1000 * seconds:.0f} 毫秒")
