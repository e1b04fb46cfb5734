"""Quality: what reads like text stays, in Chinese and English; every rule has a text that only it drops."""

from __future__ import annotations

import pytest

from glmkit.corpus.steps.quality import QualityRule, repeated_share, top_share
from glmkit.corpus.steps.settings import QualitySettings
from glmkit.corpus.steps.units import units_of

ENGLISH = (
    "The General Language Model fills blanks: spans of a text are taken out, and the model has to write them again, "
    "word by word, with all that stands around them in view. With one objective it can be taught to understand and to "
    "write, and the order of the spans is shuffled so that it learns how they hang together.\n"
    "It was shown that this works better than either of the older ways, on many tasks and with fewer parameters."
)
CHINESE = (
    "通用语言模型通过填空来学习：从文本中挖去若干片段，模型依据上下文逐字补全。片段的顺序是打乱的，因此模型必须学会它们之间的联系。\n"
    "同一个目标既能训练理解，也能训练生成；在许多任务上，它以较少的参数取得了更好的结果。位置编码分为两维，一维表示片段在原文中的位置，"
    "另一维表示片段内部的次序。"
)
POEM = "春江花月夜\n春江潮水连海平，海上明月共潮生。\n滟滟随波千万里，何处春江无月明。"


def reason(text: str, **settings) -> str | None:
    return QualityRule(QualitySettings(enabled=True, **settings))(text)


@pytest.mark.parametrize(
    "text",
    [
        ENGLISH,
        CHINESE,
        POEM,
        ENGLISH + "\n" + CHINESE,
        CHINESE.replace("\n", "") + "然而就在此时……",
        "-" + CHINESE.replace("\n", ""),
        "本文讨论网站的隐私政策与点击下载按钮的设计。" + CHINESE.replace("\n", ""),
    ],
)
def test_text_stays(text):
    assert reason(text) is None


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("too few words", "你好"),
        ("too few words", "Hello there"),
        ("too many symbols", CHINESE + "★" * 40),
        ("too many digits", "股票代码 600519 000001 300750 688981 2023 2024 最新价 1725 3380 涨跌幅"),
        ("too much punctuation", "哈！！！哈？？？啊，，，好。。。的……呢，，真的？！！！是吗"),
        ("too little punctuation", "手机 电脑 家电 数码 服装 " * 12),
        ("too few letters", "名称 ()()()() 12:30 -- -- -- 地点 ()() 14:00 时间"),
        ("words too long", " ".join(["antidisestablishmentarianism"] * 12) + "."),
        ("words too short", "a b c d e f g h i j k l m n o p q."),
        ("list", "\n".join(f"- 第{c}项内容说明文字" for c in "一二三四五六七八九十")),
        ("cut off lines", "\n".join(f"{c}江潮水连海平，海上明月共潮生，滟滟随波千万里……" for c in "甲乙丙丁")),
        ("no sentences", "\n".join(f"栏目{c}、导航{c}、首页{c}" for c in "甲乙丙丁戊己庚辛壬癸子丑")),
        ("boilerplate", "版权所有 未经授权不得转载，请联系我们。\n免责声明：本站内容仅供参考。"),
        ("boilerplate", "We use cookies on this site, click here to accept all of them.\nSign in to read the rest."),
        ("repeated lines", "\n".join(["春江潮水连海平，海上明月共潮生。"] * 3)),
        ("repeated 2-gram", "天气很好，" * 14 + CHINESE[:60]),
        ("repeated 5-grams", CHINESE[:40] + "；" + CHINESE[:40] + "！" + CHINESE[60:100]),
    ],
)  # fmt: skip
def test_reasons(expected, text):
    settings = {}
    if expected.startswith("too few letters"):
        settings = {
            "max_punctuation_share": None,
            "max_symbol_share": None,
            "max_digit_share": None,
        }
    assert reason(text, **settings) == expected


def test_rules_can_be_turned_off():
    repeated = "\n".join(["春江潮水连海平，海上明月共潮生。"] * 3)
    assert reason(repeated, max_repeated_lines=None, max_repeated_line_characters=None) is None
    assert reason("你好", min_units=None) is None
    assert reason("Привет мир, это простая русская фраза о погоде и о море.", min_han_latin_share=0.5) == "other scripts"  # fmt: skip
    assert reason(ENGLISH, min_stop_words=2) is None
    assert reason("Der Mond ist aufgegangen, die goldnen Sternlein prangen am Himmel hell und klar.", min_stop_words=2) == "too few stop words"  # fmt: skip


def test_shares_by_hand():
    units = units_of("ab cd ab cd ef ab cd")  # 14 letters
    assert top_share(units, 2) == pytest.approx(12 / 14)  # "ab cd" three times
    assert repeated_share(units, 2) == pytest.approx(8 / 14)  # the second and third
    assert top_share(units_of("a b c"), 2) == 0.0
    assert repeated_share(units_of("a"), 2) == 0.0


def test_agrees_with_datatrove_on_english():
    """The same rules in datatrove, given our words: both drop the same texts, wherever a rule exists on both sides."""
    pytest.importorskip("datatrove")
    from datatrove.data import Document
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Words(WordTokenizer):
        def word_tokenize(self, text):
            return text.split()

        sent_tokenize = span_tokenize = word_tokenize

    quality = GopherQualityFilter(
        min_doc_words=10, min_stop_words=0, max_non_alpha_words_ratio=None, language=Words()
    )
    repetition = GopherRepetitionFilter(dup_n_grams=((5, 0.15), (10, 0.10)), language=Words())
    words = ENGLISH.split()
    texts = [
        ENGLISH,
        " ".join(words[:5]),
        "\n".join(["- " + " ".join(words[i : i + 6]) for i in range(0, 60, 6)]),
        "\n".join([" ".join(words[i : i + 6]) + " ..." for i in range(0, 60, 6)]),
        "\n".join([" ".join(words[:20])] * 4),
        " ".join(words[:60] + words[:30]),
        " ".join(words[:70] + words[:4]),
        " ".join(words[:60] + ["again and"] * 20),
        " ".join(["incomprehensibilities"] * 5 + [word * 9 for word in words[:30]]) + ".",
    ]
    for text in texts:
        document = Document(text, "0")
        theirs = [one.filter(document) for one in (quality, repetition)]
        dropped = any(result is not True for result in theirs)
        ours = reason(text, max_repeated_ngrams={5: 0.15, 10: 0.10})
        assert (ours is not None) == dropped, (text, theirs, ours)
