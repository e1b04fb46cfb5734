"""Every format in every packing gives the same documents; every damage is told with its place."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from corpus_files import COLUMNS, PACK, RECORDS, TEXTS, WRITE, json_lines, parquet, separated
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow")
pytest.importorskip("zstandard")

from glmkit.corpus import ReadLog, read_documents
from glmkit.corpus.files import FORMATS, find_files
from glmkit.corpus.formats import READERS
from glmkit.corpus.json_values import read_json
from glmkit.corpus.rows import Row
from glmkit.corpus.sources import count_parts, read_file
from glmkit.errors import DataError, MissingDependencyError


def texts(source, **options):
    return [document.text for document in read_documents(source, **options)]


def in_parts(file, count):
    """[the texts of each part]; also asserts that ids are unique and bytes add up."""
    log, found, ids = ReadLog(), [], []
    for index in range(count):
        documents = list(read_file(file, text_field=None, log=log, part=(index, count)))
        found.append([document.text for document in documents])
        ids += [document.id for document in documents]
    assert len(set(ids)) == len(ids)
    assert log.documents == len(ids)
    return found


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("suffix", WRITE)
def test_every_format_in_every_packing(tmp_path, suffix, packing):
    path = tmp_path / f"a{suffix}{packing}"
    path.write_bytes(PACK[packing](WRITE[suffix](RECORDS)))
    log = ReadLog()
    documents = list(read_documents(path, log=log))
    assert [document.text for document in documents] == TEXTS
    assert [document.metadata["title"] for document in documents] == ["北京", "Rome", "émigré"]
    assert len({document.id for document in documents}) == 3
    assert log.dropped == {"empty record": 1}
    assert 0 < log.bytes_read <= path.stat().st_size
    assert texts(path, text_field="{title}|{n}") == ["北京|1", "Rome|2", "空|3", "émigré|4"]


@pytest.mark.parametrize("suffix", COLUMNS)
def test_columns(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(COLUMNS[suffix](RECORDS))
    assert texts(path) == TEXTS
    assert texts(path, text_field="title,n") == ["北京\n1", "Rome\n2", "空\n3", "émigré\n4"]
    with pytest.raises(DataError, match=r"a.*, row 1: the record has no field 'titel', .*'title'"):
        texts(path, text_field="titel")


@pytest.mark.parametrize("suffix", COLUMNS)
def test_lists_in_columns(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(
        COLUMNS[suffix]([{"title": "日诗", "lines": ["一", "二"]}])
    )
    assert texts(tmp_path / f"a{suffix}") == ["日诗\n一\n二"]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("suffix", [*WRITE, *COLUMNS])
def test_parts_make_the_whole(tmp_path, suffix, count):
    """Ranges (lines, row groups) keep the order of the file; the others take every n-th record."""
    records = [{"text": f"第{i}条 " + "x" * (i * 7 % 40)} for i in range(20)]
    path = tmp_path / f"a{suffix}"
    path.write_bytes({**WRITE, **COLUMNS}[suffix](records))
    (file,) = find_files(path)
    parts = in_parts(file, count)
    wanted = [record["text"] for record in records]
    assert sorted(sum(parts, [])) == sorted(wanted)
    if suffix in (".jsonl", ".parquet", ".lines.json"):
        assert sum(parts, []) == wanted
    assert all(parts) or count == 7


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["", "a", "é", "长" * 30]), max_size=12), st.integers(1, 9))
def test_ranges_of_lines_take_each_line_once(tmp_path_factory, values, count):
    """Wherever the borders fall: within a line, on a line's end, within a character, on blank lines."""
    path = tmp_path_factory.mktemp("ranges") / "a.jsonl"
    lines = [json.dumps({"text": v}, ensure_ascii=False) if v else "" for v in ["x", *values]]
    path.write_bytes("\n".join(lines).encode())
    (file,) = find_files(path)
    assert sum(in_parts(file, count), []) == ["x", *filter(None, values)]


