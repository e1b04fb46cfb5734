"""What became of the documents: for each step, what came in, what went out, and why the rest was dropped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

BINS_PER_OCTAVE = 2
"""Lengths are counted in bins whose edges are powers of the square root of 2."""


@dataclass
class StepCounts:
    """One step.

    Attributes:
        documents_in: Documents that reached it.
        characters_in: Their characters.
        documents_out: Documents that left it.
        characters_out: Their characters, after what the step changed.
        changed: Documents of which it changed the text.
        dropped: Reason -> documents.
        dropped_characters: Reason -> their characters.
    """

    documents_in: int = 0
    characters_in: int = 0
    documents_out: int = 0
    characters_out: int = 0
    changed: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    dropped_characters: dict[str, int] = field(default_factory=dict)

    def keep(self, characters_in: int, characters_out: int, changed: bool = False) -> None:
        """Counts a document that goes on."""
        self.documents_in += 1
        self.characters_in += characters_in
        self.documents_out += 1
        self.characters_out += characters_out
        self.changed += changed

    def drop(self, reason: str, characters: int) -> None:
        """Counts a document that ends here."""
        self.documents_in += 1
        self.characters_in += characters
        self._dropped(reason, 1, characters)

    def drop_later(self, reason: str, documents: int, characters: int) -> None:
        """Counts documents that were kept at first and are dropped in the end."""
        self.documents_out -= documents
        self.characters_out -= characters
        self._dropped(reason, documents, characters)

    def add(self, other: StepCounts) -> None:
        """Adds the counts of another task."""
        for name in ("documents_in", "characters_in", "documents_out", "characters_out", "changed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for reason, count in other.dropped.items():
            self._dropped(reason, count, other.dropped_characters[reason])

    def _dropped(self, reason: str, documents: int, characters: int) -> None:
        if documents:
            self.dropped[reason] = self.dropped.get(reason, 0) + documents
            self.dropped_characters[reason] = self.dropped_characters.get(reason, 0) + characters


@dataclass
class Accounts:
    """All the steps of one task, or of all of them.

    Attributes:
        steps: Name -> counts, in the order of the steps.
        languages: Language or script -> documents that are long enough.
        lengths: Bin of the length in characters (see `length_bin`) -> documents read.
        examples: Dropped texts: `step`, `reason`, `id`, `text`.
    """

    steps: dict[str, StepCounts] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    examples: list[dict[str, str]] = field(default_factory=list)

    def add(self, other: Accounts) -> None:
        """Adds the accounts of another task."""
        for name, counts in other.steps.items():
            self.steps.setdefault(name, StepCounts()).add(counts)
        self.languages += other.languages
        self.lengths += other.lengths
        self.examples += other.examples

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` takes."""
        return {
            "steps": {name: asdict(counts) for name, counts in self.steps.items()},
            "languages": self.languages,
            "lengths": self.lengths,
            "examples": self.examples,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Accounts:
        """Reads them back."""
        return cls(
            {name: StepCounts(**counts) for name, counts in values["steps"].items()},
            Counter(values["languages"]),
            Counter({int(one): count for one, count in values["lengths"].items()}),
            values["examples"],
        )


def length_bin(characters: int) -> int:
    """Returns the bin of a length: b holds the lengths from 2^(b/2) to below 2^((b+1)/2), and 0 also 0."""
    return int(math.log2(max(characters, 1)) * BINS_PER_OCTAVE)


def count_lengths(characters: np.ndarray) -> Counter[int]:
    """Returns bin -> number of documents for many lengths [documents]."""
    bins = (np.log2(np.maximum(characters, 1)) * BINS_PER_OCTAVE).astype(int)
    return Counter(dict(enumerate(np.bincount(bins).tolist()))) if len(bins) else Counter()


def first_examples(examples: Iterable[dict[str, str]], limit: int) -> list[dict[str, str]]:
    """Returns at most `limit` of each step and reason, in their order."""
    counts: Counter[tuple[str, str]] = Counter()
    kept = []
    for example in examples:
        key = example["step"], example["reason"]
        counts[key] += 1
        if counts[key] <= limit:
            kept.append(example)
    return kept
