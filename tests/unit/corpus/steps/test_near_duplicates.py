"""Near-duplicates: alike texts meet, others do not; datatrove's signatures, in blocks."""

from __future__ import annotations

import random

import numpy as np
import pytest

pytest.importorskip("datatrove")

from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashDedupSignature

from glmkit.corpus.engine import run_tasks
from glmkit.corpus.engine_settings import Engine
from glmkit.corpus.steps import near_duplicates
from glmkit.corpus.steps.near_duplicates import SignatureStep, bucket_step, clusters
from glmkit.corpus.steps.settings import NearDuplicateSettings

SETTINGS = NearDuplicateSettings(enabled=True)
HAN = [chr(0x4E00 + i) for i in range(2000)]
WORDS = [f"word{i}" for i in range(2000)]


def find(folder, parts: list[list[str]]) -> list[list[int]]:
    """Returns for each text the number of the first of its cluster."""
    for rank, texts in enumerate(parts):
        documents = (Document(text, str(i)) for i, text in enumerate(texts))
        assert (
            list(SignatureStep(folder / "signatures", SETTINGS).run(documents, rank, len(parts)))
            == []
        )
    run_tasks([bucket_step(folder, SETTINGS)], SETTINGS.buckets, Engine(), folder / "engine")
    return [one.tolist() for one in clusters(folder, [len(texts) for texts in parts])]


@pytest.mark.parametrize(("alphabet", "separator"), [(HAN, ""), (WORDS, " ")])
def test_alike_texts_meet(tmp_path, alphabet, separator):
    """In each part one text, one that differs in a few units, one half the same, and others; empty parts and texts."""
    draw = random.Random(0)
    base = draw.choices(alphabet, k=400)
    few = [*base[:200], *draw.choices(alphabet, k=3), *base[203:]]
    half = [*base[:200], *draw.choices(alphabet, k=200)]
    texts = [separator.join(one) for one in (base, few, half)]
    others = [separator.join(draw.choices(alphabet, k=400)) for _ in range(3)]
    found = find(tmp_path, [[others[0], texts[0], ""], [], [texts[1], others[1]], [texts[2], "", texts[0], others[2]]])  # fmt: skip
    assert found == [[0, 1, 2], [], [1, 4], [5, 6, 1, 8]]


def test_clusters_of_chains(tmp_path):
    """A like B, B like C: one cluster, named by the first, whatever the order of the pairs."""
    (tmp_path / "pairs").mkdir()
    pairs = np.array([[0, 2, 1, 1], [0, 0, 1, 1], [1, 0, 1, 2]], "<u4")  # 2-4, 0-4, 3-5
    for order in ([0, 1, 2], [2, 1, 0]):
        pairs[order].tofile(tmp_path / "pairs" / "00000_00.dups")
        assert [one.tolist() for one in clusters(tmp_path, [3, 3])] == [[0, 1, 0], [3, 0, 3]]


def test_blocks_do_not_matter(tmp_path, monkeypatch):
    """A long text's signature is that of datatrove's own function on all shingles at once."""
    step = SignatureStep(tmp_path, SETTINGS)
    shingles = step.get_shingles("".join(random.Random(1).choices(HAN, k=700)))
    whole = MinhashDedupSignature.get_signature(step, shingles)
    monkeypatch.setattr(near_duplicates, "BLOCK_SHINGLES", 64)
    assert step.get_signature(shingles) == whole
    assert (len(whole), len(whole[0])) == (SETTINGS.buckets, SETTINGS.hashes_per_bucket)


def test_short_texts_are_one_shingle(tmp_path):
    step = SignatureStep(tmp_path, SETTINGS)
    assert len(step.get_shingles("春江")) == len(step.get_shingles("one two")) == 1
    assert len(step.get_shingles("。")) == 0
