"""A token store -> an endless, exactly resumable stream of packed pretraining batches.

In: a `TokenStore`, the special tokens' ids, the objectives' settings, and samples of tasks. Out: batches as the model
reads them, several samples a row. The texts of an epoch are shuffled and read window by window; of a window all rows
are planned (`blanks.packing`), and only this process's rows are made, each by a generator keyed (seed, epoch, window,
row). So a batch depends on the seed and its place alone, not on processes or workers, and a place is three numbers.
Knows no model and no text.

Shapes: B rows of this process, L tokens of a row.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from glmkit.blanks.layout import Example, collate_packed
from glmkit.blanks.objectives import OBJECTIVES, ObjectiveSettings, make_any_example
from glmkit.blanks.packing import Row, Slot, plan_rows
from glmkit.errors import DataError
from glmkit.special_tokens import SpecialTokenIds
from glmkit.tasks.encoding import decode_sample
from glmkit.tasks.mixture import MixtureSettings, TaskMixture
from glmkit.tokens.store import TokenStore

logger = logging.getLogger(__name__)

WINDOW_ROWS = 512
"""Rows of a window, about."""

UNIT_ROWS = 4
"""Texts longer than so many rows are cut before they are shuffled, into parts of equal length."""

_ORDER, _PLAN, _BLANKS = 1, 2, 3
"""First words of the keys of the random generators."""


class Sample(NamedTuple):
    """One sample and where it comes from: a document's index in the store, or `task:index`."""

    objective: str
    example: Example
    document: int | str


class Place(NamedTuple):
    """One row of the stream."""

    epoch: int
    window: int
    row: int


