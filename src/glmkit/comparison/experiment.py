"""The whole comparison: for each seed and objective pretrain, then fine-tune and measure each task; again where it stopped.

In: a checked `ObjectivesConfig`. Out: in its folder, `OBJECTIVE/seed-N/{pretraining/, TASK.json}`, `results.json`,
`results.md`, `results.png`. A finished run or task is never made again, an interrupted pretraining goes on from its
checkpoint; seeds and objectives may be added to a finished comparison. Several processes may work in one folder: each takes
the next run that no other one is at.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from glmkit.comparison import measuring
from glmkit.comparison.layouts import layout_of, reading
from glmkit.comparison.pretraining import load_pretrained, pretrain_family
from glmkit.comparison.questions import blanks, continuations, held_out_questions, labelled
from glmkit.comparison.report import ComparisonReport
from glmkit.comparison.settings import OBJECTIVES, ObjectivesConfig, check_comparison
from glmkit.comparison.tuning import Classifier, tune
from glmkit.config import to_values
from glmkit.errors import ConfigError, UserError
from glmkit.evaluation.provenance import commit
from glmkit.tokens.store import TokenStore
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.training import runs
from glmkit.training.interruption import TrainingStopped
from glmkit.training.logs import Progress, environment
from glmkit.whole_files import locked, write_text

logger = logging.getLogger(__name__)

_MAY_CHANGE = {"output_dir", "objectives", "seeds", "tasks", "logging_steps", "save_steps"}
"""What can differ when a comparison goes on."""

_ORDER, _DRAWS = 21, 22
"""First words of the keys of the random generators."""

Said = Callable[[str, dict[str, float] | None], None]
"""Called with (objective, seed and task; its numbers, or None where they were there already)."""


def compare_objectives(
    config: ObjectivesConfig,
    *,
    progress: Progress | None = None,
    said: Said | None = None,
    processes: int = 1,
) -> ComparisonReport:
    """Runs what is not done yet of a comparison; writes the results after each seed.

    Called at the same time in several processes with one `output_dir`, each runs a part, and reports what is done so far.

    Args:
        config: See `glmkit.config.load_config(ObjectivesConfig, recipe, overrides)`.
        progress: For a progress bar of each pretraining run, in one process.
        said: Told each task that is done. With several processes a function that can be pickled.
        processes: Runs at the same time, each in a process of its own: small models leave a GPU idle between their steps.

    Raises:
        ConfigError: Contradictions, before anything is trained; or the folder holds another comparison.
        DataError: A file that cannot be used, before anything is trained.
        CheckpointError, NonFiniteLossError, TrainingStopped, MissingDependencyError: As in pretraining.
    """
    if processes < 1:
        raise ConfigError(f"processes = {processes} must be at least 1")
    config = check_comparison(config)
    config.output_dir.mkdir(parents=True, exist_ok=True)
    with locked(config.output_dir / runs.LOCK):
        runs.claim(config, config.output_dir, _MAY_CHANGE)
    if processes == 1:
        _take_runs(config, progress, said or _silent)
    else:
        _in_processes(config, said or _silent, processes)
    return _save(config)


def _take_runs(
    config: ObjectivesConfig, progress: Progress | None, said: Said, saves: bool = True
) -> None:
    """Does all runs that are not done and that no other process is at."""
    asker = _Asker(config)
    for seed in config.seeds:
        for objective in config.objectives:
            folder = config.folder(objective, seed)
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / runs.LOCK, wait=False) as mine:
                if mine:
                    _run(config, objective, seed, asker, progress, said)
        if saves:
            _save(config)


def _in_processes(config: ObjectivesConfig, said: Said, count: int) -> None:
    """Does all runs in so many processes; a signal to this one ends them, and what fails in one is raised here."""
    context = multiprocessing.get_context("spawn")
    errors = context.SimpleQueue()
    workers = [
        context.Process(target=_worker, args=(config, said, count, errors)) for _ in range(count)
    ]
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _stop) if main else None
    try:
        for one in workers:
            one.start()
        for one in workers:
            one.join()
    finally:
        for one in workers:
            if one.is_alive():
                one.terminate()
                one.join()
        if main:
            signal.signal(signal.SIGTERM, before)
    if not errors.empty():
        raise errors.get()
    for one in workers:
        if one.exitcode:
            raise TrainingStopped(f"a process ended with exit code {one.exitcode}; run the same command again to go on")  # fmt: skip


def _worker(config: ObjectivesConfig, said: Said, count: int, errors: Any) -> None:
    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // count)))
    try:
        _take_runs(config, None, _OnlyNew(said), saves=False)
    except UserError as error:
        errors.put(error)
        raise SystemExit(1) from error


def _stop(*_: Any) -> None:
    raise TrainingStopped("stopped by a signal; run the same command again to go on")


def _silent(*_: Any) -> None:
    pass


class _OnlyNew:
    """Says what is done now, and not what each of several processes finds done before."""

    def __init__(self, said: Said):
        self._said = said

    def __call__(self, name: str, numbers: dict[str, float] | None) -> None:
        if numbers is not None:
            self._said(name, numbers)


def _save(config: ObjectivesConfig) -> ComparisonReport:
    """Writes and returns the report of what is done so far."""
    with locked(config.output_dir / runs.LOCK):
        report = collect(config)
        report.save()
    return report


def collect(config: ObjectivesConfig) -> ComparisonReport:
    """Returns the report of what is done so far."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for objective in config.objectives:
        for seed in config.seeds:
            folder = config.folder(objective, seed)
            parts = {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}
            if parts:
                found.setdefault(objective, {})[seed] = parts
    return ComparisonReport(config.output_dir, found, to_values(config), environment(), commit())


