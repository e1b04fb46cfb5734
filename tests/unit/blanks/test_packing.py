from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from blank_samples import SENTENCE_ENDS, SPECIALS, document, restored
from hypothesis import given
from hypothesis import strategies as st

from glmkit.blanks.layout import collate_packed, dense_mask
from glmkit.blanks.objectives import OBJECTIVES, ObjectiveSettings, make_any_example
from glmkit.blanks.packing import Slot, pack, padding_ratio, plan_rows
from glmkit.errors import DataError

sizes_lists = st.lists(st.integers(1, 64), max_size=80)
text_lists = st.lists(st.tuples(st.integers(3, 400), st.booleans()), min_size=1, max_size=60)
settings_of = st.sampled_from(
    [
        ObjectiveSettings(),
        ObjectiveSettings(short_prob=0.5),
        ObjectiveSettings(token_weight=1, sentence_weight=0, document_weight=0, short_prob=0),
        ObjectiveSettings(token_weight=0, token_ratio=0.5),
        ObjectiveSettings(token_ratio=1.0, mean_span_length=0.5),
    ]
)


@given(sizes_lists)
def test_pack(sizes):
    rows = pack(sizes, 64)
    assert sorted(index for row in rows for index in row) == list(range(len(sizes)))
    filled = [sum(sizes[index] for index in row) for row in rows]
    assert all(fill <= 64 for fill in filled)
    # Two rows that fit into one would have been one.
    assert sum(fill <= 32 for fill in filled) <= 1


def test_pack_is_deterministic_and_known():
    assert pack((30, 50, 34, 14, 64, 1), 64) == [[0, 2], [1, 3], [4], [5]]
    with pytest.raises(DataError, match="65 tokens does not fit into rows of 64"):
        pack([65], 64)


@given(text_lists, st.sampled_from([16, 64, 200]), settings_of, st.integers(0, 2**32 - 1))
def test_every_token_has_one_place_and_no_row_is_too_long(texts, length, settings, seed):
    sizes, inside = zip(*texts, strict=True)
    rng = np.random.default_rng(seed)
    rows = plan_rows(sizes, inside, length, rng, settings)
    uses = [np.zeros(size, int) for size in sizes]
    for row in rows:
        assert sum(slot.size for slot in row) <= length
        for slot in row:
            uses[slot.text][slot.start : slot.stop] += 1
            assert slot.needs_cls == (inside[slot.text] or slot.start > 0)
            assert slot.max_blanks >= 1
    assert all((use == 1).all() for use in uses)
    again = plan_rows(sizes, inside, length, np.random.default_rng(seed), settings)
    assert [[s[:6] for s in row] for row in rows] == [[s[:6] for s in row] for row in again]


@given(text_lists, st.integers(0, 2**32 - 1))
def test_what_is_planned_can_be_made(texts, seed):
    """The samples' blanks need no more room than was left for them, whatever the text."""
    rng, settings = np.random.default_rng(seed), ObjectiveSettings(short_prob=0.2)
    sizes, inside = zip(*texts, strict=True)
    for slot in [s for row in plan_rows(sizes, inside, 64, rng, settings) for s in row]:
        ids = document(slot.stop - slot.start + slot.needs_cls + 1, seed=seed)[:-1]
        _, example = make_any_example(
            ids,
            rng,
            SPECIALS,
            settings,
            SENTENCE_ENDS,
            drawn=slot.objective,
            span_lengths=slot.span_lengths,
            max_blanks=slot.max_blanks,
        )
        assert len(example) <= slot.size
        assert restored(example) == ids.tolist()


@pytest.mark.parametrize("lengths", [(20, 80), (200, 500), (399, 401), (100, 2000)], ids=str)
def test_hardly_any_padding(lengths):
    """Short, middling, equal and long texts: below 2 % at 512, and few texts are cut where they need not be."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(*lengths, 250_000 // sum(lengths) * 2).tolist()
    rows = plan_rows(sizes, [False] * len(sizes), 512, rng, ObjectiveSettings())
    assert padding_ratio(rows, 512) < 0.02
    parts = sum(len(row) for row in rows)
    assert parts < 1.1 * len(sizes) + 3 * sum(sizes) / 512


def test_what_cannot_be_cut_is_packed_whole():
    whole = [Slot(i, 0, size, size, "sentiment") for i, size in enumerate((40, 64, 20, 41))]
    rng = np.random.default_rng(0)
    rows = plan_rows([50, 30, 100], [False] * 3, 64, rng, ObjectiveSettings(), whole)
    found = [slot for row in rows for slot in row if slot.objective == "sentiment"]
    assert sorted(found) == whole
    assert all(sum(slot.size for slot in row) <= 64 for row in rows)
    with pytest.raises(DataError, match="does not fit"):
        plan_rows([], [], 64, rng, ObjectiveSettings(), [Slot(0, 0, 65, 65, "qa")])


def test_the_plan_keeps_the_objectives_shares_and_shortens_some():
    rng = np.random.default_rng(0)
    slots = [
        slot
        for row in plan_rows([400] * 3000, [False] * 3000, 512, rng, ObjectiveSettings())
        for slot in row
    ]
    shares = Counter(slot.objective for slot in slots)
    for name, weight in zip(OBJECTIVES, (0.4, 0.3, 0.3), strict=True):
        assert abs(shares[name] / len(slots) - weight) < 5 * np.sqrt(0.25 / len(slots))
    # With `short_prob` 1 lengths are spread evenly; without, whole texts are left whole.
    lengths = {}
    for prob in (0.0, 1.0):
        rows = plan_rows([400] * 500, [False] * 500, 4096, rng, ObjectiveSettings(short_prob=prob))
        lengths[prob] = [slot.stop - slot.start for row in rows for slot in row]
    assert np.mean(np.array(lengths[0.0]) == 400) > 0.9
    assert np.mean(np.array(lengths[1.0]) == 400) < 0.1


def test_packed_samples_do_not_see_each_other():
    """A packed row's mask is the samples' own masks along the diagonal, nothing else."""
    rng = np.random.default_rng(0)
    made = [
        make_any_example(document(n, seed=n), rng, SPECIALS, ObjectiveSettings(), SENTENCE_ENDS)
        for n in (30, 12, 50, 41, 8)
    ]
    examples = [example for _, example in made]
    rows = pack([len(example) for example in examples], 100)
    batch = collate_packed([[examples[i] for i in row] for row in rows], pad=2, length=100)
    mask = dense_mask(batch)
    for number, row in enumerate(rows):
        expected, start = np.zeros((100, 100), bool), 0
        for index in row:
            size = len(examples[index])
            alone = dense_mask(collate_packed([[examples[index]]], pad=2, length=size))[0]
            expected[start : start + size, start : start + size] = alone
            start += size
        assert (mask[number] == expected).all()
