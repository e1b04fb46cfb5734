"""What the model reads, with each place's unit: the input of every explanation.

In: a prompt and its blanks' contents as ids. Out: `Rows`, from which scores are computed with units left out or
replaced. Positions come from `blanks.layout` and `blanks.choices`, nothing here makes its own.

Shapes: R rows (one, or one for each pattern of a task), S places of the longest row, T predicted tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from glmkit.blanks.choices import ChoiceTree, build_tree
from glmkit.blanks.layout import IGNORE_INDEX, Piece, collate, dense_mask, lay_out


@dataclass(frozen=True)
class Predictions:
    """The tokens whose log-probabilities make the contents' scores.

    Attributes:
        rows: int64 [T].
        places: int64 [T], whose logits predict `tokens`.
        tokens: int64 [T].
        contents: int64 [T], which content a token belongs to: a blank of the text, or a label.
        num_contents: Contents.
    """

    rows: np.ndarray
    places: np.ndarray
    tokens: np.ndarray
    contents: np.ndarray
    num_contents: int

    def of(self, content: int, row: int = 0) -> np.ndarray:
        """Returns the indices of a content's predictions in a row, in the order of its tokens."""
        return np.flatnonzero((self.contents == content) & (self.rows == row))


@dataclass(frozen=True)
class Rows:
    """R rows of one question.

    Attributes:
        ids: int64 [R, S].
        positions: int64 [R, 2, S].
        visible: bool [R, S, S]; whether a place (row of the matrix) may attend to a place. Padding sees nothing and
            is seen by none.
        units: int64 [R, S]; the unit of each place, -1 for what is no evidence: special tokens, the question's own
            words, the contents that are scored.
        lengths: int64 [R], places that are not padding.
        prefix_lengths: int64 [R], tokens of part A.
        predictions: What is scored.
        media: float [M, H], what ids from `FIRST_MEDIA_ID` on mean, or None where there are none.
    """

    ids: np.ndarray
    positions: np.ndarray
    visible: np.ndarray
    units: np.ndarray
    lengths: np.ndarray
    prefix_lengths: np.ndarray
    predictions: Predictions
    media: torch.Tensor | None = None

    def each(self) -> Iterator[Row]:
        """Yields the rows without padding."""
        for row, (length, in_a) in enumerate(
            zip(self.lengths.tolist(), self.prefix_lengths.tolist(), strict=True)
        ):
            places = slice(length)
            visible = self.visible[row, places, places]
            yield self.ids[row, places], self.positions[row, :, places], visible, self.units[row, places], in_a  # fmt: skip

    def without(self, removed: Collection[int]) -> Rows:
        """Returns the rows as if some units had never been in the text: places go, positions close up."""
        gone = np.isin(self.units, np.fromiter(removed, np.int64, len(removed)))
        rows, new_places = [], np.cumsum(~gone, axis=1) - 1
        for row, length in enumerate(self.lengths.tolist()):
            kept = np.flatnonzero(~gone[row, :length])
            # A piece's position is that of its mask in part A, which is never a unit.
            positions = self.positions[row][:, kept].copy()
            positions[0] = new_places[row, positions[0]]
            in_a = int((kept < self.prefix_lengths[row]).sum())
            visible = self.visible[row][np.ix_(kept, kept)]
            rows.append((self.ids[row, kept], positions, visible, self.units[row, kept], in_a))
        asked = self.predictions
        places = new_places[asked.rows, asked.places]
        return stack(
            rows,
            Predictions(asked.rows, places, asked.tokens, asked.contents, asked.num_contents),
            self.media,
        )

    def replaced(self, units: Collection[int], token: int) -> Rows:
        """Returns the rows with every token of some units replaced by one token."""
        there = np.isin(self.units, np.fromiter(units, np.int64, len(units)))
        return replace(self, ids=np.where(there, token, self.ids))


Row = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]
"""ids [s], positions [2, s], visible [s, s], units [s], tokens of part A."""


def stack(rows: Sequence[Row], predictions: Predictions, media: torch.Tensor | None = None) -> Rows:
    """Returns rows of different lengths as one `Rows`, padded on the right; they read one table of media."""
    longest, count = max(len(ids) for ids, *_ in rows), len(rows)
    ids = np.zeros((count, longest), np.int64)
    positions = np.zeros((count, 2, longest), np.int64)
    visible = np.zeros((count, longest, longest), bool)
    units = np.full((count, longest), -1, np.int64)
    for number, (some, places, sees, parts, _) in enumerate(rows):
        size = len(some)
        ids[number, :size], positions[number, :, :size] = some, places
        visible[number, :size, :size], units[number, :size] = sees, parts
    lengths = np.array([len(some) for some, *_ in rows], np.int64)
    in_a = np.array([one[4] for one in rows], np.int64)
    return Rows(ids, positions, visible, units, lengths, in_a, predictions, media)


