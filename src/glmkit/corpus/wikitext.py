"""MediaWiki markup -> the paragraphs a reader of the page sees; headings are kept as lines.

Pure: one article's wikitext in, text out. Templates, tables, references, files, categories, comments and
magic words go; links and formatting leave their words. Parsed with mwparserfromhell, in any language:
the names of the file and category namespaces come from the dump.
"""

from __future__ import annotations

import functools
import html
import re

from glmkit.corpus.wikitext_formulas import plain_formula
from glmkit.corpus.wikitext_templates import numbered, template_words
from glmkit.errors import missing_dependency

try:
    import mwparserfromhell
    from mwparserfromhell import nodes
except ImportError as error:
    raise missing_dependency("mwparserfromhell", "Reading wikitext", "corpus") from error

_DROPPED_TAGS = """
    ref references table tr td th gallery timeline imagemap score hiero graph mapframe maplink
    style script includeonly noinclude categorytree indicator inputbox section templatestyles templatedata
    syntaxhighlight source
"""
DROPPED_TAGS = frozenset(_DROPPED_TAGS.split())
"""Tags that go with everything in them."""

_CLOSING_SECTIONS = """
    See also|References|External links|Further reading|Notes|Bibliography|Sources|Footnotes|Citations|
    Notes and references|References and notes|Works cited|Gallery|Notes and citations|Explanatory notes|
    参见|參見|详见|詳見|相关项目|相關項目|参看|參看|参阅|參閱|另见|另見|参考文献|參考文獻|参考资料|參考資料|参考来源|參考來源|参考书目|參考書目|资料来源|資料來源|
    来源|來源|引用|外部链接|外部連結|外部連接|外部鏈接|延伸阅读|延伸閱讀|扩展阅读|擴展閱讀|注释|註釋|注釋|注解|註解|备注|備註|脚注|腳註|
    相关条目|相關條目|相关链接|相關連結|图集|圖集|参考|出典|関連項目|外部リンク|같이 보기|각주|외부 링크|참고 문헌|
    Вижте също|Външни препратки|Източници|Бележки|Литература|Галерия|См. также|Примечания|Ссылки|
    Див. також|Примітки|Посилання|Джерела|Einzelnachweise|Weblinks|Siehe auch|Literatur|
    Voir aussi|Liens externes|Notes et références|Références|Bibliographie|Articles connexes|
    Véase también|Enlaces externos|Referencias|Bibliografía|Ver também|Ligações externas|Referências|
    Note|Bibliografia|Voci correlate|Altri progetti|Collegamenti esterni|Zobacz też|Przypisy|
    Linki zewnętrzne|Xem thêm|Tham khảo|Chú thích|Liên kết ngoài|انظر أيضا|مراجع|المراجع|وصلات خارجية
"""
CLOSING_SECTIONS = frozenset(name.strip().casefold() for name in _CLOSING_SECTIONS.split("|"))
"""Sections that hold links and references, not text; they go with their subsections."""

_ASIDE = re.compile(
    r"<!--.*?-->|<ref\b[^<>]*/>|<ref\b[^<>]*(?<!/)>.*?</ref\s*>", re.DOTALL | re.IGNORECASE
)
"""Comments and references: a good part of an article, which the parser need not see."""

