"""Wikipedia dumps: articles come out, everything else is counted."""

from __future__ import annotations

import bz2
import re

import pytest

pytest.importorskip("mwxml")

from glmkit.corpus import ReadLog, read_documents
from glmkit.corpus.files import SourceFile
from glmkit.corpus.wikipedia import read_dump
from glmkit.errors import DataError

BODY = "北京是中国的首都，位于华北平原的北部。" * 10


def page(title, text, namespace=0, redirect=""):
    return (
        f"<page><title>{title}</title><ns>{namespace}</ns><id>{abs(hash(title)) % 999}</id>{redirect}<revision><id>1</id>"
        f"<timestamp>2020-01-01T00:00:00Z</timestamp><model>wikitext</model><format>text/x-wiki</format>"
        f'<text xml:space="preserve">{text}</text></revision></page>\n'
    )


PAGES = [
    page("北京", f"'''{BODY}'''[[分类:城市]]"),
    page("京", "#重定向 [[北京]]", redirect='<redirect title="北京" />'),
    page("分类:城市", BODY, namespace=14),
    page("小", "很短。"),
    page("歧义", BODY + "{{disambig}}"),
    page("上海", f"{BODY}[[File:x.jpg|thumb]]\n== 历史 ==\n{BODY}"),
    page("空", ""),
]


def dump(path, pages=PAGES):
    xml = (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10" xml:lang="zh"><siteinfo>'
        '<sitename>W</sitename><namespaces><namespace key="0" case="first-letter" /><namespace key="6">文件</namespace>'
        '<namespace key="14">分类</namespace></namespaces></siteinfo>\n'
        + "".join(pages)
        + "</mediawiki>"
    ).encode()
    path.write_bytes(bz2.compress(xml) if path.suffix == ".bz2" else xml)
    return path


@pytest.mark.parametrize("name", ["zhwiki.xml", "zhwiki-pages.xml.bz2", "zhwiki.bz2"])
def test_articles(tmp_path, name):
    log = ReadLog()
    documents = list(read_documents(dump(tmp_path / name), log=log))
    assert [d.text for d in documents] == [f"北京\n\n{BODY}", f"上海\n\n{BODY}\n\n历史\n{BODY}"]
    assert [d.metadata["title"] for d in documents] == ["北京", "上海"]
    assert log.dropped == {"redirect": 1, "not an article": 1, "stub": 2, "disambiguation": 1}


def test_parts_of_a_dump_make_the_whole(tmp_path):
    file, log = SourceFile(str(dump(tmp_path / "a.xml.bz2")), "wikipedia"), ReadLog()
    titles = [d.metadata["title"] for i in range(3) for d in read_dump(file, log, (i, 3))]
    assert sorted(titles) == ["上海", "北京"]
    assert log.dropped.total() == 5


@pytest.mark.parametrize("text", ["<mediawiki><siteinfo></siteinfo><page>", "<html></html>", "<a"])
def test_not_a_dump(tmp_path, text):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match=r"a.xml: not a complete MediaWiki dump"):
        list(read_documents(tmp_path / "a.xml"))


def test_cut_dump(tmp_path):
    path = dump(tmp_path / "a.xml")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"not a complete MediaWiki dump \(after \d pages"):
        list(read_documents(path))


def test_real_dumps_leave_no_markup(shared_data):
    log = ReadLog()
    documents = list(read_documents(shared_data / "dumps", log=log))
    assert len(documents) == 99
    assert log.dropped == {"redirect": 99, "disambiguation": 8, "not an article": 3}
    text = "\n".join(document.text for document in documents)
    assert len(text) > 2_700_000
    markup = r"\{\{|\}\}|\{\||\|\}|\[\[|\]\]|<ref|</|'''|https?:|&[a-z]+;|(?im)^\s*[|!]|^(category|категория):"
    assert re.findall(re.sub(r"\(\?im\)", "", markup), text, re.IGNORECASE | re.MULTILINE) == []
