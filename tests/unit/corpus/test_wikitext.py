"""Wikitext -> text: what the reader of the page sees, and nothing of the markup."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mwparserfromhell")

from glmkit.corpus.wikitext import strip_wikitext

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
        ("x<math>\\frac{a}{b}</math>, y<gallery>\nFile:a.jpg\n</gallery>", "x, y"),
        ("* one\n* two\n# three\n: four\n; five", "one\ntwo\nthree\nfour\nfive"),
        ("a<br/>b<div style='x'>c</div>", "a\nb\nc"),
        (
            "{{lang|fr|Où}} is {{convert|12|km|mi}} {{nowrap|a b}} {{lang-ru|Да}}",
            "Où is 12 km a b Да",
        ),
        ("A ({{IPA|x}}; {{lang-el}}) is ({{x}}, born 1) b ( c ) .", "A is (born 1) b (c)."),
        ("北京（{{lang-en}}；{{x}}）是城市。", "北京是城市。"),
        ("-{zh-hans:计算机;zh-hant:電腦}-和-{网络}--{H|zh-cn:a;zh-tw:b}-", "计算机和网络"),
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


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="[]{}|=!'<>/-:*#\nab中&;r ef_", max_size=60))
def test_any_markup_is_survived(wikitext):
    text = strip(wikitext)
    for leftover in ("[[", "]]", "{{", "}}", "'''", "\x01"):
        assert leftover not in text
