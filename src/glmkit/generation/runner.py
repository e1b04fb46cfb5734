"""The runner: sequences of tokens in, logits out; what was read stays cached.

In: for each of several sequences the tokens that it reads next, with their 2-D positions. Out: logits after the last of
them. `Runner` is what the engine and the search for the n likeliest ask of a model; `TorchRunner` is that on torch, on any
device and in any number type. It knows no blanks, no settings and no text, and never chooses a token. A runner serves one
caller at a time (the engine has the lock).

Shapes: R rows of the cache, B rows of a pass, N heads, C capacity, P tokens of the longest row before the pass, Q tokens
of the longest feed, D head size, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers.cache_utils import Cache

STEP = 64
"""Tokens by which the cache grows. Attention reads all of it for every token, so that a copy every 64 tokens costs a
thirtieth of that, and what is reserved stays within 64 tokens of what is used."""


@dataclass(frozen=True)
class Feed:
    """Tokens that one sequence reads next.

    Attributes:
        sequence: Handle from `Runner.open` or `Runner.fork`.
        ids: At least one id.
        positions: The position of each.
        blocks: The block position of each.
        prefix: The first `prefix` of them see each other (part A; only into an empty sequence). The rest, and all of a later
            feed, see what came before and themselves.
        num_logits: Logits are wanted after the last `num_logits` tokens.
    """

    sequence: int
    ids: Sequence[int]
    positions: Sequence[int]
    blocks: Sequence[int]
    prefix: int = 0
    num_logits: int = 1

    def __post_init__(self) -> None:
        assert 1 <= len(self.ids) == len(self.positions) == len(self.blocks), self
        assert 0 <= self.prefix <= len(self.ids), self
        assert 0 <= self.num_logits <= len(self.ids), self


class Runner(Protocol):
    """A model that reads sequences of its own."""

    def open(self) -> int:
        """Returns the handle of a new, empty sequence."""

    def fork(self, sequence: int) -> int:
        """Returns the handle of a copy that goes on by itself."""

    def truncate(self, sequence: int, length: int) -> None:
        """Forgets all but the first `length` tokens (0, or part A and more: its tokens have seen each other)."""

    def close(self, sequence: int) -> None:
        """Forgets a sequence; its handle is never given again."""

    def length(self, sequence: int) -> int:
        """Returns the number of tokens that a sequence has read."""

    def forward(self, feeds: Sequence[Feed]) -> list[torch.Tensor]:
        """Reads each feed, at most one for a sequence.

        Returns:
            For each feed float32 [num_logits, V] on the CPU. Where an exception comes instead, no sequence has grown.
        """


@dataclass(eq=False)
class _Row:
    """A sequence's place in the cache, and how much of it counts."""

    place: int
    length: int = 0


class _Rows(Cache):
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

    def begin(self, rows: Sequence[_Row], queries: int) -> None:
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
        if (
            capacity > self.capacity
        ):  # at first what prompts take, while they are read with most memory
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


def make_runner(model: Any) -> Runner:
    """Returns a model's own runner (a `NativeModel` has one), or one on torch; it holds no sequence yet."""
    return model.make_runner() if hasattr(model, "make_runner") else TorchRunner(model)