def test_ids_and_errors_in_ranges(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(json_lines([{"text": "x" * 50}] * 10) + b'{"tex": 1}\n')
    (file,) = find_files(path)
    with pytest.raises(DataError, match=r"a\.jsonl:11: no field of the record"):
        list(read_file(file, text_field=None, log=ReadLog(), part=(3, 4)))
    ids = [d.id for d in read_file(file, text_field=None, log=ReadLog(), part=(1, 4))]
    assert ids == ["a.jsonl:@189+1", "a.jsonl:@189+2", "a.jsonl:@189+3"]


def test_number_of_parts(tmp_path):
    for suffix, packing, count in [
        (".jsonl", "", 20),
        (".jsonl", ".gz", 4),
        (".csv", "", 20),
        (".parquet", "", 5),
    ]:
        path = tmp_path / f"a{suffix}{packing}"
        write = {**WRITE, ".parquet": parquet}[suffix]
        data = PACK[packing](write([{"text": f"{i:0>100}"} for i in range(10)]))
        path.write_bytes(data)
        (file,) = find_files(path)
        wanted = -(-len(data) * (4 if packing else 1) // count)
        assert count_parts(file, wanted) == count
        assert count_parts(file, 10**9) == 1
        assert (count_parts(file, 1) > 32) == (suffix == ".jsonl" and not packing)


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_packed_files_cut_short(tmp_path, packing, kept):
    import random

    path = tmp_path / f"a.jsonl{packing}"
    noise = random.Random(0).randbytes(300_000).hex()
    data = PACK[packing](json_lines([{"text": noise[i : i + 99]} for i in range(0, 600_000, 99)]))
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(DataError, match=rf"a\.jsonl{packing} is damaged, cut short"):
        texts(path)
    path.write_bytes(data[:1000] + bytes(1000) + data[2000:])
    with pytest.raises(DataError, match=rf"a\.jsonl{packing}(:\d+)?(:| is damaged)"):
        texts(path)
    path.write_bytes(b"plainly not packed")
    with pytest.raises(DataError, match=r"is damaged.*test it with: \w+ -t a\.jsonl"):
        texts(path)


@pytest.mark.parametrize("suffix", COLUMNS)
def test_columns_cut_short(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    data = COLUMNS[suffix]([{"text": str(i) * 99} for i in range(999)], 100)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"a.*arrow|parquet is damaged, cut short or no"):
        texts(path)
    path.write_bytes(b"text")
    with pytest.raises(DataError, match="is damaged, cut short or no"):
        texts(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'[{"text": "a"},\n {"text": "b"', r"a\.json:2: not valid JSON, or cut short"),
        (b'[{"text": "a"},\n {"text": "b"}', r"a\.json:2: .*expected ',', found 'the end"),
        (b'[{"text": "a"}\n\n {"text": "b"}]', r"a\.json:3: .*expected ',', found '{'"),
        (b'[{"text": "a"}]\nx', r"a\.json:2: .*expected 'nothing more', found 'x'"),
        (b'[{"text": "a"},\n{"text":\n oh}]', r"a\.json:3: .*Expecting value"),
        (b'[{"text": "a"},\n]', r"a\.json:2: .*Expecting value"),
        (
            b'[{"text": "a"},\n["b"]]',
            r"a\.json:2 \(record 2\): expected a JSON object, found a list",
        ),
        (b'["a"]', r"a\.json:1 \(record 1\): expected a JSON object, found a str"),
        ('[{"text": "a"},\n{"text": "凯"}]'.encode("gb18030"), r"a\.json:2: .*not UTF-8.*iconv"),
        (b'[{"text": "a"},\n\n{"body_": "b"}]', r"a\.json:3 \(record 2\): no field .*has body_"),
        (b"plain text", r"a\.json:1: not valid JSON"),
        (b"[]", "a.json is empty"),
        (b"", "a.json is empty"),
    ],
)
def test_bad_json(tmp_path, data, message):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        texts(path)


def test_a_bad_value_is_told_without_reading_the_rest(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"text": nothing}' + b" " * 10_000_000 + b"]")
    (file,) = find_files(path)
    with file.open() as (stream, _):
        with pytest.raises(DataError, match=r"a\.json:1: .*Expecting value"):
            next(read_json(file, stream, (0, 1)))
        assert stream.tell() < 1_000_000


