"""Languages by script and model; traditional characters by phrases."""

from __future__ import annotations

import sys

import pytest

from glmkit.corpus.steps.language import LanguageRule, Simplifier, sample, script_of, script_shares
from glmkit.corpus.steps.settings import LanguageSettings
from glmkit.errors import MissingDependencyError


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("春江潮水连海平，海上明月共潮生。", "zh"),
        ("滕王高閣臨江渚", "zh"),
        ("The model fills in the blanks of a text, one word after another.", "en"),
        ("Моделът попълва празните места в текста, дума по дума.", "bg"),
        ("モデルは文章の空白を埋めていきます。", "ja"),
        ("Das Modell füllt die Lücken eines Textes, ein Wort nach dem anderen.", "de"),
        ("中文与 English 混排的一段文字，仍然算作中文。", "zh"),
    ],
)
def test_languages(text, language):
    pytest.importorskip("py3langid")
    rule = LanguageRule(LanguageSettings(keep=[language]))
    assert rule.language_of(text) == language
    assert rule(text) is None
    assert LanguageRule(LanguageSettings(keep=["xx"]))(text) == f"language {language}"


def test_no_clear_answer():
    pytest.importorskip("py3langid")
    rule = LanguageRule(LanguageSettings(keep=["zh", "en"], min_probability=0.99))
    assert rule("1234 5678") == "language ?"


@pytest.mark.parametrize(
    ("text", "script"),
    [("plain", "Latin"), ("été à la mer", "Latin"), ("春江", "Han"), ("かな", "kana"), ("мир", "other"), ("12", "none"), ("１２", "none")],
)  # fmt: skip
def test_scripts(text, script):
    assert script_of(text) == script


def test_shares_and_sample():
    assert script_shares("ab春江").tolist() == [0.5, 0.5, 0, 0]
    assert script_shares("").tolist() == [0, 0, 0, 0]
    assert sample("短") == "短"
    assert len(sample("长" * 5000)) == 1001


def test_simplify_by_phrases():
    pytest.importorskip("opencc")
    simplify = Simplifier()
    assert simplify("乾坤、乾淨、臺灣、後來、皇后") == "乾坤、干净、台湾、后来、皇后"
    assert simplify("plain") == "plain"


def test_missing_packages(monkeypatch):
    from glmkit.corpus.steps import language

    for name, make in (
        ("opencc", Simplifier),
        ("py3langid.langid", lambda: LanguageRule(LanguageSettings())),
    ):
        monkeypatch.setitem(sys.modules, name, None)
        language._converter.cache_clear()
        language._identifier.cache_clear()
        with pytest.raises(MissingDependencyError, match=r"glmkit\[corpus\]"):
            make()
