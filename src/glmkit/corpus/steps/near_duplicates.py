"""Near-duplicates by MinHash, with datatrove's stages: signatures of each part, then buckets; then clusters.

Signatures lie on disk, sorted; buckets are merged as streams, so memory holds only the pairs found.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupSignature,
)
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WordTokenizer

from glmkit.corpus.steps.settings import NearDuplicateSettings
from glmkit.corpus.steps.units import mix, units_of, windows

BLOCK_SHINGLES = 2048
"""Hashed at once: 2048 shingles by 112 hashes are 2 MiB, whatever the length of the text."""


class _NoTokenizer(WordTokenizer):
    """Stands where datatrove wants a word tokenizer: the units do not come from it."""

    def word_tokenize(self, text: str) -> list[str]:
        raise NotImplementedError

    sent_tokenize = span_tokenize = word_tokenize  # type: ignore[assignment]


@lru_cache(maxsize=1)
def _no_tokenizer() -> _NoTokenizer:
    return _NoTokenizer()


class SignatureStep(MinhashDedupSignature):
    """datatrove's first stage on shingles of units: Chinese by characters, English by words, nothing to fetch."""

    def __init__(self, folder: Path, settings: NearDuplicateSettings):
        super().__init__(str(folder), minhash_config(settings), language=_no_tokenizer())

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Writes the signatures of the task's documents; yields nothing."""
        super().run(data, rank, world_size)
        yield from ()

    def get_shingles(self, text: str) -> np.ndarray:
        """Returns the hashed n-grams, [shingles, 1] uint64; a text of fewer units is one shingle."""
        hashes = units_of(text).hashes
        grams = windows(hashes, min(self.config.n_grams, max(len(hashes), 1)))
        return mix(np.unique(grams)).reshape(-1, 1)

    def get_signature(self, shingles: np.ndarray) -> list[list[int]]:
        """Returns the least hashes, block by block: for each bucket a list of integers."""
        blocks = range(0, len(shingles), BLOCK_SHINGLES)
        parts = [super(SignatureStep, self).get_signature(shingles[i : i + BLOCK_SHINGLES]) for i in blocks]  # fmt: skip
        return np.min(parts, axis=0).tolist() if len(parts) > 1 else parts[0]


def minhash_config(settings: NearDuplicateSettings) -> MinhashConfig:
    """Returns datatrove's configuration."""
    return MinhashConfig(
        n_grams=settings.ngram,
        num_buckets=settings.buckets,
        hashes_per_bucket=settings.hashes_per_bucket,
        seed=settings.seed,
        hash_config=HashConfig(precision=64, hash_fc="sha1"),
    )


def bucket_step(folder: Path, settings: NearDuplicateSettings) -> MinhashDedupBuckets:
    """Returns datatrove's second stage: as many tasks as there are buckets."""
    return MinhashDedupBuckets(
        str(folder / "signatures"),
        str(folder / "pairs"),
        config=minhash_config(settings),
        lines_to_buffer=256,
    )


def clusters(folder: Path, sizes: list[int]) -> list[np.ndarray]:
    """Joins the pairs that the buckets found: A like B and B like C makes one cluster of three.

    datatrove's third stage does the same; this one names a cluster by its first document, whatever the order of pairs.

    Args:
        folder: Given to `bucket_step`.
        sizes: Documents of each part.

    Returns:
        For each part [documents] int64: the number of the first document of the cluster in the whole corpus, which
        is the document's own number where it is alone.
    """
    starts = np.cumsum([0, *sizes])
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while (above := parent.get(node, node)) != node:
            parent[node] = node = parent.get(above, above)
        return node

    for path in sorted((folder / "pairs").glob("*.dups")):
        pairs = np.fromfile(path, "<u4").reshape(-1, 4).astype(np.int64)
        ones, others = starts[pairs[:, 0]] + pairs[:, 1], starts[pairs[:, 2]] + pairs[:, 3]
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            low, high = sorted((root(one), root(other)))
            parent[high] = low
    found = np.arange(starts[-1])
    nodes = np.fromiter(parent, np.int64, len(parent))
    found[nodes] = [root(node) for node in nodes.tolist()]
    return np.split(found, starts[1:-1])
