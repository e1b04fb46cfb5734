"""The runner: sequences of tokens in, logits out; what was read stays cached.

In: for each of several sequences the tokens that it reads next, with their 2-D positions. Out: logits after the last of
them. `Runner` is what the engine and the search for the n likeliest ask of a model; `TorchRunner` is that on torch, on any
device and in any number type. It knows no blanks, no settings and no text, and never chooses a token. A runner serves one
caller at a time (the engine has the lock).

Shapes: B rows of a pass, Q tokens of the longest feed, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from glmkit.errors import GenerationError
from glmkit.generation.rows import Row, Rows
from glmkit.model.media import check_media, one_table


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
        media: [M, H], the rows that ids from `FIRST_MEDIA_ID` on mean, or None where there are no such ids.
        barred: For each place whose logits are wanted a bool array [≤ V], the tokens that may not stand there. A runner that
            `chooses` may answer with the likeliest others instead of logits.
        goes_on: What the sequence most likely reads next: True, what is chosen after its last token, at the same position and one
            block position further (a runner may begin with that before it is told); False, nothing; None, nobody knows.
    """

    sequence: int
    ids: Sequence[int]
    positions: Sequence[int]
    blocks: Sequence[int]
    prefix: int = 0
    num_logits: int = 1
    media: torch.Tensor | None = None
    barred: Sequence[np.ndarray] | None = None
    goes_on: bool | None = None

    def __post_init__(self) -> None:
        assert 1 <= len(self.ids) == len(self.positions) == len(self.blocks), self
        assert 0 <= self.prefix <= len(self.ids), self
        assert 0 <= self.num_logits <= len(self.ids), self
        assert self.barred is None or len(self.barred) == self.num_logits, self


Answer = torch.Tensor | list[tuple[int, float]]
"""Logits, or at each place the likeliest token that is not barred with its log-probability among those (not finite if all are)."""


class Runner(Protocol):
    """A model that reads sequences of its own.

    One with the attribute `chooses` takes feeds with `barred` too, so that logits need not leave its device.
    """

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

        Raises:
            GenerationError: Ids of media without their rows, or rows that are not as wide as the model.
        """


METHODS = ("open", "fork", "truncate", "close", "length", "forward")
"""Of a `Runner`."""


def check_runner(runner: Any) -> None:
    """Refuses what is no runner.

    Raises:
        GenerationError: It lacks a method.
    """
    if lacks := [name for name in METHODS if not callable(getattr(runner, name, None))]:
        raise GenerationError(
            f"{type(runner).__name__} is no runner: it lacks {', '.join(lacks)}; see glmkit.generation.runner.Runner"
        )


def check_answers(runner: Any, feeds: Sequence[Feed], answers: Any) -> list[Any]:
    """Returns what a runner's `forward` answered to feeds.

    Raises:
        GenerationError: It is no list with float32 [num_logits, V] on the CPU for each feed, or with what the runner chose.
    """
    said, given = f"{type(runner).__name__}.forward returned", type(answers).__name__
    if not isinstance(answers, list | tuple) or len(answers) != len(feeds):
        given = f"{len(answers)} answers" if isinstance(answers, list | tuple) else given
        raise GenerationError(f"{said} {given} for {len(feeds)} feeds; it must return a list with one for each")  # fmt: skip
    for feed, answer in zip(feeds, answers, strict=True):
        if isinstance(answer, list):
            continue  # chosen by the runner
        given = type(answer).__name__
        if isinstance(answer, torch.Tensor):
            if (
                answer.dtype == torch.float32
                and answer.device.type == "cpu"
                and answer.shape[:-1] == (feed.num_logits,)
            ):
                continue
            given = f"{answer.dtype} {list(answer.shape)} on {answer.device}"
        raise GenerationError(f"{said} {given} for a feed; it must return torch.float32 [{feed.num_logits}, V] on the CPU")  # fmt: skip
    return list(answers)


def make_runner(model: Any) -> Runner:
    """Returns a model's own runner (a `NativeModel` has one), or one on torch; it holds no sequence yet."""
    return model.make_runner() if hasattr(model, "make_runner") else TorchRunner(model)


def follow(runner: Runner, sequences: Sequence[int], parents: Sequence[int]) -> list[int]:
    """Returns a sequence for each parent's child: the parent's own for the first, copies for the others.

    Args:
        runner: Whose sequences they are; those without a child are closed.
        sequences: Handles.
        parents: For each child the place of its parent in `sequences`.
    """
    for place, sequence in enumerate(sequences):
        if place not in parents:
            runner.close(sequence)
    return [
        runner.fork(sequences[parent]) if parent in parents[:place] else sequences[parent]
        for place, parent in enumerate(parents)
    ]


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
    def forward(self, feeds: Sequence[Feed]) -> list[torch.Tensor]:
        """Reads each feed: empty sequences first, then the others, similar lengths in one pass."""
        width = self.model.config.hidden_size  # a configuration takes its time to answer
        for feed in feeds:
            check_media(feed.ids, feed.media, width)
        self._cache.reserve(len(self._rows), 0)
        rows = [self._sequences[feed.sequence] for feed in feeds]
        assert len(set(map(id, rows))) == len(rows), "a sequence was given two feeds at once"
        assert not any(feed.prefix and row.length for feed, row in zip(feeds, rows, strict=True))
        results: list[Any] = [torch.empty(0)] * len(feeds)
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
        return logits.float().cpu().split([feed.num_logits for feed in feeds])


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
