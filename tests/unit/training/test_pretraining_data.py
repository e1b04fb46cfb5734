"""The stream of batches: resumed == uninterrupted, nothing lost, little padding, the same rows on any processes."""

from __future__ import annotations

import gc
import itertools
import json
import multiprocessing
import os
import signal
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glmkit.blanks.layout import collate_packed, dense_mask
from glmkit.blanks.objectives import OBJECTIVES, ObjectiveSettings
from glmkit.errors import DataError
from glmkit.special_tokens import MASK, SpecialTokenIds
from glmkit.tasks.mixture import MixtureSettings
from glmkit.tokens.store import TokenStore, TokenStoreWriter
from glmkit.tokens.train import train_tokenizer
from glmkit.training.data import Place, PretrainingStream

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


def make_stream(store, **changes) -> PretrainingStream:
    defaults = {"rows": 4, "row_length": LENGTH, "seed": 3, "sentence_ends": np.array([END])}
    return PretrainingStream(store, IDS, ObjectiveSettings(), **{**defaults, **changes})


def rows_of(stream, epoch, window):
    return [
        stream.make_row(Place(epoch, window, row)) for row in range(len(stream.plan(epoch, window)))
    ]


def take(stream, count):
    return list(itertools.islice(stream, count))


def same(left, right):
    assert left["documents"] == right["documents"]
    tensors = [name for name in left if name != "documents"]
    assert tensors == [name for name in right if name != "documents"]
    for name in tensors:
        assert torch.equal(left[name], right[name]), name


