"""Corpora -> token stores to train from, in one call that can be killed at any moment and run again.

read -> clean -> encode, task by task (datatrove; finished tasks are not redone), then one pass that drops what
is repeated between tasks and divides the rest: `train/`, `valid/` (token stores), `tokenizer/`, `report.json`
and `report.txt`. The outcome depends on the inputs alone, not on workers or interruptions, byte for byte.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from glmkit.corpus.cleaning import in_validation
from glmkit.corpus.files import SourceFile, find_files
from glmkit.errors import ConfigError, DataError
from glmkit.tokens.prepare_report import PrepareReport, SplitCounts
from glmkit.tokens.store import TokenStoreWriter

if TYPE_CHECKING:
    from glmkit.corpus.pipeline import Task
    from glmkit.tokens.encoding import EncodedPart

logger = logging.getLogger(__name__)

VERSION = 1
"""Raised whenever the same inputs would give other bytes."""

OUTPUTS = ("train", "valid", "tokenizer", "report.json", "report.txt", ".work")

Progress = Callable[[int, int], None]
"""Called with (bytes of the sources consumed, all bytes), a few times a second, from another thread."""


def prepare(
    sources: str | Path | Sequence[str | Path],
    out_dir: str | Path,
    tokenizer: Any,
    *,
    valid_ratio: float = 0.01,
    text_field: str | None = None,
    min_chars: int = 1,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PrepareReport:
    """Makes the token stores `out_dir/train` and `out_dir/valid` from corpora.

    Run again after an interruption it goes on where it was; run again when finished, with the same inputs, it
    returns the report that is there. With `workers` > 1 in a script, call it under
    `if __name__ == "__main__":` (worker processes import the script).

    Args:
        sources: Files, folders and globs, see `glmkit.corpus.read_documents`.
        out_dir: A folder of its own.
        tokenizer: A `GLMTokenizer`. Each document becomes [CLS] … <|endoftext|>.
        valid_ratio: Share of the documents for validation, in [0, 1), drawn by a hash of the text: a text is on
            the same side in every corpus.
        text_field: Field, fields or template of JSON records; None finds it.
        min_chars: Shorter documents are dropped, in characters after normalisation.
        workers: Processes.
        overwrite: Replace what an earlier run with other inputs left in `out_dir`.
        progress: For a progress bar.

    Raises:
        DataError: A source cannot be read, nothing is left of it, or `out_dir` holds something else.
        ConfigError: A setting out of range.
        MissingDependencyError: datatrove is not installed (`glmkit[corpus]`).
    """
    started = time.monotonic()
    _check_settings(valid_ratio, min_chars, workers)
    out_dir = Path(out_dir)
    files = [file for source in _as_list(sources) for file in find_files(source)]
    inputs = {
        "version": VERSION,
        "sources": [{"name": file.name, "fingerprint": file.fingerprint()} for file in files],
        "tokenizer": tokenizer.fingerprint(),
        "valid_ratio": valid_ratio,
        "text_field": text_field,
        "min_chars": min_chars,
    }
    finished = _claim(out_dir, inputs, overwrite)
    if finished is not None:
        logger.info("%s is already prepared from these inputs", out_dir)
        return finished
    parts = _encode_parts(
        files, out_dir / ".work", tokenizer, text_field, min_chars, workers, progress
    )
    report = _merge(parts, out_dir, tokenizer, inputs)
    tokenizer.save_pretrained(out_dir / ".work" / "tokenizer")
    shutil.rmtree(out_dir / "tokenizer", ignore_errors=True)
    (out_dir / ".work" / "tokenizer").rename(out_dir / "tokenizer")
    report.save()
    shutil.rmtree(out_dir / ".work")
    return replace(report, seconds=time.monotonic() - started)


def _as_list(sources: str | Path | Sequence[str | Path]) -> Sequence[str | Path]:
    return [sources] if isinstance(sources, (str, Path)) else sources


def _check_settings(valid_ratio: float, min_chars: int, workers: int) -> None:
    wrong = []
    if not 0 <= valid_ratio < 1:
        wrong.append(f"valid_ratio={valid_ratio} (a share: at least 0, below 1)")
    if min_chars < 0:
        wrong.append(f"min_chars={min_chars} (at least 0)")
    if workers < 1:
        wrong.append(f"workers={workers} (at least 1)")
    if wrong:
        raise ConfigError(f"Cannot prepare with {'; '.join(wrong)}.")


def _claim(out_dir: Path, inputs: dict[str, Any], overwrite: bool) -> PrepareReport | None:
    """Makes `out_dir` ready for these inputs; returns the report where the work is already done."""
    report_file, inputs_file = out_dir / "report.json", out_dir / ".work" / "inputs.json"
    if report_file.is_file():
        report = PrepareReport.load(out_dir)
        if report.inputs == inputs:
            shutil.rmtree(out_dir / ".work", ignore_errors=True)
            return replace(report, reused=True)
        state = "a corpus prepared from other inputs or with other settings"
    elif inputs_file.is_file():
        if json.loads(inputs_file.read_text(encoding="utf-8")) == inputs:
            logger.info("%s: going on with the interrupted preparation", out_dir)
            return None
        state = "an interrupted preparation of other inputs or with other settings"
    elif out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise DataError(
            f"{out_dir} is not empty and no prepared corpus. Choose a folder of its own."
        )
    else:
        state = ""
    if state and not overwrite:
        raise DataError(
            f"{out_dir} holds {state} ({_difference(report_file, inputs_file, inputs)}). Choose another folder, or "
            "ask to overwrite."
        )
    for name in OUTPUTS:
        path = out_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    (out_dir / ".work").mkdir(parents=True)
    temporary = inputs_file.with_suffix(".tmp")
    temporary.write_text(json.dumps(inputs), encoding="utf-8")
    temporary.rename(inputs_file)
    return None


def _difference(report_file: Path, inputs_file: Path, inputs: dict[str, Any]) -> str:
    if report_file.is_file():
        before = json.loads(report_file.read_text(encoding="utf-8"))["inputs"]
    else:
        before = json.loads(inputs_file.read_text(encoding="utf-8"))
    return "different: " + ", ".join(name for name in inputs if before.get(name) != inputs[name])


def _encode_parts(
    files: list[SourceFile],
    work: Path,
    tokenizer: Any,
    text_field: str | None,
    min_chars: int,
    workers: int,
    progress: Progress | None,
) -> list[EncodedPart]:
    from glmkit.corpus.engine import run_tasks
    from glmkit.corpus.pipeline import CleanStep, ReadStep, Tally, plan
    from glmkit.tokens.encoding import EncodedPart, EncodeStep

    tasks, tally, folder = plan(files), Tally(), work / "parts"
    folder.mkdir(exist_ok=True)
    steps = [
        ReadStep(tasks, text_field, tally),
        CleanStep(min_chars, tally),
        EncodeStep(tokenizer, folder, tally),
    ]
    with ExitStack() as stack:
        if progress is not None:
            stack.enter_context(_Reporter(tasks, folder, progress))
        run_tasks(steps, len(tasks), workers, work / "engine")
    return [EncodedPart(folder / f"{rank:05d}") for rank in range(len(tasks))]


def _merge(
    parts: list[EncodedPart], out_dir: Path, tokenizer: Any, inputs: dict[str, Any]
) -> PrepareReport:
    """Writes both stores from the parts, without the documents that an earlier part has already."""
    seen: set[bytes] = set()
    dropped: Counter[str] = Counter()
    splits = {"train": SplitCounts(), "valid": SplitCounts()}
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(
                TokenStoreWriter(
                    out_dir / name, tokenizer.fingerprint(), len(tokenizer), overwrite=True
                )
            )
            for name in splits
        }
        for part in parts:
            dropped += part.dropped
            for documents, ids, lengths in part.chunks():
                digests = [value.tobytes() for value in part.digests[documents]]
                split = np.array([_split_of(one, seen, inputs["valid_ratio"]) for one in digests])
                dropped["duplicate"] += int((split == "").sum())
                for name, counts in splits.items():
                    mask = split == name
                    writers[name].add_many(ids[np.repeat(mask, lengths)], lengths[mask])
                    counts.add(lengths[mask], part.characters[documents][mask])
        if not splits["train"].documents:
            raise DataError(
                f"Nothing is left to train on: dropped {dict(+dropped)}, {splits['valid'].documents} documents in "
                "the validation split. Lower min_chars or valid_ratio, or look at the sources."
            )
    if inputs["valid_ratio"] and not splits["valid"].documents:
        logger.warning(
            "the validation split is empty: too few documents for valid_ratio=%s",
            inputs["valid_ratio"],
        )
    return PrepareReport(
        folder=out_dir,
        documents_read=sum(part.documents_read for part in parts),
        characters_read=sum(part.characters_read for part in parts),
        dropped=dict(sorted((+dropped).items())),
        train=splits["train"],
        valid=splits["valid"],
        inputs=inputs,
    )


def _split_of(text_digest: bytes, seen: set[bytes], valid_ratio: float) -> str:
    if text_digest in seen:
        return ""
    seen.add(text_digest)
    return "valid" if in_validation(text_digest, valid_ratio) else "train"


class _Reporter:
    """Calls `progress` from a thread while tasks, here or in other processes, note how far they are."""

    def __init__(self, tasks: list[Task], folder: Path, progress: Progress):
        self._sizes = [task.file.size() // task.part[1] for task in tasks]
        self._done = [0] * len(tasks)
        self._folder, self._progress = folder, progress
        self._stop = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._report()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            self._report()

    def _report(self) -> None:
        for rank, size in enumerate(self._sizes):
            name = f"{rank:05d}"
            if (self._folder / name).exists():
                self._done[rank] = size
            elif (note := self._folder / "progress" / name).exists():
                noted = int(note.read_text() or 0)  # empty while it is being written
                self._done[rank] = max(self._done[rank], min(noted, size))
        self._progress(sum(self._done), sum(self._sizes))
