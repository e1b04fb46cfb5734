"""The layout: part A, part B, 2-D positions, labels and prefix lengths.

In: token ids with mask tokens (part A) and the contents of their blanks (part B). Out: `Example`s, and
batches of them as NumPy arrays under the field names that the model reads. Pretraining, fine-tuning,
scoring and generation all come through here; nobody else computes positions. Knows ids only: no text, no
tokenizer, no model.

Shapes: S tokens of an example, B rows of a batch, L tokens of a row.

Sources: GLM paper (arXiv 2103.10360) section 2.1; THUDM/GLM `blocklm_utils.py`; the published hub code's
`build_inputs_for_generation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glmkit.attention_rule import may_attend
from glmkit.errors import DataError

IGNORE_INDEX = -100
"""Label of a token that is not predicted; the value that torch's cross-entropy ignores."""

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Piece:
    """The contents of one blank.

    Attributes:
        mask_index: Index in part A of the mask token that stands for the blank.
        tokens: int64 [n], the blank's contents (or as much as is known of them).
        end: Id predicted after `tokens` (`<|endofpiece|>`), or None if no end is predicted: the blank is
            cut, still being written, or ends with the text itself.
        inputs: int64 [n], what part B reads instead of `tokens` (corrupted by `[dBLOCK]`), or None.
        scored: Whether `tokens` are labels; False for contents that are given, as in generation.
    """

    mask_index: int
    tokens: np.ndarray
    end: int | None = None
    inputs: np.ndarray | None = None
    scored: bool = True


