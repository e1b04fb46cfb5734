"""Texts that have the labels wanted: several are drawn, and the model itself, asked which label each has, chooses.

In: a loaded GLM, texts with blanks, task -> label. Out: `Filled`s, with all that was drawn as candidates. The question is the task's
own cloze (or the head that the model was fine-tuned with); the texts are drawn from the model as it is, so that none of them is
less fluent for it. Guidance leads while a text is written and can be combined with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from typing import Any

import numpy as np

from glmkit.applications.labels import SENTIMENTS
from glmkit.applications.understanding import Understanding
from glmkit.errors import GenerationError, nearest
from glmkit.generation import infill
from glmkit.generation.results import Candidate, Filled
from glmkit.generation.settings import DecodingSettings


@dataclass(frozen=True)
class Preference:
    """What is wanted of a text.

    Attributes:
        labels: Task (of the catalog, or the path of one's own) -> label.
        candidates: How many texts are drawn.
    """

    labels: Mapping[str, str]
    candidates: int = 8

    def check(self, glm: Understanding, settings: DecodingSettings) -> None:
        """Refuses what cannot be wanted, before anything is written.

        Raises:
            ConfigError: No such task.
            GenerationError: No such label, or settings that draw nothing.
        """
        if self.candidates < 1:
            raise GenerationError(f"candidates={self.candidates} must be at least 1")
        if not self.labels:
            raise GenerationError(
                'prefer is empty; give task -> label, such as {"sentiment": "positive"}'
            )
        if not settings.do_sample:
            raise GenerationError(
                "prefer chooses among texts that are drawn; set do_sample=True (the likeliest text is always the same)"
            )
        for name, label in self.labels.items():
            task = glm.task_of(name)
            labels = (
                [SENTIMENTS.get(one, one) if name == "sentiment" else one for one in task.labels]
                if task
                else []
            )
            if label not in labels:
                raise GenerationError(
                    f"prefer: the task {name!r} has no label {label!r}; there are {', '.join(labels)}{nearest(label, labels)}"
                )

    def probabilities(self, glm: Understanding, texts: Sequence[str]) -> np.ndarray:
        """Returns float64 [texts]: how probable it is that each has the labels, taken as independent of each other."""
        shares = np.ones(len(texts))
        for name, label in self.labels.items():
            found = glm.sentiment(texts) if name == "sentiment" else glm.classify(texts, name)
            shares *= [one.probabilities[label] for one in found]
        return shares


def fill(
    glm: Understanding,
    texts: Sequence[str],
    settings: DecodingSettings,
    preference: Preference,
    **options: Any,
) -> list[Filled]:
    """Fills the blanks of each text several times and keeps what has the wanted labels most probably.

    Args:
        glm: The loaded model.
        texts: The texts.
        settings: How candidates are drawn; candidate i has the seed `seed + i`.
        preference: What is wanted.
        **options: `batch_size`, `constraints` and `negative_prompts` of `infill.draw`.

    Returns:
        The best candidate of each text; `candidates` has all of them, each text once, best first.

    Raises:
        ConfigError, GenerationError: As `Preference.check` and `infill.draw`.
    """
    preference.check(glm, settings)
    seeds = [
        None if settings.seed is None else settings.seed + number
        for number in range(preference.candidates)
    ]
    drawn = infill.draw(glm.model, glm.vocabulary, texts, settings, [seeds] * len(texts), **options)
    unique = [list({one.text: one for one in some}.values()) for some in drawn]
    shares = iter(preference.probabilities(glm, [one.text for some in unique for one in some]))
    results = []
    for some in unique:
        ranked = sorted(((next(shares), one) for one in some), key=lambda pair: -pair[0])
        candidates = [
            Candidate(one.text, one.blanks, sum(one.scores), exp(sum(one.scores)), float(share))
            for share, one in ranked
        ]
        results.append(replace(ranked[0][1], candidates=candidates))
    return results
