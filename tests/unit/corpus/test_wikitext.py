"""Wikitext -> text: what the reader of the page sees, and nothing of the markup."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mwparserfromhell")

from glmkit.corpus.wikitext import strip_wikitext
from glmkit.corpus.wikitext_formulas import plain_formula

HIDDEN = frozenset({"file", "image", "category", "文件", "分类"})


def strip(wikitext):
    return strip_wikitext(wikitext, HIDDEN)


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("'''A''' is ''b'' in [[Rome|the city]] of [[Italy]].", "A is b in the city of Italy."),
        ("a [http://x.org the site] b [http://x.org] c http://x.org d", "a the site b c d"),
        ("a<ref>r {{cite|x}}</ref> b<ref name=x/>, c", "a b, c"),
        ("{{Infobox|a=[[b]]\n|c={{d}}}}Text.", "Text."),
        ("a\n{| class=x\n|-\n! h\n|-\n| x || {{y}}\n|}\nb", "a\nb"),
        (
            "[[File:a.jpg|thumb|A [[link]] and [[b|c]]<br>'''x''']]Text [[:Category:X|see]]",
            "Text see",
        ),
        ("[[文件:a.jpg|缩略图|说明]]正文[[分类:城市]][[category:x]]", "正文"),
        ("Text\n[[fr:Texte]]\n[[zh-min-nan:X]]", "Text"),
        (
            "a<!-- no -->b &amp; c&nbsp;d &#20013; &amp;ndash; <nowiki>[x]</nowiki>",
            "ab & c d 中 – [x]",
        ),
        ("x<math>\\vec{ab}</math>, y<gallery>\nFile:a.jpg\n</gallery>", "x, y"),
        ("* one\n* two\n# three\n: four\n; five", "one\ntwo\nthree\nfour\nfive"),
        ("a<br/>b<div style='x'>c</div>", "a\nb\nc"),
        (
            "{{lang|fr|Où}} is {{convert|12|km|mi}} {{nowrap|a b}} {{lang-ru|Да}}",
            "Où is 12 km a b Да",
        ),
        ("A ({{IPAc-en|x}}; {{lang-el}}) is ({{x}}, born 1) b ( c ) .", "A is (born 1) b (c)."),
        ("北京（{{lang-en}}；{{x}}）是城市。", "北京是城市。"),
        ("-{zh-hans:计算机;zh-hant:電腦}-和-{网络}--{H|zh-cn:a;zh-tw:b}-", "计算机和网络"),
        ("-{zh-tw:[[電腦|丙]]; zh-cn:[[计算机|甲]]&nbsp;乙;}-。-{T|题}-", "甲 乙。"),
        (
            "-{-{zh-hans:内;zh-hant:內}-部}--{R|zh}--{A|zh-cn:甲;zh-tw:乙}--{zh-hk:只;}-",
            "内部zh甲只",
        ),
        ("-{sr-ec:Београд; sr-el:Beograd}- -{ a", "Београд -{ a"),
        (
            "'''毛'''（{{bd|1893年|12月26日|1976年|9月9日|catIdx=M}}），{{link-en|湘潭|Xiangtan}}人。",
            "毛（1893年12月26日－1976年9月9日），湘潭人。",
        ),
        ("{{bd|1959年|8月6日}}{{tsl|en|X|词}}、{{le|名 (甲)|Name|名}}", "1959年8月6日词、名"),
        ("{{lang-zh|s=汉字|t=漢字}} {{langx|fr|mot}} {{ruby|漢|かん}}", "汉字 mot 漢"),
        ("{{nihongo|'''Judo'''|柔道|jūdō}} {{transl|ru|ISO|da}}", "Judo (柔道, jūdō) da"),
        (
            "{{convert|60|and(-)|80|kg}}, {{convert|5|C}}, {{cvt|9|km2|mi2}}",
            "60 and 80 kg, 5 °C, 9 km²",
        ),
        (
            "{{frac|1|2}} {{frac|3|1|4}} {{ordinal|22}} {{ordinal|12}} {{circa|900}}",
            "1/2 3 1/4 22nd 12th c. 900",
        ),
        ("{{quote|text=To be|author=W}}or {{Blockquote|1=not}}", "To be\nor\nnot"),
        (
            "{{chem|C|''n''|H|2}} {{USS|Enterprise|CVN-65}} {{flag|Peru}}{{flagicon|PER}}",
            "CnH2 Enterprise CVN-65 Peru",
        ),
        ("as {{IPA|[dʒ]}} ({{IPA|en|/x/}})", "as [dʒ]"),
        ("10<sup>−7</sup> m<sup>2</sup>, 19<sup>th</sup>, CO<sub>2</sub>", "10⁻⁷ m², 19th, CO2"),
        ("a<ref name='x/y'>b</ref>c<ref name=x />d<!-- <ref> -->e<ref>[[f|<ref>]]</ref>.", "acde."),
        ("今日，{{Fact|它更常用|time=2013}}。{{fact|date=May}}", "今日，它更常用。"),
        ("is <math>\\alpha \\le \\frac{1}{n}</math>, {{math|''x''}}", "is α ≤ 1/n, x"),
        ("__NOTOC__a", "a"),
        ("{{As of|2010}}, it grew.\n{{x}}, then fell.", "As of 2010, it grew.\nthen fell."),
        ("{{broken|[[x]] text", "broken|x text"),
        ("a {{{1|b}}} c", "a c"),
    ],
)
def test_markup(wikitext, text):
    assert strip(wikitext) == text


def test_sections():
    """Headings are lines; empty sections and the closing ones go, with what is below them."""
    wikitext = """Lead.
