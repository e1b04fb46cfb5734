"""What a comparison of objectives is made of, and what is refused before anything is trained.

In: a recipe. Out: `ObjectivesConfig`, and the pretraining run of each objective and seed, which differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from glmkit.config import from_values, to_values
from glmkit.errors import ConfigError, nearest
from glmkit.training.settings import TRAINER_DEFAULTS, DataSettings, PretrainConfig, check

OBJECTIVES: dict[str, tuple[str, dict[str, float]]] = {
    "glm-token": ("glm", {"token_weight": 1.0, "sentence_weight": 0.0, "document_weight": 0.0}),
    "glm-token-document": (
        "glm",
        {"token_weight": 0.5, "sentence_weight": 0.0, "document_weight": 0.5},
    ),
    "glm-multi-task": (
        "glm",
        {"token_weight": 0.4, "sentence_weight": 0.3, "document_weight": 0.3},
    ),
    "bert": ("bert", {}),
    "gpt": ("gpt", {}),
}
"""Name -> family, and weights of GLM's objectives: spans alone; spans and long text; the published mixture of three."""

TASKS = ("classification", "infilling", "generation")

FEWEST_POSITIONS = 32
"""A row shorter than this holds no question worth asking."""

_PLAIN = {
    "token_weight": 0.0,
    "sentence_weight": 0.0,
    "document_weight": 1.0,
    "short_prob": 0.0,
}
"""How peers' texts are cut to rows; what is hidden in them is their own layout's."""


@dataclass(frozen=True)
class TuningSettings:
    """How every pretrained model is fine-tuned on every task."""

    steps: int = 300
    """Optimizer steps."""
    rows: int = 16
    """Samples of a step."""
    learning_rate: float = 3e-4
    """Peak rate; warm-up over a tenth of the steps, then linear to 0."""


@dataclass(frozen=True)
class ClassificationSettings:
    """Labelled texts; the same new head on the mean of the last hidden states, for all models."""

    train: tuple[str, ...] = ()
    """Files to learn from."""
    valid: tuple[str, ...] = ()
    """Files to measure on."""
    text: str = "text"
    """Field with the text."""
    label: str = "label"
    """Field with the label."""
    limit: int = 4000
    """Records of `train` at most, the first ones of a seeded order."""
    valid_limit: int = 1000
    """Records of `valid` at most."""


@dataclass(frozen=True)
class InfillingSettings:
    """Blanks of several tokens inside texts of the corpus."""

    shortest: int = 2
    """Tokens of a blank, at least."""
    longest: int = 8
    """Tokens of a blank, at most."""
    valid_limit: int = 500
    """Held-out blanks."""


@dataclass(frozen=True)
class GenerationSettings:
    """Texts of the corpus that are gone on with."""

    length: int = 24
    """Tokens to write."""
    valid_limit: int = 200
    """Held-out texts."""


@dataclass(frozen=True)
class ObjectivesConfig:
    """A comparison; `glmkit.config.load_config(ObjectivesConfig, recipe, overrides)` reads it."""

    data: DataSettings
    """The prepared corpus, and the rows that all objectives read."""
    output_dir: Path = Path("runs/objectives")
    """Folder of all runs and of the results."""
    objectives: tuple[str, ...] = tuple(OBJECTIVES)
    """Which are compared."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Of weights, order of the texts and fine-tuning: one run each; more can be added later."""
    tasks: tuple[str, ...] = TASKS
    """What is measured."""
    model: dict[str, Any] = field(default_factory=dict)
    """Fields of `GLMConfig`; the other families get the same sizes."""
    trainer: dict[str, Any] = field(default_factory=lambda: dict(TRAINER_DEFAULTS))
    """transformers' `TrainingArguments` of pretraining, for all objectives."""
    tuning: TuningSettings = field(default_factory=TuningSettings)
    """Fine-tuning."""
    classification: ClassificationSettings = field(default_factory=ClassificationSettings)
    """First task."""
    infilling: InfillingSettings = field(default_factory=InfillingSettings)
    """Second task."""
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    """Third task."""

    def folder(self, objective: str, seed: int) -> Path:
        """Returns the folder of one run."""
        return self.output_dir / objective / f"seed-{seed}"

    def pretraining(self, objective: str, seed: int) -> PretrainConfig:
        """Returns the pretraining run of an objective and seed, checked.

        Raises:
            ConfigError: Contradictions, all in one message.
        """
        weights = OBJECTIVES[objective][1] or _PLAIN
        values = {
            "data": to_values(self.data),
            "model": self.model,
            "objectives": weights,
            "trainer": {
                **self.trainer,
                "seed": seed,
                "output_dir": str(self.folder(objective, seed) / "pretraining"),
            },
        }
        return check(from_values(PretrainConfig, values))


def check_comparison(config: ObjectivesConfig) -> ObjectivesConfig:
    """Returns the configuration, file names absolute; nothing is built.

    Raises:
        ConfigError: Everything that contradicts itself, in one message.
    """
    problems: list[str] = []
    for given, known, what in (
        (config.objectives, OBJECTIVES, "objectives"),
        (config.tasks, TASKS, "tasks"),
    ):
        problems += [
            f"{what}: there is no {name!r}{nearest(name, known) or '.'} There are {', '.join(known)}"
            for name in given
            if name not in known
        ]
        if not given:
            problems.append(f"{what} is empty; name at least one of {', '.join(known)}")
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        problems.append(f"seeds = {list(config.seeds)} must be different numbers, at least one")
    if "from" in config.model:
        problems.append(
            "model.from: every objective begins with new weights; give sizes, as model.hidden_size"
        )
    for name, value in _counts(config).items():
        if value < 1:
            problems.append(f"{name} = {value} must be at least 1")
    if config.infilling.longest < config.infilling.shortest:
        problems.append(
            f"infilling.longest = {config.infilling.longest} is below infilling.shortest = {config.infilling.shortest}"
        )
    needed = max(FEWEST_POSITIONS, 4 * config.infilling.longest, 3 * config.generation.length)
    if config.data.row_length < needed:
        problems.append(
            f"data.row_length = {config.data.row_length} must be at least {needed}: {FEWEST_POSITIONS}, 4 · "
            "infilling.longest and 3 · generation.length"
        )
    files = config.classification
    if "classification" in config.tasks and not (files.train and files.valid):
        problems.append(
            "classification needs labelled texts: set classification.train and classification.valid to lists of files, or "
            "leave it out of tasks"
        )
    if problems:
        raise ConfigError("this comparison cannot be started:\n- " + "\n- ".join(problems))
    config.pretraining(config.objectives[0], config.seeds[0])
    return replace(config, output_dir=Path(config.output_dir))


def _counts(config: ObjectivesConfig) -> Mapping[str, float]:
    return {
        "tuning.steps": config.tuning.steps,
        "tuning.rows": config.tuning.rows,
        "classification.limit": config.classification.limit,
        "classification.valid_limit": config.classification.valid_limit,
        "infilling.shortest": config.infilling.shortest,
        "infilling.valid_limit": config.infilling.valid_limit,
        "generation.length": config.generation.length,
        "generation.valid_limit": config.generation.valid_limit,
    }