class TorchRunner:
    """A `GLMForConditionalGeneration` in evaluation mode as a `Runner`.

    Rows of the cache are compact: closing a sequence moves the last row into its place. Forking copies a row. With its last
    sequence all memory is given back: a runner without sequences is as good as a new one, and the model may be changed or
    moved then.
    """

    def __init__(self, model: Any):
        self.model = model
        self._cache = _Rows(len(model.glm.transformer.layers))
        self._rows: list[_Row] = []
        self._sequences: dict[int, _Row] = {}
        self._opened = 0

    def open(self) -> int:
        """Returns the handle of a new, empty sequence."""
        row = _Row(len(self._rows))
        self._rows.append(row)
        self._opened += 1
        self._sequences[self._opened] = row
        return self._opened

    @torch.inference_mode()
    def fork(self, sequence: int) -> int:
        """Returns the handle of a copy; costs a copy of the sequence's row in every layer."""
        copy, source = self.open(), self._sequences[sequence]
        row = self._sequences[copy]
        self._cache.reserve(len(self._rows), source.length)
        self._cache.copy(source.place, row.place, source.length)
        row.length = source.length
        return copy

    def truncate(self, sequence: int, length: int) -> None:
        """Forgets all but the first `length` tokens; touches no tensor."""
        row = self._sequences[sequence]
        assert 0 <= length <= row.length, (length, row.length)
        row.length = length

    @torch.inference_mode()
    def close(self, sequence: int) -> None:
        """Forgets a sequence; the last row takes its place."""
        row, last = self._sequences.pop(sequence), self._rows.pop()
        if last is not row:
            self._cache.copy(last.place, row.place, last.length)
            self._rows[row.place] = last
            last.place = row.place
        if not self._rows:
            self._cache.free()

    def length(self, sequence: int) -> int:
        """Returns the number of tokens that a sequence has read."""
        return self._sequences[sequence].length

    @torch.inference_mode()
    def forward(self, feeds: Sequence[Feed]) -> list[torch.Tensor]:
        """Reads each feed: empty sequences first, then the others, similar lengths in one pass."""
        self._cache.reserve(len(self._rows), 0)
        rows = [self._sequences[feed.sequence] for feed in feeds]
        assert len(set(map(id, rows))) == len(rows), "a sequence was given two feeds at once"
        assert not any(feed.prefix and row.length for feed, row in zip(feeds, rows, strict=True))
        results: list[torch.Tensor] = [torch.empty(0)] * len(feeds)
        before = [row.length for row in rows]
        counts = [len(feed.ids) for feed in feeds]
        try:
            for begins in (True, False):
                chosen = [place for place, length in enumerate(before) if (length == 0) == begins]
                for group in _similar(chosen, counts):
                    group = self._together(group, rows)
                    passed = self._pass([feeds[i] for i in group], [rows[i] for i in group])
                    for place, logits in zip(group, passed, strict=True):
                        results[place] = logits
                        rows[place].length += counts[place]
        except BaseException:
            for row, length in zip(rows, before, strict=True):
                row.length = length
            raise
        return results

    def _together(self, group: list[int], rows: Sequence[_Row]) -> list[int]:
        """Returns a group in the order of its rows, which lie side by side in the cache afterwards."""
        group = sorted(group, key=lambda index: rows[index].place)
        first, last = rows[group[0]], rows[group[-1]]
        if last.place - first.place + 1 > len(group):
            for target, index in enumerate(group):
                row, other = rows[index], self._rows[target]
                if row is not other:
                    self._cache.swap(row.place, target, max(row.length, other.length))
                    self._rows[row.place], self._rows[target] = other, row
                    row.place, other.place = target, row.place
        return group

    def _pass(self, feeds: Sequence[Feed], rows: Sequence[_Row]) -> Iterator[torch.Tensor]:
        """Reads feeds of neighbouring rows, shorter ones filled up behind; returns logits [num_logits, V] of each."""
        device, cache = self.model.device, self._cache
        counts = [len(feed.ids) for feed in feeds]
        queries = max(counts)
        cache.begin(rows, queries)
        fed = torch.tensor(
            [
                [
                    [*one, *[0] * (queries - len(one))]
                    for one in (feed.ids, feed.positions, feed.blocks)
                ]
                for feed in feeds
            ]
        ).to(device)
        inputs: dict[str, torch.Tensor] = {}
        if cache.places is not None:
            # Each token sees its row's cached tokens and, of the new ones, those up to itself.
            keys = torch.arange(cache.past + queries)
            inputs["attention_mask"] = (keys <= cache.places[..., None])[:, None].to(device)
        else:
            inputs["prefix_lengths"] = torch.tensor([feed.prefix for feed in feeds], device=device)
        hidden = self.model.glm(
            input_ids=fed[:, 0], position_ids=fed[:, 1:], cache=cache, use_cache=True, **inputs
        ).last_hidden_state
        wanted = [feed.num_logits for feed in feeds]
        row = [index for index, number in enumerate(wanted) for _ in range(number)]
        column = [
            place
            for number, count in zip(wanted, counts, strict=True)
            for place in range(count - number, count)
        ]
        logits = self.model.lm_head(hidden[row, column]).float().cpu()
        return iter(logits.split(wanted))


def _similar(places: Sequence[int], counts: Sequence[int]) -> Iterator[list[int]]:
    """Yields places in groups whose longest feed is little longer than the shortest, so that little is filled up."""
    group: list[int] = []
    for place in sorted(places, key=lambda one: counts[one]):
        if group and counts[place] > 16 + 1.25 * counts[group[0]]:
            yield group
            group = []
        group.append(place)
    if group:
        yield group