class PretrainingStream:
    """Iterates over batches for ever; `state_dict` after a batch is where the next one begins.

    A batch is a dict of int64 tensors: `input_ids`, `labels`, `segment_ids`, `objective_ids` [B, L] (index in
    `objective_names`, of the sample that a token belongs to), `position_ids` [B, 2, L]; and `documents`, for each row
    the documents in it (see `Sample`).

    Args:
        store: The ids; each document is [CLS] … <|endoftext|>.
        specials: Ids of the special tokens.
        settings: Of the objectives.
        rows: Rows of a batch in one process.
        row_length: In tokens.
        seed: Of everything that is drawn.
        sentence_ends: bool [vocabulary], for the sentence objective.
        sentinels: Ids of the sentinel tokens, where the settings want them.
        tasks: Name -> samples of a task that are mixed in.
        mixture: How they are.
        rank: This process takes the rank-th part of each global batch of `rows` · `world_size` rows.
        world_size: Number of processes; the global batches' rows do not depend on how they are divided.
        num_workers: Processes that make batches ahead; 0 makes them when they are asked for.
        window_rows: Rows, about, that are planned together; more waste less padding and cost more on resuming.

    Attributes:
        objective_names: `OBJECTIVES`, then the tasks, those without held-out samples too.

    Raises:
        DataError: The store has no text, or a task's sample does not fit a row.
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
        sentinels: np.ndarray | None = None,
        tasks: Mapping[str, TokenStore] | None = None,
        mixture: MixtureSettings | None = None,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        window_rows: int = WINDOW_ROWS,
    ):
        self.store, self.specials, self.settings = store, specials, settings
        self.rows, self.row_length, self.seed = rows, row_length, seed
        self.sentence_ends, self.sentinels = sentence_ends, sentinels
        self.rank, self.world_size, self.num_workers = rank, world_size, num_workers
        lengths = np.diff(store.offsets)
        self._unit_ends = np.cumsum(-(-lengths // (UNIT_ROWS * row_length)))
        self.num_units = int(self._unit_ends[-1]) if len(lengths) else 0
        if not self.num_units:
            raise DataError(f"{store.folder} holds no text to train on.")
        windows = max(1, round(store.num_tokens / (window_rows * row_length)))
        self._window_units = -(-self.num_units // windows)
        self.num_windows = -(-self.num_units // self._window_units)
        self.mixture = None
        if tasks:
            self.mixture = TaskMixture(
                tasks,
                mixture or MixtureSettings(),
                text_tokens=store.num_tokens,
                num_windows=self.num_windows,
                row_length=row_length,
                seed=seed,
            )
        names = (*OBJECTIVES, *(mixture.folders if mixture else ()), *(tasks or ()))
        self.objective_names = tuple(dict.fromkeys(names))
        self._place = Place(0, 0, 0)
        self._epochs = 0.0
        self._plans: dict[tuple[int, int], list[Row]] = {}
        self._orders: dict[int, np.ndarray] = {}
        self._bits: tuple[tuple[int, ...], np.random.Philox, Any] | None = None
        self._ahead: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        if self.num_workers:
            if self._ahead is None:
                self._ahead = iter(_loader(self))
            batch, self._place, self._epochs = next(self._ahead)
        else:
            batch = self.arrays([self.make_row(place) for place in self.next_places()])
        return _as_tensors(batch)

    @property
    def epochs(self) -> float:
        """Passes over the store so far."""
        return self._epochs

    def state_dict(self) -> dict[str, int]:
        """Returns where the next batch begins: small, and JSON can hold it."""
        return self._place._asdict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Goes to where `state_dict` was taken, with any number of processes and workers."""
        self._place, self._ahead = Place(**state), None
        self._epochs = self._passed()

    def close(self) -> None:
        """Ends the workers at once; the next batch would start them again, where the last one ended."""
        self._ahead = None

    def next_places(self) -> list[Place]:
        """Goes on by one global batch; returns the places of this process's rows."""
        places = [self._next_place() for _ in range(self.rows * self.world_size)]
        self._epochs = self._passed()
        return places[self.rank * self.rows : (self.rank + 1) * self.rows]

    def held_out(self, max_rows: int) -> list[dict[str, Any]]:
        """Returns batches of the first `max_rows` rows of epoch 0, or of all there are; the last may be smaller."""
        places: list[Place] = []
        for window in range(self.num_windows):
            places += [Place(0, window, row) for row in range(len(self.plan(0, window)))]
            if len(places) >= max_rows:
                break
        rows = [self.make_row(place) for place in places[:max_rows]]
        return [
            _as_tensors(self.arrays(rows[i : i + self.rows]))
            for i in range(0, len(rows), self.rows)
        ]

    def arrays(self, rows: list[list[Sample]]) -> dict[str, Any]:
        """Returns the samples of some rows as one batch of NumPy arrays."""
        batch: dict[str, Any] = collate_packed(
            [[sample.example for sample in row] for row in rows], self.specials.pad, self.row_length
        )
        objective_ids = np.zeros_like(batch["segment_ids"])
        for index, row in enumerate(rows):
            numbers = [0, *(self.objective_names.index(sample.objective) for sample in row)]
            objective_ids[index] = np.array(numbers)[batch["segment_ids"][index]]
        batch["objective_ids"] = objective_ids
        batch["documents"] = [[sample.document for sample in row] for row in rows]
        return batch

    def plan(self, epoch: int, window: int) -> list[Row]:
        """Returns the rows of one window; a slot's text is a document, its start and stop are places in the store.

        Of a task's sample, the objective is the task and the text its index there.
        """
        if (epoch, window) not in self._plans:
            units = self._order(epoch)[window * self._window_units :][: self._window_units]
            documents, starts, ends, inside = self._units(units)
            number = epoch * self.num_windows + window
            rows = plan_rows(
                (ends - starts).tolist(),
                inside.tolist(),
                self.row_length,
                np.random.default_rng((_PLAN, self.seed, epoch, window)),
                self.settings,
                [] if self.mixture is None else self._task_slots(self.mixture.window(number)),
            )
            begins = list(zip(documents.tolist(), starts.tolist(), strict=True))
            rows = [
                [_in_store(s, *begins[s.text]) if s.objective in OBJECTIVES else s for s in row]
                for row in rows
            ]
            # A batch may begin in one window and end in the next.
            self._plans = {**dict(list(self._plans.items())[-1:]), (epoch, window): rows}
        return self._plans[epoch, window]

    def make_row(self, place: Place) -> list[Sample]:
        """Returns the samples of one row."""
        row = self.plan(place.epoch, place.window)[place.row]
        rng = self._generator(place)
        return [sample for slot in row if (sample := self._make(slot, rng)) is not None]

    def _make(self, slot: Slot, rng: np.random.Generator) -> Sample | None:
        """Returns a slot's sample, or None where no objective of the settings can use it."""
        if slot.objective not in OBJECTIVES:
            assert self.mixture is not None
            ids = self.mixture.stores[self.mixture.names.index(slot.objective)].document(slot.text)
            name = f"{slot.objective}:{slot.text}"
            example = decode_sample(ids, self.specials, rng, max_hidden=slot.max_blanks)
            return Sample(slot.objective, example, name)
        ids = self.store.tokens(slot.start, slot.stop)
        if slot.needs_cls:
            ids = np.concatenate(([self.specials.cls], ids))
        made = make_any_example(
            ids,
            rng,
            self.specials,
            self.settings,
            self.sentence_ends,
            drawn=slot.objective,
            span_lengths=slot.span_lengths,
            max_blanks=slot.max_blanks,
            sentinels=self.sentinels,
        )
        return None if made is None else Sample(*made, slot.text)

    def _generator(self, place: Place) -> np.random.Generator:
        """Returns the generator of a row: one of Philox's independent streams, cheaper than a new generator."""
        key = (_BLANKS, self.seed, place.epoch, place.window)
        if self._bits is None or self._bits[0] != key:
            bits = np.random.Philox(np.random.SeedSequence(key))
            self._bits = key, bits, bits.state
        _, bits, state = self._bits
        state["state"]["counter"] = np.array([0, 0, 0, place.row], np.uint64)
        bits.state = state
        return np.random.Generator(bits)

    def _task_slots(self, drawn: list[tuple[int, int, int]]) -> list[Slot]:
        assert self.mixture is not None
        slots = []
        for task, index, hidden in drawn:
            size = int(self.mixture.sizes[task][index])
            slots.append(Slot(index, 0, size, size + 2 * hidden, self.mixture.names[task]))
        return slots

    def _units(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Returns documents, first tokens, ends in the store [n], and whether they begin inside a document."""
        documents = np.searchsorted(self._unit_ends, units, side="right")
        first = np.where(documents > 0, self._unit_ends[documents - 1], 0)
        count, number = self._unit_ends[documents] - first, units - first
        begin, end = self.store.offsets[documents], self.store.offsets[documents + 1]
        starts = begin + (end - begin) * number // count
        return documents, starts, begin + (end - begin) * (number + 1) // count, number > 0

    def _next_place(self) -> Place:
        empty = 0
        while True:
            epoch, window, row = self._place
            if row < len(self.plan(epoch, window)):
                self._place = Place(epoch, window, row + 1)
                return Place(epoch, window, row)
            empty += row == 0
            if empty > self.num_windows:
                raise DataError(
                    f"{self.store.folder}: no document is long enough for any objective; give longer texts."
                )
            last = window + 1 == self.num_windows
            self._place = Place(epoch + last, 0 if last else window + 1, 0)

    def _passed(self) -> float:
        epoch, window, row = self._place
        share = row / max(1, len(self.plan(epoch, window))) if row else 0.0
        return epoch + (window + share) / self.num_windows

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            rng = np.random.default_rng((_ORDER, self.seed, epoch))
            self._orders = {epoch: rng.permutation(self.num_units)}
        return self._orders[epoch]


def _in_store(slot: Slot, document: int, start: int) -> Slot:
    return slot._replace(text=document, start=start + slot.start, stop=start + slot.stop)


class _Worker(IterableDataset):
    """Makes every n-th batch of a stream, in each of n worker processes."""

    def __init__(self, stream: PretrainingStream):
        self._stream = stream

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Place, float]]:
        stream, info = self._stream, get_worker_info()
        assert info is not None
        turn = 0
        while True:
            places = stream.next_places()
            if turn % info.num_workers == info.id:
                rows = [stream.make_row(place) for place in places]
                yield stream.arrays(rows), stream._place, stream.epochs
            turn += 1


def _loader(stream: PretrainingStream) -> DataLoader:
    """Returns batches made ahead by workers, in their order, each with where the next one begins."""
    return DataLoader(
        _Worker(copy(stream)),  # no cycle: the workers end when the stream is let go
        batch_size=None,
        num_workers=stream.num_workers,
        collate_fn=_as_it_is,
        worker_init_fn=_leave_interrupts,
        generator=torch.Generator(),  # the global one's numbers must not depend on workers
    )


def _leave_interrupts(_: int) -> None:
    # Ctrl-C and Slurm's SIGTERM go to the workers too; the process that trains still wants its batches, to save a
    # checkpoint. When it ends they notice.
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)


def _as_it_is(item: Any) -> Any:
    return item


def _as_tensors(batch: dict[str, Any]) -> dict[str, Any]:
    # In this process: tensors from a worker would each need a file descriptor and shared memory.
    return {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in batch.items()
    }
