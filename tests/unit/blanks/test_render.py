from __future__ import annotations

import numpy as np
from blank_samples import SENTENCE_ENDS, SPECIALS, document, samples, seeds
from hypothesis import given

from glmkit.blanks.layout import Piece, collate, collate_packed, lay_out
from glmkit.blanks.objectives import ObjectiveSettings, make_any_example
from glmkit.blanks.render import TABLE_LIMIT, examples_of_row, render

WORDS = {
    1: "[CLS]",
    2: "<eos>",
    3: "<sop>",
    4: "<eop>",
    5: "[MASK]",
    10: "春",
    11: "眠",
    12: " \n",
    13: "",
}


def _words(ids: list[int]) -> list[str]:
    return [WORDS.get(number, f"w{number}") for number in ids]


def _text(ids: list[int]) -> str:
    return "".join(_words(ids))


def _row(batch: dict, number: int) -> dict:
    return {name: array[number] for name, array in batch.items()}


EXAMPLE = lay_out(
    [1, 5, 11, 5, 2], [Piece(3, np.array([10, 20]), 4), Piece(1, np.array([12]), 4)], 3
)


def test_part_a_pieces_and_table():
    shown = render(EXAMPLE, _text)
    assert "[CLS][MASK]⟨1⟩眠[MASK]⟨2⟩<eos>" in shown
    lines = shown.splitlines()
    assert lines.index("  blank 2 at position 3") < lines.index("  blank 1 at position 1")
    assert "    reads    <sop>春w20" in lines
    assert "    predicts 春w20<eop>" in lines
    table = [line.split() for line in lines[lines.index("") + 1 :] if line]
    assert ["index", "part", "token", "position", "block", "label"] in table
    assert ["6", "B", "春", "3", "2", "w20"] in table
    assert ["9", "B", "␣⏎", "1", "2", "<eop>"] in table


def test_columns_are_aligned_for_wide_characters():
    lines = render(EXAMPLE, _text).splitlines()
    header = next(line for line in lines if line.startswith("index"))
    wide = next(line for line in lines if line.startswith("6  "))
    assert wide.index("3") == header.index("position") - 1, "春 takes two columns, one character"


def test_tokens_without_text_show_their_id_and_long_examples_no_table():
    assert "#13" in render(lay_out([13], [], 3), _text)
    assert "index" not in render(lay_out(np.full(TABLE_LIMIT + 1, 10), [], 3), _text)


def test_unscored_piece_predicts_nothing():
    given_piece = lay_out([5], [Piece(0, np.array([10]), scored=False)], 3)
    assert "predicts (nothing)" in render(given_piece, _words)


@given(samples, seeds)
def test_all_text_is_shown(ids, seed):
    made = make_any_example(
        ids, np.random.default_rng(seed), SPECIALS, ObjectiveSettings(), SENTENCE_ENDS
    )
    if made is None:
        return
    shown = render(made[1], lambda numbers: [f"<{number}>" for number in numbers])
    above = shown.split("\n\n")[0]
    for number in set(ids.tolist()):
        assert above.count(f"<{number}>") >= (ids == number).sum()


def test_batch_rows_are_the_examples_again():
    rng = np.random.default_rng(0)
    made = [
        make_any_example(document(n), rng, SPECIALS, ObjectiveSettings(), SENTENCE_ENDS)
        for n in (20, 33, 12)
    ]
    examples = [example for _, example in made]
    for side in ("left", "right"):
        batch = collate(examples, pad=2, side=side)
        for number, example in enumerate(examples):
            assert render(_row(batch, number), _words) == render(example, _words)
    packed = collate_packed([examples], pad=2, length=100)
    again = examples_of_row(_row(packed, 0))
    for one, two in zip(examples, again, strict=True):
        assert one.prefix_length == two.prefix_length
        for name in ("input_ids", "position_ids", "labels"):
            assert (getattr(one, name) == getattr(two, name)).all()
    shown = render(_row(packed, 0), _words)
    assert "sample 3 of 3" in shown
    assert all(render(example, _words) in shown for example in examples)
