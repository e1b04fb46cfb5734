"""Preparation from elsewhere: the same bytes as from files here, with workers too."""

from __future__ import annotations

import json

import pytest
from prepare_samples import CharacterTokenizer

pytest.importorskip("datatrove")
pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

import s3fs
from moto.server import ThreadedMotoServer

from glmkit.corpus import pipeline
from glmkit.tokens.prepare import prepare


@pytest.fixture
def bucket(monkeypatch):
    """The name of a bucket of an S3 in this process; what other tests put there stays."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    address, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().makedirs("bucket", exist_ok=True)
    yield "bucket"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.parametrize("workers", [1, 2])
def test_s3_gives_the_same_stores(tmp_path, monkeypatch, bucket, workers):
    monkeypatch.setattr(pipeline, "PART_BYTES", 2000)
    folder = tmp_path / "corpus"
    folder.mkdir()
    records = [{"text": f"第{i}篇 document {i}"} for i in range(200)]
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (folder / "a.jsonl").write_text(lines, encoding="utf-8")
    (folder / "b.csv").write_text("text\n" + "\n".join(f"row {i}" for i in range(50)))
    s3fs.S3FileSystem().put(str(folder), f"{bucket}/{workers}", recursive=True)
    source, tokenizer = f"s3://{bucket}/{workers}", CharacterTokenizer()
    report = prepare(source, tmp_path / "s3", tokenizer, workers=workers)
    assert prepare(source, tmp_path / "s3", tokenizer).reused
    here = prepare(folder, tmp_path / "here", tokenizer)
    assert report.documents_read == here.documents_read == 250
    for split in ("train", "valid"):
        paths = list((tmp_path / "here" / split).iterdir())
        assert paths
        for path in paths:
            assert path.read_bytes() == (tmp_path / "s3" / split / path.name).read_bytes()
