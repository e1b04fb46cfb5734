"""A token store -> an endless, exactly resumable stream of packed pretraining batches.

In: a `TokenStore`, the special tokens' ids, the objectives' settings. Out: batches as the model reads them, several
samples a row. A document is cut into chunks that fit a row; chunks are shuffled anew each epoch,
blanks are drawn by a generator keyed (seed, epoch, chunk), and samples are packed window by window. So a batch
depends on the seed and its place alone, and a place is three numbers. Knows no model and no text.

Shapes: B rows of this process, L tokens of a row.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from glmkit.blanks.layout import Example, collate_packed
from glmkit.blanks.objectives import OBJECTIVES, ObjectiveSettings, make_any_example
from glmkit.blanks.packing import pack
from glmkit.errors import DataError
from glmkit.special_tokens import SpecialTokenIds
from glmkit.tokens.store import TokenStore

logger = logging.getLogger(__name__)

WINDOW = 1024
"""Chunks that are packed together; more waste less padding and cost more on resuming."""

_ORDER, _BLANKS, _ROWS = 1, 2, 3
"""First words of the keys of the random generators."""


class Sample(NamedTuple):
    """One drawn sample and where it comes from."""

    objective: str
    example: Example
    document: int


def longest_chunk(row_length: int, settings: ObjectiveSettings) -> int:
    """Returns how many tokens of text a row has room for, beside the masks and start markers of usual blanks."""
    spans_per_token = settings.token_ratio / max(1.0, settings.mean_span_length)
    return int(row_length / (1 + 2.5 * spans_per_token)) - 2


class PretrainingStream:
    """Iterates over batches for ever; `state_dict` after a batch is where the next one begins.

    A batch is a dict of int64 tensors: `input_ids`, `labels`, `segment_ids`, `objective_ids` [B, L] (index in
    `OBJECTIVES`, of the sample that a token belongs to), `position_ids` [B, 2, L]; and `documents`, for each row the
    indices in the store of the documents in it.

    Args:
        store: The ids; each document is [CLS] … <|endoftext|>.
        specials: Ids of the special tokens.
        settings: Of the objectives.
        rows: Rows of a batch in one process.
        row_length: In tokens.
        seed: Of everything that is drawn.
        sentence_ends: bool [vocabulary], for the sentence objective.
        rank: This process takes the rank-th part of each global batch of `rows` · `world_size` rows.
        world_size: Number of processes; the global batches' rows do not depend on how they are divided.

    Raises:
        DataError: The store has no text.
    """

    def __init__(
        self,
        store: TokenStore,
        specials: SpecialTokenIds,
        settings: ObjectiveSettings,
        *,
        rows: int,
        row_length: int,
        seed: int,
        sentence_ends: np.ndarray | None = None,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.store, self.specials, self.settings = store, specials, settings
        self.rows, self.row_length, self.seed = rows, row_length, seed
        self.sentence_ends = sentence_ends
        self.rank, self.world_size = rank, world_size
        self.chunk_length = longest_chunk(row_length, settings)
        lengths = np.diff(store.offsets)
        counts = np.where(lengths > 0, -(-lengths // self.chunk_length), 0)
        self._chunk_ends = np.cumsum(counts)
        self.num_chunks = int(self._chunk_ends[-1]) if len(counts) else 0
        if not self.num_chunks:
            raise DataError(f"{store.folder} holds no text to train on.")
        self.num_windows = -(-self.num_chunks // WINDOW)
        self._epoch = self._window = self._row = 0
        self._loaded: tuple[int, int] | None = None
        self._packed: list[list[Sample]] = []
        self._order: tuple[int, np.ndarray] | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        taken = [self._next_row() for _ in range(self.rows * self.world_size)]
        return self.batch(taken[self.rank * self.rows : (self.rank + 1) * self.rows])

    @property
    def epochs(self) -> float:
        """Passes over the store so far."""
        share = self._row / len(self._packed) if self._loaded == self._place and self._packed else 0
        return self._epoch + (self._window + share) / self.num_windows

    def state_dict(self) -> dict[str, int]:
        """Returns where the next batch begins: small, and JSON can hold it."""
        return {"epoch": self._epoch, "window": self._window, "row": self._row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes to where `state_dict` was taken, on any number of processes."""
        self._epoch, self._window, self._row = state["epoch"], state["window"], state["row"]

    def held_out(self, max_rows: int) -> list[dict[str, Any]]:
        """Returns batches of the first `max_rows` rows of epoch 0, or of all there are; the last may be smaller."""
        rows: list[list[Sample]] = []
        for window in range(self.num_windows):
            rows += self.pack_window(0, window)
            if len(rows) >= max_rows:
                break
        rows = rows[:max_rows]
        return [self.batch(rows[i : i + self.rows]) for i in range(0, len(rows), self.rows)]

    def batch(self, rows: list[list[Sample]]) -> dict[str, Any]:
        """Returns the samples of some rows as one batch."""
        arrays = collate_packed(
            [[sample.example for sample in row] for row in rows], self.specials.pad, self.row_length
        )
        objective_ids = np.zeros_like(arrays["segment_ids"])
        for index, row in enumerate(rows):
            numbers = np.array([0, *(OBJECTIVES.index(sample.objective) for sample in row)])
            objective_ids[index] = numbers[arrays["segment_ids"][index]]
        arrays["objective_ids"] = objective_ids
        batch: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        batch["documents"] = [[sample.document for sample in row] for row in rows]
        return batch

    def pack_window(self, epoch: int, window: int) -> list[list[Sample]]:
        """Returns the rows of one window, in the order in which they are read."""
        chunks = self._epoch_order(epoch)[window * WINDOW : (window + 1) * WINDOW]
        samples = [one for chunk in chunks if (one := self._draw(epoch, int(chunk))) is not None]
        packed = pack([sample.example for sample in samples], self.row_length)
        shuffled = np.random.default_rng((_ROWS, self.seed, epoch, window)).permutation(len(packed))
        return [[samples[i] for i in packed[row]] for row in shuffled]

    @property
    def _place(self) -> tuple[int, int]:
        return self._epoch, self._window

    def _next_row(self) -> list[Sample]:
        empty = 0
        while True:
            if self._loaded != self._place:
                self._packed, self._loaded = self.pack_window(*self._place), self._place
            if self._row < len(self._packed):
                break
            empty += not self._packed
            if empty > self.num_windows:
                raise DataError(
                    f"{self.store.folder}: no document is long enough for any objective; give longer texts."
                )
            self._row, self._window = 0, self._window + 1
            if self._window == self.num_windows:
                self._epoch, self._window = self._epoch + 1, 0
        self._row += 1
        return self._packed[self._row - 1]

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng((_ORDER, self.seed, epoch))
            self._order = epoch, rng.permutation(self.num_chunks)
        return self._order[1]

    def _chunk(self, chunk: int) -> tuple[int, np.ndarray]:
        """Returns a chunk's document and ids [n], [CLS] first; all but a document's last chunk are of full length."""
        document = int(np.searchsorted(self._chunk_ends, chunk, side="right"))
        first = int(self._chunk_ends[document - 1]) if document else 0
        begin, end = (int(one) for one in self.store.offsets[document : document + 2])
        start = begin + (chunk - first) * self.chunk_length
        ids = self.store.tokens(start, min(start + self.chunk_length, end))
        return document, ids if chunk == first else np.concatenate(([self.specials.cls], ids))

    def _draw(self, epoch: int, chunk: int) -> Sample | None:
        """Returns the chunk with its blanks, or None where it is too short for any objective."""
        document, ids = self._chunk(chunk)
        rng = np.random.default_rng((_BLANKS, self.seed, epoch, chunk))
        for _ in range(1000):
            drawn = make_any_example(ids, rng, self.specials, self.settings, self.sentence_ends)
            if drawn is None:
                return None
            if len(drawn[1]) <= self.row_length:
                return Sample(*drawn, document)
            ids = ids[
                : max(1, len(ids) - len(ids) // 20)
            ]  # unusually many blanks: cut the chunk's end
        raise AssertionError("an example of one token does not fit a row")