_VARIANT = re.compile(r"-\{(?:([A-Za-z\s;-]*)\|)?((?:\{\{[^{}]*\}\}|(?!-\{|\}-).)*)\}-", re.DOTALL)
_VARIANT_NAME = re.compile(r"[a-z]{2,3}(-[a-z]+)*")
_RULE_END = re.compile(r";\s*(?=[a-z]{2,3}(?:-[a-z]+)*\s*:)")
_WANTED = ("zh-hans", "zh-cn", "zh-sg", "zh-my", "zh")
_MAGIC = re.compile(r"__[A-Z]+__|\{\{[^{}]*\}\}")
_QUOTES = re.compile(r"'{2,}")
_INTERWIKI = re.compile(r"[a-z]{2,3}(-[a-z]+)*|simple|zh-min-nan|be-x-old")
_LEFTOVER_LINE = re.compile(r"^\s*(\{\||\|[-}|+]?|!|\}\}).*$", re.MULTILINE)
_LEFTOVER = re.compile(r"\[\[(?:[^\[\]|]*\|)?|\]\]|\{\{|\}\}|</?[a-zA-Z][^<>\n]{0,80}>")
_HOLLOW = re.compile(r"[(（\[][\s,;:，；：、/–-]*[)）\]]")
_HOLLOW_START = re.compile(r"([(（])[\s,;，；、:：]+")
_HOLLOW_END = re.compile(r"[ \t,;，；、]+([)）])")
_SPACE_BEFORE = re.compile(r"[ \t]+([,.;:!?，。；：、！？])(?=\s|$)")
_EXPONENT = re.compile(r"[-−+]?[0-9]+")
_SUPERSCRIPT = str.maketrans("0123456789-−+", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁻⁺")
_HEADING = "\x01"


def strip_wikitext(wikitext: str, hidden_namespaces: frozenset[str]) -> str:
    """Returns the readable text of an article.

    Args:
        wikitext: The page's source.
        hidden_namespaces: Names (case-folded) whose links show no text in the page: files, categories.

    Returns:
        Paragraphs and headings, one a line each, with blank lines between sections.
    """
    wikitext = _hidden_links(hidden_namespaces).sub("", _choose_variants(_ASIDE.sub("", wikitext)))
    text = _render(mwparserfromhell.parse(wikitext), hidden_namespaces)
    return _sections(_tidy(text))


@functools.cache
def _hidden_links(namespaces: frozenset[str]) -> re.Pattern[str]:
    """Links to files and categories, with links in the caption: the parser gives up on some captions."""
    names = "|".join(map(re.escape, sorted(namespaces)))
    caption = r"(?:[^\[\]]|\[\[[^\[\]]*\]\]|\[[^\[\]]*\])*"
    return re.compile(rf"\[\[\s*(?:{names})\s*:{caption}\]\]", re.IGNORECASE)


def _render(code: mwparserfromhell.wikicode.Wikicode, hidden: frozenset[str]) -> str:
    return "".join(_render_node(node, hidden) for node in code.nodes)


def _render_node(node: nodes.Node, hidden: frozenset[str]) -> str:
    if isinstance(node, nodes.Text):
        return str(node.value)
    if isinstance(node, nodes.Wikilink):
        return _render_link(node, hidden)
    if isinstance(node, nodes.Tag):
        return _render_tag(node, hidden)
    if isinstance(node, nodes.Template):
        return _render_template(node, hidden)
    if isinstance(node, nodes.Heading):
        title = _render(node.title, hidden).strip()
        return f"\n{_HEADING * node.level}{title}\n"
    if isinstance(node, nodes.HTMLEntity):
        try:
            return str(node.normalize())
        except (ValueError, OverflowError):  # a number that is no character
            return ""
    if isinstance(node, nodes.ExternalLink) and node.title is not None:
        return _render(node.title, hidden)
    return ""  # comments, template arguments, bare addresses


def _render_link(node: nodes.Wikilink, hidden: frozenset[str]) -> str:
    title = str(node.title).strip()
    namespace, colon, _ = title.partition(":")
    namespace = namespace.strip().casefold()
    if colon and namespace in hidden:
        return ""
    if node.text is not None:
        return _render(node.text, hidden)
    if colon and _INTERWIKI.fullmatch(namespace):
        return ""
    return title.removeprefix(":").partition("#")[0] or title.lstrip("#")


def _render_tag(node: nodes.Tag, hidden: frozenset[str]) -> str:
    tag = str(node.tag).strip().casefold()
    if tag in ("math", "chem", "ce"):
        return plain_formula(str(node.contents or ""))
    if tag in DROPPED_TAGS:
        return ""
    if tag in ("br", "hr"):
        return "\n"
    contents = _render(node.contents, hidden) if node.contents is not None else ""
    if tag == "sup" and _EXPONENT.fullmatch(contents):
        return contents.translate(_SUPERSCRIPT)
    return (
        f"\n{contents}\n"
        if tag in ("p", "div", "blockquote", "li", "poem") and contents
        else contents
    )


def _render_template(node: nodes.Template, hidden: frozenset[str]) -> str:
    words = template_words(str(node.name))
    if words is None:
        return ""
    arguments = {str(p.name).strip(): _render(p.value, hidden).strip(" \n") for p in node.params}
    return words(numbered(arguments), arguments)


def _choose_variants(wikitext: str) -> str:
    before = None
    while wikitext != before:  # from the inside out
        before = wikitext
        wikitext = _VARIANT.sub(_choose_variant, wikitext)
    return wikitext


def _choose_variant(match: re.Match[str]) -> str:
    """Chinese: `-{zh-hans:甲; zh-hant:乙}-` shows one of its variants, flags H and T show nothing."""
    flags, body = match.groups()
    if flags is not None and {flag.strip() for flag in flags.upper().split(";")} & set("HT-"):
        return ""
    variants: dict[str, str] = {}
    for rule in _RULE_END.split(body):
        name, colon, value = rule.partition(":")
        if colon and _VARIANT_NAME.fullmatch(name.strip()):
            variants.setdefault(name.strip(), value.strip().removesuffix(";"))
    return next((variants[name] for name in (*_WANTED, *variants) if variants.get(name)), body)


def _tidy(text: str) -> str:
    """Removes what broken markup leaves over, and the punctuation around what has gone."""
    before = None
    while text != before:  # what one pass removes can bring brackets together
        before = text
        text = _QUOTES.sub("", _MAGIC.sub("", text))
        text = _LEFTOVER.sub("", _LEFTOVER_LINE.sub("", text))
    text = _HOLLOW.sub("", text)
    text = _HOLLOW_END.sub(r"\1", _HOLLOW_START.sub(r"\1", text))
    text = re.sub(r"[ \t\xa0]+", " ", text)
    return html.unescape(_SPACE_BEFORE.sub(r"\1", text))


def _sections(text: str) -> str:
    """Joins lines to text; closing sections and headings that nothing follows go."""
    kept: list[str] = []
    headings: list[tuple[int, str]] = []  # not yet written: they wait for their first line
    skipped_level = 0
    for raw in text.split("\n"):
        line = raw.strip().lstrip("*#:; ,，；、")
        title = raw.strip().lstrip(_HEADING)
        level = len(raw.strip()) - len(title)
        if level:
            if skipped_level and level > skipped_level:
                continue
            skipped_level = level if title.strip(" :：").casefold() in CLOSING_SECTIONS else 0
            headings = [one for one in headings if one[0] < level]
            if not skipped_level and title.strip():
                headings.append((level, title.strip()))
        elif line and not skipped_level and any(c.isalpha() for c in line):
            kept.extend(f"\n{heading}" for _, heading in headings)
            headings = []
            kept.append(line)
    return "\n".join(kept).strip()
