"""Corpora -> token stores to train from, in one call that can be killed at any moment and run again.

read -> clean -> encode, task by task (datatrove; finished tasks are not redone), then one pass that drops what
is repeated between tasks and divides the rest: `train/`, `valid/` (token stores), `tokenizer/` and the report. The
outcome depends on the inputs alone, not on workers, machines or interruptions, byte for byte.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from glmkit.config import to_values
from glmkit.corpus.engine_settings import Engine
from glmkit.corpus.engine_settings import check as check_engine
from glmkit.corpus.files import SourceFile, find_files
from glmkit.corpus.steps.settings import Steps
from glmkit.corpus.steps.settings import check as check_steps
from glmkit.errors import ConfigError, DataError
from glmkit.tokens.prepare_report import PrepareReport
from glmkit.whole_files import write_text

if TYPE_CHECKING:
    from glmkit.corpus.pipeline import Task
    from glmkit.tokens.encoding import EncodedPart

logger = logging.getLogger(__name__)

VERSION = 4
"""Raised whenever the same inputs would give other bytes."""

OUTPUTS = (
    *("train", "valid", "tokenizer", "figures", ".work"),
    *("report.json", "report.txt", "report.html", "dropped.jsonl"),
)

Progress = Callable[[int, int], None]
"""Called with (bytes of the sources consumed, all bytes), a few times a second, from another thread."""


def prepare(
    sources: str | Path | Sequence[str | Path],
    out_dir: str | Path,
    tokenizer: Any,
    *,
    valid_ratio: float = 0.01,
    text_field: str | None = None,
    steps: Steps | None = None,
    engine: Engine | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PrepareReport:
    """Makes the token stores `out_dir/train` and `out_dir/valid` from corpora.

    Run again after an interruption it goes on where it was; run again when finished, with the same inputs, it
    returns the report that is there. With `workers` > 1 in a script, call it under
    `if __name__ == "__main__":` (worker processes import the script).

    Args:
        sources: Files, folders, globs, URLs and datasets (`hf:…`), see `glmkit.corpus.read_documents`.
        out_dir: A folder of its own; on Slurm and Ray on a file system that all machines share.
        tokenizer: A `GLMTokenizer`. Each document becomes [CLS] … <|endoftext|>.
        valid_ratio: Share of the documents for validation, in [0, 1), drawn by a hash of the text: a text is on
            the same side in every corpus.
        text_field: Field, fields or template of the records; None finds it.
        steps: What happens to each text; None normalises and keeps one of equal texts.
        engine: Where the work is done; None is this machine, in one process.
        workers: Tasks at the same time, instead of what `engine` says.
        overwrite: Replace what an earlier run with other inputs left in `out_dir`.
        progress: For a progress bar.

    Raises:
        DataError: A source cannot be read, nothing is left of it, or `out_dir` holds something else.
        ConfigError: A setting out of range.
        MissingDependencyError: A package of `glmkit[corpus]` is not installed, or Ray.
    """
    started = time.monotonic()
    steps, engine = steps or Steps(), engine or Engine()
    if workers is not None:
        engine = replace(engine, workers=workers)
    _check_settings(valid_ratio, steps, engine)
    out_dir = Path(out_dir)
    files = [file for source in _as_list(sources) for file in find_files(source)]
    inputs = {
        "version": VERSION,
        "sources": _identify(files),
        "tokenizer": tokenizer.fingerprint(),
        "valid_ratio": valid_ratio,
        "text_field": text_field,
        "steps": to_values(steps),
        "evaluation_texts": _identify(
            [file for source in steps.decontamination.against for file in find_files(source)]
        ),
    }
    finished = _claim(out_dir, inputs, overwrite)
    if finished is not None:
        logger.info("%s is already prepared from these inputs", out_dir)
        return finished
    work = out_dir / ".work"
    parts, clusters = _run_stages(files, work, tokenizer, text_field, steps, engine, progress)
    from glmkit.tokens.merging import merge

    report = merge(parts, out_dir, tokenizer, steps, inputs, clusters)
    tokenizer.save_pretrained(work / "tokenizer")
    shutil.rmtree(out_dir / "tokenizer", ignore_errors=True)
    (work / "tokenizer").rename(out_dir / "tokenizer")
    report.save()
    shutil.rmtree(work)
    return replace(report, seconds=time.monotonic() - started)


def _as_list(sources: str | Path | Sequence[str | Path]) -> Sequence[str | Path]:
    return [sources] if isinstance(sources, (str, Path)) else sources


def _check_settings(valid_ratio: float, steps: Steps, engine: Engine) -> None:
    wrong = check_steps(steps) + check_engine(engine)
    if not 0 <= valid_ratio < 1:
        wrong.insert(0, f"valid_ratio={valid_ratio} (a share: at least 0, below 1)")
    if wrong:
        raise ConfigError(f"Cannot prepare with {'; '.join(wrong)}.")


def _identify(files: list[SourceFile]) -> list[dict[str, str]]:
    return [{"name": file.name, "fingerprint": file.fingerprint()} for file in files]


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
    write_text(inputs_file, json.dumps(inputs))
    return None


def _difference(report_file: Path, inputs_file: Path, inputs: dict[str, Any]) -> str:
    if report_file.is_file():
        before = json.loads(report_file.read_text(encoding="utf-8"))["inputs"]
    else:
        before = json.loads(inputs_file.read_text(encoding="utf-8"))
    old, new = _flat(before), _flat(inputs)
    names = (name for name in (*new, *old) if old.get(name) != new.get(name))
    return "different: " + ", ".join(dict.fromkeys(names))


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= (
            _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return flat


def _run_stages(
    files: list[SourceFile],
    work: Path,
    tokenizer: Any,
    text_field: str | None,
    steps: Steps,
    engine: Engine,
    progress: Progress | None,
) -> tuple[list[EncodedPart], Path | None]:
    """Returns the finished parts, and the folder of the clusters of near-duplicates, if they are looked for."""
    from glmkit.corpus.engine import run_tasks
    from glmkit.corpus.pipeline import CleanStep, ReadStep, Tally, plan
    from glmkit.corpus.steps.rules import build_rules
    from glmkit.tokens.encoding import EncodedPart, EncodeStep

    work = work.absolute()  # tasks may run in other folders
    tasks, tally, folder = plan(files), Tally(), work / "parts"
    folder.mkdir(exist_ok=True)
    index = work / "evaluation-texts.npz"
    if steps.decontamination.against and not index.exists():
        from glmkit.corpus.steps.decontamination import build_index

        build_index(steps.decontamination).save(index)
    stages: list[Any] = [
        ReadStep(tasks, text_field, tally),
        CleanStep(build_rules(steps, index), steps, tally),
        EncodeStep(tokenizer, folder, tally),
    ]
    near, clusters = steps.near_duplicates, work / "near-duplicates"
    if near.enabled:
        from glmkit.corpus.steps.near_duplicates import SignatureStep, bucket_step

        stages.append(SignatureStep(clusters / "signatures", near))
    with ExitStack() as stack:
        if progress is not None:
            stack.enter_context(_Reporter(tasks, folder, progress))
        run_tasks(stages, len(tasks), engine, work / "engine")
    if near.enabled:
        run_tasks([bucket_step(clusters, near)], near.buckets, engine, work / "engine-buckets")
    parts = [EncodedPart(folder / f"{rank:05d}") for rank in range(len(tasks))]
    return parts, clusters if near.enabled else None


class _Reporter:
    """Calls `progress` from a thread while tasks, here or in other processes, note how far they are."""

    def __init__(self, tasks: list[Task], folder: Path, progress: Progress):
        self._sizes = [task.size for task in tasks]
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