def test_a_resumed_stream_equals_the_uninterrupted_one(store):
    stream = make_stream(store, window_rows=30)
    batches, states = [], []
    while stream.epochs < 2.1:
        states.append(json.dumps(stream.state_dict()))
        batches.append(next(stream))
    assert len(batches) > 100
    for place in (0, 1, 7, 30, len(batches) // 2, len(batches) - 3):
        resumed = make_stream(store, window_rows=30)
        resumed.load_state_dict(json.loads(states[place]))
        for expected, found in zip(batches[place:], take(resumed, 12), strict=False):
            same(expected, found)


def test_batches_depend_on_the_seed_and_epochs_differ(store):
    first, again, other = (next(make_stream(store, seed=seed)) for seed in (3, 3, 4))
    same(first, again)
    assert not torch.equal(first["input_ids"], other["input_ids"])
    stream = make_stream(store)
    epochs = [[sample.document for row in rows_of(stream, e, 0) for sample in row] for e in (0, 1)]
    assert set(epochs[0]) == set(epochs[1])
    assert epochs[0] != epochs[1]


def test_processes_share_the_rows_of_one_global_batch(store):
    alone = make_stream(store, rows=4)
    ranks = [make_stream(store, rows=2, rank=rank, world_size=2) for rank in (0, 1)]
    for _ in range(5):
        whole, parts = next(alone), [next(stream) for stream in ranks]
        for name in ("input_ids", "labels", "position_ids"):
            assert torch.equal(whole[name], torch.cat([part[name] for part in parts]))
    assert alone.state_dict() == ranks[0].state_dict() == ranks[1].state_dict()


def test_every_token_of_an_epoch_is_read_or_predicted_once(store):
    stream = make_stream(store, window_rows=30)
    rows = [row for window in range(stream.num_windows) for row in rows_of(stream, 0, window)]
    assert stream.num_windows > 5
    seen = Counter()
    for sample in itertools.chain(*rows):
        example = sample.example
        seen.update(example.input_ids[: example.prefix_length].tolist())
        seen.update(example.labels[example.labels >= 10].tolist())
    numbered = {token for token in store.tokens(0, store.num_tokens).tolist() if token >= 10}
    assert {token for token in seen if token >= 10} == numbered
    assert {seen[token] for token in numbered} == {1}


def test_rows_fit_and_hold_several_samples_with_little_padding(store):
    stream = make_stream(store)
    batches = take(stream, 40)
    real = sum(int((batch["segment_ids"] > 0).sum()) for batch in batches)
    assert 1 - real / (40 * 4 * LENGTH) < 0.05  # rows of 64 are short: what is left is 3 tokens
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


def test_each_sample_begins_with_cls_and_only_a_text_s_last_ends_it(store):
    stream = make_stream(store)
    ends = Counter()
    for sample in itertools.chain(
        *(row for w in range(stream.num_windows) for row in rows_of(stream, 0, w))
    ):
        assert sample.example.input_ids[0] == IDS.cls
        ends[sample.document] += int(IDS.eos in (*sample.example.input_ids, *sample.example.labels))
    assert set(ends.values()) == {1}
    assert len(ends) == len(store)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_the_same_batches_and_resume_exactly(store, workers):
    alone, torch_state = make_stream(store), torch.get_rng_state()
    helped = make_stream(store, num_workers=workers)
    for _ in range(5):
        same(next(alone), next(helped))
        assert alone.state_dict() == helped.state_dict()
        assert alone.epochs == helped.epochs
    resumed = make_stream(store, num_workers=workers)
    resumed.load_state_dict(json.loads(json.dumps(helped.state_dict())))
    for _ in range(3):
        same(next(alone), next(resumed))
    assert torch.equal(torch.get_rng_state(), torch_state), (
        "workers must not touch the model's dropout"
    )


def test_long_texts_fill_rows_and_are_cut_in_equal_units(tmp_path):
    with TokenStoreWriter(tmp_path / "long", "none", 50_000) as writer:
        writer.add(np.concatenate(([IDS.cls], np.arange(10, 5000), [IDS.eos])))
    stream = make_stream(TokenStore.open(tmp_path / "long"))
    _, starts, ends, inside = stream._units(np.arange(stream.num_units))
    assert inside.tolist() == [False] + [True] * (stream.num_units - 1)
    assert starts[1:].tolist() == ends[:-1].tolist()
    assert set((ends - starts).tolist()) <= {249, 250}


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


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> dict[str, TokenStore]:
    """Two tasks: part A [CLS] … [MASK] [end], answers of one and five tokens from 40,000 on."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, answer, count in (("sentiment", 1, 60), ("qa", 5, 40)):
        with TokenStoreWriter(folder / name, "none", 50_000) as writer:
            for number in range(count):
                body = [IDS.cls, *range(10, 20 + number % 7), IDS.mask, IDS.eos]
                writer.add([*body, IDS.sop, *[40_000 + number] * answer, IDS.eop])
    return {name: TokenStore.open(folder / name) for name in ("sentiment", "qa")}


def test_tasks_are_mixed_in_at_their_share_and_never_corrupted(store, tasks):
    stream = make_stream(
        store, window_rows=30, tasks=tasks, mixture=MixtureSettings(max_share=0.05)
    )
    assert stream.objective_names == (*OBJECTIVES, "sentiment", "qa")
    tokens, seen = Counter(), set()
    while stream.epochs < 3:
        batch = next(stream)
        real = batch["segment_ids"] > 0
        for number, name in enumerate(stream.objective_names):
            tokens[name] += int((real & (batch["objective_ids"] == number)).sum())
        of_tasks = real & (batch["objective_ids"] >= len(OBJECTIVES))
        assert not (batch["input_ids"][of_tasks] == IDS.block).any()
        assert (batch["input_ids"][of_tasks] == IDS.mask).sum() == (
            batch["input_ids"][of_tasks] == IDS.sop
        ).sum()
        seen |= {one for row in batch["documents"] for one in row if isinstance(one, str)}
    share = (tokens["sentiment"] + tokens["qa"]) / sum(tokens.values())
    assert share == pytest.approx(0.05, abs=0.01)
    assert tokens["sentiment"] / 60 / 15 == pytest.approx(tokens["qa"] / 40 / 19, rel=0.15)
    assert {name.split(":")[0] for name in seen} == {"sentiment", "qa"}


@pytest.mark.parametrize("workers", [0, 2])
def test_mixtures_resume_and_are_shared_exactly(store, tasks, workers):
    alone = make_stream(store, window_rows=30, tasks=tasks, rows=4)
    ranks = [
        make_stream(
            store, window_rows=30, tasks=tasks, rows=2, rank=rank, world_size=2, num_workers=workers
        )
        for rank in (0, 1)
    ]
    for step in range(40):
        whole, parts = next(alone), [next(stream) for stream in ranks]
        for name in ("input_ids", "labels", "position_ids", "objective_ids"):
            assert torch.equal(whole[name], torch.cat([part[name] for part in parts]))
        if step == 25:
            ranks = [
                make_stream(store, window_rows=30, tasks=tasks, rows=2, rank=rank, world_size=2)
                for rank in (0, 1)
            ]
            for stream in ranks:
                stream.load_state_dict(json.loads(json.dumps(alone.state_dict())))


def test_held_out_rows_have_the_tasks_and_their_names(store, tasks):
    some = {"sentiment": tasks["sentiment"]}
    mixture = MixtureSettings(folders={"sentiment": "x", "qa": "y"})
    stream = make_stream(store, tasks=some, mixture=mixture)
    assert stream.objective_names == (*OBJECTIVES, "sentiment", "qa"), (
        "one numbering for both splits"
    )
    numbers = torch.cat([batch["objective_ids"].flatten() for batch in stream.held_out(10**6)])
    assert set(numbers.tolist()) == {0, 1, 2, 3}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 260), min_size=1, max_size=25),
    st.sampled_from([16, 33, 64]),
    st.integers(0, 2**31),
    st.sampled_from([{}, {"short_prob": 0.5}, {"document_infill_prob": 0.0, "token_weight": 0.0}]),
)
def test_whatever_the_documents_an_epoch_is_the_text_once(lengths, row_length, seed, options):
    """Numbered tokens: each is read or predicted once an epoch, in order, and no sample sees another."""
    with tempfile.TemporaryDirectory() as folder:
        with TokenStoreWriter(Path(folder) / "train", "none", 50_000) as writer:
            ends = 100 + np.cumsum(lengths)
            for length, end in zip(lengths, ends, strict=True):
                writer.add([IDS.cls, *range(end - length, end), IDS.eos])
        store = TokenStore.open(Path(folder) / "train")
        sentences = np.arange(50_000) % 9 == 0
        stream = PretrainingStream(
            store,
            IDS,
            ObjectiveSettings(**options),
            rows=2,
            row_length=row_length,
            seed=seed,
            sentence_ends=sentences,
        )
        epochs = [
            list(itertools.chain(*(rows_of(stream, epoch, w) for w in range(stream.num_windows))))
            for epoch in (0, 1)
        ]
    for rows in epochs:
        used = Counter()
        for row in rows:
            batch = collate_packed([[sample.example for sample in row]], IDS.pad, row_length)
            mask, segments = dense_mask(batch)[0], batch["segment_ids"][0]
            part_b = batch["position_ids"][0, 1] > 0
            assert not (mask & (segments[:, None] != segments)).any(), "a sample sees another"
            assert not mask[np.ix_(~part_b, part_b)].any(), "part A sees part B"
            for sample in row:
                text = [token for token in restored(sample.example) if token >= 100]
                assert text == list(range(text[0], text[0] + len(text))), (
                    "the text does not come back"
                )
                used.update(text)
        assert used == Counter(range(100, 100 + sum(lengths)))


def restored(example) -> list[int]:
    """The text: part A, each mask replaced by the labels of its piece."""
    n_a, places = example.prefix_length, example.position_ids[0]
    inside: dict[int, list[int]] = {}
    for place, label in zip(places[n_a:].tolist(), example.labels[n_a:].tolist(), strict=True):
        inside.setdefault(place, []).append(label)
    return [
        t for i, one in enumerate(example.input_ids[:n_a].tolist()) for t in inside.get(i, [one])
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_workers_loses_no_batch(store, number):
    """It reaches every process; the trainer then saves, and needs the batches of the step it is in."""
    alone, helped = make_stream(store), make_stream(store, num_workers=1)
    same(next(alone), next(helped))
    workers = multiprocessing.active_children()
    assert workers
    for worker in workers:
        os.kill(worker.pid, number)
    for _ in range(6):
        same(next(alone), next(helped))
    del helped  # with its loader, and so the workers, signals or not
    gc.collect()
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()


def test_a_few_held_out_rows_have_every_task(store, tasks):
    few = make_stream(store, tasks=tasks, window_rows=8, mixture=MixtureSettings(max_share=0.001))
    numbers = torch.cat([batch["objective_ids"].flatten() for batch in few.held_out(16)])
    assert {3, 4} <= set(numbers.tolist())
