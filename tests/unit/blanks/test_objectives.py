"""The three objectives: nothing of a text is lost, used twice, or hidden that must stay visible."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from blank_samples import SENTENCE_ENDS, SPECIALS, contents, document, restored, samples, seeds
from hypothesis import given
from hypothesis import strategies as st

from glmkit.blanks.layout import IGNORE_INDEX, Piece, collate, dense_mask, lay_out
from glmkit.blanks.objectives import (
    OBJECTIVES,
    ObjectiveSettings,
    draw_objective,
    find_sentinels,
    hide,
    make_any_example,
    make_example,
)
from glmkit.blanks.render import render
from glmkit.errors import ConfigError

SETTINGS = ObjectiveSettings()
objectives = st.sampled_from(OBJECTIVES)


def _make(ids, objective, seed, settings=SETTINGS, specials=SPECIALS, ends=SENTENCE_ENDS):
    return make_example(ids, objective, np.random.default_rng(seed), specials, settings, ends)


@given(samples, objectives, seeds)
def test_text_is_restored_and_every_token_used_once(ids, objective, seed):
    example = _make(ids, objective, seed)
    if example is None:
        return
    assert restored(example) == ids.tolist()
    masks = np.isin(example.input_ids[: example.prefix_length], SPECIALS.masks)
    hidden = sum(len(tokens) for _, tokens in contents(example))
    assert example.prefix_length - masks.sum() + hidden == len(ids)
    assert masks.sum() == len(contents(example))


@given(samples, objectives, seeds)
def test_labels_line_up(ids, objective, seed):
    """What a place reads is what the place before it predicts; each piece starts with the start marker."""
    example = _make(ids, objective, seed, replace(SETTINGS, block_mask_prob=0.0))
    if example is None:
        return
    n_a, blocks = example.prefix_length, example.position_ids[1]
    assert (example.labels[:n_a] == IGNORE_INDEX).all()
    assert (example.position_ids[0, :n_a] == np.arange(n_a)).all()
    assert (blocks[:n_a] == 0).all()
    first = np.flatnonzero(blocks == 1)
    assert (example.input_ids[first] == SPECIALS.sop).all()
    later = np.flatnonzero(blocks > 1)
    assert (example.input_ids[later] == example.labels[later - 1]).all()
    last = np.append(first[1:], len(example)) - 1
    ends_open = objective == "document" and example.labels[-1] != SPECIALS.eop
    assert ends_open or (example.labels[last] == SPECIALS.eop).all()
    assert (blocks[later] == blocks[later - 1] + 1).all()


@given(samples, seeds)
def test_token_objective_hides_what_it_may(ids, seed):
    example = _make(ids, "token", seed)
    if example is None:
        return
    hidden = [token for _, tokens in contents(example) for token in tokens]
    assert not {SPECIALS.cls, SPECIALS.eos} & set(hidden)
    places = sorted(place for place, _ in contents(example))
    assert (np.diff(places) > 1).all(), "two spans touch"
    assert places[-1] < example.prefix_length - 1, "the last token is hidden"
    assert len(hidden) < int(0.15 * len(ids)) + SETTINGS.max_span_length


@given(samples, seeds)
def test_sentence_objective_hides_whole_sentences(ids, seed):
    example = _make(ids, "sentence", seed)
    if example is None:
        return
    part_a = example.input_ids[: example.prefix_length]
    for place, tokens in contents(example):
        assert SPECIALS.eos not in tokens
        assert not SENTENCE_ENDS[tokens[:-1]].any()
        assert SENTENCE_ENDS[tokens[-1]] or place == example.prefix_length - 1
    assert ((part_a != SPECIALS.cls) & (part_a != SPECIALS.eos) & (part_a != SPECIALS.smask)).any()


@given(st.integers(4, 200), seeds)
def test_document_objective(length, seed):
    ids = document(length)
    example = _make(ids, "document", seed)
    ((place, tokens),) = contents(example)
    assert max(1, int(0.25 * length)) <= len(tokens) <= length - 2
    if tokens[-1] == SPECIALS.eos:
        assert len(example) == length + 1
        assert place == example.prefix_length - 1
    else:
        assert example.labels[-1] == SPECIALS.eop
        assert len(example) == length + 2
    assert example.input_ids[place] == SPECIALS.gmask


def test_several_documents_are_always_continued_to_the_end():
    ids = np.concatenate((document(30), document(40)))
    for seed in range(40):
        example = _make(ids, "document", seed)
        assert example.labels[-1] == SPECIALS.eos
        assert SPECIALS.eop not in example.labels


def test_shorter_documents_give_at_most_their_ratio():
    """Of several documents only the longest may give more than 15 %."""
    ids = np.concatenate((document(42), document(142, seed=1), document(22)))
    given_by_last = []
    for seed in range(60):
        example = _make(ids, "token", seed)
        assert restored(example) == ids.tolist()
        part_a = example.input_ids[: example.prefix_length]
        in_document = np.cumsum(part_a == SPECIALS.cls) - 1
        hidden = np.zeros(3, int)
        for place, tokens in contents(example):
            hidden[in_document[place]] += len(tokens)
        assert hidden[0] <= int(0.15 * 40)
        assert hidden[2] <= int(0.15 * 20)
        assert hidden.sum() >= int(0.15 * len(ids))
        given_by_last.append(hidden[2])
    assert max(given_by_last) > 0


def test_block_token_is_read_in_the_token_objective_alone():
    settings = replace(SETTINGS, block_mask_prob=1.0)
    ids = document(100)
    for objective in OBJECTIVES:
        example = _make(ids, objective, 0, settings)
        read = example.input_ids[np.flatnonzero(example.position_ids[1] > 1)]
        assert (read == SPECIALS.block).all() == (objective == "token")
        assert SPECIALS.block not in example.labels
    without = _make(ids, "token", 0, settings, specials=replace(SPECIALS, block=None))
    assert SPECIALS.block not in without.input_ids


@pytest.mark.parametrize("task_masks", [True, False])
def test_mask_tokens(task_masks):
    masks = {"token": SPECIALS.mask, "sentence": SPECIALS.smask, "document": SPECIALS.gmask}
    for objective, mask in masks.items():
        example = _make(document(100), objective, 1, replace(SETTINGS, task_masks=task_masks))
        used = set(example.input_ids[: example.prefix_length].tolist()) & set(SPECIALS.masks)
        assert used == {mask if task_masks else SPECIALS.mask}


def test_blanks_are_written_in_random_order_or_from_left_to_right():
    ids, shuffled = document(200), []
    for seed in range(20):
        places = [place for place, _ in contents(_make(ids, "token", seed))]
        shuffled.append(places != sorted(places))
        for objective in ("token", "sentence"):
            ordered = _make(ids, objective, seed, replace(SETTINGS, shuffle_blanks=False))
            places = [place for place, _ in contents(ordered)]
            assert places == sorted(places)
    assert all(shuffled)


def test_the_same_seed_makes_the_same_example():
    ids = document(100)
    for objective in OBJECTIVES:
        one, two, other = (_make(ids, objective, seed) for seed in (5, 5, 6))
        assert one.input_ids.tobytes() == two.input_ids.tobytes()
        assert one.labels.tobytes() == two.labels.tobytes()
        assert one.input_ids.tobytes() != other.input_ids.tobytes()


@pytest.mark.parametrize(
    "ids", [[], [1], [2], [1, 2], [10], [1, 10], [1] * 30, [2, 1] * 30], ids=str
)
def test_samples_without_enough_text_make_no_example(ids):
    for objective in OBJECTIVES:
        assert _make(ids, objective, 0) is None
    assert (
        make_any_example(ids, np.random.default_rng(0), SPECIALS, SETTINGS, SENTENCE_ENDS) is None
    )


def test_short_samples_fall_back_to_an_objective_that_fits():
    """Five tokens are too few for 15 % of them; without sentence ends there are no sentences."""
    ids, rng = document(5), np.random.default_rng(0)
    for _ in range(20):
        name, example = make_any_example(ids, rng, SPECIALS, SETTINGS)
        assert name == "document"
        assert restored(example) == ids.tolist()
    unfinished = np.append(document(60)[:-1], [SPECIALS.eos])
    settings = ObjectiveSettings(token_weight=0.5, sentence_weight=0.5, document_weight=0)
    names = {make_any_example(unfinished, rng, SPECIALS, settings)[0] for _ in range(20)}
    assert names == {"token"}, "an objective of weight 0 was used"


def test_one_sentence_is_never_hidden_whole():
    ids = np.array([SPECIALS.cls, *([11] * 20), 63, SPECIALS.eos])
    assert _make(ids, "sentence", 0) is None
    two = np.array([SPECIALS.cls, *([11] * 20), 63, 12, 63, SPECIALS.eos])
    for seed in range(20):
        assert len(contents(_make(two, "sentence", seed))) == 1


def test_sentence_ends_may_be_ids():
    ids = document(100)
    by_id = _make(ids, "sentence", 3, ends=np.flatnonzero(SENTENCE_ENDS))
    assert (by_id.input_ids == _make(ids, "sentence", 3).input_ids).all()
    assert _make(ids, "sentence", 3, ends=None) is None


def test_hide_writes_spans_in_the_order_given():
    ids = np.arange(10, 20)
    example = hide(ids, np.array([(6, 8), (1, 4), (8, 9)]), mask=5, sop=3, end=4)
    assert example.input_ids.tolist() == [10, 5, 14, 15, 5, 5, 19, 3, 16, 17, 3, 11, 12, 13, 3, 18]
    assert example.position_ids[0, 7:].tolist() == [4] * 3 + [1] * 4 + [5] * 2
    assert ids.tolist() == list(range(10, 20)), "the sample was changed"


def test_draw_objective_follows_the_weights():
    rng = np.random.default_rng(0)
    drawn = [draw_objective(rng, SETTINGS) for _ in range(20_000)]
    for name, weight in {"token": 0.4, "sentence": 0.3, "document": 0.3}.items():
        assert abs(drawn.count(name) / len(drawn) - weight) < 5 * np.sqrt(0.25 / len(drawn))
    one = ObjectiveSettings(token_weight=0, sentence_weight=7, document_weight=0)
    assert {draw_objective(rng, one) for _ in range(100)} == {"sentence"}


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        ObjectiveSettings(
            token_weight=-1,
            token_ratio=1.5,
            block_mask_prob=float("nan"),
            mean_span_length=0,
            max_span_length=0,
        )
    for name in ("token_weight", "token_ratio", "block_mask_prob", "mean_span", "max_span"):
        assert name in str(caught.value)
    with pytest.raises(ConfigError, match="at least one must be positive"):
        ObjectiveSettings(token_weight=0, sentence_weight=0, document_weight=0)


def test_unknown_objective():
    with pytest.raises(ConfigError, match=r"did you mean 'document'\?"):
        _make(document(20), "documents", 0)


def test_hide_is_what_lay_out_lays_out():
    """The quick way and the general one give the same example."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        ids = document(int(rng.integers(20, 80)))
        starts = np.sort(rng.choice(np.arange(1, len(ids) - 1, 4), 4, replace=False))
        spans = rng.permutation(np.stack((starts, starts + rng.integers(1, 4, 4)), axis=1))
        visible = np.ones(len(ids), bool)
        context = ids.copy()
        for start, end in spans:
            visible[start + 1 : end] = False
            context[start] = SPECIALS.mask
        pieces = [
            Piece(int(visible[:start].sum()), ids[start:end], SPECIALS.eop) for start, end in spans
        ]
        expected = lay_out(context[visible], pieces, SPECIALS.sop)
        found = hide(ids, spans, mask=SPECIALS.mask, sop=SPECIALS.sop, end=SPECIALS.eop)
        assert found.prefix_length == expected.prefix_length
        for name in ("input_ids", "position_ids", "labels"):
            assert (getattr(found, name) == getattr(expected, name)).all(), name


