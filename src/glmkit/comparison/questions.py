"""What is asked of every model: labelled texts, blanks inside texts, texts to go on with. The same for all of a seed.

In: files, a token store, the settings. Out: ids and `Question`s. What is held out does not depend on the seed of a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from glmkit.comparison.layouts import Question
from glmkit.comparison.settings import (
    ClassificationSettings,
    GenerationSettings,
    InfillingSettings,
    ObjectivesConfig,
)
from glmkit.errors import DataError, nearest
from glmkit.tasks.records import read_records
from glmkit.tokens.store import TokenStore

_DOCUMENTS, _SPANS, _RECORDS = 11, 12, 13
"""First words of the keys of the random generators."""

HELD_OUT = 0
"""The seed of what is measured on."""


@dataclass(frozen=True)
class Labelled:
    """Texts with labels.

    Attributes:
        ids: For each text, int64 [n], `[CLS]` first.
        labels: int64 [texts], indices in `names`.
        names: Of the classes.
    """

    ids: list[np.ndarray]
    labels: np.ndarray
    names: list[str]


def labelled(
    settings: ClassificationSettings, tokenizer: Any, max_length: int
) -> tuple[Labelled, Labelled]:
    """Reads the records to learn from and to measure on; longer texts lose their end.

    Raises:
        DataError: A file cannot be used, a field is missing (file and line), there is one class only, or a label of `valid`
            that `train` has not.
    """
    train = _few(list(_records(settings, settings.train)), settings.limit)
    valid = _few(list(_records(settings, settings.valid)), settings.valid_limit)
    names = sorted({label for _, label, _ in train})
    if len(names) < 2:
        raise DataError(
            f"classification.train has {len(names)} class(es) in field {settings.label!r}; at least 2 are needed"
        )
    for _, label, where in valid:
        if label not in names:
            raise DataError(
                f"{where}: label {label!r} is in no record of classification.train that is used (labels: "
                f"{', '.join(names[:20])}); raise classification.limit or remove the record"
            )
    if not valid:
        raise DataError("classification.valid holds no record to measure on")

    def encoded(records: Sequence[tuple[str, str, str]]) -> Labelled:
        found = tokenizer([text for text, _, _ in records], split_special_tokens=True)["input_ids"]
        labels = np.array([names.index(label) for _, label, _ in records], np.int64)
        return Labelled([np.array(one[:max_length], np.int64) for one in found], labels, names)

    return encoded(train), encoded(valid)


def blanks(
    store: TokenStore, settings: InfillingSettings, longest: int, seed: int
) -> Iterator[Question]:
    """Yields one blank of each text, the texts in an order of the seed, for ever.

    Args:
        store: Of documents, `[CLS]` … <|endoftext|>.
        settings: Lengths of blanks.
        longest: Tokens of a text with its blank, at most; of a longer one a part is drawn.
        seed: Of order and places.

    Raises:
        DataError: No text is long enough.
    """
    needed = settings.longest + 2  # a token on either side
    for ids, rng in _texts(store, needed, longest, seed):
        size = int(rng.integers(settings.shortest, settings.longest + 1))
        start = int(rng.integers(2, len(ids) - size))  # behind [CLS] and one token
        yield Question(ids[:start], ids[start : start + size], ids[start + size :])


def continuations(
    store: TokenStore, settings: GenerationSettings, longest: int, seed: int
) -> Iterator[Question]:
    """Yields texts whose last `settings.length` tokens are to be written; see `blanks`."""
    for ids, _ in _texts(store, settings.length + 4, longest, seed):
        yield Question(ids[: -settings.length], ids[-settings.length :])


def held_out_questions(config: ObjectivesConfig, task: str, longest: int) -> list[Question]:
    """Returns what is measured of a task: one question of each held-out text at most."""
    store = TokenStore.open(config.data.folder / "valid")
    if task == "infilling":
        asked = blanks(store, config.infilling, longest, HELD_OUT)
        count = config.infilling.valid_limit
    else:
        asked = continuations(store, config.generation, longest, HELD_OUT)
        count = config.generation.valid_limit
    return list(islice(asked, min(count, len(store))))


def _texts(
    store: TokenStore, needed: int, longest: int, seed: int
) -> Iterator[tuple[np.ndarray, np.random.Generator]]:
    """Yields `[CLS]` and a part of a document without its end marker, and a generator, document by document."""
    lengths = np.diff(store.offsets)
    enough = np.flatnonzero(lengths - 2 >= needed)
    if not len(enough):
        raise DataError(
            f"{store.folder}: no text has the {needed} tokens that a question needs; prepare longer texts, or lower "
            "infilling.longest or generation.length"
        )
    turn = 0
    while True:
        order = np.random.default_rng((_DOCUMENTS, seed, turn)).permutation(enough)
        for index in order.tolist():
            rng = np.random.default_rng((_SPANS, seed, turn, index))
            ids = store.document(index)[:-1]
            room = longest - 1
            start = 1 + int(rng.integers(max(0, len(ids) - 1 - room) + 1))
            yield np.concatenate((ids[:1], ids[start : start + room])), rng
        turn += 1


def _records(
    settings: ClassificationSettings, sources: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    """Yields (text, label, `file:line`)."""
    for record, where in read_records(list(sources)):
        for name, key in ((settings.text, "text"), (settings.label, "label")):
            if record.get(name) is None:
                raise DataError(
                    f"{where}: the record has no field {name!r}{nearest(name, record)} (fields: "
                    f"{', '.join(map(str, record))}); set classification.{key} to the field's name"
                )
        yield str(record[settings.text]), str(record[settings.label]), where


def _few(records: list[Any], limit: int) -> list[Any]:
    order = np.random.default_rng((_RECORDS, HELD_OUT)).permutation(len(records))[:limit]
    return [records[index] for index in order.tolist()]
