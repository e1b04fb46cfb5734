"""`glmkit evaluate --tasks`: a model on several tasks, with all that a number needs to be believed and made again.

In: a loaded `GLM`, pairs of task and data, a folder. Out, in the folder: `results.json` (numbers, intervals, versions,
seed, fingerprints of data and weights, commit), `predictions.jsonl`, `table.md`. A pair that is done is not done again
while nothing that decides it has changed. `several` puts models side by side.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from glmkit.errors import ConfigError, DataError
from glmkit.evaluation.provenance import digest, facts_of, weights_fingerprint
from glmkit.evaluation.tasks import Number, TaskResult, evaluate_task
from glmkit.tasks.records import read_questions
from glmkit.tasks.task import Task, catalog, load_task
from glmkit.whole_files import write_text


@dataclass(frozen=True)
class Run:
    """One task on one source of data.

    Attributes:
        task: The task.
        data: File, folder, glob or URL.
    """

    task: Task
    data: str

    @property
    def name(self) -> str:
        """Name in results: the task and the data's name without its folder."""
        stem = Path(self.data).name
        for ending in (".gz", ".bz2", ".xz", ".zst", ".jsonl", ".json", ".csv", ".tsv", ".parquet"):
            stem = stem.removesuffix(ending)
        return f"{self.task.name}:{stem}"


@dataclass
class SuiteReport:
    """Results of all runs.

    Attributes:
        model: What was measured.
        runs: Name of the run -> its result and what decides it, as in `results.json`.
        facts: Versions, seed, commit, fingerprint of the weights.
        predictions: Name of the run -> one dict for each example, as in `predictions.jsonl`.
    """

    model: str
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    predictions: dict[str, list[dict[str, Any]]] = field(default_factory=dict, repr=False)

    def table(self, runs: Sequence[Run] | None = None) -> str:
        """Returns a Markdown table of the numbers of all runs, or of those given, with 95 % intervals."""
        lines = [
            "| task | data | examples | metric | value (95 % interval) |",
            "|---|---|---|---|---|",
        ]
        for name in self.runs if runs is None else [run.name for run in runs]:
            run = self.runs[name]
            task, _, data = name.partition(":")
            rows = [(data, run["examples"], run["metrics"])]
            rows += [(f"{data}, {group}", run["group_sizes"][group], numbers) for group, numbers in run["groups"].items()]  # fmt: skip
            for place, examples, numbers in rows:
                for metric, number in numbers.items():
                    lines.append(
                        f"| {task} | {place} | {examples:,} | {metric} | {Number(**number)} |"
                    )
        return "\n".join(lines)

    def save(self, folder: Path) -> None:
        """Writes `predictions.jsonl`, `results.json` and `table.md`."""
        folder.mkdir(parents=True, exist_ok=True)
        values = {"model": self.model, **self.facts, "runs": self.runs}
        lines = [
            json.dumps({"run": name, **one}, ensure_ascii=False) + "\n"
            for name in self.runs
            for one in self.predictions.get(name, [])
        ]
        write_text(folder / "predictions.jsonl", "".join(lines))
        write_text(folder / "results.json", json.dumps(values, indent=1, ensure_ascii=False) + "\n")
        write_text(folder / "table.md", f"# {self.model}\n\n{self.table()}\n")