SENTINELS = np.arange(150, 190)


def test_sentinel_tokens_stand_for_their_blanks_on_both_sides():
    settings = replace(SETTINGS, sentinel_tokens=True)
    for seed in range(10):
        ids = np.where(np.isin(document(100), SENTINELS), 11, document(100))
        example = make_example(
            ids, "token", np.random.default_rng(seed), SPECIALS, settings, SENTINELS * 0 == 1,
            sentinels=SENTINELS,
        )  # fmt: skip
        n_a = example.prefix_length
        part_a, part_b = example.input_ids[:n_a], example.input_ids[n_a:]
        begins = part_b[np.isin(part_b, SENTINELS)]
        # Numbered in the order in which they are written; each stands once on both sides.
        assert begins.tolist() == SENTINELS[: len(begins)].tolist()
        assert sorted(part_a[np.isin(part_a, SENTINELS)]) == sorted(begins)
        assert not np.isin(example.input_ids, (SPECIALS.sop, *SPECIALS.masks)).any()
        assert (example.position_ids[0, n_a:] == n_a).all(), "positions must not tell the place"
        # The text comes back by the sentinels alone.
        inside, current = {}, None
        for token, label in zip(part_b.tolist(), example.labels[n_a:].tolist(), strict=True):
            current = token if token in SENTINELS else current
            inside.setdefault(current, []).append(label)
        text = [
            t for one in part_a.tolist() for t in (inside[one][:-1] if one in inside else [one])
        ]
        assert text == ids.tolist()