== History ==
=== Early ===
Text:
=== Empty ===
{{x}}
== Also empty ==
== See also ==
* [[X]]
=== Sub ===
more
== 參考文獻 ==
{{reflist}}
== Last ==
End."""
    assert strip(wikitext) == "Lead.\n\nHistory\n\nEarly\nText:\n\nLast\nEnd."


@settings(max_examples=200)
@given(st.text(alphabet="[]{}|=!'<>/-:*#\nab中&;r ef_", max_size=60))
def test_any_markup_is_survived(wikitext):
    text = strip(wikitext)
    for leftover in ("[[", "]]", "{{", "}}", "'''", "\x01"):
        assert leftover not in text


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        ("x^{2}+y_{i}", "x^2+y_i"),
        (r"\alpha \le \beta_{n+1}", "α ≤ β_(n+1)"),
        (r"{\displaystyle \mathbb{R}^n}", "R^n"),
        (r"\sqrt{\frac{1}{n}}", "√(1/n)"),
        (r"e^{i\pi}=-1", "e^(iπ)=-1"),
        (r"\{1,\ldots,n\}", "{1,…,n}"),
        (r"\sin x \cdot \left(\frac{a+b}{2}\right)", "sin x · ((a+b)/2)"),
        (r"\begin{matrix}a&b\end{matrix}", ""),
        (r"\bar{X} / \widehat\beta - \overline{x}_1", "X\u0304 / β\u0302 - x\u0304_1"),
        (r"\frac{\bar{x}}{s/\sqrt n}", ""),
        (r"\overline{x} = \frac{\sum_{i=1}^{n} x_i}{n}", "x\u0304 = (∑_(i=1)^n x_i)/n"),
        (r"\overline{AB}", ""),
        ("x" * 121, ""),
        ("{", ""),
        ("", ""),
    ],
)
def test_formulas(tex, text):
    assert plain_formula(tex) == text


@given(st.text(alphabet=r"\{}^_abfrcqt &x1", max_size=40))
def test_any_formula_is_survived(tex):
    assert not set(plain_formula(tex)) & set("\\\x02\x03&")
