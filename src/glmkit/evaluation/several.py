"""Several models on the same tasks, side by side: a folder for each, `comparison.json`, `table.md` and `report.html`.

In: names of models, a function that loads one, pairs of task and data. Out: a `Comparison`. Models are loaded one after
the other; what a model has done is not done again. One model has the folder for itself, with the same page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glmkit.errors import ConfigError
from glmkit.evaluation.differences import Difference, compare
from glmkit.evaluation.page import write_report
from glmkit.evaluation.suite import Run, SuiteReport, evaluate_tasks
from glmkit.evaluation.tasks import Number, TaskResult
from glmkit.whole_files import write_text

SAME = ("data_fingerprint", "task_fingerprint", "limit")
"""What two results must share to be compared."""


@dataclass(frozen=True)
class Comparison:
    """What several models got.

    Attributes:
        reports: One for each model, in the order given; `model` is its short name here.
        paths: Short name -> what was loaded.
        differences: Name of a run -> differences of all pairs of models that were asked the same.
    """

    reports: list[SuiteReport]
    paths: dict[str, str]
    differences: dict[str, list[Difference]]

    def table(self, runs: Sequence[Run] | None = None) -> str:
        """Returns a Markdown table of all runs, or of those given: one column a model, and what differs surely."""
        if len(self.reports) == 1:
            return self.reports[0].table(runs)
        names = [one.model for one in self.reports]
        lines = [
            f"| task | data | metric | {' | '.join(names)} | differences (p < 0.05) |",
            "|" + "---|" * (4 + len(names)),
        ]
        for run in run_names(self.reports) if runs is None else [one.name for one in runs]:
            task, _, data = run.partition(":")
            found = [one.runs.get(run, {}).get("metrics", {}) for one in self.reports]
            for metric in dict.fromkeys(name for metrics in found for name in metrics):
                cells = [
                    str(Number(**metrics[metric])) if metric in metrics else "–"
                    for metrics in found
                ]
                sure = [
                    f"{one.winner} better ({one.value:+.3f}, p={one.adjusted_p:.2g})"
                    for one in self.differences.get(run, [])
                    if one.metric == metric and one.winner
                ]
                lines.append(
                    f"| {task} | {data} | {metric} | {' | '.join(cells)} | {'; '.join(sure) or '–'} |"
                )
        return "\n".join(lines)

    def values(self) -> dict[str, Any]:
        """Returns what `comparison.json` holds."""
        return {
            "models": {
                one.model: {"path": self.paths[one.model], **one.facts} for one in self.reports
            },
            "runs": {
                run: {
                    "metrics": {
                        one.model: one.runs[run]["metrics"]
                        for one in self.reports
                        if run in one.runs
                    },
                    "differences": [asdict(one) for one in self.differences.get(run, [])],
                }
                for run in run_names(self.reports)
            },
        }

    def save(self, folder: Path) -> None:
        """Writes `report.html`, and of several models `comparison.json` and `table.md`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_report(folder / "report.html", self.reports, self.paths, self.differences)
        if len(self.reports) > 1:
            text = json.dumps(self.values(), indent=1, ensure_ascii=False)
            write_text(folder / "comparison.json", text + "\n")
            write_text(folder / "table.md", self.table() + "\n")


def evaluate_models(
    models: Sequence[str],
    load: Callable[[str], Any],
    runs: Sequence[Run],
    out_dir: str | Path | None = None,
    *,
    limit: int | None = None,
    by: str | None = None,
    seed: int = 0,
    rename: Mapping[str, str] | None = None,
    progress: Callable[[str, str, TaskResult | None], None] | None = None,
) -> Comparison:
    """Measures models on the same tasks and compares every two of them.

    Args:
        models: Folders or hub names.
        load: Makes a `glmkit.GLM` of one.
        runs: What to measure, see `suite.parse_runs`.
        out_dir: Folder for results, one folder in it for each model where there are several.
        limit: As `evaluate_tasks`, as are `by`, `seed` and `rename`.
        by: Field of the records.
        seed: Of what is hidden.
        rename: A task's field -> the data's.
        progress: Called with model, run and result when it is done; None where it was done before.

    Raises:
        ConfigError: No model, or one twice; as `evaluate_tasks`.
        DataError, GenerationError: As `evaluate_tasks`.
    """
    names = short_names(models)
    folder = None if out_dir is None else Path(out_dir)
    reports = []
    for name, path in zip(names, models, strict=True):

        def done(run: str, result: TaskResult | None, name: str = name) -> None:
            if progress:
                progress(name, run, result)

        report = evaluate_tasks(
            load(path),
            runs,
            folder / folder_name(name) if folder and len(names) > 1 else folder,
            model_name=path,
            limit=limit,
            by=by,
            seed=seed,
            rename=rename,
            progress=done,
        )
        report.model = name
        reports.append(report)
    found = Comparison(reports, dict(zip(names, models, strict=True)), differences(reports))
    if folder:
        found.save(folder)
    return found


def differences(reports: Sequence[SuiteReport]) -> dict[str, list[Difference]]:
    """Returns the differences of every two models on each run in which both were asked the same."""
    found = {}
    for run in run_names(reports):
        first, *others = [one for one in reports if run in one.runs]
        same = [
            one
            for one in others
            if all(one.runs[run][key] == first.runs[run][key] for key in SAME)
            and one.facts["seed"] == first.facts["seed"]
        ]
        if same:
            found[run] = compare(
                {one.model: one.predictions[run] for one in (first, *same)},
                list(first.runs[run]["metrics"]),
            )
    return found


def run_names(reports: Sequence[SuiteReport]) -> list[str]:
    """Returns the names of all runs, in the order of the first model that has them."""
    return list(dict.fromkeys(name for one in reports for name in one.runs))


def short_names(models: Sequence[str]) -> list[str]:
    """Returns the ends of paths that tell models apart: `a/model` and `b/model` of `runs/a/model` and `runs/b/model`.

    Raises:
        ConfigError: No model, or one twice.
    """
    if not models or len({str(Path(one)) for one in models}) < len(models):
        raise ConfigError(
            f"evaluation needs at least one model, each once; there are: {', '.join(models) or 'none'}"
        )
    parts = [Path(one).parts for one in models]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-count:]).replace("//", "/") for one in parts]
        if len(set(names)) == len(names) and len(set(map(folder_name, names))) == len(names):
            return names
    return [f"{number}:{one}" for number, one in enumerate(models, start=1)]


def folder_name(name: str) -> str:
    """Returns a name that any file system takes."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
