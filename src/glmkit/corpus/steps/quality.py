"""Text -> why it does not read like text, or nothing.

The rules are Gopher's, on units in place of words (see `units`). datatrove's filters hold the same rules, but
split words with models that must be fetched, and their thresholds are for words: every Chinese text, whose words
would be single characters, fails "mean word length at least 3". On English they agree with these (tested).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from glmkit.corpus.steps.settings import QualitySettings
from glmkit.corpus.steps.units import (
    DIGIT,
    HAN,
    KANA,
    LATIN,
    NEWLINE,
    OTHER_LETTER,
    PUNCTUATION,
    SPACE,
    SYMBOL,
    Units,
    code_points,
    kinds,
    units_of,
    windows,
)

ENDS = tuple(".!?。！？；;…：:”」』\"'’）)》，,")
"""A line that ends with one of these may be running text: sentences, and lines of verse."""

BULLETS = ("•", "-", "*", "·", "●", "■", "◆", "○", "▪", "→", "#")

MIN_LINES = 3
"""Rules on how lines begin and end do not judge a text of one paragraph, such as a film's plot that ends with …"""

FURNITURE_CHARS = 80
"""Furniture stands in short lines; a long one with such a phrase is about it."""

HAN_PER_WORD = 2
"""An n-gram of words is as long as one of twice as many Han characters."""

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
"""Gopher's."""

BOILERPLATE = (
    *(
        "lorem ipsum",
        "javascript",
        "cookie",
        "privacy policy",
        "terms of use",
        "terms of service",
        "sign in",
    ),
    *(
        "all rights reserved",
        "sign up",
        "log in",
        "subscribe",
        "click here",
        "share this",
        "read more",
    ),
    *(
        "版权所有",
        "未经授权",
        "未经许可",
        "转载请",
        "免责声明",
        "icp备",
        "公网安备",
        "点击下载",
        "点击进入",
        "点击查看",
    ),
    *(
        "点击这里",
        "点击此处",
        "扫一扫",
        "扫描二维码",
        "公众号",
        "联系我们",
        "用户协议",
        "隐私政策",
        "上一篇",
        "下一篇",
    ),
    *("返回首页", "返回顶部", "加入收藏", "设为首页", "登录注册", "登录/注册", "登录 注册"),
)
"""Furniture of web pages, in small letters."""


