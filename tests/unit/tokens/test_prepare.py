"""Preparation: the same inputs give the same bytes, however often and wherever it was interrupted."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import prepare_samples
import pytest
from prepare_samples import CharacterTokenizer, write_corpus

pytest.importorskip("datatrove")

from glmkit.corpus import pipeline
from glmkit.corpus.steps.settings import Steps
from glmkit.errors import ConfigError, DataError, MissingDependencyError
from glmkit.tokens.encoding import EncodedPart, EncodeStep
from glmkit.tokens.prepare import prepare
from glmkit.tokens.prepare_report import PrepareReport
from glmkit.tokens.store import TokenStore

TOKENIZER = CharacterTokenizer()


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def documents_of(folder: Path) -> list[str]:
    store = TokenStore.open(folder, TOKENIZER.fingerprint(), verify=True)
    texts = []
    for i in range(len(store)):
        ids = store.document(i)
        assert ids[0] == TOKENIZER.special_ids.cls
        assert ids[-1] == TOKENIZER.special_ids.eos
        texts.append("".join(chr(index - 10) for index in ids[1:-1]))
    return texts


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Six files, of which each is a task."""
    monkeypatch.setattr(pipeline, "PART_BYTES", prepare_samples.FILE_BYTES)
    return write_corpus(tmp_path / "corpus")


def test_every_distinct_document_once(corpus, tmp_path):
    report = prepare(corpus, tmp_path / "out", TOKENIZER, valid_ratio=0.2, steps=Steps(min_chars=6))
    train, valid = (
        documents_of(tmp_path / "out" / "train"),
        documents_of(tmp_path / "out" / "valid"),
    )
    assert len({*train, *valid}) == len(train) + len(valid) == 3 * 36
    assert 0 < len(valid) < len(train)
    assert max(train, key=len).endswith("abab")
    # 6 files of 40 poems; 3 of 40 titles come twice; 3 pairs of equal files; poem 0 is 5 characters long.
    assert report.dropped == {"duplicate": 240 - 12 - 108, "too short": 12}
    assert report.documents_read == 240
    assert report.train.documents == len(train)
    assert report.train.characters == sum(map(len, train))
    assert report.train.tokens == report.train.characters + 2 * len(train)
    assert report.train.characters_per_token == 1.0
    assert report.valid.longest == max(map(len, valid)) + 2
    assert (tmp_path / "out" / "tokenizer" / "tokenizer.json").is_file()
    assert not (tmp_path / "out" / ".work").exists()
    table = (tmp_path / "out" / "report.txt").read_text()
    assert table == f"{report}\n"
    assert re.search(r"^duplicate +duplicates +120 ", table, re.MULTILINE)


def test_a_text_stays_on_its_side(corpus, tmp_path):
    """The split is drawn by the text: another corpus with the same texts divides them in the same way."""
    prepare(corpus, tmp_path / "a", TOKENIZER, valid_ratio=0.3)
    prepare(corpus / "0.jsonl", tmp_path / "b", TOKENIZER, valid_ratio=0.3)
    for split in ("train", "valid"):
        one, all_of_them = (documents_of(tmp_path / out / split) for out in "ba")
        assert set(one) <= set(all_of_them)


def test_done_work_is_reused(corpus, tmp_path):
    first = prepare(corpus, tmp_path / "out", TOKENIZER)
    again = prepare([str(corpus)], tmp_path / "out", TOKENIZER)
    assert again.reused
    assert not first.reused
    assert (again.train, again.dropped) == (first.train, first.dropped)


def test_other_inputs_need_overwrite(corpus, tmp_path):
    out = tmp_path / "out"
    prepare(corpus, out, TOKENIZER)
    with pytest.raises(DataError, match=r"prepared from other inputs .*different: steps.min_chars"):
        prepare(corpus, out, TOKENIZER, steps=Steps(min_chars=2))
    with pytest.raises(DataError, match="different: tokenizer"):
        prepare(corpus, out, CharacterTokenizer(name="other"))
    (corpus / "0.jsonl").write_text('{"text": "changed"}')
    with pytest.raises(DataError, match="different: sources"):
        prepare(corpus, out, TOKENIZER)
    assert not prepare(corpus, out, TOKENIZER, overwrite=True).reused
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "thesis.tex").write_text("precious")
    with pytest.raises(DataError, match="not empty and no prepared corpus"):
        prepare(corpus, tmp_path / "else", TOKENIZER, overwrite=True)


def test_settings_are_checked_together(corpus, tmp_path):
    with pytest.raises(ConfigError, match=r"valid_ratio=1.5 .*; min_chars=-1 .*; workers=0"):
        prepare(
            corpus,
            tmp_path / "out",
            TOKENIZER,
            valid_ratio=1.5,
            steps=Steps(min_chars=-1),
            workers=0,
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_arrive_as_they_were_raised(corpus, tmp_path, workers, capfd):
    """A bad line stops the run with its own message and no traceback of the engine; mended, it goes on."""
    bad = corpus / "3.jsonl"
    bad.write_text('{"text": "a"}\n{"text": ')
    with pytest.raises(DataError, match=r"3.jsonl:2: not valid JSON"):
        prepare(corpus, tmp_path / "out", TOKENIZER, workers=workers)
    assert capfd.readouterr().err == ""
    with pytest.raises(DataError, match="no token store"):
        TokenStore.open(tmp_path / "out" / "train")
    bad.write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match="interrupted preparation of other inputs"):
        prepare(corpus, tmp_path / "out", TOKENIZER, workers=workers)
    prepare(corpus, tmp_path / "out", TOKENIZER, workers=workers, overwrite=True)


