"""Reading corpora: every format gives its documents, every mistake its file, line and remedy."""

from __future__ import annotations

import bz2
import gzip
import json
import logging

import pytest

from glmkit.corpus import ReadLog, read_documents, sources
from glmkit.corpus.files import SourceFile
from glmkit.errors import DataError


def texts(source, **options):
    return [document.text for document in read_documents(source, **options)]


def jsonl(path, records):
    data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    path.write_bytes({".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)(data))
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.ndjson.bz2", "a.json", "a.gz", "a"])
def test_json_lines(tmp_path, name):
    path = jsonl(tmp_path / name, [{"text": "凯旋门", "n": 1}, {"text": "two\nlines"}])
    documents = list(read_documents(path))
    assert [document.text for document in documents] == ["凯旋门", "two\nlines"]
    assert [document.id for document in documents] == [f"{name}:1", f"{name}:2"]
    assert documents[0].metadata["n"] == 1


POEM = {"title": "日诗", "author": "宋太祖", "lines": ["欲出未出", "千山万山"]}


@pytest.mark.parametrize(
    ("record", "text_field", "text"),
    [
        ({"title": "t", "text": "body"}, None, "body"),
        ({"content": "body"}, None, "body"),
        (POEM, None, "日诗\n欲出未出\n千山万山"),
        ({"title": "", "lines": ["a", "b"]}, None, "a\nb"),
        ({"turns": ["你好", "好"]}, None, "你好\n好"),
        (POEM, "lines", "欲出未出\n千山万山"),
        (POEM, "title, author", "日诗\n宋太祖"),
        (POEM, "{title}（{author}）\n{lines}", "日诗（宋太祖）\n欲出未出\n千山万山"),
        (POEM, r"{title}\n{lines}", "日诗\n欲出未出\n千山万山"),
        ({"n": 7, "text": None, "x": "y"}, "text,n,x", "7\ny"),
    ],
)
def test_text_of_records(tmp_path, record, text_field, text):
    assert texts(jsonl(tmp_path / "a.jsonl", [record]), text_field=text_field) == [text]


@pytest.mark.parametrize(
    ("record", "text_field", "message"),
    [
        (
            {"context": "c", "question": "q"},
            None,
            r'a.jsonl:2: no field .* has context, question.*"context"',
        ),
        ({}, None, "no fields"),
        (
            POEM,
            "ttitle",
            r"a.jsonl:1: .*no field 'ttitle', it has text, title.*did you mean 'title'\?",
        ),
        (POEM, "{ttitle}", "did you mean 'title'"),
        ({"text": [{"a": 1}]}, None, "holds a list of records"),
        ({"text": {"a": 1}}, "text", "holds a dict"),
    ],
)
def test_records_without_text(tmp_path, record, text_field, message):
    path = jsonl(tmp_path / "a.jsonl", [{"text": "x", **POEM}, record])
    with pytest.raises(DataError, match=message):
        texts(path, text_field=text_field)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a"', r"a.jsonl:2: not valid JSON .*begins: '\{\"text\": \"a\"'"),
        (b"[1,", r"a.jsonl:2: not valid JSON .*is called .json"),
        (b'["a"]', r"a.jsonl:2: expected a JSON object, found a list"),
        (
            '{"text": "凯"}'.encode("gb18030"),
            r"a.jsonl:2: not UTF-8 \(byte 0x.* column 11\).*iconv -f GB18030",
        ),
    ],
)
def test_bad_lines(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n' + line + b"\n")
    with pytest.raises(DataError, match=message):
        texts(path)


def test_utf16_and_byte_order_mark(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("abc", encoding="utf-16")
    with pytest.raises(DataError, match="iconv -f UTF-16"):
        texts(path)
    path.write_text("abc", encoding="utf-8-sig")
    assert texts(path) == ["abc"]


def test_dropped_records_are_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": " "}\n\n{"text": "a"}\n{"text": ""}\n')
    log = ReadLog()
    assert texts(path, log=log) == ["a"]
    assert log.dropped == {"empty record": 2, "blank line": 1}
    assert log.documents == 1
    assert str(log) == "1 documents; dropped: 2 empty record, 1 blank line"


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.txt.gz", "a.txt.bz2", "LICENSE"])
def test_plain_text_is_one_document(tmp_path, name):
    data = "一\n\n二\nthree\n".encode()
    packed = {"gz": gzip.compress, "bz2": bz2.compress}.get(name.rpartition(".")[2], bytes)(data)
    (tmp_path / name).write_bytes(packed)
    assert texts(tmp_path / name) == ["一\n\n二\nthree"]


def test_end_of_text_lines_divide(tmp_path):
    (tmp_path / "a.txt").write_text("a\n\nb\n<|endoftext|>\nc\n<|endoftext|>\n")
    documents = list(read_documents(tmp_path / "a.txt"))
    assert [document.text for document in documents] == ["a\n\nb", "c"]
    assert [document.id for document in documents] == ["a.txt:1", "a.txt:2"]


def test_long_text_is_cut_at_blank_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_TEXT_CHARS", 5)
    (tmp_path / "a.txt").write_text("aaaa\nbbb\n\nc\n\nddddddd\n\ne\n")
    assert texts(tmp_path / "a.txt") == ["aaaa\nbbb", "c\n\nddddddd", "e"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.txt.gz", "b"])
@pytest.mark.parametrize("data", [b"", b"\n \n"])
def test_empty_file(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    with pytest.raises(DataError, match=f"{name} is empty"):
        texts(path)


def test_folder_and_glob(tmp_path, caplog):
    (tmp_path / "sub").mkdir()
    jsonl(tmp_path / "sub" / "b.jsonl.gz", [{"text": "b"}])
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("no")
    log = ReadLog()
    with caplog.at_level(logging.WARNING):
        assert texts(tmp_path, log=log) == ["a", "b"]
    assert "passed over 1 files" in caplog.text
    assert log.dropped == {"empty file": 1}
    assert texts(f"{tmp_path}/**/*.gz") == ["b"]
    assert texts(f"{tmp_path}/[ab]*") == ["a"]


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        texts(tmp_path / "no.txt")
    with pytest.raises(DataError, match="No file matches"):
        texts(tmp_path / "*.txt")
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no file that can be read \(1 of other formats\)"):
        texts(tmp_path)


@pytest.mark.parametrize("name", ["a.xlsx", "a.pdf.gz", "a.7z", "a.zip"])
def test_unreadable_formats_name_the_remedy(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"cannot be read; (save it|take its text|unpack it)"):
        texts(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.bz2", "a.gz"])
def test_damaged_archives(tmp_path, name):
    path = jsonl(tmp_path / name, [{"text": "x" * i} for i in range(1, 2000)])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{name} is damaged, cut short"):
        texts(path)
    path.write_bytes(b"plainly not packed")
    with pytest.raises(DataError, match=f"{name} is damaged"):
        texts(path)


def test_parts_of_a_file_make_the_whole(tmp_path):
    path = jsonl(tmp_path / "a.jsonl.gz", [{"text": str(i)} for i in range(10)])
    log, found = ReadLog(), []
    for index in range(3):
        file = SourceFile(str(path), "jsonl")
        found += [
            d.text for d in sources.read_file(file, text_field=None, log=log, part=(index, 3))
        ]
    assert sorted(found, key=int) == [str(i) for i in range(10)]
    assert log.documents == 10


def test_real_corpora(shared_data):
    log = ReadLog()
    for name, count in {"poems": 3343, "wiki_zh": 51, "articles_zh": 9, "wiki_en": 4}.items():
        assert len(texts(shared_data / f"{name}.valid.jsonl.gz", log=log)) == count
    assert not log.dropped
    assert log.bytes_read <= sum(path.stat().st_size for path in shared_data.glob("*.valid.*"))
