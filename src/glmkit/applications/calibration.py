"""Probabilities that mean what they say: a temperature and a bias for each label, fitted on labelled data.

In: scores (log-probabilities) of labels. Out: probabilities. What was fitted lies beside a model in
`calibration.json`: `{"sentiment": {"temperature": 1.7, "bias": {"1": 0.2, "0": -0.2}}}`.

Sources: temperature and vector scaling, Guo et al. 2017 (arXiv 1706.04599) section 4.2; contextual calibration, Zhao
et al. 2021 (arXiv 2102.09690).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from glmkit.errors import ConfigError, DataError, needs_torch
from glmkit.whole_files import write_text

FILE = "calibration.json"

BIAS_PENALTY = 1e-3
"""Of the squared biases in the fit: a label that no example has must not run away to minus infinity."""


@dataclass(frozen=True)
class Calibration:
    """What makes scores of labels into probabilities: softmax(score / temperature + bias).

    Attributes:
        temperature: Above 1 makes the model less sure.
        bias: Label -> what is added; 0 for a label that is not there.
    """

    temperature: float = 1.0
    bias: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the temperature.

        Raises:
            ConfigError: It is not positive.
        """
        if not self.temperature > 0:
            raise ConfigError(f"calibration: temperature={self.temperature} must be above 0")

    def probabilities(self, scores: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """Returns float64 [n, L], rows that sum to 1, from scores [n, L] in nats."""
        bias = np.array([self.bias.get(label, 0.0) for label in labels])
        shifted = scores / self.temperature + bias
        weights = np.exp(shifted - shifted.max(1, keepdims=True))
        return weights / weights.sum(1, keepdims=True)


def fit(
    scores: np.ndarray, answers: np.ndarray, labels: Sequence[str], *, bias: bool = True
) -> Calibration:
    """Returns the calibration under which the right labels are likeliest.

    Args:
        scores: float [n, L], what `label_scores` gives of held-out texts that the model was not trained on.
        answers: int64 [n], the right labels' places.
        labels: L names.
        bias: Whether to fit a bias for each label too; with few examples a temperature alone is safer.

    Raises:
        DataError: No examples, or numbers that do not fit.
    """
    if not len(scores) or scores.shape != (len(answers), len(labels)):
        raise DataError(
            f"calibration needs at least one example and a score for each label, not scores of shape "
            f"{list(scores.shape)} for {len(answers)} answers and {len(labels)} labels"
        )
    with needs_torch("Calibration", "校准"):
        import torch

    given = torch.tensor(scores - scores.max(1, keepdims=True), dtype=torch.float64)
    right = torch.tensor(np.asarray(answers), dtype=torch.long)
    # The loss is convex in 1 / temperature (as its logarithm, positive) and the biases.
    log_sharpness = torch.zeros((), dtype=torch.float64, requires_grad=True)
    shifts = torch.zeros(len(labels), dtype=torch.float64, requires_grad=bias)
    optimizer = torch.optim.LBFGS(
        [log_sharpness, *([shifts] if bias else [])], max_iter=200, line_search_fn="strong_wolfe"
    )

    def loss() -> Any:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(given * log_sharpness.exp() + shifts, right)
        value = value + BIAS_PENALTY * shifts.square().sum() + BIAS_PENALTY * log_sharpness.square()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    found = (shifts - shifts.mean()).tolist()
    return Calibration(
        temperature=float((-log_sharpness.detach()).exp()),
        bias=dict(zip(labels, found, strict=True)) if bias else {},
    )


def loss(
    scores: np.ndarray,
    answers: Sequence[str],
    labels: Sequence[str],
    calibration: Calibration | None = None,
) -> float:
    """Returns the mean negative log-probability (nats) of the right labels; lower is better calibrated and sharper.

    Args:
        scores: float [n, L], see `fit`.
        answers: The right labels.
        labels: L names.
        calibration: By default a softmax.
    """
    shares = (calibration or Calibration()).probabilities(scores, labels)
    right = shares[np.arange(len(scores)), [list(labels).index(one) for one in answers]]
    return float(-np.log(np.maximum(right, 1e-300)).mean())


def load_calibrations(folder: Path) -> dict[str, Calibration]:
    """Returns what `calibration.json` of a model's folder holds, by task; nothing where there is none.

    Raises:
        ConfigError: The file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {
            task: Calibration(
                float(one.get("temperature", 1.0)),
                {label: float(value) for label, value in one.get("bias", {}).items()},
            )
            for task, one in stored.items()
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}). It should hold for each task a temperature above 0 and a bias for each "
            "label; delete it, or fit it again with fit_calibration and save_calibrations"
        ) from error


def save_calibrations(calibrations: dict[str, Calibration], folder: str | Path) -> Path:
    """Writes `calibration.json` into a model's folder, tasks that it held and that are not given are kept."""
    path = Path(folder) / FILE
    merged = {**load_calibrations(Path(folder)), **calibrations}
    values = {task: asdict(one) for task, one in sorted(merged.items())}
    write_text(path, json.dumps(values, ensure_ascii=False, indent=1))
    return path