def test_nothing_left(tmp_path):
    (tmp_path / "a.txt").write_text("short")
    with pytest.raises(DataError, match=r"Nothing is left to train on: dropped .*too short"):
        prepare(tmp_path / "a.txt", tmp_path / "out", TOKENIZER, steps=Steps(min_chars=10))
    assert not (tmp_path / "out" / "train").exists()


def test_empty_validation_warns(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("one document")
    with caplog.at_level(logging.WARNING):
        prepare(tmp_path / "a.txt", tmp_path / "out", TOKENIZER, valid_ratio=1e-9)
    assert "validation split is empty" in caplog.text
    assert len(TokenStore.open(tmp_path / "out" / "valid")) == 0


def test_large_files_are_divided(corpus, tmp_path, monkeypatch):
    """A file is read in parts; together they have its documents, and progress reaches the end."""
    prepare(corpus, tmp_path / "whole", TOKENIZER)
    monkeypatch.setattr(pipeline, "PART_BYTES", 1000)
    seen = []
    report = prepare(
        corpus, tmp_path / "parts", TOKENIZER, progress=lambda *done: seen.append(done)
    )
    assert report.documents_read == 240
    for split in ("train", "valid"):
        whole, parts = (documents_of(tmp_path / out / split) for out in ("whole", "parts"))
        assert sorted(whole) == sorted(parts)
    assert seen[-1][0] == seen[-1][1] > 0


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.slow), "2"])
def test_killed_and_run_again(corpus, tmp_path, workers):
    """kill -9 when some parts are done: no store is there; the next run, beside the workers, gives the uninterrupted run's bytes."""
    prepare(corpus, tmp_path / "expected", TOKENIZER, valid_ratio=0.2)
    out = tmp_path / "out"
    command = [sys.executable, prepare_samples.__file__, corpus, out, workers]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        while not (out / ".work" / "parts" / "00001").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (out / "train").exists()
        assert not (out / "report.json").exists()
        kept = (out / ".work" / "parts" / "00001").stat().st_ino
        prepare(corpus, out, InodeCheck(out / ".work" / "parts" / "00001", kept), valid_ratio=0.2)
    finally:
        # Its workers end with their task; the process of datatrove's queue would stay.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert files_of(out) == files_of(tmp_path / "expected")


def test_two_processes_at_the_same_part(tmp_path):
    """A worker that outlives its killed parent may finish a part first: the second leaves it as it is."""
    document = pipeline.PipelineDocument("abc", "1", metadata={"digest": bytes(16)})

    step = EncodeStep(TOKENIZER, tmp_path, pipeline.Tally())
    for _ in range(2):
        assert list(step.run(iter([document]))) == [document]
    ((documents, _, _),) = EncodedPart(tmp_path / "00000").chunks()
    assert documents == slice(0, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000", "progress"]


def test_without_datatrove(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("text")
    for name in ("datatrove.data", "glmkit.corpus.pipeline"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "glmkit.corpus.pipeline")
    with pytest.raises(MissingDependencyError, match=r'pip install "glmkit\[corpus\]"'):
        prepare(tmp_path / "a.txt", tmp_path / "out", TOKENIZER)


class InodeCheck(CharacterTokenizer):
    """Sees to it that a finished part is not made again."""

    def __init__(self, part, inode):
        super().__init__()
        self.part, self.inode = part, inode

    def save_pretrained(self, folder):
        assert self.part.stat().st_ino == self.inode
        super().save_pretrained(folder)


@pytest.mark.parametrize(
    "name",
    [
        "train",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("valid", "tokenizer", "report.json")
        ),
    ],
)
def test_killed_while_merging(corpus, tmp_path, name, monkeypatch):
    """Stopped right before each of the results appears: never a half result, and then the same bytes."""
    prepare(corpus, tmp_path / "expected", TOKENIZER, valid_ratio=0.2)
    out, rename = tmp_path / "out", Path.rename

    def stop(self, target):
        if Path(target) == out / name:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(corpus, out, TOKENIZER, valid_ratio=0.2)
    assert not (out / name).exists()
    with pytest.raises(DataError):
        PrepareReport.load(out)
    monkeypatch.setattr(Path, "rename", rename)
    prepare(corpus, out, TOKENIZER, valid_ratio=0.2)
    assert files_of(out) == files_of(tmp_path / "expected")


def test_report_round_trip(corpus, tmp_path):
    report = prepare(corpus, tmp_path / "out", TOKENIZER)
    loaded = PrepareReport.load(tmp_path / "out")
    assert loaded.train == report.train
    assert json.loads((tmp_path / "out" / "report.json").read_text())["inputs"] == loaded.inputs
    assert "seconds" not in (tmp_path / "out" / "report.json").read_text()


def test_with_glmkits_tokenizer(tmp_path):
    """The real tokenizer: what looks like a special token in the corpus stays text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from glmkit.tokens.tokenizer import GLMTokenizer

    special = ["<|endoftext|>", "[CLS]", "[MASK]", "<|startofpiece|>", "<|endofpiece|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({t: i for i, t in enumerate([*special, *alphabet])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    eos, cls, mask = special[:3]
    tokenizer = GLMTokenizer(
        tokenizer_object=backend, eos_token=eos, pad_token=eos, cls_token=cls, mask_token=mask
    )
    (tmp_path / "a.txt").write_text("凯旋门 [MASK] <|endoftext|> x")
    prepare(tmp_path / "a.txt", tmp_path / "out", tokenizer, valid_ratio=0)
    saved = GLMTokenizer.from_pretrained(tmp_path / "out" / "tokenizer")
    ids = TokenStore.open(tmp_path / "out" / "train", saved.fingerprint()).document(0)
    assert np.isin(ids, [0, 1, 2, 3, 4]).sum() == 2
    assert saved.decode(ids[1:-1].tolist()) == "凯旋门 [MASK] <|endoftext|> x"