def evaluate_tasks(
    glm: Any,
    runs: Sequence[Run],
    out_dir: str | Path | None = None,
    *,
    model_name: str = "",
    limit: int | None = None,
    by: str | None = None,
    seed: int = 0,
    rename: Mapping[str, str] | None = None,
    progress: Callable[[str, TaskResult | None], None] | None = None,
) -> SuiteReport:
    """Measures a model on tasks, one after the other; see the module.

    Args:
        glm: A loaded `glmkit.GLM`.
        runs: What to measure, see `parse_runs`.
        out_dir: Folder for the results; those of the same runs that are there already are kept.
        model_name: For the report.
        limit: At most so many records of each source, the first ones (as the task's view makes them).
        by: Field of the records whose values get numbers of their own.
        seed: Of what is hidden.
        rename: A task's field -> the data's, where they differ.
        progress: Called with a run's name and its result when it is done; None where it was done before.

    Raises:
        ConfigError: No run, or two of the same name.
        DataError, GenerationError: As `evaluate_task`.
    """
    names = [run.name for run in runs]
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            f"evaluation needs at least one task with data, each pair once; there are: {', '.join(names) or 'none'}"
        )
    facts = {"seed": seed, **facts_of(glm.model)}
    head = getattr(glm, "head", None)
    if head is not None:
        facts["head_fingerprint"] = weights_fingerprint(head.model)
    folder = None if out_dir is None else Path(out_dir)
    earlier, predictions = _earlier(folder, facts)
    report = SuiteReport(model_name, earlier, facts, predictions)
    for run in runs:
        records = list(islice(read_questions(run.task, run.data, rename), limit))
        decides = {
            "data": run.data,
            "data_fingerprint": digest([record for record, _ in records]),
            "task_fingerprint": digest(asdict(run.task)),
            "by": by,
            "limit": limit,
            "calibration": digest(_calibration(glm, run.task)),
        }
        before = report.runs.get(run.name, {})
        result = None
        if any(before.get(key) != value for key, value in decides.items()):
            result, answers = evaluate_task(glm, run.task, records, by=by, seed=seed)
            report.runs[run.name] = {**asdict(result), **decides}
            report.predictions[run.name] = answers
            if folder:
                report.save(folder)
        if progress:
            progress(run.name, result)
    return report


def parse_runs(tasks: Sequence[str], data: Sequence[str]) -> list[Run]:
    """Returns the runs that `--tasks` and `--data` mean.

    Args:
        tasks: Names of the catalog or YAML files; empty means those that `data` names.
        data: `TASK=SOURCE`, or `SOURCE` alone for every task without a source of its own; of a YAML file TASK is its path or its `name`.

    Raises:
        ConfigError: An unknown task, a task without data, or data without a task.
    """
    own: dict[str, list[str]] = {}
    shared = []
    files = [name for name in tasks if Path(name).suffix in (".yaml", ".yml")]
    named = {load_task(name).name: name for name in files}
    for one in data:
        name, equals, source = one.partition("=")
        if equals and (name in (*tasks, *named) or names_tasks([one])):
            own.setdefault(name if name in tasks else named.get(name, name), []).append(source)
        else:
            shared.append(one)
    wanted = list(dict.fromkeys(tasks)) or list(own)
    for name in wanted:
        if not own.get(name) and not shared:
            raise ConfigError(f"the task {name!r} has no data: add --data {name}=FILE")
    idle = [name for name in own if name not in wanted]
    if idle or (shared and all(own.get(name) for name in wanted)):
        raise ConfigError(
            f"there are data for no task: {', '.join([*idle, *shared])}; name it in --tasks, or write --data TASK=FILE"
        )
    return [Run(load_task(name), source) for name in wanted for source in own.get(name) or shared]


def names_tasks(data: Sequence[str]) -> bool:
    """Returns whether one of `--data` has the form `TASK=SOURCE`: a task, a word or a YAML file before the first `=`."""
    before = [name for name, equals, _ in (one.partition("=") for one in data) if equals]
    return any(
        name.isidentifier() or name.endswith((".yaml", ".yml")) or name in catalog()
        for name in before
    )


def _calibration(glm: Any, task: Task) -> Any:
    """Returns the calibration of a task that lies beside the weights, which changes probabilities."""
    found = getattr(glm, "calibrations", {}).get(task.name)
    return None if found is None else asdict(found)


def _earlier(
    folder: Path | None, facts: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Returns the runs of earlier calls that the same weights, seed and versions made, and their predictions.

    A run without all its predictions does not count.

    Raises:
        DataError: The folder's `results.json` is not one of these.
    """
    path = folder / "results.json" if folder else None
    if folder is None or path is None or not path.is_file():
        return {}, {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        runs = dict(values["runs"])
        same = ("weights_fingerprint", "head_fingerprint", "seed", "versions")
        if any(values.get(key) != facts.get(key) for key in same):
            return {}, {}
        predictions: dict[str, list[dict[str, Any]]] = {}
        lines = folder / "predictions.jsonl"
        if lines.is_file():
            with lines.open(encoding="utf-8") as file:
                for one in map(json.loads, file):
                    predictions.setdefault(one.pop("run"), []).append(one)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} holds no results of evaluation, or damaged ones ({error}); choose another folder or remove "
            "results.json"
        ) from error
    whole = [name for name in runs if len(predictions.get(name, [])) == runs[name]["examples"]]
    return {name: runs[name] for name in whole}, {name: predictions[name] for name in whole}
