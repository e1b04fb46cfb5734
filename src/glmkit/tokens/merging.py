"""Parts -> the stores of the two splits, without what is repeated between parts. One pass, memory flat.

Of equal texts the first stays, of a cluster of nearly equal ones too, by their order in the corpus: so the outcome
does not depend on workers.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from glmkit.corpus.cleaning import first_of_each, in_validation
from glmkit.corpus.steps.accounts import (
    Accounts,
    StepCounts,
    count_lengths,
    first_examples,
)
from glmkit.corpus.steps.settings import Steps
from glmkit.errors import DataError
from glmkit.tokens.encoding import EncodedPart
from glmkit.tokens.prepare_report import PrepareReport, SplitCounts
from glmkit.tokens.store import TokenStoreWriter

logger = logging.getLogger(__name__)


def merge(
    parts: list[EncodedPart],
    out_dir: Path,
    tokenizer: Any,
    steps: Steps,
    inputs: dict[str, Any],
    clusters: Path | None,
) -> PrepareReport:
    """Writes `out_dir/train` and `out_dir/valid`.

    Args:
        parts: In the order of the corpus.
        out_dir: The folder.
        tokenizer: For its fingerprint and size.
        steps: The settings.
        inputs: Goes into the report; `valid_ratio` is used.
        clusters: Where the clusters of near-duplicates lie, if they were looked for.

    Raises:
        DataError: Nothing is left to train on.
    """
    accounts, dropped = Accounts(), Counter[str]()
    for part in parts:
        accounts.add(part.accounts)
        dropped += part.dropped
    kept = _kept(parts, steps, clusters, accounts)
    splits = {"train": SplitCounts(), "valid": SplitCounts()}
    lengths_kept: Counter[int] = Counter()
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(
                TokenStoreWriter(
                    out_dir / name, tokenizer.fingerprint(), len(tokenizer), overwrite=True
                )
            )
            for name in splits
        }
        for part, keep in zip(parts, kept, strict=True):
            valid = in_validation(part.digests, inputs["valid_ratio"])
            for documents, ids, lengths in part.chunks():
                characters = part.characters[documents]
                lengths_kept += count_lengths(characters[keep[documents]])
                for name, counts in splits.items():
                    mask = keep[documents] & (valid[documents] == (name == "valid"))
                    writers[name].add_many(ids[np.repeat(mask, lengths)], lengths[mask])
                    counts.add(lengths[mask], characters[mask])
        report = PrepareReport(
            folder=out_dir,
            documents_read=sum(part.documents_read for part in parts),
            characters_read=next(iter(accounts.steps.values())).characters_in,
            read_dropped=dict(sorted(dropped.items())),
            steps=accounts.steps,
            languages=dict(accounts.languages.most_common()),
            lengths={"read": _in_order(accounts.lengths), "kept": _in_order(lengths_kept)},
            train=splits["train"],
            valid=splits["valid"],
            inputs=inputs,
            examples=first_examples(accounts.examples, steps.examples),
        )
        if not splits["train"].documents:
            raise DataError(
                f"Nothing is left to train on: dropped {report.dropped}, {splits['valid'].documents} documents in "
                "the validation split. Lower min_chars or valid_ratio, or look at the sources."
            )
    if inputs["valid_ratio"] and not splits["valid"].documents:
        logger.warning(
            "the validation split is empty: too few documents for valid_ratio=%s",
            inputs["valid_ratio"],
        )
    return report


def _kept(
    parts: list[EncodedPart], steps: Steps, clusters: Path | None, accounts: Accounts
) -> list[np.ndarray]:
    """Returns for each part which documents stay, [documents] bool; counts the others."""
    if steps.duplicates:
        kept = first_of_each([part.digests for part in parts])
        for part, keep in zip(parts, kept, strict=True):
            characters = int(part.characters[~keep].sum())
            accounts.steps["duplicates"].drop_later("duplicate", int((~keep).sum()), characters)
    else:
        kept = [np.ones(len(part.digests), bool) for part in parts]
    if clusters is not None:
        accounts.steps["near-duplicates"] = _drop_near(parts, kept, clusters)
    return kept


def _drop_near(parts: list[EncodedPart], kept: list[np.ndarray], clusters: Path) -> StepCounts:
    """Takes all but the first of each cluster out of `kept`. The first is no duplicate: its double would be before it."""
    from glmkit.corpus.steps.near_duplicates import clusters as find_clusters

    counts, start = StepCounts(), 0
    found = find_clusters(clusters, [len(keep) for keep in kept])
    for part, keep, cluster in zip(parts, kept, found, strict=True):
        documents, characters = int(keep.sum()), int(part.characters[keep].sum())
        counts.add(StepCounts(documents, characters, documents, characters))
        keep &= cluster == np.arange(start, start + len(keep))
        start += len(keep)
        lost = characters - int(part.characters[keep].sum())
        counts.drop_later("near-duplicate", documents - int(keep.sum()), lost)
    return counts


def _in_order(counts: Counter[int]) -> dict[int, int]:
    return {one: counts[one] for one in sorted(counts) if counts[one]}
