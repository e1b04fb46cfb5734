"""A task's sample as a document of a token store, and back.

In: part A's ids with one mask token, and the answer's. Out: one sequence of ids, part A + `<|startofpiece|>` +
answer + `<|endofpiece|>`, that a `TokenStore` keeps like any other document; an `Example` when it is read. A text
never contains `<|startofpiece|>`, so the two kinds of store cannot be taken for each other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from glmkit.blanks.layout import Example, Piece, find_masks, lay_out
from glmkit.errors import DataError
from glmkit.special_tokens import SpecialTokenIds
from glmkit.tokens.store import TokenStore


def encode_sample(
    part_a: np.ndarray | list[int], answer: np.ndarray | list[int], specials: SpecialTokenIds
) -> np.ndarray:
    """Returns int64 [part A + answer + 2]: what a store keeps. `part_a` has one mask token."""
    return np.concatenate((part_a, [specials.sop], answer, [specials.eop])).astype(np.int64)


def decode_sample(ids: np.ndarray, specials: SpecialTokenIds) -> Example:
    """Returns the example that `encode_sample` encoded; it takes `sample_size(ids)` places.

    Raises:
        DataError: The ids are no sample of a task.
    """
    starts = np.flatnonzero(ids == specials.sop)
    masks = find_masks(ids, specials.masks)
    if len(starts) != 1 or len(masks) != 1 or masks[0] > starts[0] or ids[-1] != specials.eop:
        raise DataError(
            f"a sample of {len(ids)} tokens with {len(masks)} mask tokens and {len(starts)} start markers is no sample "
            "of a task. Prepare the data with: glmkit prepare --task NAME"
        )
    start = int(starts[0])
    piece = Piece(int(masks[0]), ids[start + 1 : -1], specials.eop)
    return lay_out(ids[:start], [piece], specials.sop)


def sample_sizes(store: TokenStore) -> np.ndarray:
    """Returns int64 [documents]: the places that each sample of a store takes in a row."""
    return np.diff(store.offsets) - 1  # the end marker is predicted, never read


def open_task_store(folder: str | Path, specials: SpecialTokenIds) -> TokenStore:
    """Opens a store of a task's samples.

    Raises:
        DataError: No store is there, it is empty, or it holds texts instead of samples.
    """
    store = TokenStore.open(folder)
    if not len(store):
        raise DataError(f"{store.folder} is empty; give the task more records.")
    if specials.sop not in store.document(0):
        raise DataError(
            f"{store.folder} holds texts, not the samples of a task. Prepare labelled data with: glmkit prepare DATA "
            "--task NAME -o DIR --tokenizer T"
        )
    return store
