from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from glmkit.blanks.spans import (
    document_span,
    document_spans,
    draw_lengths,
    ends_sentence,
    place_spans,
    sentence_spans,
    token_spans,
)


def test_ends_sentence():
    texts = ["好。", "”", "。”", "1.5", "3.", "://", "a\nb", "\n", " ", "", "Yes!)", "word", "…"]
    ends = [text for text, end in zip(texts, ends_sentence(texts), strict=True) if end]
    assert ends == ["好。", "。”", "3.", "a\nb", "\n", "Yes!)", "…"]


@given(st.integers(0, 300), st.floats(0.5, 20), st.integers(1, 60), st.integers(0, 2**32))
def test_lengths_are_drawn_until_the_total_is_reached(total, mean, longest, seed):
    lengths = draw_lengths(np.random.default_rng(seed), total, mean, longest)
    assert lengths.sum() >= total
    assert total == 0 or lengths[:-1].sum() < total
    assert ((lengths >= 1) & (lengths <= longest)).all()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(0, 30), st.integers(0, 99))
def test_placed_spans_keep_their_order_and_never_touch(lengths, slack, seed):
    lengths = np.array(lengths)
    end = 5 + int(lengths.sum()) + len(lengths) - 1 + slack
    spans = place_spans(np.random.default_rng(seed), lengths, 5, end)
    assert (spans[:, 1] - spans[:, 0] == lengths).all()
    assert (spans[1:, 0] > spans[:-1, 1]).all()
    assert spans[0, 0] >= 5
    assert spans[-1, 1] <= end


def test_every_arrangement_is_equally_likely():
    """Spans of 2 and 1 in six places: two free gaps more than needed, six arrangements."""
    rng = np.random.default_rng(0)
    seen: dict[tuple, int] = {}
    for _ in range(6000):
        spans = tuple(map(tuple, place_spans(rng, np.array([2, 1]), 0, 6).tolist()))
        seen[spans] = seen.get(spans, 0) + 1
    assert len(seen) == 6
    assert all(abs(count - 1000) < 5 * np.sqrt(1000) for count in seen.values())


def test_document_spans():
    ids = np.array([2, 1, 10, 11, 2, 1, 2, 12, 13])
    assert document_spans(ids, cls=1, eos=2).tolist() == [[2, 4], [7, 9]]
    assert document_spans(np.array([1, 2]), cls=1, eos=2).tolist() == []


def test_spans_without_room_are_left_out():
    """Twenty documents of one token: each span is one token long at most, or is left out."""
    ids = np.tile([1, 10, 2], 20)
    kept = [
        len(token_spans(ids, np.random.default_rng(s), cls=1, eos=2, ratio=0.5, mean=3, longest=40))
        for s in range(50)
    ]
    assert set(kept) == {0, 1}


def test_sentences_of_several_documents():
    """Which sentences can be chosen, when all are: the unfinished one before the end of a text cannot."""
    ids = np.array([1, 10, 63, 11, 2, 1, 12, 63, 13, 14])
    spans = sentence_spans(ids, np.random.default_rng(0), cls=1, eos=2, is_end=ids == 63, ratio=1.0)
    assert sorted(spans.tolist()) == [[1, 3], [5, 8], [8, 10]]
    empty = sentence_spans(
        ids[:2], np.random.default_rng(0), cls=1, eos=2, is_end=ids[:2] == 63, ratio=1.0
    )
    assert empty.tolist() == []


def test_a_lone_cls_at_the_end_is_no_sentence():
    ids = np.array([1, 10, 63, 11, 63, 2, 1])
    spans = sentence_spans(ids, np.random.default_rng(0), cls=1, eos=2, is_end=ids == 63, ratio=1.0)
    assert len(spans) == 1
    assert spans.tolist()[0] in ([1, 3], [3, 5])


def test_document_span_never_covers_the_last_token_inside_a_text():
    ids = np.arange(10, 40)
    for seed in range(50):
        spans, inside = document_span(
            ids, np.random.default_rng(seed), cls=1, eos=2, min_ratio=0.9, infill_prob=1.0
        )
        assert inside
        assert spans[0, 1] < len(ids)
