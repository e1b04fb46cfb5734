"""Text -> its language, and the same text in simplified characters. py3langid and OpenCC are loaded when first needed."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np

from glmkit.corpus.steps.settings import LanguageSettings
from glmkit.corpus.steps.units import HAN, KANA, LATIN, OTHER_LETTER, code_points, kinds
from glmkit.errors import missing_dependency

SAMPLE_CHARS = 1000
"""A language is judged by so many characters: half from the beginning, half from the middle."""

SCRIPT_CHARS = 200
"""A script is seen sooner."""

_LATIN = re.compile("[A-Za-z]+")
_RUNS = {"Han": re.compile("[\u4e00-\u9fff]+"), "Latin": _LATIN}

SCRIPTS = {LATIN: "Latin", HAN: "Han", KANA: "kana", OTHER_LETTER: "other"}


def sample(text: str) -> str:
    """Returns the characters of a text by which its language is judged."""
    if len(text) <= SAMPLE_CHARS:
        return text
    half, middle = SAMPLE_CHARS // 2, len(text) // 2
    return text[:half] + " " + text[middle : middle + half]


def script_shares(text: str) -> np.ndarray:
    """Returns the shares of Latin, Han, kana and other letters among the letters: [4], all 0 without letters."""
    counts = np.bincount(kinds()[code_points(text)], minlength=OTHER_LETTER + 1)
    letters = counts[[LATIN, HAN, KANA, OTHER_LETTER]]
    return letters / max(int(letters.sum()), 1)


def script_of(text: str) -> str:
    """Returns the script that a text is mostly written in, by its beginning: Latin, Han, kana, other, or none."""
    beginning = text[:SCRIPT_CHARS]
    if beginning.isascii():
        return "Latin" if _LATIN.search(beginning) else "none"
    for name, runs in _RUNS.items():
        if 2 * sum(map(len, runs.findall(beginning))) >= len(beginning):
            return name
    shares = script_shares(beginning)
    return list(SCRIPTS.values())[int(shares.argmax())] if shares.any() else "none"


class LanguageRule:
    """Says of each text in which language it is, and why it should be dropped, or None."""

    def __init__(self, settings: LanguageSettings):
        self.settings = settings
        self._last = ("", "?")
        _identifier()

    def language_of(self, text: str) -> str:
        """Returns an ISO 639-1 code, or `?` for a text that gives no clear answer."""
        if text is self._last[0]:
            return self._last[1]
        language = self._judge(sample(text))
        self._last = text, language
        return language

    def _judge(self, text: str) -> str:
        _, han, kana, _ = script_shares(text)
        if kana < 0.05 and han > 0 and han >= self.settings.min_han_share:
            return "zh"
        language, probability = _identifier().classify(text)
        return language if probability >= self.settings.min_probability else "?"

    def __call__(self, text: str) -> str | None:
        """Returns `language xx` for a text of another language."""
        language = self.language_of(text)
        return None if language in self.settings.keep else f"language {language}"


class Simplifier:
    """Turns traditional into simplified characters, by phrases (乾坤 stays, 乾淨 becomes 干净)."""

    def __init__(self) -> None:
        _converter()

    def __call__(self, text: str) -> str:
        """Returns the text with simplified characters."""
        return text if text.isascii() else _converter().convert(text)


@lru_cache(maxsize=1)
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise missing_dependency("py3langid", "The language filter", "corpus") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@lru_cache(maxsize=1)
def _converter() -> Any:
    try:
        from opencc import OpenCC
    except ImportError as error:
        raise missing_dependency("opencc", "Simplified characters", "corpus") from error
    return OpenCC("t2s")
