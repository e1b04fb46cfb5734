"""What a pretraining run is made of, and the contradictions that are refused before anything is built.

In: a recipe. Out: `PretrainConfig`, checked against itself and against the prepared corpus that it names.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from glmkit.blanks.objectives import ObjectiveSettings
from glmkit.config import check_values
from glmkit.errors import ConfigError, UserError, nearest

TRAINER_DEFAULTS: dict[str, Any] = {
    "output_dir": "runs/pretrain",
    "max_steps": 10_000,
    "per_device_train_batch_size": 8,
    "learning_rate": 4e-4,
    "adam_beta1": 0.9,
    "adam_beta2": 0.98,
    "adam_epsilon": 1e-6,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "lr_scheduler_type": "cosine_with_min_lr",
    "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
    "warmup_steps": 0.04,
    "logging_steps": 10,
    "eval_strategy": "steps",
    "eval_steps": 500,
    "save_steps": 500,
    "save_total_limit": 2,
    "seed": 1234,
}
"""`TrainingArguments` that differ from transformers' defaults: the published pretraining's (DESIGN.md, section 5)."""

NOT_SUPPORTED = {
    "load_best_model_at_end": False,
    "save_only_model": False,
    "auto_find_batch_size": False,
    "push_to_hub": False,
    "label_smoothing_factor": 0.0,
    "resume_from_checkpoint": None,
}
"""`TrainingArguments` that pretraining cannot honour, with the only value that is accepted."""


@dataclass(frozen=True)
class DataSettings:
    """Where the text comes from and how it is put into rows."""

    folder: Path
    """What `glmkit prepare` wrote: `train/`, `valid/` and `tokenizer/`."""
    row_length: int = 512
    """Length of a row in tokens; several samples share one. `trainer.per_device_train_batch_size` counts rows."""
    valid_rows: int = 64
    """Rows of held-out text that are evaluated each time."""


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining run; `glmkit.config.load_config(PretrainConfig, recipe, overrides)` reads it."""

    data: DataSettings
    """The corpus."""
    model: dict[str, Any] = field(default_factory=lambda: {"preset": "base"})
    """Fields of `GLMConfig`, and `preset` to begin from. The tokenizer sets the vocabulary's."""
    objectives: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    """How blanks are made."""
    trainer: dict[str, Any] = field(default_factory=lambda: dict(TRAINER_DEFAULTS))
    """transformers' `TrainingArguments`, under their own names."""

    @property
    def output_dir(self) -> Path:
        """Folder of the run."""
        return Path(self.trainer["output_dir"])


def check(config: PretrainConfig) -> PretrainConfig:
    """Returns the configuration with all values converted; nothing is built.

    Raises:
        ConfigError: Everything that contradicts itself, in one message.
    """
    from transformers import TrainingArguments

    from glmkit.model.configuration import PRESETS

    problems: list[str] = []
    hints = {**typing.get_type_hints(TrainingArguments), "warmup_steps": float}
    trainer = check_values(hints, config.trainer, "trainer", problems)
    for name, accepted in NOT_SUPPORTED.items():
        if trainer.get(name, accepted) != accepted:
            problems.append(f"trainer.{name} = {trainer[name]!r} is not supported in pretraining")
    if trainer.get("save_strategy") == "best":
        problems.append("trainer.save_strategy = 'best' is not supported in pretraining")
    for name in ("max_steps", "per_device_train_batch_size"):
        if (trainer.get(name) or 0) < 1:
            problems.append(f"trainer.{name} = {trainer.get(name)!r} must be at least 1")
    model = _check_model(config.model, problems)
    positions = model.get("max_sequence_length") or PRESETS[model["preset"]][3]
    row_length = config.data.row_length
    if row_length < 16:
        problems.append(f"data.row_length = {row_length} must be at least 16")
    if row_length > positions:
        problems.append(
            f"data.row_length = {row_length} is longer than the model's {positions} positions; lower it or raise "
            "model.max_sequence_length"
        )
    if config.data.valid_rows < 1:
        problems.append(f"data.valid_rows = {config.data.valid_rows} must be at least 1")
    _check_folder(config.data.folder, problems)
    if problems:
        raise ConfigError("this run cannot be started:\n- " + "\n- ".join(problems))
    return PretrainConfig(config.data, model, config.objectives, trainer)


def _check_model(values: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    import torch

    from glmkit.model.configuration import PRESETS, GLMConfig

    # transformers' own annotations name torch without importing it
    hints, own = (
        typing.get_type_hints(GLMConfig, localns={"torch": torch}),
        vars(GLMConfig)["__annotations__"],
    )
    allowed = {
        one.name: hints[one.name]
        for one in fields(GLMConfig)  # type: ignore[arg-type]
        if one.name in own and not one.name.endswith("_token_id") and one.name != "num_tokens"
    }
    model = check_values({"preset": str, **allowed}, values, "model", problems)
    preset = model.get("preset")
    if preset not in PRESETS:
        problems.append(
            f"model.preset = {preset!r}; there are {', '.join(PRESETS)}{nearest(str(preset), PRESETS)}"
        )
        model["preset"] = "base"
    return model


def _check_folder(folder: Path, problems: list[str]) -> None:
    """Adds what is wrong with a prepared corpus: missing parts, an empty store, another tokenizer."""
    from glmkit.tokens.store import TokenStore
    from glmkit.tokens.tokenizer import GLMTokenizer

    try:
        fingerprint = GLMTokenizer.from_pretrained(folder / "tokenizer").fingerprint()
    except UserError as error:
        problems.append(f"data.folder = {str(folder)!r}: {error}")
        return
    for name in ("train", "valid"):
        try:
            store = TokenStore.open(folder / name, fingerprint)
        except UserError as error:
            problems.append(str(error))
            continue
        if not store.num_tokens:
            problems.append(
                f"{store.folder} is empty; prepare more text"
                + (" or raise valid_ratio" if name == "valid" else "")
            )