def filling_rows(
    part_a: np.ndarray,
    pieces: Sequence[Piece],
    units_a: Sequence[int],
    units_b: Sequence[Sequence[int]],
    sop: int,
    media: torch.Tensor | None = None,
) -> Rows:
    """Returns the one row of a text with all its blanks' contents.

    Args:
        part_a: int64 [n].
        pieces: The contents, in the order in which they are written.
        units_a: Of the tokens of part A.
        units_b: Of the tokens of each piece, which are evidence for the later ones alone.
        sop: Id of the start marker.
        media: [M, H], what ids of media in part A mean.
    """
    example = lay_out(part_a, pieces, sop)
    batch = collate([example], 0)
    units, contents = list(units_a), [-1] * len(part_a)
    for number, (piece, some) in enumerate(zip(pieces, units_b, strict=True)):
        size = len(piece.tokens) + (piece.end is not None)
        units += [-1, *some][:size]
        contents += [number] * size
    places = np.flatnonzero(example.labels != IGNORE_INDEX)
    predictions = Predictions(
        rows=np.zeros(len(places), np.int64),
        places=places,
        tokens=example.labels[places],
        contents=np.asarray(contents, np.int64)[places],
        num_contents=len(pieces),
    )
    row = (example.input_ids, example.position_ids, dense_mask(batch)[0], np.asarray(units, np.int64), len(part_a))  # fmt: skip
    return stack([row], predictions, media)


def choice_rows(
    questions: Sequence[tuple[np.ndarray, Sequence[int], int]],
    contents: Sequence[Sequence[np.ndarray]],
    specials: object,
    media: torch.Tensor | None = None,
) -> Rows:
    """Returns rows that score several contents of one blank each; common beginnings are read once.

    Args:
        questions: For each row part A's ids, its tokens' units, and the index of its mask.
        contents: For each row the ids of every content.
        specials: The tokenizer's `special_ids`.
        media: [M, H], what ids of media mean in all rows.
    """
    sop, eop = specials.sop, specials.eop  # type: ignore[attr-defined]
    rows, asked = [], []
    for number, ((part_a, units, mask), some) in enumerate(zip(questions, contents, strict=True)):
        tree, size = build_tree([list(one) for one in some], sop), len(part_a)
        total = size + len(tree)
        visible = np.zeros((total, total), bool)
        visible[:, :size] = True
        visible[size:, size:] = tree.visibility()
        positions = np.concatenate(
            (np.stack((np.arange(size), np.zeros(size, np.int64))), tree.positions(mask)), axis=1
        )
        rows.append(
            (
                np.concatenate((part_a, tree.tokens)),
                positions,
                visible,
                np.concatenate((units, np.full(len(tree), -1))).astype(np.int64),
                size,
            )
        )
        for content, end in enumerate(tree.ends.tolist()):
            asked += [
                (number, size + node, token, content) for node, token in _path(tree, end, eop)
            ]
    owners, places, tokens, whose = np.asarray(asked, np.int64).T
    return stack(rows, Predictions(owners, places, tokens, whose, len(contents[0])), media)


def head_rows(questions: Sequence[tuple[np.ndarray, Sequence[int], int]], num_labels: int) -> Rows:
    """Returns rows of part A alone, for a classification head."""
    rows: list[Row] = []
    for part_a, units, _ in questions:
        size = len(part_a)
        positions = np.stack((np.arange(size), np.zeros(size, np.int64)))
        rows.append(
            (part_a, positions, np.ones((size, size), bool), np.asarray(units, np.int64), size)
        )
    none = np.empty(0, np.int64)
    return stack(rows, Predictions(none, none, none, none, num_labels))


def _path(tree: ChoiceTree, end: int, eop: int) -> list[tuple[int, int]]:
    """Returns (node that predicts, token) from the root to the end marker after `end`."""
    steps, node = [(end, eop)], end
    while tree.parents[node] >= 0:
        steps.append((int(tree.parents[node]), int(tree.tokens[node])))
        node = int(tree.parents[node])
    return steps[::-1]