@settings(max_examples=80)
@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.floats(allow_nan=False) | st.lists(st.text()))), st.sampled_from([None, 1]), st.integers(1, 40))  # fmt: skip
def test_json_at_any_block_size(tmp_path_factory, records, indent, block):
    """Records that lie across blocks, within escapes, numbers and characters, are the same as in one piece."""
    from glmkit.corpus import json_values

    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(records, ensure_ascii=indent is None, indent=indent), encoding="utf-8", errors="replace")  # fmt: skip
    wanted = json.loads(path.read_text(encoding="utf-8"))
    (file,) = find_files(path)
    before, json_values._BLOCK = json_values._BLOCK, block
    try:
        with file.open() as (stream, _):
            assert [row.record for row in read_json(file, stream, (0, 1))] == wanted
    finally:
        json_values._BLOCK = before


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"title,text\na,b\nc\n", r"a\.csv:3: 1 values, but the heading names 2 fields"),
        (b"\n,;\ntitle,text\na,b\nc\n", r"a\.csv:5: 1 values, but the heading names 2 fields"),
        (b'title,text\na,"b\nb"\nc,d,e\n', r"a\.csv:4: 3 values"),
        (b'title,text\na,b\nc,"d\ne\nf\n', r"a\.csv:3: not valid CSV \(unexpected end of data\)"),
        ("title,text\na,凯\n".encode("gb18030"), r"a\.csv:2: not UTF-8"),
        (b"a,b\n1,2\n", r"a\.csv:2: no field .*it has a, b"),
        (b"title,text\n", "a.csv is empty"),
        (b"", "a.csv is empty"),
        (b"\r\n,,\n", "a.csv is empty"),
    ],
)
def test_bad_csv(tmp_path, data, message):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        texts(path)


def test_long_csv_fields_and_blank_lines(tmp_path):
    """The csv module's own limit is 131072 characters; articles are longer."""
    path, log = tmp_path / "a.csv", ReadLog()
    path.write_bytes(separated([{"n": 1, "text": "长" * 300_000}], ",") + b"\r\n\r\n2,b\r\n")
    assert texts(path, log=log) == ["长" * 300_000, "b"]
    assert log.dropped == {"blank line": 2}


@pytest.mark.parametrize("before", ["\n", "\ufeff\r\n", " \t\n,,\n"])
def test_a_table_may_begin_with_blank_lines(tmp_path, before):
    """Such a file was called empty; spreadsheets write empty rows with their separators."""
    path = tmp_path / "a.csv"
    path.write_text(f"{before}title,text\na,你好\n\nb,c\n", encoding="utf-8")
    assert texts(path) == ["你好", "c"]


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(
    ("value", "message"),
    [("9" * 5000, "4,300.; write it as a string"), ("[" * 100_000 + "]" * 100_000, "levels deep")],
    ids=["digits", "levels"],
)
def test_json_that_python_does_not_read(tmp_path, suffix, value, message):
    """Both were bare errors of Python without a file's name."""
    path = tmp_path / f"a{suffix}"
    path.write_text(f'{{"text": "a"}}\n{{"text": "b", "n": {value}}}\n')
    with pytest.raises(DataError, match=rf"a\{suffix}:2.*{message}"):
        texts(path)


@pytest.mark.parametrize("suffix", COLUMNS)
def test_no_rows(tmp_path, suffix):
    import io

    import pyarrow
    from pyarrow import parquet as pq

    path, table = tmp_path / f"a{suffix}", pyarrow.table({"text": pyarrow.array([], "string")})
    if suffix == ".parquet":
        pq.write_table(table, path)
    else:
        out = io.BytesIO()
        kind = "new_stream" if "stream" in suffix else "new_file"
        with getattr(pyarrow.ipc, kind)(out, table.schema) as writer:
            writer.write_table(table)
        path.write_bytes(out.getvalue())
    with pytest.raises(DataError, match=f"a{suffix} is empty"):
        texts(path)


