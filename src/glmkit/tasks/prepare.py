"""Labelled data -> token stores of a task's samples, beside the tokenizer: what a mixture reads.

In: files of records, a `Task`, a tokenizer. Out: a folder with `train/`, `valid/`, `tokenizer/` and `report.json`,
like that of a corpus. The outcome depends on the inputs alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from glmkit.errors import ConfigError, DataError
from glmkit.tasks.encoding import encode_record
from glmkit.tasks.records import drawn_share, read_questions
from glmkit.tasks.rendering import expand
from glmkit.tasks.task import Language, Task, load_task
from glmkit.tokens.store import TokenStoreWriter
from glmkit.whole_files import write_text

logger = logging.getLogger(__name__)

OUTPUTS = ("train", "valid", "tokenizer", "report.json")

UNFINISHED = ".unfinished"
"""In a folder while it is being made: after a kill it may be made again without being asked to overwrite."""


@dataclass(frozen=True)
class TaskReport:
    """What became of the records of a task; `print` it."""

    folder: Path
    task: str
    records: int
    train: int
    valid: int
    shortened: int
    dropped: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    longest: int = 0
    seconds: float = 0.0

    def table(self) -> str:
        """Returns the report as lines of text."""
        samples = self.train + self.valid
        lines = [
            f"task {self.task}: {self.records:,} records, {samples:,} samples in {self.seconds:.1f} s",
            f"  train {self.train:,}, valid {self.valid:,} in {self.folder}",
            f"  {self.tokens / max(1, samples):,.1f} tokens a sample, {self.longest:,} at most, {self.shortened:,} shortened",
        ]
        lines += [f"  left out: {reason} {count:,}" for reason, count in self.dropped.items()]
        return "\n".join(lines)

    def save(self) -> None:
        """Writes `report.json`."""
        values = {**asdict(self), "folder": self.folder.name}
        write_text(self.folder / "report.json", json.dumps(values, ensure_ascii=False, indent=1))


def prepare_task(
    task: str | Path | Task,
    sources: str | Path | Sequence[str | Path],
    out_dir: str | Path,
    tokenizer: Any,
    *,
    max_length: int = 512,
    valid_ratio: float = 0.01,
    language: Language | None = None,
    rename: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> TaskReport:
    """Makes the token stores `out_dir/train` and `out_dir/valid` of a task's samples.

    Args:
        task: A name of the catalog, the path of a YAML file, or a `Task`.
        sources: Files, folders and globs with records, see `glmkit.corpus.read_documents`.
        out_dir: A folder of its own.
        tokenizer: A `GLMTokenizer`, that of the corpus with which the task is mixed.
        max_length: Most places of a sample in a row, in tokens; longer records are shortened as the task says.
        valid_ratio: Share of the records for validation, in [0, 1), drawn by a hash of the record.
        language: Of the patterns; by default that of each record.
        rename: The task's field -> the field of the records, where they differ.
        overwrite: Replace what is in `out_dir`.

    Raises:
        DataError: A record lacks a field, has an unknown label, or nothing is left; names file, line and remedy.
        ConfigError: No such task, or a setting out of range.
    """
    started = time.monotonic()
    task = task if isinstance(task, Task) else load_task(task)
    if task.kind == "tagging":
        raise ConfigError(
            f"the task {task.name!r} has tags and no blank to fill, so that it cannot be mixed into pretraining; use glmkit "
            "finetune"
        )
    if task.media:
        raise ConfigError(
            f"the task {task.name!r} has media ({', '.join(task.media)}), which a token store does not hold; use glmkit finetune"
        )
    if not 0 <= valid_ratio < 1 or max_length < 16:
        raise ConfigError(
            f"valid_ratio={valid_ratio} (at least 0, below 1), max_length={max_length} (at least 16)"
        )
    out_dir = Path(out_dir)
    _make_room(out_dir, overwrite)
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(
                TokenStoreWriter(
                    out_dir / name, tokenizer.fingerprint(), len(tokenizer), overwrite=True
                )
            )
            for name in ("train", "valid")
        }
        records = read_questions(task, sources, rename)
        for record, ids in _samples(
            task, records, tokenizer, max_length, language, counts, dropped
        ):
            side = "valid" if drawn_share(task, record) < valid_ratio else "train"
            writers[side].add(ids)
            counts[side] += 1
        if not counts["train"]:
            raise DataError(
                f"nothing of {counts['records']} records is left for the task {task.name!r}: {dict(dropped)}, "
                f"{counts['valid']} for validation. Raise max_length or lower valid_ratio, or look at the records."
            )
    tokenizer.save_pretrained(out_dir / "tokenizer")
    report = TaskReport(
        folder=out_dir,
        task=task.name,
        records=counts["records"],
        train=counts["train"],
        valid=counts["valid"],
        shortened=counts["shortened"],
        dropped=dict(sorted(dropped.items())),
        tokens=counts["tokens"],
        longest=counts["longest"],
        seconds=time.monotonic() - started,
    )
    report.save()
    (out_dir / UNFINISHED).unlink()
    return report


def _samples(
    task: Task,
    records: Iterable[tuple[dict[str, Any], str]],
    tokenizer: Any,
    max_length: int,
    language: Language | None,
    counts: Counter[str],
    dropped: Counter[str],
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yields the records' samples, each once, with their records; counts what becomes of them."""
    seen = set()
    for number, (record, where) in enumerate(records):
        counts["records"] += 1
        for one in expand(task, record, where, language):
            ids, _, shortened = encode_record(
                task, one, tokenizer, max_length, where, pattern=number, language=language
            )
            if ids is None:
                dropped["no answer, or it does not fit"] += 1
                continue
            digest = hashlib.blake2b(ids.tobytes(), digest_size=16).digest()
            if digest in seen:
                dropped["duplicate"] += 1
                continue
            seen.add(digest)
            counts["shortened"] += shortened
            counts["tokens"] += len(ids) - 1
            counts["longest"] = max(counts["longest"], len(ids) - 1)
            yield record, ids


def parse_rename(pairs: Sequence[str]) -> dict[str, str]:
    """Returns `field=theirs` pairs as a dict.

    Raises:
        ConfigError: Not such a pair.
    """
    for pair in pairs:
        if not all(pair.partition("=")):
            raise ConfigError(f"--rename {pair!r}: write FIELD=YOURS, for example text=review")
    return dict(pair.split("=", 1) for pair in pairs)  # type: ignore[misc]


def _make_room(out_dir: Path, overwrite: bool) -> None:
    """Makes a folder ready; what a killed preparation left there goes."""
    ours = (out_dir / "report.json").is_file()
    replaceable = (out_dir / UNFINISHED).is_file() or (ours and overwrite)
    if not replaceable and out_dir.exists() and any(out_dir.iterdir()):
        raise DataError(
            f"{out_dir} is not empty. Choose a folder of its own"
            + (", or ask to overwrite." if ours else ".")
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    write_text(out_dir / UNFINISHED, "")
    for name in OUTPUTS:
        path = out_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