@dataclass(frozen=True)
class Example:
    """One sample: part A, then the pieces of part B in the order in which they are written.

    Attributes:
        input_ids: int64 [S].
        position_ids: int64 [2, S]; row 0 the position in part A, row 1 the block position (0 in part A,
            1, 2, 3 … inside each piece).
        labels: int64 [S], not shifted: the logits at i predict labels[i]; IGNORE_INDEX elsewhere.
        prefix_length: Tokens of part A.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    labels: np.ndarray
    prefix_length: int

    def __len__(self) -> int:
        return len(self.input_ids)


def find_masks(ids: Sequence[int] | np.ndarray, mask_ids: Sequence[int]) -> np.ndarray:
    """Returns the indices (int64, ascending) of the mask tokens of any kind in `ids`."""
    # One comparison for each kind: of so few much faster than `isin`.
    array = np.asarray(ids)
    return np.flatnonzero(np.logical_or.reduce([array == one for one in mask_ids]))


def lay_out(context: Sequence[int] | np.ndarray, pieces: Sequence[Piece], sop: int) -> Example:
    """Lays out part A and its pieces as one example.

    Args:
        context: Part A's ids, mask tokens included.
        pieces: The blanks' contents, in the order in which they are written.
        sop: Id of `<|startofpiece|>`.

    A piece of n tokens with an end takes n + 1 places: `<|startofpiece|>` + tokens are the inputs, tokens +
    end the labels. Without an end and scored it takes n places (the last token is predicted, never read);
    unscored it takes n + 1 (the last place is where the next token is predicted).
    """
    part_a = np.asarray(context, dtype=np.int64)
    n_a = len(part_a)
    ids, positions, blocks, labels = [part_a], [np.arange(n_a)], [np.zeros(n_a, np.int64)], []
    labels.append(np.full(n_a, IGNORE_INDEX))
    for piece in pieces:
        tokens = np.asarray(piece.tokens, dtype=np.int64)
        read = tokens if piece.inputs is None else np.asarray(piece.inputs, dtype=np.int64)
        piece_ids = np.concatenate(([sop], read))
        if not piece.scored:
            piece_labels = np.full(len(piece_ids), IGNORE_INDEX)
        elif piece.end is None:
            piece_ids, piece_labels = piece_ids[:-1], tokens
        else:
            piece_labels = np.concatenate((tokens, [piece.end]))
        ids.append(piece_ids)
        positions.append(np.full(len(piece_ids), piece.mask_index))
        blocks.append(np.arange(1, len(piece_ids) + 1))
        labels.append(piece_labels)
    return Example(
        input_ids=np.concatenate(ids),
        position_ids=np.stack((np.concatenate(positions), np.concatenate(blocks))).astype(np.int64),
        labels=np.concatenate(labels).astype(np.int64),
        prefix_length=n_a,
    )


def collate(
    examples: Sequence[Example], pad: int, *, side: str = "right", length: int | None = None
) -> Batch:
    """Stacks examples into rows of equal length, one example a row.

    Positions count from each example's first real token on either side, so padding changes no answer.

    Args:
        examples: B examples.
        pad: Id that fills up `input_ids`.
        side: "right" or "left".
        length: Row length in tokens; by default that of the longest example.

    Returns:
        `input_ids` [B, L], `position_ids` [B, 2, L], `labels` [B, L], `attention_mask` [B, L] (1 = real
        token), `prefix_lengths` [B] (padding on the left included), all int64.

    Raises:
        DataError: An example is longer than `length`.
    """
    longest = max(len(example) for example in examples)
    length = longest if length is None else length
    if longest > length:
        raise DataError(
            f"an example of {longest} tokens does not fit into rows of {length}; cut it or raise the row length"
        )
    batch: Batch = {
        "input_ids": np.full((len(examples), length), pad, np.int64),
        "position_ids": np.zeros((len(examples), 2, length), np.int64),
        "labels": np.full((len(examples), length), IGNORE_INDEX, np.int64),
        "attention_mask": np.zeros((len(examples), length), np.int64),
        "prefix_lengths": np.zeros(len(examples), np.int64),
    }
    for row, example in enumerate(examples):
        start = 0 if side == "right" else length - len(example)
        here = slice(start, start + len(example))
        batch["input_ids"][row, here] = example.input_ids
        batch["position_ids"][row, :, here] = example.position_ids
        batch["labels"][row, here] = example.labels
        batch["attention_mask"][row, here] = 1
        batch["prefix_lengths"][row] = start + example.prefix_length
    return batch


def collate_packed(rows: Sequence[Sequence[Example]], pad: int, length: int) -> Batch:
    """Stacks examples into rows of `length` tokens, several examples a row, none seeing another.

    Returns:
        `input_ids` [B, L], `position_ids` [B, 2, L], `labels` [B, L] and `segment_ids` [B, L] (0 = padding,
        1, 2, … = the examples of the row), all int64. Positions start again in each example; whether a
        token is in part B is told by its block position, which is 0 in part A alone.

    Raises:
        DataError: The examples of a row do not fit into `length`.
    """
    batch: Batch = {
        "input_ids": np.full((len(rows), length), pad, np.int64),
        "position_ids": np.zeros((len(rows), 2, length), np.int64),
        "labels": np.full((len(rows), length), IGNORE_INDEX, np.int64),
        "segment_ids": np.zeros((len(rows), length), np.int64),
    }
    for row, examples in enumerate(rows):
        start = 0
        for segment, example in enumerate(examples, start=1):
            here = slice(start, start + len(example))
            start = here.stop
            if start > length:
                raise DataError(f"the examples of one row need {start} tokens; it has {length}")
            batch["input_ids"][row, here] = example.input_ids
            batch["position_ids"][row, :, here] = example.position_ids
            batch["labels"][row, here] = example.labels
            batch["segment_ids"][row, here] = segment
    return batch


def dense_mask(batch: Batch) -> np.ndarray:
    """Returns who may attend to whom in a batch of `collate` or `collate_packed`: bool [B, L, L].

    For people, tests and code that wants a dense mask; the model makes its own from the same fields.
    """
    n_rows, length = batch["input_ids"].shape
    index = np.arange(length)
    if "segment_ids" in batch:
        segments = batch["segment_ids"]
        visible = (segments[:, :, None] == segments[:, None, :]) & (segments[:, None, :] > 0)
        part_b = batch["position_ids"][:, 1, None, :] > 0
    else:
        visible = np.broadcast_to(batch["attention_mask"][:, None, :] > 0, (n_rows, 1, length))
        part_b = index >= batch["prefix_lengths"][:, None, None]
    return np.broadcast_to(
        may_attend(
            query_index=index[:, None],
            key_index=index,
            key_in_part_b=part_b,
            key_is_visible=visible,
        ),
        (n_rows, length, length),
    )
