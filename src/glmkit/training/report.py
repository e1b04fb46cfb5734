"""What a training run did: `report.json`, `report.txt` and `loss.png`, made of its log history.

In: log lines as Trainer keeps them. Out: `PretrainReport`, and a picture of the loss. Knows no model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from glmkit.errors import missing_dependency
from glmkit.whole_files import write_figure, write_text


@dataclass(frozen=True)
class PretrainReport:
    """The outcome of `pretrain`.

    Attributes:
        folder: The run: `model/`, `checkpoint-N/`, `config.yaml`, `log.jsonl`, `loss.png`,
            `report.html`, `tensorboard/`.
        model: Folder of the trained model and its tokenizer.
        parameters: Of the model.
        steps: Optimizer steps.
        epochs: Passes over the training text.
        tokens: Tokens read, masks and start markers included, padding not.
        predicted_tokens: Of them, tokens that were predicted.
        padding_ratio: Share of padding in the rows read.
        tokens_per_second: Median of the log lines.
        train_loss: Of the last log line, nats per predicted token.
        loss_before: Held-out losses before training: `loss`, `token_loss`, `sentence_loss`, `document_loss`.
        loss_after: The same after training.
        loss_average: The same with the averaged weights, empty where there are none.
        seconds: Wall-clock time of this call; not the whole run's where it was resumed.
        resumed_from: Step of the checkpoint that this call went on from, or None.
        versions: Of the software.
    """

    folder: Path
    model: Path
    parameters: int
    steps: int
    epochs: float
    tokens: int
    predicted_tokens: int
    padding_ratio: float
    tokens_per_second: float
    train_loss: float
    loss_before: dict[str, float]
    loss_after: dict[str, float]
    loss_average: dict[str, float]
    seconds: float
    resumed_from: int | None
    versions: dict[str, str] = field(repr=False)

    @property
    def perplexity(self) -> float:
        """Of the held-out text's blanks after training, per token."""
        return math.exp(self.loss_after["loss"])

    def save(self) -> None:
        """Writes `report.txt`, then `report.json`, into the run's folder."""
        values = {**asdict(self), "folder": str(self.folder), "model": str(self.model)}
        write_text(self.folder / "report.txt", self.table() + "\n")
        write_text(self.folder / "report.json", json.dumps(values, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> PretrainReport:
        """Reads what `save` wrote."""
        values = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return cls(**{**values, "folder": folder, "model": folder / "model"})

    def table(self) -> str:
        """Returns the report as lines of text."""
        rows = [
            ("model", f"{self.model}, {self.parameters:,} parameters"),
            (
                "steps",
                f"{self.steps:,}"
                + (f" (resumed from {self.resumed_from:,})" if self.resumed_from else ""),
            ),
            (
                "tokens read",
                f"{self.tokens:,} ({self.epochs:.2f} epochs), {self.predicted_tokens:,} predicted",
            ),
            ("speed", f"{self.tokens_per_second:,.0f} tokens/s, {self.padding_ratio:.1%} padding"),
            ("time", f"{self.seconds:,.0f} s"),
            ("training loss", f"{self.train_loss:.3f}"),
        ]
        for name, after in self.loss_after.items():
            label = "held-out loss" + ("" if name == "loss" else f", {name.removesuffix('_loss')}")
            before = self.loss_before.get(name)
            start = "" if before is None else f"{before:.3f} -> "
            ppl = "" if before is None else f"{math.exp(before):,.0f} -> "
            rows.append((label, f"{start}{after:.3f} (perplexity {ppl}{math.exp(after):,.1f})"))
        if self.loss_average:
            average = self.loss_average["loss"]
            rows.append(("of the average", f"{average:.3f} (perplexity {math.exp(average):,.1f})"))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)

    def __str__(self) -> str:
        return self.table()


def plot_loss(history: Sequence[dict[str, Any]], path: Path, title: str = "") -> None:
    """Draws training and held-out losses over steps as a PNG.

    Args:
        history: Log lines with `step` and `loss` or `eval_loss`, `eval_<objective>_loss`.
        path: Of the PNG.
        title: Above the picture.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_dependency("matplotlib", "the picture of the loss", "train") from error
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    lines: list[tuple[str, str, dict[str, Any]]] = [
        ("loss", "training", {"color": "0.6", "linewidth": 1}),
        (
            "eval_loss",
            "held-out",
            {"color": "black", "linewidth": 2, "marker": "o", "markersize": 3},
        ),
        ("eval_token_loss", "held-out, [MASK] spans", {"linewidth": 1.2}),
        ("eval_sentence_loss", "held-out, [sMASK] sentences", {"linewidth": 1.2}),
        ("eval_document_loss", "held-out, [gMASK] long text", {"linewidth": 1.2}),
    ]
    for key, label, style in lines:
        points = [(line["step"], line[key]) for line in history if key in line]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats per predicted token)")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    write_figure(path, figure)
