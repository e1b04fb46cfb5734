"""Which context made the score? Integrated gradients and ablation by captum, on the words' embeddings.

In: a model, `Rows`, the number that is explained. Out: `Attribution`s, one value for each unit. The baseline stands for
"nothing is known here": the same place with the embedding of `[MASK]` (the model's own sign of unknown text), of the
padding token, or the mean of the vocabulary. Positions are the same in text and baseline, so that the path between two
sums of embeddings is the path between two words.

Sources: integrated gradients, Sundararajan et al. 2017 (arXiv 1703.01365); captum (arXiv 2009.07896).

Shapes: N variants, R rows, S places, H hidden, U units.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from glmkit.errors import UserError, nearest
from glmkit.explain.results import Attribution, require_captum
from glmkit.explain.rows import Rows
from glmkit.explain.scoring import (
    Objective,
    embeddings_of,
    scores_from_embeddings,
    variants_at_once,
)

logger = logging.getLogger(__name__)

BASELINES = ("mask", "pad", "mean")
METHODS = ("integrated_gradients", "ablation", "attention_rollout")

MAX_GAP = 0.01
"""Of the score's difference; integrated gradients take more steps until the sum is as near as this."""
MAX_ABSOLUTE_GAP = 1e-3
"""In nats; as near is near enough where text and baseline differ by little."""
FIRST_STEPS, MAX_STEPS = 32, 1024


def check_methods(methods: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of methods.

    Raises:
        UserError: One that does not exist.
    """
    names = (methods,) if isinstance(methods, str) else tuple(methods)
    for name in names:
        if name not in METHODS:
            raise UserError(
                f"there is no method {name!r}{nearest(str(name), METHODS) or '.'} There are {', '.join(METHODS)}"
            )
    return names


def baseline_vector(model: Any, specials: Any, baseline: str) -> torch.Tensor:
    """Returns [H], the embedding that stands for a word that is not known (see `BASELINES`)."""
    table = model.glm.word_embeddings.weight.detach()
    if baseline == "mean":
        return table[: model.config.num_tokens or len(table)].mean(0)
    return table[specials.mask if baseline == "mask" else specials.pad].clone()


class Attributor:
    """The attributions of one question.

    Args:
        model: In evaluation mode.
        rows: What it reads.
        evidence: bool [U], which units are evidence for this content; the others stay as they are.
        objective: Scores [N, C] -> what is explained [N].
        baseline: [H].
    """

    def __init__(
        self,
        model: Any,
        rows: Rows,
        evidence: np.ndarray,
        objective: Objective,
        baseline: torch.Tensor,
    ):
        self._captum = require_captum()
        self._model, self._rows, self._objective = model, rows, objective
        self._num_units = len(evidence)
        # Features: the units that are evidence; everything else together is one more, equal in text and baseline.
        allowed = np.append(evidence, False)
        self._features = np.where(allowed[rows.units], rows.units, self._num_units)
        self._text = embeddings_of(model, rows)[None]
        replaced = torch.from_numpy(self._features < self._num_units).to(self._text.device)
        self._baseline = torch.where(replaced[None, ..., None], baseline.to(self._text), self._text)
        self.score, self.baseline_score = self._ends()

    def integrated_gradients(self) -> Attribution:
        """Returns the gradient along the straight path from baseline to text; values sum to the score's difference.

        Steps (Gauss-Legendre) are doubled until they do, within `MAX_GAP`, or there are `MAX_STEPS`.
        """
        method = self._captum.IntegratedGradients(self._forward)
        steps = FIRST_STEPS
        while True:
            found = method.attribute(
                self._text,
                self._baseline,
                n_steps=steps,
                internal_batch_size=variants_at_once(self._model, self._rows),
            )
            values = self._by_unit(found.sum(-1)[0])
            result = self._attribution("integrated_gradients", values, steps)
            if result.complete or steps >= MAX_STEPS:
                break
            steps *= 2
        if not result.complete:
            logger.warning(
                "integrated gradients of %d steps miss %.1f %% of the score's difference of %.3f nats; take them with care",
                steps,
                100 * result.gap,
                self.score - self.baseline_score,
            )
        return result

    def ablation(self) -> Attribution:
        """Returns by how much the score falls when a unit alone is replaced by the baseline; values need not add up."""
        method = self._captum.FeatureAblation(self._forward)
        features = torch.from_numpy(self._features).to(self._text.device)
        with torch.no_grad():
            found = method.attribute(
                self._text,
                self._baseline,
                feature_mask=features[None, ..., None],
                perturbations_per_eval=variants_at_once(self._model, self._rows),
            )
        # captum writes a feature's value at each of its places.
        values = np.zeros(self._num_units + 1)
        values[self._features.reshape(-1)] = found[0, ..., 0].double().cpu().numpy().reshape(-1)
        return self._attribution("ablation", values[:-1], None)

    def _forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        return self._objective(scores_from_embeddings(self._model, self._rows, embeddings))

    def _ends(self) -> tuple[float, float]:
        with torch.no_grad():
            both = torch.cat((self._text, self._baseline))
            score, baseline = self._forward(both).double().tolist()
        return score, baseline

    def _by_unit(self, values: torch.Tensor) -> np.ndarray:
        """Returns float64 [U] from values [R, S]."""
        flat = values.detach().double().cpu().numpy().reshape(-1)
        sums = np.bincount(self._features.reshape(-1), weights=flat, minlength=self._num_units + 1)
        return sums[: self._num_units]

    def _attribution(self, method: str, values: np.ndarray, steps: int | None) -> Attribution:
        difference = self.score - self.baseline_score
        missing = abs(values.sum() - difference)
        gap = missing / abs(difference) if difference else (0.0 if not missing else np.inf)
        return Attribution(
            method=method,
            values=values,
            score=self.score,
            baseline_score=self.baseline_score,
            gap=float(gap),
            complete=bool(missing <= max(MAX_GAP * abs(difference), MAX_ABSOLUTE_GAP)),
            steps=steps,
        )
