"""Templates of Wikipedia that carry text -> the words that a reader of the page sees in their place.

A template that is not in the table shows nothing: infoboxes, navigation, citations and notices, the most of them.
Pure; the arguments come rendered.
"""

from __future__ import annotations

from collections.abc import Callable

Arguments = dict[str, str]
"""Name or number (`"1"`, `"2"` …) -> value."""

Words = Callable[[list[str], Arguments], str]
"""(the numbered arguments in order, all arguments) -> what is shown."""


def template_words(name: str) -> Words | None:
    """Returns what gives the text that a template shows; None where it shows nothing.

    Args:
        name: As in the page.
    """
    name = name.strip().replace("_", " ").casefold()
    # {{lang-fr|mot}}, {{link-en|词|word}}: one template for each language.
    of_language = _text if name.startswith(("lang-", "link-")) else None
    return KEPT_TEMPLATES.get(name, of_language)


def numbered(arguments: Arguments) -> list[str]:
    """Returns the arguments `1`, `2` … up to the first that is missing."""
    values: list[str] = []
    while (key := str(len(values) + 1)) in arguments:
        values.append(arguments[key])
    return values


def _at(index: int) -> Words:
    return lambda a, _: a[index] if len(a) > index else ""


def _last(a: list[str], _: Arguments) -> str:
    return a[-1] if a else ""


def _joined(separator: str) -> Words:
    return lambda a, _: separator.join(filter(None, a))


def _text(a: list[str], named: Arguments) -> str:
    """The first argument, or the one whose name says that it is the text."""
    for name in ("text", "quote", "content", "1"):
        if named.get(name):
            return named[name]
    return ""


def _quote(a: list[str], named: Arguments) -> str:
    return f"\n{_text(a, named)}\n"


def _either(*order: int) -> Words:
    """The first of these arguments that is there and not empty."""
    return lambda a, _: next((a[index] for index in order if len(a) > index and a[index]), "")


def _after(words: str) -> Words:
    return lambda a, _: words + "".join(a[:1])


def _convert(a: list[str], _: Arguments) -> str:
    """{{convert|12|km|mi}} and {{convert|10|to|20|km|mi}}: the amount in its first unit."""
    word = a[1].removesuffix("(-)") if len(a) > 3 else ""
    words = [a[0], word, a[2], a[3]] if word in _RANGES else a[:2]
    if len(words) > 1:
        words[-1] = _UNITS.get(words[-1], words[-1])
    return " ".join(words)


_RANGES = ("to", "-", "–", "and", "or", "x", "by", "+/-", "±")
_UNITS = {"C": "°C", "F": "°F", "km2": "km²", "m2": "m²", "cm2": "cm²", "m3": "m³", "km3": "km³", "cm3": "cm³"}  # fmt: skip


def _pronunciation(a: list[str], _: Arguments) -> str:
    """{{IPA|[dʒ]}} in a sentence; {{IPA|en|/…/}} is the pronunciation of the title, which goes."""
    return a[0] if len(a) == 1 else ""


def _fraction(a: list[str], _: Arguments) -> str:
    whole = f"{a[0]} " if len(a) == 3 else ""
    return whole + ("/".join(a[-2:]) if len(a) > 1 else "".join(f"1/{one}" for one in a))


def _foreign(a: list[str], named: Arguments) -> str:
    """{{zh|s=汉字|t=漢字|p=hànzì}}: the characters, else the transcription."""
    return "".join(a[:1]) or next((named[key] for key in ("c", "s", "t", "p") if key in named), "")


def _nihongo(a: list[str], _: Arguments) -> str:
    """{{nihongo|English|漢字|rōmaji}} as `English (漢字, rōmaji)`."""
    inside = ", ".join(filter(None, a[1:3]))
    return f"{a[0]} ({inside})" if a and a[0] and inside else "".join(a[:1]) or inside


def _lifetime(a: list[str], _: Arguments) -> str:
    """Chinese {{bd|1893年|12月26日|1976年|9月9日}}: born and died."""
    born, died = "".join(a[:2]), "".join(a[2:4])
    return f"{born}－{died}" if died else born


def _ordinal(a: list[str], _: Arguments) -> str:
    digits = "".join(a[:1])
    teen = digits[-2:] in ("11", "12", "13")
    return digits + ("th" if teen else {"1": "st", "2": "nd", "3": "rd"}.get(digits[-1:], "th"))


def _constant(words: str) -> Words:
    return lambda a, _: words


_SHOWN = {
    _text: """
        nowrap nobr nobreak j small smaller smallcaps sc allcaps big abbr tooltip sic ill illm interlanguage-link
        interlanguage_link sub sup val formatnum num nts ruby mvar math var code mono tt kbd samp em strong
        noitalic noitalics nobold bold italic italics underline strike center not_a_typo typo angbr angle_bracket
        flag flagcountry country keypress vanchor visible_anchor 僻字 小 nihongo2 korean ko ja zh-hans zh-hant lj
        date fact citation_needed cn 来源请求 來源請求
    """,
    _quote: "quote blockquote quotation cquote bquote poemquote poem_quote 引文 引用 诗 詩",
    _at(1): """
        lang langx color colour font_color font_colour hover_title background_color align
    """,
    _last: "transl transliteration translit langwithname resize",
    _either(2, 0): "le",
    _either(3, 2): "tsl translink",
    _joined(" "): "ship hms uss ss sortname bibleverse bibelstelle",
    _joined(""): "chem chem2 ce linktext",
    _joined(", "): "hlist flatlist",
    _joined("\n"): "plainlist ubl unbulleted_list bulleted_list ordered_list",
    _convert: "convert cvt",
    _fraction: "frac sfrac fraction",
    _foreign: "zh lang-zh chinese cjk",
    _nihongo: "nihongo nihongo_foot",
    _lifetime: "bd 生卒 生卒年",
    _ordinal: "ordinal",
    _pronunciation: "ipa ipalink ipa_link ipablink",
    _after("As of "): "as_of asof",
    _after("c. "): "circa c. ca.",
    _after("US$"): "us$ usd",
    _after("£"): "£ gbp",
    _after("€"): "€ eur",
    _after("¥"): "¥ jpy cny rmb",
    _after("₹"): "₹ inr",
}

KEPT_TEMPLATES: dict[str, Words] = {
    name.replace("_", " "): words for words, names in _SHOWN.items() for name in names.split()
} | {
    "spaced ndash": _constant(" – "),
    "snd": _constant(" – "),
    "ndash": _constant("–"),
    "mdash": _constant("—"),
    "nbsp": _constant(" "),
    "·": _constant(" · "),
    "•": _constant(" • "),
    "'": _constant("'"),
    "'s": _constant("'s"),
    "=": _constant("="),
    "okina": _constant("ʻ"),
}
"""Template (small letters, blanks for underscores) -> the words it shows."""
