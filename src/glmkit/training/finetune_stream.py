"""Samples of one or several tasks -> an endless, exactly resumable stream of batches, each of one task.

In: `TaskSamples`. Out: batches as the model reads them. Of an epoch of a task the samples are shuffled, and those of
like length share a batch; the tasks take turns by their shares. All of it depends on the seed and on how many batches of
each task there were before: that is the state. Knows no model.

Shapes: B samples of this process, L tokens of a row, C choices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from glmkit.blanks.choice_rows import collate_choices
from glmkit.blanks.layout import IGNORE_INDEX, Example, collate, lay_out
from glmkit.errors import ConfigError
from glmkit.multimodal.media import Medium
from glmkit.multimodal.processor import Prepared, shift_rows
from glmkit.special_tokens import SpecialTokenIds
from glmkit.tasks.choices import Choices
from glmkit.tasks.tagging import Tagged
from glmkit.training.finetune_data import Sample, TaskSamples, Variant

_ORDER = 6
"""First word of the keys of the random generators."""

_SORTED_TOGETHER = 32
"""Batches whose samples are sorted by length together."""


class FinetuneStream:
    """Iterates over batches for ever; `state_dict` after a batch is where the next one begins.

    Args:
        tasks: Samples of the tasks.
        specials: Ids of the special tokens.
        rows: Samples of a batch in one process.
        seed: Of the order.
        head: Whether a classification has a head; else its words are compared.
        weights: Factors of the tasks' shares, in their order.
        temperature: A task of n batches counts as n^(1/temperature).
        rank: This process takes the rank-th part of each batch of `rows` · `world_size` samples.
        world_size: Number of processes.
        prepare: Makes tensors of media (a `MediaProcessor`); None for tasks without any.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSamples],
        specials: SpecialTokenIds,
        *,
        rows: int,
        seed: int,
        head: bool = False,
        weights: Sequence[float] | None = None,
        temperature: float = 1.0,
        rank: int = 0,
        world_size: int = 1,
        prepare: Prepare | None = None,
    ):
        self.tasks, self.specials, self.head, self.prepare = tasks, specials, head, prepare
        self.rows, self.seed, self.rank, self.world_size = rows, seed, rank, world_size
        self._batches = [-(-len(task.train) // (rows * world_size)) for task in tasks]
        wanted = np.array(weights or [1.0] * len(tasks)) * np.array(self._batches, float) ** (
            1 / temperature
        )
        self._shares = wanted / wanted.sum()
        self._counts = [0] * len(tasks)
        self._orders: dict[tuple[int, int], list[np.ndarray]] = {}
        self._fingerprint = "".join(task.fingerprint() for task in tasks)

    @property
    def batches_per_epoch(self) -> int:
        """Batches in which as many are read as there are in all tasks together."""
        return sum(self._batches)

    @property
    def epochs(self) -> float:
        """Passes so far."""
        return sum(self._counts) / self.batches_per_epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        # The task that is furthest behind its share.
        behind = self._shares * (sum(self._counts) + 1) - self._counts
        number = int(np.argmax(behind))
        epoch, place = divmod(self._counts[number], self._batches[number])
        self._counts[number] += 1
        chosen = self._order(number, epoch)[place]
        own = chosen[self.rank * self.rows : (self.rank + 1) * self.rows]
        samples = [(int(index), self.tasks[number].train[index]) for index in own]
        # Another pattern each time a sample is read.
        variants = [one.variants[(index + epoch) % len(one.variants)] for index, one in samples]
        media = [one.media for _, one in samples]
        batch = make_batch(
            variants, self.specials, head=self.head, media=media, prepare=self.prepare
        )
        batch["task"] = number
        batch["weights"] = torch.tensor([one.weight for _, one in samples])
        batch["where"] = [one.where for _, one in samples]
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Returns where the next batch begins: small, and JSON can hold it."""
        return {"counts": list(self._counts), "fingerprint": self._fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to where `state_dict` was taken.

        Raises:
            ConfigError: It was taken with other records.
        """
        if state["fingerprint"] != self._fingerprint:
            raise ConfigError(
                "the records to train on are not those that this run began with; put them back, or choose another "
                "trainer.output_dir"
            )
        self._counts = list(state["counts"])

    def close(self) -> None:
        """Nothing to let go of: batches are made when they are asked for."""

    def _order(self, number: int, epoch: int) -> list[np.ndarray]:
        """Returns the indices [rows · world_size] of each batch of one epoch of a task."""
        if (number, epoch) not in self._orders:
            self._orders = {key: one for key, one in self._orders.items() if key[0] != number}
            rng = np.random.default_rng((_ORDER, self.seed, number, epoch))
            samples, size = self.tasks[number].train, self.rows * self.world_size
            order = _by_media(samples, rng)
            order = np.resize(order, self._batches[number] * size)  # the last batch is filled up
            lengths = np.array([_length(sample) for sample in samples])[order]
            batches = []
            for start in range(0, len(order), _SORTED_TOGETHER * size):
                part = slice(start, start + _SORTED_TOGETHER * size)
                together = order[part][np.argsort(lengths[part], kind="stable")]
                batches += list(together.reshape(-1, size))
            self._orders[number, epoch] = [batches[i] for i in rng.permutation(len(batches))]
        return self._orders[number, epoch]


def _by_media(samples: Sequence[Sample], rng: np.random.Generator) -> np.ndarray:
    """Returns int64 [samples]: all of them in random order, but those of the same media one after the other."""
    order = rng.permutation(len(samples))
    groups: dict[Any, list[int]] = {}
    for index in order.tolist():
        media = samples[index].media
        groups.setdefault(tuple(one.key for one in media) if media else index, []).append(index)
    return np.array([index for group in groups.values() for index in group])


def _length(sample: Sample) -> int:
    """Returns what samples are sorted by: samples of one medium and about as long share a batch, in which it is encoded once."""
    return sample.length // 16 if sample.media else sample.length


def held_out_batches(
    samples: Sequence[Sample],
    specials: SpecialTokenIds,
    rows: int,
    *,
    pattern: int,
    head: bool,
    prepare: Prepare | None = None,
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Yields (indices, batch) of all samples that can be asked by a pattern, those of like length together."""
    asked = [index for index, one in enumerate(samples) if pattern < len(one.variants)]
    asked.sort(key=lambda index: _length(samples[index]))
    for start in range(0, len(asked), rows):
        chosen = asked[start : start + rows]
        variants = [samples[index].variants[pattern] for index in chosen]
        media = [samples[index].media for index in chosen]
        yield chosen, make_batch(variants, specials, head=head, media=media, prepare=prepare)


Prepare = Callable[[Sequence[Medium]], Prepared]
"""Media -> tensors, and the rows of each; media that are the same are prepared once."""


def make_batch(
    variants: Sequence[Variant],
    specials: SpecialTokenIds,
    *,
    head: bool,
    media: Sequence[Sequence[Medium]] = (),
    prepare: Prepare | None = None,
) -> dict[str, Any]:
    """Returns the questions as one batch of tensors; with media (`prepare`) theirs are among the `inputs`.

    `inputs` is what the model reads. Beside it: with choices `right` int64 [B] and `predictions` (see `collate_choices`)
    and `num_choices` int64 [B]; with a head `right`; of tagging `tags` int64 [B, L], -100 where no unit begins; else `inputs` has
    `labels` [B, L].
    """
    if any(media):
        assert prepare is not None
        prepared = prepare([one for some in media for one in some])
        shifted = _with_rows_of_batch(variants, media, prepared)
        batch = make_batch(shifted, specials, head=head)
        batch["inputs"] |= prepared.tensors
        return batch
    first = variants[0]
    if isinstance(first, Tagged):
        return _tagged_batch(variants, specials)  # type: ignore[arg-type]
    if not isinstance(first, Choices):
        batch = collate(variants, specials.pad)  # type: ignore[arg-type]
        labels = batch["labels"]
        return {"inputs": _tensors(batch), "tokens": int((labels != IGNORE_INDEX).sum())}
    choices: list[Choices] = list(variants)  # type: ignore[arg-type]
    right = torch.tensor([-1 if one.right is None else one.right for one in choices])
    if head:
        examples = [lay_out(one.part_a, [], specials.sop) for one in choices]
        batch = collate(examples, specials.pad)
        del batch["labels"]
        return {"inputs": _tensors(batch), "right": right}
    batch = collate_choices(
        [(one.part_a, one.contents) for one in choices],
        mask_ids=specials.masks,
        sop=specials.sop,
        eop=specials.eop,
        pad=specials.pad,
    )
    predictions = torch.from_numpy(batch.pop("predictions"))
    sizes = torch.tensor([len(one.contents) for one in choices])
    return {
        "inputs": _tensors(batch),
        "right": right,
        "predictions": predictions,
        "num_choices": sizes,
    }


def _with_rows_of_batch(
    variants: Sequence[Variant], media: Sequence[Sequence[Medium]], prepared: Prepared
) -> list[Variant]:
    """Returns questions whose ids name rows of the batch's table in the place of their own."""
    found: list[Variant] = []
    places = iter(zip(prepared.first_rows, prepared.counts, strict=True))
    for variant, some in zip(variants, media, strict=True):
        runs = [next(places) for _ in some]
        if isinstance(variant, Example):
            found.append(replace(variant, input_ids=shift_rows(variant.input_ids, runs)))
        else:
            found.append(replace(variant, part_a=shift_rows(variant.part_a, runs)))  # type: ignore[type-var]
    return found


def _tagged_batch(samples: Sequence[Tagged], specials: SpecialTokenIds) -> dict[str, Any]:
    batch = collate([lay_out(one.part_a, [], specials.sop) for one in samples], specials.pad)
    tags = batch.pop("labels")
    for row, one in zip(tags, samples, strict=True):
        row[one.places] = one.tags
    count = sum(len(one.places) for one in samples)
    return {"inputs": _tensors(batch), "tags": torch.from_numpy(tags), "tokens": count}


def _tensors(batch: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in batch.items()}
