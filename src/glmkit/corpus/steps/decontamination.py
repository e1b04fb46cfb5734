"""Evaluation texts -> an index of their passages; a text that holds one is dropped.

A passage is a run of units (see `units`), so Chinese needs no word segmentation. datatrove's filter does the same for
lists of lighteval's tasks, one n for all, with words from models that must be fetched; users name files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from glmkit.corpus.sources import read_documents
from glmkit.corpus.steps.settings import DecontaminationSettings
from glmkit.corpus.steps.units import units_of, windows
from glmkit.errors import DataError

logger = logging.getLogger(__name__)


class PassageIndex:
    """Hashes of passages.

    Args:
        passages: Length in units -> sorted uint64 [passages].
    """

    def __init__(self, passages: dict[int, np.ndarray]):
        self.passages = passages

    def __len__(self) -> int:
        return sum(map(len, self.passages.values()))

    def found_in(self, text: str) -> bool:
        """Says whether a text holds one of the passages."""
        hashes = units_of(text).hashes
        for size, known in self.passages.items():
            grams = windows(hashes, size)
            places = np.searchsorted(known, grams)
            places[places == len(known)] = 0
            if (known[places] == grams).any():
                return True
        return False

    def save(self, path: Path) -> None:
        """Writes the index, whole or not at all."""
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            arrays: Any = {str(size): known for size, known in self.passages.items()}
            np.savez(file, **arrays)
        temporary.rename(path)

    @classmethod
    def load(cls, path: Path) -> PassageIndex:
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls({int(size): arrays[size] for size in arrays})


def build_index(settings: DecontaminationSettings) -> PassageIndex:
    """Reads the evaluation texts.

    Raises:
        DataError: They cannot be read, or none is as long as `min_units`.
    """
    found: dict[int, list[np.ndarray]] = {}
    short = total = 0
    for text in _texts(settings):
        total += 1
        units = units_of(text)
        if len(units) < settings.min_units:
            short += 1
            continue
        mostly_han = 2 * int(units.han.sum()) >= len(units)
        size = min(settings.han_ngram if mostly_han else settings.ngram, len(units))
        found.setdefault(size, []).append(windows(units.hashes, size))
    if not found:
        raise DataError(
            f"decontamination: none of the {total} texts in {', '.join(settings.against)} has {settings.min_units} "
            "words or Han characters. Check decontamination.text_field, or lower min_units."
        )
    if short:
        logger.warning(
            "decontamination: %d of %d evaluation texts are shorter than %d words or Han characters: passed over",
            short,
            total,
            settings.min_units,
        )
    return PassageIndex({size: np.unique(np.concatenate(found[size])) for size in sorted(found)})


class DecontaminationRule:
    """Says of each text whether it holds a passage of an evaluation text.

    Args:
        path: Of a saved `PassageIndex`; a task reads it at its first text.
    """

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def _index(self) -> PassageIndex:
        return PassageIndex.load(self.path)

    def __call__(self, text: str) -> str | None:
        """Returns the reason to drop a text, or None."""
        return "evaluation text" if self._index.found_in(text) else None


def _texts(settings: DecontaminationSettings) -> Iterator[str]:
    """Yields the texts; each of several fields is a text by itself."""
    first, *others = (settings.text_field or "").split(",")
    if "{" in first:
        first, others = settings.text_field or "", []
    for source in settings.against:
        for document in read_documents(source, text_field=first.strip() or None):
            yield document.text
            for name in others:
                if name.strip() not in document.metadata:
                    raise DataError(f"{document.id}: the record has no field {name.strip()!r}")
                yield from _strings(document.metadata[name.strip()])


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