def test_without_sentinels_in_the_vocabulary_there_is_an_error():
    settings = replace(SETTINGS, sentinel_tokens=True)
    for given_ids in (None, np.empty(0, np.int64)):
        with pytest.raises(ConfigError, match=r"add_special_tokens.*\[MASK0\]"):
            make_example(
                document(50),
                "token",
                np.random.default_rng(0),
                SPECIALS,
                settings,
                sentinels=given_ids,
            )
    few = make_example(
        document(190),
        "token",
        np.random.default_rng(0),
        SPECIALS,
        settings,
        sentinels=SENTINELS[:2],
    )
    assert np.count_nonzero(few.position_ids[1] == 1) == 2, "no more blanks than sentinels"
    assert find_sentinels({"[MASK0]": 7, "[MASK1]": 9, "[MASK3]": 11}).tolist() == [7, 9]


def test_one_position_alone():
    """The second position is 1 all through part B; all else is as it was, and the mask too."""
    ids = document(100)
    for objective in OBJECTIVES:
        both = _make(ids, objective, 3)
        one = _make(ids, objective, 3, replace(SETTINGS, block_positions=False))
        n_a = both.prefix_length
        assert (one.position_ids[1, n_a:] == 1).all()
        assert (one.position_ids[1, :n_a] == 0).all()
        assert (one.position_ids[0] == both.position_ids[0]).all()
        assert (one.input_ids == both.input_ids).all()
        assert (dense_mask(collate([one], 2)) == dense_mask(collate([both], 2))).all()
        assert render(one, str).count("reads") == render(both, str).count("reads")


