"""Datasets by name, here folders in the layout of the Hub, and folders that `datasets` saved."""

from __future__ import annotations

import os
import sys

import pytest
from corpus_files import parquet

pytest.importorskip("datasets")

import datasets

from glmkit.corpus import ReadLog, huggingface, read_documents
from glmkit.corpus.files import find_files
from glmkit.corpus.sources import count_parts, read_file
from glmkit.errors import DataError, MissingDependencyError

CARD = """---
configs:
- config_name: zh
  data_files:
  - split: train
    path: zh/train-*.parquet
  - split: test
    path: zh/test.parquet
- config_name: en
  data_files: en.parquet
---
"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A dataset with two configurations, of which one has two splits."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    huggingface._builder.cache_clear()
    folder = tmp_path / "owner" / "name"
    (folder / "zh").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    for index in range(3):
        records = [{"title": "题", "text": f"文{index}{i}"} for i in range(4)]
        (folder / "zh" / f"train-{index}.parquet").write_bytes(parquet(records))
    (folder / "zh" / "test.parquet").write_bytes(parquet([{"title": "t", "text": "测试"}]))
    (folder / "en.parquet").write_bytes(parquet([{"text": "English"}, {"text": ""}]))
    return folder


def texts(source, **options):
    return [document.text for document in read_documents(source, **options)]


def test_configurations_and_splits(hub):
    log = ReadLog()
    assert texts(f"hf:{hub}?config=zh") == [f"文{i}{j}" for i in range(3) for j in range(4)]
    assert texts(f"hf:{hub}?config=zh&split=test", text_field="{title}:{text}") == ["t:测试"]
    (document,) = read_documents(f"hf:{hub}?config=en", log=log)
    assert (document.text, document.id) == ("English", f"{hub}?config=en:1")
    assert log.dropped == {"empty record": 1}


def test_parts_are_the_shards(hub):
    (file,) = find_files(f"hf:{hub}?config=zh")
    assert file.size() == sum(p.stat().st_size for p in (hub / "zh").glob("train-*"))
    assert count_parts(file, 1) == 3
    assert count_parts(file, 10**9) == 1
    log, found = ReadLog(), []
    for index in range(3):
        found += list(read_file(file, text_field=None, log=log, part=(index, 3)))
    assert [d.text for d in found] == texts(f"hf:{hub}?config=zh")
    assert len({d.id for d in found}) == 12


def test_fingerprint_follows_the_files(hub):
    (file,) = find_files(f"hf:{hub}?config=zh")
    before = file.fingerprint()
    huggingface._builder.cache_clear()
    assert file.fingerprint() == before
    os.utime(hub / "zh" / "train-1.parquet", (1, 1))
    huggingface._builder.cache_clear()
    assert file.fingerprint() != before


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?config=zh&split=tset", r"cannot be read: .*tset.*train"),
        ("?config=xx", r"cannot be read: .*xx.*Available.*zh"),
        ("", r"cannot be read: .*Config name is missing.*zh"),
        ("?spilt=test", r"unknown setting 'spilt'; did you mean 'split'\? Write hf:OWNER/NAME"),
    ],
)
def test_mistakes(hub, query, message):
    with pytest.raises(DataError, match=message):
        texts(f"hf:{hub}{query}")


def test_missing_field_shows_the_fields(hub):
    with pytest.raises(
        DataError, match=r"row 1: the record has no field 'txt', it has title, text"
    ):
        texts(f"hf:{hub}?config=zh", text_field="txt")


def test_no_such_dataset(tmp_path):
    with pytest.raises(DataError, match="name is missing"):
        texts("hf:?split=x")
    with pytest.raises(DataError, match="hf:owner/nothing-there cannot be read"):
        texts("hf:owner/nothing-there")


def test_without_the_package(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "glmkit\[datasets\]"'):
        texts(f"hf:{hub}")


def test_saved_to_disk(tmp_path):
    """The folder of `save_to_disk`, of one split or several, without the accounts that lie beside."""
    splits = {
        name: datasets.Dataset.from_dict({"text": [f"{name}{i}" for i in range(4)]})
        for name in ("test", "train")
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "d", num_shards={"test": 1, "train": 2})
    assert texts(tmp_path / "d") == [f"{name}{i}" for name in ("test", "train") for i in range(4)]
    assert texts(tmp_path / "d" / "train") == [f"train{i}" for i in range(4)]