class QualityRule:
    """Says of each text why it should be dropped, or None."""

    def __init__(self, settings: QualitySettings):
        self.settings = settings

    def __call__(self, text: str) -> str | None:
        """Returns the first reason that applies."""
        units = units_of(text)
        for reasons in (self._length, self._characters, self._lines, self._repetition):
            for reason in reasons(text, units):
                return reason
        return None

    def _length(self, text: str, units: Units) -> Iterator[str]:
        s = self.settings
        if s.min_units is not None and len(units) < s.min_units:
            yield "too few words"
        if s.max_units is not None and len(units) > s.max_units:
            yield "too many words"

    def _characters(self, text: str, units: Units) -> Iterator[str]:
        s = self.settings
        counts = np.bincount(kinds()[code_points(text)], minlength=9)
        visible = max(int(counts.sum() - counts[SPACE] - counts[NEWLINE]), 1)
        letters = int(counts[[LATIN, HAN, KANA, OTHER_LETTER]].sum())
        long = len(units) > s.long_units
        if _above(counts[SYMBOL] / visible, s.max_symbol_share):
            yield "too many symbols"
        if _above(counts[DIGIT] / visible, s.max_digit_share):
            yield "too many digits"
        if _above(counts[PUNCTUATION] / visible, s.max_punctuation_share):
            yield "too much punctuation"
        if long and _below(counts[PUNCTUATION] / visible, s.min_punctuation_share):
            yield "too little punctuation"
        if _below(letters / visible, s.min_letter_share):
            yield "too few letters"
        known = int(counts[[LATIN, HAN, KANA]].sum())
        if letters and known / letters < s.min_han_latin_share:
            yield "other scripts"
        words = units.lengths[~units.han]
        if counts[LATIN] > letters / 2 and len(words):
            mean = float(words.mean())
            if _below(mean, s.min_word_length):
                yield "words too short"
            if _above(mean, s.max_word_length):
                yield "words too long"
            if s.min_stop_words and len(STOP_WORDS & set(text.lower().split())) < s.min_stop_words:
                yield "too few stop words"

    def _lines(self, text: str, units: Units) -> Iterator[str]:
        s = self.settings
        lines = [line for line in (one.strip() for one in text.split("\n")) if line]
        if not lines:
            return
        count = len(lines)
        if count >= MIN_LINES:
            bullets = sum(line.startswith(BULLETS) for line in lines)
            ellipses = sum(line.endswith(("…", "...")) for line in lines)
            if _above(bullets / count, s.max_bullet_lines):
                yield "list"
            if _above(ellipses / count, s.max_ellipsis_lines):
                yield "cut off lines"
        ended = sum(line.endswith(ENDS) for line in lines) / count
        if count > s.many_lines and _below(ended, s.min_ended_lines):
            yield "no sentences"
        if s.max_boilerplate_lines is not None:
            lower = text.lower()
            phrases = [phrase for phrase in BOILERPLATE if phrase in lower]
            short = (line.lower() for line in lines if phrases and len(line) <= FURNITURE_CHARS)
            furniture = sum(any(phrase in line for phrase in phrases) for line in short)
            if furniture / count > s.max_boilerplate_lines:
                yield "boilerplate"
        if len(set(lines)) < count:
            seen: set[str] = set()
            repeated = [line for line in lines if line in seen or seen.add(line)]  # type: ignore[func-returns-value]
            if _above(len(repeated) / count, s.max_repeated_lines):
                yield "repeated lines"
            share = sum(map(len, repeated)) / sum(map(len, lines))
            if _above(share, s.max_repeated_line_characters):
                yield "repeated lines"

    def _repetition(self, text: str, units: Units) -> Iterator[str]:
        if len(units) <= self.settings.long_units:
            return
        factor = HAN_PER_WORD if 2 * int(units.han.sum()) > len(units) else 1
        for size, limit in self.settings.max_top_ngrams.items():
            if top_share(units, size * factor) > limit:
                yield f"repeated {size}-gram"
        for size, limit in self.settings.max_repeated_ngrams.items():
            if repeated_share(units, size * factor) > limit:
                yield f"repeated {size}-grams"


def top_share(units: Units, size: int) -> float:
    """Returns the share of the characters in units that the most frequent repeated n-gram makes up."""
    grams = np.sort(windows(units.hashes, size))
    if not (grams[1:] == grams[:-1]).any():
        return 0.0
    values, times = np.unique(grams, return_counts=True)
    top = values[times.argmax()]
    start = int(np.flatnonzero(windows(units.hashes, size) == top)[0])
    return float(times.max() * units.lengths[start : start + size].sum() / units.lengths.sum())


def repeated_share(units: Units, size: int) -> float:
    """Returns the share of the characters in units that belong to an n-gram which the text had before."""
    grams = windows(units.hashes, size)
    order = np.argsort(grams, kind="stable")
    ranked = grams[order]
    starts = order[1:][ranked[1:] == ranked[:-1]]
    if not len(starts):
        return 0.0
    edges = np.zeros(len(units) + 1, np.int64)
    edges[starts] += 1
    edges[starts + size] -= 1  # the starts are distinct
    covered = np.cumsum(edges[:-1]) > 0
    return float(units.lengths[covered].sum() / units.lengths.sum())


def _above(value: float, limit: float | None) -> bool:
    return limit is not None and value > limit


def _below(value: float, limit: float | None) -> bool:
    return limit is not None and value < limit