def test_random_positions_are_spread_and_stay_below():
    ids, settings = document(60), replace(SETTINGS, random_positions_below=128)
    firsts = []
    for seed in range(300):
        example, plain = _make(ids, "document", seed, settings), _make(ids, "document", seed)
        offset = int(example.position_ids[0, 0])
        assert (example.position_ids[0] - offset == plain.position_ids[0]).all()
        assert (example.position_ids[1] == plain.position_ids[1]).all()
        assert example.position_ids[0].max() < 128
        firsts.append(offset / (128 - plain.position_ids[0].max()))
    assert 0.4 < np.mean(firsts) < 0.6
    assert min(firsts) < 0.05
    assert max(firsts) > 0.9
    full = _make(ids, "token", 0, replace(SETTINGS, random_positions_below=10))
    assert full.position_ids[0, 0] == 0, "a sample that fills all positions stays where it is"


def test_no_more_blanks_than_there_is_room_for():
    for objective, most in itertools.product(OBJECTIVES, (1, 3)):
        example = make_example(
            document(190), objective, np.random.default_rng(1), SPECIALS, SETTINGS, SENTENCE_ENDS,
            max_blanks=most,
        )  # fmt: skip
        assert np.count_nonzero(example.position_ids[1] == 1) == (
            1 if objective == "document" else most
        )
        assert restored(example) == document(190).tolist()
