"""The memory-mapped token store: what goes in comes out, and nothing damaged is picked up."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glmkit.errors import DataError
from glmkit.tokens.store import TokenStore, TokenStoreWriter, dtype_for

DOCUMENTS = [[1, 2, 3], [], [999], list(range(50)), [7, 7]]


def write(folder, documents=DOCUMENTS, **settings):
    with TokenStoreWriter(folder, "abc", 1000, **settings) as writer:
        for ids in documents:
            writer.add(ids)
    return folder


@pytest.mark.parametrize("shard_tokens", [4, 10, 1000])
def test_documents_come_back(tmp_path, shard_tokens):
    store = TokenStore.open(write(tmp_path / "s", shard_tokens=shard_tokens), "abc", verify=True)
    assert len(store) == len(DOCUMENTS)
    assert [store.document(i).tolist() for i in range(len(store))] == DOCUMENTS
    stream = sum(DOCUMENTS, [])
    assert store.num_tokens == len(stream)
    assert store.tokens(0, len(stream)).tolist() == stream
    assert store.tokens(2, 40).tolist() == stream[2:40]
    assert store.tokens(5, 5).tolist() == []
    assert store.document(0).dtype == np.int64
    assert store.offsets.tolist() == [0, 3, 3, 4, 54, 56]
    assert "5 documents" in repr(store)


@settings(max_examples=30, deadline=None)
@example([[], [0, 0]], 1, 0)  # a file that held empty documents alone took a long one, or did not
@given(
    st.lists(st.lists(st.integers(0, 70_000), max_size=12), max_size=20),
    st.integers(1, 30),
    st.integers(0, 20),
)
def test_any_documents_any_shard_size(tmp_path_factory, documents, shard_tokens, cut):
    """Adding one by one and in bulk writes the same files, whatever the shard size."""
    folder = tmp_path_factory.mktemp("store")
    with TokenStoreWriter(folder / "a", "f", 70_001, shard_tokens=shard_tokens) as writer:
        for ids in documents:
            writer.add(np.array(ids, dtype=np.int64))
    with TokenStoreWriter(folder / "b", "f", 70_001, shard_tokens=shard_tokens) as writer:
        for some in (documents[:cut], documents[cut:]):
            writer.add_many(
                np.array(sum(some, []), dtype=np.int64),
                np.array([len(ids) for ids in some], dtype=np.int64),
            )
    for path in sorted((folder / "a").iterdir()):
        assert path.read_bytes() == (folder / "b" / path.name).read_bytes()
    store = TokenStore.open(folder / "a")
    assert [store.document(i).tolist() for i in range(len(store))] == documents
    assert store.tokens(0, store.num_tokens).tolist() == sum(documents, [])


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(1, "u1"), (256, "u1"), (257, "u2"), (65536, "u2"), (65537, "u4")]
)
def test_smallest_dtype(vocab_size, dtype):
    assert dtype_for(vocab_size) == np.dtype(dtype)


def test_empty_store(tmp_path):
    store = TokenStore.open(write(tmp_path / "s", []), verify=True)
    assert len(store) == 0
    assert store.tokens(0, 0).size == 0


def test_ids_outside_of_the_vocabulary(tmp_path):
    with pytest.raises(DataError, match=r"found 5 … 1000, allowed 0 … 999"):
        write(tmp_path / "s", [[5, 1000]])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="-1"):
        write(tmp_path / "s", [[-1]])


def test_index_errors(tmp_path):
    store = TokenStore.open(write(tmp_path / "s"))
    for index in (-1, len(DOCUMENTS)):
        with pytest.raises(IndexError):
            store.document(index)
    with pytest.raises(IndexError):
        store.tokens(0, store.num_tokens + 1)


def test_existing_store_needs_overwrite(tmp_path):
    write(tmp_path / "s")
    with pytest.raises(DataError, match="already exists"):
        TokenStoreWriter(tmp_path / "s", "abc", 1000)
    assert len(TokenStore.open(write(tmp_path / "s", [[1]], overwrite=True))) == 1


def test_wrong_tokenizer(tmp_path):
    with pytest.raises(DataError, match="another tokenizer"):
        TokenStore.open(write(tmp_path / "s"), "def")


def test_not_a_store(tmp_path):
    with pytest.raises(DataError, match=r"no token store: store.json is not there\. Make one"):
        TokenStore.open(tmp_path)


@pytest.mark.parametrize("name", ["tokens-00001.bin", "offsets.bin"])
def test_missing_and_truncated_files(tmp_path, name):
    path = write(tmp_path / "s", shard_tokens=4) / name
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(DataError, match=f"{name} has {len(data) - 1} bytes, expected {len(data)}"):
        TokenStore.open(tmp_path / "s")
    path.unlink()
    for verify in (False, True):
        with pytest.raises(DataError, match=f"{name} is missing"):
            TokenStore.open(tmp_path / "s", verify=verify)


def test_changed_file_is_found_by_verify(tmp_path):
    path = write(tmp_path / "s") / "tokens-00000.bin"
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    TokenStore.open(tmp_path / "s")
    with pytest.raises(DataError, match=r"tokens-00000.bin was changed"):
        TokenStore.open(tmp_path / "s", verify=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:20], "damaged"),
        (lambda text: "[]", "does not describe"),
        (lambda text: json.dumps({**json.loads(text), "version": 2}), "version 2"),
        (lambda text: json.dumps({**json.loads(text), "tokens": 3}), "disagree"),
    ],
)
def test_bad_header(tmp_path, change, message):
    path = write(tmp_path / "s") / "store.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=message):
        TokenStore.open(tmp_path / "s")


def test_pickles_as_its_folder(tmp_path):
    store = TokenStore.open(write(tmp_path / "s", [[1] * 100_000]))
    data = pickle.dumps(store)
    assert len(data) < 500
    assert pickle.loads(data).document(0).sum() == 100_000


def test_killed_writer_leaves_no_store(tmp_path):
    """kill -9 in the middle of writing: no store appears, and the next writer starts afresh."""
    code = (
        "import sys, time; from glmkit.tokens.store import TokenStoreWriter as W\n"
        "w = W(sys.argv[1], 'abc', 1000)\n"
        "while True: w.add([1] * 1000); print('.', flush=True)"
    )
    folder = tmp_path / "s"
    process = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE)
    for _ in range(20):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not folder.exists()
    with pytest.raises(DataError, match="unfinished"):
        TokenStore.open(folder)
    assert len(TokenStore.open(write(folder), verify=True)) == len(DOCUMENTS)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_does_not_import_torch():
    code = "import sys, glmkit.tokens.store, glmkit.corpus; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
