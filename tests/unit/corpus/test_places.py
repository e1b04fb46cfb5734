"""Sources elsewhere: the same files give the same documents from memory, S3 and the web."""

from __future__ import annotations

import http.server
import os
import re
import sys
import threading
import time

import pytest
from corpus_files import COLUMNS, PACK, RECORDS, TEXTS, WRITE, json_lines

pytest.importorskip("fsspec")

import fsspec

from glmkit.corpus import ReadLog, read_documents
from glmkit.corpus.files import SourceFile, find_files
from glmkit.corpus.sources import count_parts, read_file
from glmkit.errors import DataError, MissingDependencyError


def texts(source, **options):
    return [document.text for document in read_documents(source, **options)]


@pytest.fixture(scope="module")
def s3_server():
    """An S3 in this process, with an empty bucket `corpus`."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    address, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{address}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3 = fsspec.get_filesystem_class("s3")
        s3.clear_instance_cache()
        fsspec.filesystem("s3").makedirs("corpus", exist_ok=True)
        yield
        s3.clear_instance_cache()
    server.stop()


@pytest.fixture(params=["memory://", "s3://corpus/"])
def place(request, tmp_path):
    """(fsspec file system, an empty folder in it)."""
    if request.param.startswith("s3"):
        request.getfixturevalue("s3_server")
    url = f"{request.param}{tmp_path.name.replace('[', '').replace(']', '')}"
    system = fsspec.core.url_to_fs(url)[0]
    system.invalidate_cache()
    return system, url


def put(place, name, data):
    system, url = place
    with system.open(f"{url}/{name}", "wb") as file:
        file.write(data)
    return f"{url}/{name}"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz", "a.csv.bz2", "a.tsv.zst", "a.jsonl.xz"])
def test_packed_formats(place, name):
    suffix, packing = re.fullmatch(r"a(\.[a-z]+)(\.\w+)?", name).groups(default="")
    url = put(place, name, PACK[packing](WRITE[suffix](RECORDS)))
    log = ReadLog()
    documents = list(read_documents(url, log=log))
    assert [document.text for document in documents] == TEXTS
    assert documents[0].id.startswith(f"{name}:")
    assert 0 < log.bytes_read <= find_files(url)[0].size()


@pytest.mark.parametrize("suffix", COLUMNS)
def test_columns(place, suffix):
    assert texts(put(place, f"a{suffix}", COLUMNS[suffix](RECORDS))) == TEXTS


def test_folders_and_globs(place, caplog):
    for name in ("b.txt", "a.txt", "sub/c.jsonl.gz", "sub/d.txt", "e.png", ".hidden.txt"):
        data = json_lines([{"text": name}]) if "json" in name else name.encode()
        put(place, name, PACK[".gz"](data) if name.endswith("gz") else data)
    url = place[1]
    assert texts(url) == texts(url + "/") == ["a.txt", "b.txt", "sub/c.jsonl.gz", "sub/d.txt"]
    assert "passed over 1 files" in caplog.text
    assert texts(f"{url}/*.txt") == ["a.txt", "b.txt"]
    assert texts(f"{url}/**/*.gz") == ["sub/c.jsonl.gz"]
    assert texts(f"{url}/sub/[d-z]*") == ["sub/d.txt"]
    with pytest.raises(DataError, match=r"No file matches .*\*\.csv"):
        texts(f"{url}/*.csv")
    with pytest.raises(DataError, match="does not exist"):
        texts(f"{url}/no.txt")
    with pytest.raises(DataError, match=r"holds no file that can be read|does not exist"):
        texts(f"{url}/nothing/")


def test_parts_are_ranges_there_too(place):
    records = [{"text": f"第{i}条"} for i in range(50)]
    (file,) = find_files(put(place, "a.jsonl", json_lines(records)))
    assert count_parts(file, 100) == -(-file.size() // 100)
    found = [
        document.text
        for index in range(7)
        for document in read_file(file, text_field=None, log=ReadLog(), part=(index, 7))
    ]
    assert found == [record["text"] for record in records]


def test_errors_name_the_url_and_the_line(place):
    url = put(place, "a.jsonl", json_lines([{"text": "a"}]) + b"{\n")
    with pytest.raises(DataError, match=rf"{re.escape(url)}:2: not valid JSON"):
        texts(url)
    url = put(place, "a.jsonl.zst", PACK[".zst"](json_lines(RECORDS))[:-4])
    with pytest.raises(DataError, match=rf"{re.escape(url)} is damaged, cut short"):
        texts(url)
    url = put(place, "a.txt", b"")
    with pytest.raises(DataError, match=rf"{re.escape(url)} is empty"):
        texts(url)


def test_fingerprint_changes_with_the_contents(place):
    url = put(place, "a.txt", b"one")
    (file,) = find_files(url)
    before = file.fingerprint()
    assert before == find_files(url)[0].fingerprint()
    time.sleep(0.01)
    assert texts(place[1]) == ["one"]  # file systems remember listings
    put(place, "a.txt", b"two")
    assert find_files(place[1])[0].fingerprint() != before


def test_fingerprint_of_local_files(tmp_path, monkeypatch):
    """Small files by what is in them, wherever they are; large ones without reading them."""
    one, two = tmp_path / "1.txt", tmp_path / "2.txt"
    for path in (one, two):
        path.write_text("abc")
    os.utime(two, (1, 1))
    files = [SourceFile(str(path), "text") for path in (one, two)]
    assert files[0].fingerprint() == files[1].fingerprint()
    monkeypatch.setattr("glmkit.corpus.files.HASHED_BYTES", 2)
    assert files[0].fingerprint() != files[1].fingerprint()
    assert files[1].fingerprint() == "size=3 modified=1000000000"
    one.unlink()
    with pytest.raises(DataError, match=r"1\.txt does not exist"):
        files[0].fingerprint()


def test_file_urls_are_paths(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    assert texts(f"file://{tmp_path}/a.txt") == texts(f"file://{tmp_path}/*.txt") == ["a"]
    assert find_files(f"file://{tmp_path}")[0].is_local


def test_home_folder_and_odd_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "诗 [1]?#x.txt").write_text("诗")
    assert texts("~/诗 [1]?#x.txt") == ["诗"]
    assert texts(tmp_path) == ["诗"]


class _Server(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_web_address(tmp_path):
    pytest.importorskip("aiohttp")
    (tmp_path / "a.jsonl").write_bytes(json_lines(RECORDS))
    (tmp_path / "a.csv.gz").write_bytes(PACK[".gz"](WRITE[".csv"](RECORDS)))

    def handler(*args):
        return _Server(*args, directory=str(tmp_path))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert texts(f"{address}/a.jsonl") == texts(f"{address}/a.csv.gz?download=1") == TEXTS
        (file,) = find_files(f"{address}/a.jsonl?x=1")
        assert file.name == "a.jsonl"
        # This server answers no ranges, so that parts take every n-th line.
        found = [
            document.text
            for index in range(3)
            for document in read_file(file, text_field=None, log=ReadLog(), part=(index, 3))
        ]
        assert sorted(found) == sorted(TEXTS)
        with pytest.raises(DataError, match="does not exist"):
            texts(f"{address}/no.txt")
        server.shutdown()
    with pytest.raises(DataError, match=r"a\.jsonl (cannot be read|is damaged|does not exist)"):
        texts(f"{address}/a.jsonl")


def test_s3_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(MissingDependencyError, match=r'pip install "glmkit\[s3\]"'):
        texts("s3://bucket/a.txt")


def test_unknown_kinds_of_url():
    with pytest.raises(DataError, match=r"foo://x/a\.txt cannot be reached: Protocol not known"):
        texts("foo://x/a.txt")


def test_refused(monkeypatch, s3_server):
    """Without credentials the message names the address and what to look at."""
    with pytest.raises(DataError, match=r"s3://nobucket/a\.txt"):
        texts("s3://nobucket/a.txt")
