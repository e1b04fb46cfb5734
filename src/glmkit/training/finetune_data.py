"""Records of labelled data -> samples to fine-tune on and to hold out, all of them made before training starts.

In: a task, files, a tokenizer. Out: `TaskSamples`. Questions are rendered and encoded by the functions that prompts and
stores use (`tasks`), laid out by `blanks`. A record that does not fit the task is refused here: file, line, remedy.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from glmkit.blanks.layout import Example
from glmkit.blanks.windows import left_to_right_examples
from glmkit.errors import DataError
from glmkit.multimodal.media import Medium
from glmkit.tasks.choices import Choices, encode_choices
from glmkit.tasks.encoding import CountRows, decode_sample, encode_record
from glmkit.tasks.records import drawn_share, read_questions
from glmkit.tasks.rendering import asked_language, expand, question
from glmkit.tasks.tagging import Tagged, encode_tagged, tag_names, tagged_text
from glmkit.tasks.task import Task
from glmkit.tokens.blanked import encode_plain
from glmkit.training.finetune_settings import TaskData

logger = logging.getLogger(__name__)

_LIMIT = 5
"""First word of the key of the random generator that chooses few of many records."""

Variant = Choices | Example | Tagged


@dataclass(frozen=True)
class Sample:
    """One question.

    Attributes:
        where: `file:line`.
        variants: The question, asked by each of the task's patterns.
        weight: Factor of its loss.
        media: In the order in which the variants' ids count their rows.
    """

    where: str
    variants: tuple[Variant, ...]
    weight: float = 1.0
    media: tuple[Medium, ...] = ()

    @property
    def right(self) -> int | None:
        """Index of the right choice, or None where an answer is written freely."""
        first = self.variants[0]
        return first.right if isinstance(first, Choices) else None

    @property
    def ids(self) -> np.ndarray:
        """What is read of it, by the first pattern, as ids."""
        first = self.variants[0]
        return first.input_ids if isinstance(first, Example) else first.part_a

    @property
    def length(self) -> int:
        """About how many places it takes."""
        return len(self.ids)


@dataclass
class TaskSamples:
    """The samples of one task.

    Attributes:
        name: The run's name of the task.
        task: The task.
        train, valid: Samples.
        counts: What became of the records: `shortened`, `dropped`, `repeated` (of `train`, as they are in `valid`).
        notes: What the user should know.
    """

    name: str
    task: Task
    train: list[Sample]
    valid: list[Sample]
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def has_choices(self) -> bool:
        """Whether answers are chosen, not written."""
        return self.task.kind in ("classification", "multiple_choice")

    @property
    def labels(self) -> list[str]:
        """A classification's labels in the order of its choices, or tags; empty where each record has its own."""
        return tag_names(self.task) if self.task.kind == "tagging" else list(self.task.labels)

    def fingerprint(self) -> str:
        """Returns a hash of all samples to train on."""
        digest = hashlib.blake2b(digest_size=8)
        for sample in self.train:
            digest.update(_content(sample))
            digest.update(np.float64(sample.weight).tobytes())
        return digest.hexdigest()


def read_task(
    name: str,
    task: Task,
    data: TaskData,
    tokenizer: Any,
    max_length: int,
    seed: int,
    count_rows: CountRows | None = None,
) -> TaskSamples:
    """Reads, renders and encodes all records of a task.

    Args:
        name: The run's name of the task.
        task: The task.
        data: Its files.
        tokenizer: A `GLMTokenizer`.
        max_length: Of a sample, in tokens; longer records are shortened as the task says, or left out.
        seed: Chooses the records where `data.limit` is below their number.
        count_rows: How many rows of embeddings a medium takes; None for a model that reads none.

    Raises:
        DataError: A file or record that cannot be used (file, line, remedy), nothing to train on or to hold out, or
            only one class.
    """
    counts: Counter[str] = Counter()
    there: set[Any] = set()
    sides: dict[str, list[Sample]] = {"train": [], "valid": []}
    for side, sources in (("valid", data.valid), ("train", data.train)):
        for record, where in read_questions(task, sources, data.rename):
            for medium in (one for name in task.media for one in record.get(name) or ()):
                if medium.key not in there and medium.is_file:
                    medium.file().close()  # says at once that it is missing
                    there.add(medium.key)
            drawn = side == "train" and not data.valid
            chosen = "valid" if drawn and drawn_share(task, record) < data.valid_ratio else side
            for one in expand(task, record, where, data.language):
                sides[chosen] += _samples(
                    task, one, where, data, tokenizer, max_length, counts, count_rows
                )
    seen = {_content(sample) for sample in sides["valid"]}
    train = [sample for sample in sides["train"] if _content(sample) not in seen]
    counts["repeated"] = len(sides["train"]) - len(train)
    found = TaskSamples(name, task, train, sides["valid"], counts)
    _check(found, data)
    rng = np.random.default_rng((_LIMIT, seed))
    found.train = _few(found.train, data.limit, rng)
    found.valid = _few(found.valid, data.valid_limit, rng)
    if task.kind == "classification":
        _weigh(found, data.class_weights)
    for key, text in _NOTES.items():
        if counts[key]:
            found.notes.append(f"{name}: {counts[key]:,} {text}")
    for note in found.notes:
        logger.warning(note)
    return found


def held_out_records(task: Task, data: TaskData, count: int) -> list[tuple[dict[str, Any], str]]:
    """Returns the first `count` of the records that `read_task` holds out, each with where it stands."""
    found = (
        (record, where)
        for record, where in read_questions(task, data.valid or data.train, data.rename)
        if data.valid or drawn_share(task, record) < data.valid_ratio
    )
    return list(islice(found, count))


