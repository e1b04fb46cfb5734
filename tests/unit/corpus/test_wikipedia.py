"""Wikipedia dumps: articles come out, everything else is counted."""

from __future__ import annotations

import bz2
import re

import pytest

pytest.importorskip("mwxml")

from glmkit.corpus import ReadLog, dump_ranges, read_documents
from glmkit.corpus.dump_ranges import has_page_ranges
from glmkit.corpus.files import find_files
from glmkit.corpus.sources import count_parts
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


HEAD = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10" xml:lang="zh"><siteinfo>'
    '<sitename>W</sitename><namespaces><namespace key="0" case="first-letter" /><namespace key="6">文件</namespace>'
    '<namespace key="14">分类</namespace></namespaces></siteinfo>\n'
)


def dump(path, pages=PAGES):
    xml = (HEAD + "".join(pages) + "</mediawiki>").encode()
    path.write_bytes(bz2.compress(xml) if path.suffix == ".bz2" else xml)
    return path


def multistream_dump(path, pages=PAGES, each=2):
    """As Wikipedia publishes it: a stream for the head, one for so many pages, one for the end."""
    streams = ["".join(pages[i : i + each]) for i in range(0, len(pages), each)]
    path.write_bytes(b"".join(bz2.compress(s.encode()) for s in [HEAD, *streams, "</mediawiki>"]))
    return path


@pytest.mark.parametrize("name", ["zhwiki.xml", "zhwiki-pages.xml.bz2", "zhwiki.bz2"])
def test_articles(tmp_path, name):
    log = ReadLog()
    documents = list(read_documents(dump(tmp_path / name), log=log))
    assert [d.text for d in documents] == [f"北京\n\n{BODY}", f"上海\n\n{BODY}\n\n历史\n{BODY}"]
    assert [d.metadata["title"] for d in documents] == ["北京", "上海"]
    assert log.dropped == {"redirect": 1, "not an article": 1, "stub": 2, "disambiguation": 1}


@pytest.mark.parametrize("count", [1, 2, 3, 5, 40])
@pytest.mark.parametrize(
    ("write", "name", "ordered"),
    [
        (dump, "a.xml", True),
        (dump, "a.xml.bz2", False),
        (multistream_dump, "a.xml.bz2", True),
    ],
)
def test_parts_of_a_dump_make_the_whole(tmp_path, write, name, ordered, count):
    """Where the pages of a part can be found without reading the rest, it is a range, in the dump's order."""
    pages = PAGES + [page(f"第{i}页", f"{i} {BODY}") for i in range(20)]
    (file,) = find_files(write(tmp_path / name, pages))
    assert has_page_ranges(file) == ordered
    assert (count_parts(file, 1) > 32) == ordered
    log = ReadLog()
    parts = [[d.metadata["title"] for d in read_dump(file, log, (i, count))] for i in range(count)]
    titles = ["北京", "上海", *(f"第{i}页" for i in range(20))]
    assert sorted(sum(parts, [])) == sorted(titles)
    assert log.dropped.total() == 5
    assert 0 < log.bytes_read <= file.size() + count
    if ordered:
        assert sum(parts, []) == titles
        assert count == 1 or sum(map(bool, parts)) > 1


def test_streams_longer_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(dump_ranges, "_BLOCK", 50)
    (file,) = find_files(multistream_dump(tmp_path / "a.xml.bz2"))
    titles = [d.metadata["title"] for i in range(3) for d in read_dump(file, ReadLog(), (i, 3))]
    assert titles == ["北京", "上海"]


def test_damage_in_a_part(tmp_path):
    path = multistream_dump(tmp_path / "a.xml.bz2")
    path.write_bytes(path.read_bytes()[:-60])
    (file,) = find_files(path)
    with pytest.raises(DataError, match=r"a\.xml\.bz2 is damaged, cut short"):
        list(read_dump(file, ReadLog(), (2, 3)))
    path = dump(tmp_path / "a.xml")
    path.write_bytes(path.read_bytes()[:-300])
    (file,) = find_files(path)
    with pytest.raises(DataError, match=r"not a complete MediaWiki dump"):
        list(read_dump(file, ReadLog(), (1, 2)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#REDIRECT [[a]]", "redirect"),
        ("\n#重定向：[[北京]]", "redirect"),
        ("#ПЕРЕНАПРАВЛЕНИЕ [[Москва]]", "redirect"),
        (f"# [[列表]] {BODY}", None),
        (f"{{{{消歧义}}}} {BODY}", "disambiguation"),
        (f"{{{{人名消歧義|x}}}} {BODY}", "disambiguation"),
        (f"{{{{Disambig-plus|place}}}} {BODY}", "disambiguation"),
        (f"A {{{{Disambiguation needed|date=May}}}} {BODY}", None),
        (f"__DISAMBIG__ {BODY}", "disambiguation"),
    ],
)
def test_what_is_no_article(tmp_path, text, reason):
    """Redirects in any language, also where the dump does not mark them."""
    log = ReadLog()
    list(read_documents(dump(tmp_path / "a.xml", [page("x", text)]), log=log))
    assert log.dropped == ({reason: 1} if reason else {})


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
