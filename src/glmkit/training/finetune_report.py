"""What a fine-tuning run did: `report.json`, `report.txt` and `curve.png`.

In: metrics before and after, log lines. Out: `FinetuneReport`, a picture. Knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from glmkit.errors import missing_dependency
from glmkit.whole_files import write_figure, write_text

SHARES = ("accuracy", "macro_f1", "entity_f1")
"""Ends of names of metrics from 0 to 1."""


@dataclass(frozen=True)
class FinetuneReport:
    """The outcome of `finetune`; `print` it.

    Attributes:
        folder: The run: `model/`, `predictions/`, `checkpoint-N/`, `config.yaml`, `log.jsonl`, `curve.png`, `report.html`.
        model: Folder of the best weights; `glmkit.load` reads it.
        method: "cloze", "head" or "written answers", with "LoRA" or "all weights".
        parameters: Of the model.
        trained_parameters: Of them, those that were trained.
        samples: Task -> samples to train on and held out.
        steps: Optimizer steps.
        best_step: That of the best weights.
        stopped_early: Whether patience ended the run.
        before: Task -> metrics of the held-out samples before training.
        after: The same with the best weights.
        seconds: Wall-clock time of this call; not the whole run's where it was resumed.
        resumed_from: Step of the checkpoint that this call went on from, or None.
        notes: What the user should know.
        versions: Of the software.
    """

    folder: Path
    model: Path
    method: str
    parameters: int
    trained_parameters: int
    samples: dict[str, tuple[int, int]]
    steps: int
    best_step: int | None
    stopped_early: bool
    before: dict[str, dict[str, float]]
    after: dict[str, dict[str, float]]
    seconds: float
    resumed_from: int | None
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict, repr=False)

    def save(self) -> None:
        """Writes `report.txt`, then `report.json`, into the run's folder."""
        values = {**asdict(self), "folder": str(self.folder), "model": str(self.model)}
        write_text(self.folder / "report.txt", self.table() + "\n")
        text = json.dumps(values, indent=1, ensure_ascii=False)
        write_text(self.folder / "report.json", text + "\n")

    @classmethod
    def load(cls, folder: Path) -> FinetuneReport:
        """Reads what `save` wrote."""
        values = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        values["samples"] = {name: tuple(both) for name, both in values["samples"].items()}
        return cls(**{**values, "folder": folder, "model": folder / "model"})

    def table(self) -> str:
        """Returns the report as lines of text."""
        rows = [
            ("model", str(self.model)),
            (
                "method",
                f"{self.method}; {self.trained_parameters:,} of {self.parameters:,} parameters trained",
            ),
        ]
        for name, (train, valid) in self.samples.items():
            rows.append(("samples", f"{name}: {train:,} to train on, {valid:,} held out"))
        resumed = f", resumed from {self.resumed_from:,}" if self.resumed_from else ""
        early = ", stopped early" if self.stopped_early else ""
        rows.append(("steps", f"{self.steps:,}{early}{resumed}; best at {self.best_step:,}"))
        rows.append(("time", f"{self.seconds:,.0f} s"))
        for task, after in self.after.items():
            for name, value in after.items():
                before = self.before.get(task, {}).get(name)
                start = "" if before is None else f"{_shown(name, before)} -> "
                rows.append((f"{task} {name}", start + _shown(name, value)))
        rows += [("note", note) for note in self.notes]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)

    def __str__(self) -> str:
        return self.table()


def plot_curve(history: Sequence[Mapping[str, Any]], path: Path, title: str = "") -> None:
    """Draws losses, and accuracies where there are any, over steps as a PNG.

    Args:
        history: Log lines with `step` and `loss` or `eval_…`.
        path: Of the PNG.
        title: Above the picture.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_dependency("matplotlib", "the picture of the curve", "train") from error
    names = sorted({name for line in history for name in line if name.startswith("eval_")})
    losses = ["loss", *(name for name in names if name.endswith("loss"))]
    shares = [name for name in names if name.endswith(SHARES)]
    groups = [("nats", losses)] + ([("share right", shares)] if shares else [])
    figure = Figure(figsize=(5 * len(groups), 4), dpi=120, layout="constrained")
    for axes, (unit, keys) in zip(
        figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True
    ):
        for key in keys:
            points = [(line["step"], line[key]) for line in history if key in line]
            if points:
                label = key.replace("eval_", "held-out ").replace("_", " ")
                axes.plot(
                    *zip(*points, strict=True), label=label if key != "loss" else "training loss"
                )
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(unit)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title, fontsize=10)
    write_figure(path, figure)


def _shown(name: str, value: float) -> str:
    return f"{value:.1%}" if name in SHARES else f"{value:.4g}"