_NOTES = {
    "dropped": "sample(s) left out: no answer, or no room for it within max_length",
    "repeated": "sample(s) of train left out: valid has the same",
}


def _samples(
    task: Task,
    record: Mapping[str, Any],
    where: str,
    data: TaskData,
    tokenizer: Any,
    max_length: int,
    counts: Counter[str],
    count_rows: CountRows | None,
) -> Iterator[Sample]:
    """Yields the samples of one record: one, several windows of a long text, or none."""
    if task.kind == "tagging":
        for tagged in encode_tagged(task, *tagged_text(task, record, where), tokenizer, max_length):
            yield Sample(where, (tagged,))
        return
    if task.kind == "text":
        text = question(task, record, where, language=data.language).answer
        ids = np.array([*encode_plain(tokenizer, text), tokenizer.special_ids.eos])
        for example in left_to_right_examples(ids, tokenizer.special_ids, max_length):
            yield Sample(where, (example,))
        return
    variants: list[Variant] = []
    media: tuple[Medium, ...] = ()
    shortened = False
    for pattern in range(len(task.patterns[asked_language(task, record, data.language)])):
        options: dict[str, Any] = {
            "pattern": pattern,
            "language": data.language,
            "count_rows": count_rows,
        }
        found: Variant | None = None
        if task.label is not None:
            found, cut = encode_choices(task, record, tokenizer, max_length, where, **options)
            seen = () if found is None else found.media
        else:
            stored, seen, cut = encode_record(task, record, tokenizer, max_length, where, **options)
            found = None if stored is None else decode_sample(stored, tokenizer.special_ids)
        shortened |= cut
        if found is None:
            continue
        if variants and seen != media:
            raise DataError(
                f"{where}: the patterns of the task {task.name!r} have the record's media in different orders; let all of them "
                "have its fields in one order"
            )
        variants.append(found)
        media = seen
    counts["shortened"] += shortened
    counts["dropped"] += not variants
    if variants:
        yield Sample(where, tuple(variants), media=media)


def _check(found: TaskSamples, data: TaskData) -> None:
    """Refuses what nothing can be learnt from, or measured on."""
    for side, sources in (("train", data.train), ("valid", data.valid or data.train)):
        if not getattr(found, side):
            counts = ", ".join(f"{count} {name}" for name, count in found.counts.items() if count)
            raise DataError(
                f"{', '.join(sources)}: no record is left for {side} of the task {found.name!r}"
                f"{f' ({counts})' if counts else ''}; equal records stay on one side. "
                "Give more records, name files for both, raise valid_ratio or max_length."
            )
    if found.task.kind == "tagging" and not any(_spans(sample) for sample in found.train):
        raise DataError(
            f"{', '.join(data.train)}: none of {len(found.train):,} records has a span in the field {found.task.label!r}; "
            "there is nothing to learn"
        )
    if found.task.kind != "classification":
        return
    classes = Counter(found.labels[sample.right or 0] for sample in found.train)
    if len(classes) < 2:
        raise DataError(
            f"{', '.join(data.train)}: all {len(found.train):,} records have the label {next(iter(classes))!r}; a "
            "classification needs at least two. Is the file sorted and cut, or the wrong field renamed to "
            f"{found.task.label!r}?"
        )
    missing = [label for label in found.labels if label not in classes]
    if missing:
        found.notes.append(
            f"{found.name}: no record of train has the label(s) {', '.join(missing)}"
        )


def _spans(sample: Sample) -> int:
    first = sample.variants[0]
    return len(first.spans) if isinstance(first, Tagged) else 0


def _few(samples: list[Sample], limit: int | None, rng: np.random.Generator) -> list[Sample]:
    """Returns at most `limit` samples, in their order, as many of each class as there are."""
    if limit is None or limit >= len(samples):
        return samples
    # The n-th sample of a class comes before the (n + 1)-th of any.
    turns: Counter[int | None] = Counter()
    ranked: list[tuple[int, int, int]] = []
    for index in rng.permutation(len(samples)).tolist():
        right = samples[index].right
        ranked.append((turns[right], len(ranked), index))
        turns[right] += 1
    chosen = sorted(index for *_, index in sorted(ranked)[:limit])
    return [samples[index] for index in chosen]


def _weigh(found: TaskSamples, weights: Mapping[str, float] | str | None) -> None:
    """Gives the samples to train on the weights of their classes."""
    if weights is None:
        return
    classes = Counter(sample.right for sample in found.train)
    if weights == "balanced":
        mean = len(found.train) / len(classes)
        factors = {right: mean / count for right, count in classes.items()}
    else:
        assert isinstance(weights, Mapping)
        factors = {found.labels.index(label): value for label, value in weights.items()}
    found.train = [replace(sample, weight=factors.get(sample.right, 1.0)) for sample in found.train]


def _content(sample: Sample) -> bytes:
    """Returns a sample's question and right answer by the first pattern, as bytes."""
    first = sample.variants[0]
    parts: Sequence[np.ndarray]
    if isinstance(first, Choices):
        parts = (
            [first.part_a] if first.right is None else [first.part_a, first.contents[first.right]]
        )
    elif isinstance(first, Tagged):
        parts = [first.part_a, first.tags]
    else:
        parts = [first.input_ids, first.labels]
    media = [str(one.key).encode() for one in sample.media]
    return b"|".join([*media, *(np.ascontiguousarray(part).tobytes() for part in parts)])
