"""The possible contents of a blank in one row, each blind to the others: for training what `score_choices` compares.

In: part A with one mask token, and for each row the choices' ids. Out: a batch for the model in which the tree of the
choices (`blanks.choices`) is part B, and what is to be predicted where. Rows are filled up on the left, so that part B is
the end of every row and the head computes nothing else.

Shapes: B rows, L tokens of a row, P places of the longest part B, T predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from glmkit.blanks.choices import ChoiceTree, build_tree
from glmkit.blanks.layout import IGNORE_INDEX, Batch, collate, find_masks, lay_out


def collate_choices(
    rows: Sequence[tuple[np.ndarray, Sequence[np.ndarray]]],
    *,
    mask_ids: Sequence[int],
    sop: int,
    eop: int,
    pad: int,
) -> Batch:
    """Lays out rows of (part A, choices).

    Args:
        rows: Part A with a mask token (the first one counts), int64 [n]; its choices, int64 [m] each, without markers.
        mask_ids: Ids of the mask tokens of any kind.
        sop: Id of `<|startofpiece|>`.
        eop: Id of `<|endofpiece|>`, predicted after each choice.
        pad: Id that fills up rows.

    Returns:
        `input_ids` [B, L], `position_ids` [B, 2, L], `attention_mask` [B, 1, L, L] (1 = may attend), and `predictions`
        [4, T]: row, place counted from the row's end (-1 is the last), token, choice; the sum of the log-probabilities
        of a row and choice is the choice's. All int64.
    """
    examples, trees = [], []
    for part_a, choices in rows:
        mask = int(find_masks(part_a, mask_ids)[0])
        context, tree = lay_out(part_a, [], sop), build_tree([one.tolist() for one in choices], sop)
        positions = np.concatenate((context.position_ids, tree.positions(mask)), axis=1)
        ids = np.concatenate((context.input_ids, tree.tokens))
        nothing = np.full(len(ids), IGNORE_INDEX)
        examples.append(replace(context, input_ids=ids, position_ids=positions, labels=nothing))
        trees.append(tree)
    batch = collate(examples, pad, side="left")
    real = batch["attention_mask"] > 0
    length = real.shape[1]
    visible = np.zeros((len(rows), length, length), bool)
    for row, tree in enumerate(trees):
        start = length - len(tree)
        visible[row, :, :start] = real[row, :start]
        visible[row, start:, start:] = tree.visibility()
    parts = [_predictions(row, tree, eop) for row, tree in enumerate(trees)]
    return {
        "input_ids": batch["input_ids"],
        "position_ids": batch["position_ids"],
        "attention_mask": visible[:, None].astype(np.int64),
        "predictions": np.concatenate(parts, axis=1),
    }


def _predictions(row: int, tree: ChoiceTree, eop: int) -> np.ndarray:
    """Returns int64 [4, t]: along the path of each choice its tokens, and the end marker at its end."""
    found = []
    for choice, node in enumerate(tree.ends.tolist()):
        token = eop
        while node >= 0:
            found.append((row, node - len(tree), token, choice))
            token, node = int(tree.tokens[node]), int(tree.parents[node])
    return np.array(found, np.int64).T
