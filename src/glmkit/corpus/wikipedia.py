"""A Wikipedia XML dump -> one Document an article, without markup.

In: `pages-articles.xml`, plain or compressed, of any language. Redirects, pages outside of the article
namespace, disambiguation pages and stubs are dropped and counted.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import ParseError

from glmkit.corpus.document import Document, ReadLog
from glmkit.corpus.dump_ranges import has_page_ranges, opened_range
from glmkit.corpus.files import SourceFile
from glmkit.corpus.rows import Part
from glmkit.corpus.sources import track
from glmkit.errors import DataError, missing_dependency

logger = logging.getLogger(__name__)

MIN_ARTICLE_BYTES = 400
"""Articles whose stripped text is shorter are stubs. Bytes, so that 130 Chinese characters equal 400 Latin."""

_DISAMBIGUATION = re.compile(
    r"\{\{\s*(disambig(?![^|{}]*needed)[^|{}]*|dab|hndis|geodis|surname|given name|[^|{}]*消[歧除][义義含][^|{}]*|"
    r"пояснение|begriffsklärung|homonymie|desambiguación|desambiguação|disambigua|неоднозначность|неоднозначн[іi]сть|"
    r"曖昧さ回避|aimai|동음이의|doorverwijs|ujednoznacznienie|trang định hướng)\s*[|}]|__DISAMBIG__",
    re.IGNORECASE,
)
_REDIRECT = re.compile(r"\s*#[^\W\d_]{3,20}\s*[:：]?\s*\[\[[^\]\n]+\]\]")
"""`#REDIRECT [[page]]`, `#重定向 [[页面]]`: a word in the wiki's language; a list would have a blank there."""

_FILE_AND_CATEGORY = (-2, 6, 14)


def read_dump(file: SourceFile, log: ReadLog, part: Part = (0, 1)) -> Iterator[Document]:
    """Yields the articles of a dump, each with its title as the first line.

    Args:
        file: The dump.
        log: Counts the pages that are dropped, by reason.
        part: (k, n): the pages of the k-th of n ranges of bytes where `has_page_ranges` allows it, else those
            whose index leaves the remainder k when divided by n.

    Raises:
        DataError: The file is no complete dump.
        MissingDependencyError: mwxml or mwparserfromhell is not installed.
    """
    try:
        from mwxml import Dump
        from mwxml.errors import MalformedXML
    except ImportError as error:
        raise missing_dependency("mwxml", "Reading a Wikipedia dump", "corpus") from error
    from glmkit.corpus.wikitext import strip_wikitext

    pages, ranges = 0, part[1] > 1 and has_page_ranges(file)
    remainder = (0, 1) if ranges else part
    with opened_range(file, part) if ranges else file.open() as (stream, position):
        update = track(log, position, remainder)
        try:
            dump = Dump.from_file(stream)
            hidden = _hidden_namespaces(dump.site_info)
            for index, page in enumerate(dump.pages):
                pages += 1
                wikitext = _latest_text(page)
                if index % remainder[1] != remainder[0]:
                    continue
                update()
                reason = _unwanted(page, wikitext)
                text = "" if reason else strip_wikitext(wikitext, hidden)
                if not reason and len(text.encode("utf-8", "replace")) < MIN_ARTICLE_BYTES:
                    reason = "stub"
                if reason:
                    log.dropped[reason] += 1
                else:
                    metadata = {"title": page.title, "page": page.id, "source": file.name}
                    yield Document(f"{page.title}\n\n{text}", f"{file.name}:{page.id}", metadata)
        except (ParseError, MalformedXML, AssertionError) as error:
            raise DataError(
                f"{file.url}: not a complete MediaWiki dump (after {pages} pages: {error}). Fetch it again; the "
                "file to take is the one called …-pages-articles.xml.bz2."
            ) from error


def _latest_text(page: Any) -> str:
    """Reads a page to its end, which the XML stream needs; returns the text of its last revision."""
    text = ""
    for revision in page:
        text = revision.text or ""
    return text


def _unwanted(page: Any, wikitext: str) -> str | None:
    if page.namespace != 0:
        return "not an article"
    if page.redirect is not None or _REDIRECT.match(wikitext):
        return "redirect"
    return "disambiguation" if _DISAMBIGUATION.search(wikitext) else None


def _hidden_namespaces(site_info: Any) -> frozenset[str]:
    names = {"media", "file", "image", "category"}
    for namespace in site_info.namespaces or ():
        if namespace.id in _FILE_AND_CATEGORY and namespace.name:
            names.add(namespace.name.casefold())
    return frozenset(names)