SNIFFED = [".json", ".objects.json", ".jsonl"]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [(name, suffix) for name in ("a", "a.gz", "p.xml-p1p2.bz2", "a.data") for suffix in SNIFFED]
    + [(name, suffix) for name in ("a", "a.data") for suffix in (".parquet", ".file.arrow")],
)
def test_formats_are_known_without_a_suffix(tmp_path, name, suffix):
    packing = "." + name.rpartition(".")[2] if name.endswith(("gz", "bz2")) else ""
    path = tmp_path / name
    path.write_bytes(PACK[packing]({**WRITE, **COLUMNS}[suffix](RECORDS)))
    assert texts(path) == TEXTS


@pytest.mark.parametrize(
    ("name", "package"),
    [("a.jsonl.zst", "zstandard"), ("a.parquet", "pyarrow"), ("a.arrow", "pyarrow")],
)
def test_missing_packages_are_named(tmp_path, monkeypatch, name, package):
    (tmp_path / name).write_bytes(b"x" * 20)
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"needs the package '{package}'.*pip install \"glmkit\[corpus\]\""
    with pytest.raises(MissingDependencyError, match=message):
        texts(tmp_path / name)


def test_json_lines_without_orjson(tmp_path, monkeypatch):
    monkeypatch.setattr("glmkit.corpus.formats.orjson", None)
    (tmp_path / "a.jsonl").write_bytes(
        WRITE[".ndjson"](RECORDS) + b'{"text": "\\ud800x", "n": NaN}\n'
    )
    assert texts(tmp_path / "a.jsonl") == [*TEXTS, "\ud800x"]


def test_packed_parquet_names_the_remedy(tmp_path):
    (tmp_path / "a.parquet.gz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"compressed inside; unpack it first: gzip -d"):
        texts(tmp_path / "a.parquet.gz")


MEASURE = """
import json, resource, sys
from glmkit.corpus import read_documents
path, small = sys.argv[1:]
assert sum(1 for _ in read_documents(small)) == 1
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(1 for _ in read_documents(path))
print(json.dumps([count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
@pytest.mark.parametrize("suffix", [".json", ".parquet", ".jsonl.zst", ".csv"])
def test_memory_is_flat(tmp_path, suffix):
    """60 MB of records need less than 32 MiB beyond what one record needs."""
    records = [{"text": f"{i} " + "文" * 3333} for i in range(6_000)]
    suffix, packing = suffix.removesuffix(".zst"), ".zst" if suffix.endswith(".zst") else ""
    path, small = tmp_path / f"a{suffix}{packing}", tmp_path / f"b{suffix}{packing}"
    write = (lambda r: parquet(r, 500)) if suffix == ".parquet" else WRITE[suffix]
    path.write_bytes(PACK[packing](write(records)))
    small.write_bytes(PACK[packing](write(records[:1])))
    command = [sys.executable, "-c", MEASURE, str(path), str(small)]
    out = subprocess.run(command, check=True, capture_output=True, text=True)
    count, grown = json.loads(out.stdout)
    assert count == 6_000
    assert grown < 32 * 1024


def test_a_format_of_ones_own(tmp_path, monkeypatch):
    """A suffix and a reader are all that it needs; parts, packing and counts come by themselves."""

    def read_notes(file, stream, part):
        for number, block in enumerate(stream.read().decode().split("%%")):
            if number % part[1] == part[0]:
                yield Row(str(number), f"{file.url}, note {number}", {"text": block.strip()})

    monkeypatch.setitem(FORMATS, ".notes", "notes")
    path = tmp_path / "a.notes.gz"
    path.write_bytes(PACK[".gz"]("一篇\n%%\n\n%%\n又一篇\n".encode()))
    with pytest.raises(DataError, match="the format 'notes' has no reader; there are jsonl"):
        list(read_documents(path))
    monkeypatch.setitem(READERS, "notes", read_notes)
    log = ReadLog()
    assert [one.text for one in read_documents(path, log=log)] == ["一篇", "又一篇"]
    assert log.dropped == {"empty record": 1}
    (file,) = find_files(path)
    assert in_parts(file, 2) == [["一篇", "又一篇"], []]
