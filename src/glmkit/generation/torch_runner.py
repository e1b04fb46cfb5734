"""A torch model as a `Runner` (`generation.runner`), on any device and in any number type.

In: feeds. Out: logits as NumPy arrays. Keys and values of what was read lie in `rows`.

Shapes: B rows of a pass, Q tokens of the longest feed, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from glmkit.blanks.media import check_media, one_table
from glmkit.generation.rows import Row, Rows
from glmkit.generation.runner import Answer, Feed


class TorchRunner:
    """A `GLMForConditionalGeneration` in evaluation mode as a `Runner`.

    Rows of the cache are compact: closing a sequence moves the last row into its place. Forking copies a row. With its last
    sequence all memory is given back: a runner without sequences is as good as a new one, and the model may be changed or
    moved then.
    """

    def __init__(self, model: Any):
        self.model = model
        self._cache = Rows(len(model.glm.transformer.layers))
        self._rows: list[Row] = []
        self._sequences: dict[int, Row] = {}
        self._opened = 0

    def open(self) -> int:
        """Returns the handle of a new, empty sequence."""
        row = Row(len(self._rows))
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
    def forward(self, feeds: Sequence[Feed]) -> list[np.ndarray]:
        """Reads each feed: empty sequences first, then the others, similar lengths in one pass."""
        width = self.model.config.hidden_size  # a configuration takes its time to answer
        for feed in feeds:
            check_media(feed.ids, feed.media, width)
        self._cache.reserve(len(self._rows), 0)
        rows = [self._sequences[feed.sequence] for feed in feeds]
        assert len(set(map(id, rows))) == len(rows), "a sequence was given two feeds at once"
        assert not any(feed.prefix and row.length for feed, row in zip(feeds, rows, strict=True))
        results: list[Any] = [None] * len(feeds)
        before = [row.length for row in rows]
        try:
            for group, answers in self._passes(feeds, rows):
                for place, answer in zip(group, answers, strict=True):
                    results[place] = answer
                    rows[place].length += len(feeds[place].ids)
        except BaseException:
            for row, length in zip(rows, before, strict=True):
                row.length = length
            raise
        return results

    def _passes(
        self, feeds: Sequence[Feed], rows: Sequence[Row]
    ) -> Iterator[tuple[list[int], Iterable[Answer]]]:
        """Yields which feeds were read together, and what answers each."""
        counts, before = [len(feed.ids) for feed in feeds], [row.length for row in rows]
        for begins in (True, False):
            chosen = [place for place, length in enumerate(before) if (length == 0) == begins]
            for group in _similar(chosen, counts):
                group = self._together(group, rows)
                yield group, self._pass([feeds[i] for i in group], [rows[i] for i in group])

    def _together(self, group: list[int], rows: Sequence[Row]) -> list[int]:
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

    def _pass(self, feeds: Sequence[Feed], rows: Sequence[Row]) -> Iterable[Answer]:
        """Reads feeds of neighbouring rows, shorter ones filled up behind; returns logits [num_logits, V] of each."""
        device, cache = self.model.device, self._cache
        counts = [len(feed.ids) for feed in feeds]
        queries = max(counts)
        cache.begin(rows, queries)
        ids, media = one_table([feed.ids for feed in feeds], [feed.media for feed in feeds], device)
        fed = torch.tensor(
            [
                [[*one, *[0] * (queries - len(one))] for one in (some, feed.positions, feed.blocks)]
                for some, feed in zip(ids, feeds, strict=True)
            ]
        ).to(device)
        inputs: dict[str, torch.Tensor] = {}
        if cache.places is not None:
            # Each token sees its row's cached tokens and, of the new ones, those up to itself.
            keys = torch.arange(cache.past + queries)
            inputs["attention_mask"] = (keys <= cache.places[..., None])[:, None].to(device)
        else:
            inputs["prefix_lengths"] = torch.tensor([feed.prefix for feed in feeds], device=device)
        if media is not None:
            inputs["media_embeds"] = media
        hidden = self.model.glm(
            input_ids=fed[:, 0], position_ids=fed[:, 1:], cache=cache, use_cache=True, **inputs
        ).last_hidden_state
        wanted = [feed.num_logits for feed in feeds]
        if set(wanted) == {1} and min(counts) == queries:
            hidden = hidden[:, -1]
        else:
            row = [index for index, number in enumerate(wanted) for _ in range(number)]
            column = [
                place
                for number, count in zip(wanted, counts, strict=True)
                for place in range(count - number, count)
            ]
            hidden = hidden[row, column]
        return self._answers(feeds, self.model.lm_head(hidden))

    def _answers(self, feeds: Sequence[Feed], logits: torch.Tensor) -> Iterable[Answer]:
        """Returns what answers each feed, from the logits [sum of num_logits, V] that all of them want."""
        return split_logits(logits, [feed.num_logits for feed in feeds])


def split_logits(logits: torch.Tensor, counts: Sequence[int]) -> list[np.ndarray]:
    """Returns logits [sum of counts, V] on the CPU, float32, in parts of `counts` rows."""
    return np.split(logits.float().cpu().numpy(), np.cumsum(counts)[:-1])


def _similar(places: Sequence[int], counts: Sequence[int]) -> Iterator[list[int]]:
    """Yields places in groups whose longest feed is little longer than the shortest, so that little is filled up."""
    group: list[int] = []
    for place in sorted(places, key=lambda one: counts[one]):
        if group and counts[place] > 16 + 1.5 * counts[group[0]]:
            yield group
            group = []
        group.append(place)
    if group:
        yield group
