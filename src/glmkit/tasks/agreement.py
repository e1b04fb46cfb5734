"""Counts of agreement between what was predicted and what is right, which training steers by and evaluation reports.

In: labels, or spans with labels, of the same examples. Out: numbers. Knows no model and no task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

TaggedSpan = tuple[int, int, str]
"""Start and end (half-open, in characters of the text) and label of an entity."""


def macro_f1(predictions: Sequence[Hashable], labels: Sequence[Hashable]) -> float:
    """Returns the mean over the labels of each label's F1, every label counting the same.

    Labels that appear in neither argument do not count; one that is never predicted rightly has F1 0.
    """
    right = Counter(p for p, label in zip(predictions, labels, strict=True) if p == label)
    counts = Counter(predictions) + Counter(labels)
    return sum(2 * right[name] / count for name, count in counts.items()) / len(counts)


def span_hits(predictions: Sequence[TaggedSpan], labels: Sequence[TaggedSpan]) -> tuple[int, int]:
    """Returns what makes entity F1 of one text: twice the spans with right bounds and label, and the spans of both sides.

    The ratio of their sums over texts is micro F1 as CoNLL-2003 counts it (Tjong Kim Sang and De Meulder 2003): an entity counts
    where start, end and label are right. seqeval counts the same; its last release is of 2020.
    """
    hits = (Counter(predictions) & Counter(labels)).total()
    return 2 * hits, len(predictions) + len(labels)


def entity_f1(predictions: Sequence[Sequence[TaggedSpan]], labels: Sequence[Sequence[TaggedSpan]]) -> float:  # fmt: skip
    """Returns micro F1 over texts (see `span_hits`); 1 where there is nothing to find and nothing was found."""
    pairs = [span_hits(found, right) for found, right in zip(predictions, labels, strict=True)]
    total = sum(count for _, count in pairs)
    return sum(twice for twice, _ in pairs) / total if total else 1.0
