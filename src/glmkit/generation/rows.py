"""The cache of keys and values: a row for each sequence, filled from the left, each as far as it goes.

In: keys and values of a pass's new tokens. Out: all that its rows have. transformers' `Cache` to the model; which sequence has
which row, and when it goes, is the runner's.

Shapes: R rows of the cache, B rows of a pass, N heads, C capacity, P tokens of the longest row before the pass, Q tokens
of the longest feed, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache

from glmkit.generation.memory import static_capacity, static_rows

STEP = 64
"""Tokens by which the cache grows. Attention reads all of it for every token, so that a copy every 64 tokens costs a
thirtieth of that, and what is reserved stays within 64 tokens of what is used."""


@dataclass(eq=False)
class Row:
    """A sequence's place in the cache, and how much of it counts."""

    place: int
    length: int = 0


class Rows(Cache):
    """Keys and values [R, N, C, D] of each layer, of which a pass sees its own rows as far as they are filled.

    Layers make room when a pass comes to them, on their own device, so that only one has both its old and its new tensors.
    `places` [B, Q] are those of a pass's new tokens, None where all rows are equally long.
    """

    def __init__(self, num_layers: int):
        self.layers = []
        self.layer_class_to_replicate = None
        self.offloading = False
        self.buffers: list[torch.Tensor | None] = [None] * (2 * num_layers)  # keys, values, keys …
        self.num_rows = 0
        self.capacity = 0
        self.first = self.count = self.past = self.queries = 0
        self.places: torch.Tensor | None = None
        self._flat: torch.Tensor | None = None

    def begin(self, rows: Sequence[Row], queries: int) -> None:
        """Says which rows, side by side, the next pass reads."""
        self.first, self.count, self.queries = rows[0].place, len(rows), queries
        self.past = max(row.length for row in rows)
        self.reserve(self.first + self.count, self.past + queries)
        self.places = self._flat = None
        if any(row.length < self.past for row in rows):
            lengths = torch.tensor([row.length for row in rows])
            self.places = lengths[:, None] + torch.arange(queries)

    def reserve(self, rows: int, capacity: int) -> None:
        """Makes room for rows and tokens from the next pass on."""
        if rows > self.num_rows:
            self.num_rows = max(rows, 2 * self.num_rows)
        if capacity > self.capacity:
            # At first no more than prompts take: reading them needs the most memory beside.
            self.capacity = -(-capacity // STEP) * STEP if self.capacity else capacity

    def free(self) -> None:
        """Gives all memory back."""
        self.buffers = [None] * len(self.buffers)
        self.num_rows = self.capacity = 0

    def copy(self, source: int, target: int, length: int) -> None:
        """Copies a row's first `length` tokens."""
        for number, buffer in enumerate(self.buffers):
            if buffer is not None and length:
                buffer = self._roomy(number, buffer)
                buffer[target, :, :length] = buffer[source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchanges two rows' first `length` tokens."""
        for number, buffer in enumerate(self.buffers):
            if buffer is not None and length:
                buffer = self._roomy(number, buffer)
                kept = buffer[one, :, :length].clone()
                buffer[one, :, :length] = buffer[other, :, :length]
                buffer[other, :, :length] = kept

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Returns P."""
        return self.past

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Returns the number of keys and where they begin."""
        return self.past + query_length, 0

    def update(  # type: ignore[override]
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds [B, N, Q, D] behind what the rows have; returns all of it, [B, N, P + Q, D]."""
        number = 2 * layer_idx
        return self._add(number, key_states), self._add(number + 1, value_states)

    def _add(self, number: int, new: torch.Tensor) -> torch.Tensor:
        buffer = self._roomy(number, new)
        rows = slice(self.first, self.first + self.count)
        if self.places is None:
            buffer[rows, :, self.past : self.past + self.queries] = new
        else:
            _, heads, capacity, size = buffer.shape
            if self._flat is None:  # the same in every layer
                row = torch.arange(self.first, rows.stop)[:, None, None]
                head = row * heads + torch.arange(heads)[:, None]
                self._flat = (head * capacity + self.places[:, None]).flatten()
            self._flat = self._flat.to(new.device)
            buffer.view(-1, size).index_copy_(0, self._flat, new.reshape(-1, size))
        return buffer[rows, :, : self.past + self.queries]

    def _roomy(self, number: int, like: torch.Tensor) -> torch.Tensor:
        """Returns a layer's tensor, grown to what is reserved; zeros, as what a mask hides must still be finite."""
        buffer = self.buffers[number]
        if buffer is None or buffer.shape[0] < self.num_rows or buffer.shape[2] < self.capacity:
            heads, size = like.shape[1], like.shape[3]
            grown = like.new_zeros(self.num_rows, heads, self.capacity, size)
            if buffer is not None:
                grown[: buffer.shape[0], :, : buffer.shape[2]] = buffer
            self.buffers[number] = buffer = grown
        return buffer


class StaticRows(Rows):
    """Rows whose tensors seldom move: graphs that were captured with their addresses stay good until `size` changes.

    They grow in large steps (`memory.static_rows`, `memory.static_capacity`) and are kept when the last sequence goes. One row
    more than asked for takes what belongs nowhere.
    """

    @property
    def size(self) -> tuple[int, int]:
        """Rows and capacity; with them all tensors change."""
        return self.num_rows, self.capacity

    @property
    def spare(self) -> int:
        """The row that belongs to no sequence."""
        return self.num_rows - 1

    def reserve(self, rows: int, capacity: int) -> None:
        """Makes room for rows and tokens from the next pass on."""
        self.num_rows = max(self.num_rows, static_rows(rows))
        if capacity > self.capacity:
            self.capacity = static_capacity(capacity, self.capacity)

    def free(self) -> None:
        """Keeps all: whoever writes next needs it again."""

    def settle(self, like: torch.Tensor) -> None:
        """Gives all tensors the size reserved; `like` [1, N, 1, D] says what they are where there are none."""
        for number in range(len(self.buffers)):
            self._roomy(number, like)