class _Asker:
    """The questions of all tasks, read once."""

    def __init__(self, config: ObjectivesConfig):
        self.config = config
        self.tokenizer = GLMTokenizer.from_pretrained(config.data.folder / "tokenizer")
        self.pad = self.tokenizer.special_ids.pad
        self.eop = self.tokenizer.special_ids.eop
        # A mask, a start marker and an end are added to a text, and what a model writes may be longer than what is right.
        self.longest = config.data.row_length - config.infilling.longest - 4
        self.held_out = {
            task: held_out_questions(config, task, self.longest)
            for task in config.tasks
            if task != "classification"
        }
        if "classification" in config.tasks:
            self.train, self.valid = labelled(config.classification, self.tokenizer, self.longest)

    def questions(self, task: str, seed: int) -> Iterator[Any]:
        """Yields questions to learn from."""
        store = TokenStore.open(self.config.data.folder / "train")
        if task == "infilling":
            return blanks(store, self.config.infilling, self.longest, seed)
        return continuations(store, self.config.generation, self.longest, seed)


def _run(
    config: ObjectivesConfig,
    objective: str,
    seed: int,
    asker: _Asker,
    progress: Progress | None,
    said: Said,
) -> None:
    """Pretrains one model and measures all tasks that are not measured yet."""
    folder, family = config.folder(objective, seed), OBJECTIVES[objective][0]
    run = config.pretraining(objective, seed)
    for task in ("pretraining", *config.tasks):
        result = folder / f"{task}.json"
        name = f"{objective}, seed {seed}, {task}"
        if result.is_file():
            said(name, None)
            continue
        began = time.monotonic()
        if task == "pretraining":
            report = pretrain_family(run, family, progress)
            numbers = {
                "held_out_loss": report.loss_after["loss"],
                "parameters": float(report.parameters),
                "tokens": float(report.tokens),
                "predicted_tokens": float(report.predicted_tokens),
                "epochs": report.epochs,
            }
        else:
            model = load_pretrained(family, run.output_dir / "model")
            numbers = _tune_and_measure(task, family, model, asker, seed, run.trainer)
        values = {**numbers, "seconds": time.monotonic() - began}
        write_text(result, json.dumps(values, indent=1) + "\n")
        said(name, numbers)


def _tune_and_measure(
    task: str, family: str, model: Any, asker: _Asker, seed: int, pretraining: dict[str, Any]
) -> dict[str, float]:
    """Returns a task's numbers; the model is changed."""
    settings, tokenizer = asker.config.tuning, asker.tokenizer
    count = settings.steps * settings.rows
    set_seed(seed)
    if task == "classification":
        head = Classifier(model, len(asker.train.names), model.config.hidden_size)
        drawn = _drawn(len(asker.train.ids), count, seed)
        examples = [reading(asker.train.ids[index]) for index in drawn]
        classes = [int(asker.train.labels[index]) for index in drawn]
        tune(head, examples, settings, pretraining, asker.pad, seed, classes)
        held_out = [reading(ids) for ids in asker.valid.ids]
        return measuring.classification(head, held_out, asker.valid.labels, asker.pad)
    layout = layout_of(family, tokenizer.special_ids, len(tokenizer))
    rng = np.random.default_rng((_DRAWS, seed))
    questions = islice(asker.questions(task, seed), count)
    examples = [layout.training(question, rng) for question in questions]
    tune(model, examples, settings, pretraining, asker.pad, seed)
    asked = asker.held_out[task]
    if task == "infilling":
        longest = asker.config.infilling.longest
        return measuring.infilling(
            model, layout, asked, asker.pad, asker.eop, len(tokenizer), longest
        )
    return measuring.generation(model, layout, asked, tokenizer, asker.eop, len(tokenizer))


def _drawn(records: int, count: int, seed: int) -> list[int]:
    """Returns `count` indices of records, pass by pass, each pass in an order of its own."""
    rng = np.random.default_rng((_ORDER, seed))
    passes = [rng.permutation(records) for _ in range(-(-count // records))]
    return np.concatenate(passes)[:count].tolist()


def _read(path: Path) -> dict[str, float]:
    return json.loads(path.read_text(encoding="utf-8"))


def smoke(config: ObjectivesConfig) -> ObjectivesConfig:
    """Returns the same comparison so small that it takes seconds: it shows that everything fits together, nothing else."""
    return replace(
        config,
        model={
            **config.model,
            "num_layers": 2,
            "hidden_size": 32,
            "num_attention_heads": 2,
            "max_sequence_length": 64,
        },
        data=replace(config.data, row_length=64, valid_rows=4),
        trainer={
            **config.trainer,
            "max_steps": 6,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "logging_steps": 3,
            "eval_steps": 6,
            "save_steps": 6,
            "use_cpu": True,
        },
        seeds=tuple(config.seeds[:2]),
        tuning=replace(config.tuning, steps=3, rows=4),
        classification=replace(config.classification, limit=60, valid_limit=20),
        infilling=replace(config.infilling, valid_limit=8, longest=4),
        generation=replace(config.generation, valid_limit=6, length=6),
    )
