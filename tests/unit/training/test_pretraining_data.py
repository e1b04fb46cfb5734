"""The stream of batches: resumed == uninterrupted, nothing lost, little padding, the same rows on any processes."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np
import pytest
import torch

from glmkit.blanks.objectives import OBJECTIVES, ObjectiveSettings
from glmkit.errors import DataError
from glmkit.special_tokens import MASK, SpecialTokenIds
from glmkit.tokens.store import TokenStore, TokenStoreWriter
from glmkit.tokens.train import train_tokenizer
from glmkit.training import data
from glmkit.training.data import PretrainingStream

IDS = SpecialTokenIds(cls=1, eos=0, pad=0, sop=2, eop=3, mask=4, smask=5, gmask=6, block=7)
END = 9
LENGTH = 64


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TokenStore:
    """300 documents of 5 to 150 tokens, a sentence end about every eight; ids from 10 say where they stand."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data") / "train"
    with TokenStoreWriter(folder, "none", 50_000) as writer:
        used = 10
        for length in rng.integers(5, 150, 300):
            body = np.arange(used, used + length)
            used += length
            body[rng.random(length) < 0.12] = END
            writer.add(np.concatenate(([IDS.cls], body, [IDS.eos])))
    return TokenStore.open(folder)


def make_stream(store, monkeypatch=None, **changes) -> PretrainingStream:
    settings = {"rows": 4, "row_length": LENGTH, "seed": 3, "sentence_ends": np.array([END])}
    return PretrainingStream(store, IDS, ObjectiveSettings(), **{**settings, **changes})


def take(stream, count):
    return list(itertools.islice(stream, count))


def same(left, right):
    assert left["documents"] == right["documents"]
    tensors = [name for name in left if name != "documents"]
    assert tensors == [name for name in right if name != "documents"]
    for name in tensors:
        assert torch.equal(left[name], right[name]), name


def test_a_resumed_stream_equals_the_uninterrupted_one(store, monkeypatch):
    monkeypatch.setattr(data, "WINDOW", 40)
    stream = make_stream(store)
    batches, states = [], []
    while stream.epochs < 2.1:
        states.append(json.dumps(stream.state_dict()))
        batches.append(next(stream))
    assert len(batches) > 100
    for place in (0, 1, 7, 30, len(batches) // 2, len(batches) - 3):
        resumed = make_stream(store)
        resumed.load_state_dict(json.loads(states[place]))
        for expected, found in zip(batches[place:], take(resumed, 12), strict=False):
            same(expected, found)


def test_batches_depend_on_the_seed_and_epochs_differ(store):
    first, again, other = (next(make_stream(store, seed=seed)) for seed in (3, 3, 4))
    same(first, again)
    assert not torch.equal(first["input_ids"], other["input_ids"])
    stream = make_stream(store)
    epochs = [
        [sample.document for row in stream.pack_window(e, 0) for sample in row] for e in (0, 1)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]


def test_processes_share_the_rows_of_one_global_batch(store):
    alone = make_stream(store, rows=4)
    ranks = [make_stream(store, rows=2, rank=rank, world_size=2) for rank in (0, 1)]
    for _ in range(5):
        whole, parts = next(alone), [next(stream) for stream in ranks]
        for name in ("input_ids", "labels", "position_ids"):
            assert torch.equal(whole[name], torch.cat([part[name] for part in parts]))
    assert alone.state_dict() == ranks[0].state_dict() == ranks[1].state_dict()


def test_every_token_of_an_epoch_is_read_or_predicted_once(store, monkeypatch):
    monkeypatch.setattr(data, "WINDOW", 40)
    stream = make_stream(store)
    rows = [row for window in range(stream.num_windows) for row in stream.pack_window(0, window)]
    seen = Counter()
    for sample in itertools.chain(*rows):
        example = sample.example
        seen.update(example.input_ids[: example.prefix_length].tolist())
        seen.update(example.labels[example.labels >= 10].tolist())
    numbered = {token for token in store.tokens(0, store.num_tokens).tolist() if token >= 10}
    assert set(seen.values()) >= {1}
    once = [token for token in numbered if seen[token] == 1]
    assert len(once) == len([t for t in seen if t >= 10])  # none twice
    assert len(once) / len(numbered) > 0.995  # an unusually dense sample loses its end


def test_rows_fit_and_hold_several_samples_with_little_padding(store):
    stream = make_stream(store)
    batches = take(stream, 40)
    real = sum(int((batch["segment_ids"] > 0).sum()) for batch in batches)
    assert 1 - real / (40 * 4 * LENGTH) < 0.1
    assert max(int(batch["segment_ids"].max()) for batch in batches) > 1
    for batch in batches:
        assert all(batch[name].dtype == torch.int64 for name in batch if name != "documents")
        assert batch["position_ids"].max() < LENGTH
        assert [len(row) for row in batch["documents"]] == batch["segment_ids"].max(
            1
        ).values.tolist()


def test_objective_ids_agree_with_the_mask_tokens(store):
    masks = [IDS.mask, IDS.smask, IDS.gmask]
    drawn = Counter()
    for batch in take(make_stream(store), 20):
        for number, mask in enumerate(masks):
            assert (batch["objective_ids"][batch["input_ids"] == mask] == number).all()
            drawn[OBJECTIVES[number]] += int((batch["input_ids"] == mask).any(1).sum())
    assert set(drawn) == set(OBJECTIVES)


def test_each_chunk_begins_with_cls_and_only_the_last_ends_the_text(store):
    stream = make_stream(store)
    for chunk in range(stream.num_chunks):
        document, ids = stream._chunk(chunk)
        assert ids[0] == IDS.cls
        assert len(ids) <= stream.chunk_length + 1
        last = chunk + 1 == stream.num_chunks or stream._chunk(chunk + 1)[0] != document
        assert (ids[-1] == IDS.eos) == last


def test_held_out_rows_are_fixed_and_limited(store):
    stream = make_stream(store)
    batches = stream.held_out(10)
    assert [len(batch["input_ids"]) for batch in batches] == [4, 4, 2]
    for left, right in zip(batches, make_stream(store).held_out(10), strict=True):
        same(left, right)
    assert sum(len(batch["input_ids"]) for batch in stream.held_out(10**6)) > 300


def test_stores_without_text_are_refused(tmp_path):
    with TokenStoreWriter(tmp_path / "empty", "none", 100) as writer:
        writer.add([])
    with pytest.raises(DataError, match="no text"):
        make_stream(TokenStore.open(tmp_path / "empty"))
    with TokenStoreWriter(tmp_path / "short", "none", 100) as writer:
        writer.add([IDS.cls, IDS.eos])
    with pytest.raises(DataError, match="long enough"):
        next(make_stream(TokenStore.open(tmp_path / "short")))


def test_sentence_ends_are_read_off_the_vocabulary():
    tokenizer = train_tokenizer(["春江潮水，连海平。\nWhat is it? It is."] * 20, 350, "bpe")
    ends = tokenizer.sentence_ends()
    assert ends.shape == (len(tokenizer),)
    for text, expected in (("。", True), ("?", True), ("\n", True), ("春", False), (MASK, False)):
        index = tokenizer(text, add_special_tokens=False)["input_ids"][-1]
        assert ends[index] == expected, text
