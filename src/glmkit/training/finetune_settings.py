"""What a fine-tuning run is made of, and the contradictions that are refused before anything is read.

In: a recipe, or settings. Out: `FinetuneConfig`, checked against itself, the machine and the model that it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from glmkit.checkpoint import read_config, resolve
from glmkit.checkpoint.adapters import is_adapter, root_of
from glmkit.config import check_values
from glmkit.errors import ConfigError, UserError, nearest
from glmkit.model.configuration import GLMConfig
from glmkit.tasks.task import Language, Task, load_task
from glmkit.training.adapter_settings import (
    LoraSettings,
    MediaSettings,
    VirtualSettings,
    check_adapters,
)
from glmkit.training.settings import check_precision, check_schedule, choose_bf16, trainer_types

TRAINER_DEFAULTS: dict[str, Any] = {
    "output_dir": "runs/finetune",
    "num_train_epochs": 3,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 32,
    "adam_beta2": 0.98,
    "adam_epsilon": 1e-6,
    "weight_decay": 0.1,
    "max_grad_norm": 1.0,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0.06,
    "logging_steps": 10,
    "save_total_limit": 1,
    "seed": 1234,
    "use_cache": True,  # of the saved model
}
"""`TrainingArguments` that differ from transformers' defaults: those of the paper's fine-tuning (appendix B). What is
left out follows from the data (`max_steps`, `eval_steps`, `save_steps`) or the method (`learning_rate`)."""

LEARNING_RATES = {"full": 2e-5, "lora": 2e-4, "virtual": 5e-3}
"""Where a recipe has none, for models of the published sizes; a model of some million weights likes ten times that (virtual tokens
twice)."""

NOT_SUPPORTED = {
    "load_best_model_at_end": False,
    "save_only_model": False,
    "auto_find_batch_size": False,
    "push_to_hub": False,
    "resume_from_checkpoint": None,
    "fsdp": None,
    "deepspeed": None,
    "label_smoothing_factor": 0.0,
    "dataloader_num_workers": 0,
}
"""`TrainingArguments` that fine-tuning does not honour, with the only value that is accepted."""

INSTEAD = {
    "load_best_model_at_end": "; the best weights are always kept (section best)",
    "label_smoothing_factor": "; set label_smoothing",
    "resume_from_checkpoint": "; the same command goes on by itself",
}

MODEL_FIELDS: dict[str, Any] = {
    "from": str,
    "attn_implementation": str,
    "pool_token": str,
    "classifier_dropout": float,
    "embedding_dropout_prob": float,
    "attention_dropout_prob": float,
    "output_dropout_prob": float,
}


@dataclass(frozen=True)
class TaskData:
    """One task of a run and its records."""

    train: list[str]
    """Files of records: JSON lines, JSON, CSV, parquet, `hf:owner/name`; also packed."""
    valid: list[str] = field(default_factory=list)
    """Files of records that choose the best weights; by default a share of `train` is set apart."""
    task: str = ""
    """Name in the catalog, or path of a YAML file; by default the section's name."""
    valid_ratio: float = 0.1
    """Share of `train` that is set apart where `valid` is empty, drawn by a hash of the record."""
    rename: dict[str, str] = field(default_factory=dict)
    """The task's field -> the field of the records, where they differ."""
    limit: int | None = None
    """Train on so many records, of all classes alike (few-shot)."""
    valid_limit: int | None = None
    """Evaluate on so many records."""
    language: Language | None = None
    """Of the patterns; by default that of each record."""
    patterns: list[int] | None = None
    """Numbers of the task's patterns that are asked, from 0; by default all of them in turn."""
    weight: float = 1.0
    """Factor of the task's share among several tasks."""
    class_weights: dict[str, float] | Literal["balanced"] | None = None
    """Label -> factor of its records' loss (1 for those not named); "balanced": all classes weigh the same."""


@dataclass(frozen=True)
class BestSettings:
    """Which weights are kept, and when to stop."""

    metric: Literal["auto", "loss", "accuracy", "macro_f1", "entity_f1"] = "auto"
    """Of the held-out records, a mean over tasks; auto: entity_f1 of tagging, accuracy where all tasks have one, else loss."""
    patience: int | None = None
    """Stop after so many evaluations without a better one."""
    min_delta: float = 0.0
    """Better means better by more than this."""


@dataclass(frozen=True)
class FinetuneConfig:
    """A fine-tuning run; `glmkit.config.load_config(FinetuneConfig, recipe, overrides)` reads it."""

    model: dict[str, Any]
    """`from`: a folder or hub name in any known format; `attn_implementation`, dropout, and for a head `pool_token` and
    `classifier_dropout`."""
    tasks: dict[str, TaskData]
    """Name -> one task; several are trained jointly."""
    method: Literal["cloze", "head"] = "cloze"
    """Of classification: the words that fill the blank are compared (PET, arXiv 2001.07676), or a new head is trained."""
    max_length: int | None = None
    """Of a sample, in tokens; by default the model's positions."""
    temperature: float = 1.0
    """A task of n batches counts as n^(1/temperature) among several."""
    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all answers (or tokens)."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    """Low-rank adapters."""
    virtual: VirtualSettings = field(default_factory=VirtualSettings)
    """Virtual tokens."""
    media: MediaSettings = field(default_factory=MediaSettings)
    """What reads images, sounds and clips, of a task with media."""
    best: BestSettings = field(default_factory=BestSettings)
    """The best weights."""
    trainer: dict[str, Any] = field(default_factory=lambda: dict(TRAINER_DEFAULTS))
    """transformers' `TrainingArguments`, under their own names; `bf16: auto` means where the device computes fast in it.
    By default it is evaluated and saved once an epoch."""

    @property
    def output_dir(self) -> Path:
        """Folder of the run."""
        return Path(self.trainer["output_dir"])

    def positions(self) -> int:
        """Returns how many positions the model has.

        Raises:
            CheckpointError: It cannot be read.
        """
        source = root_of(resolve(self.model["from"]))
        return GLMConfig(**read_config(source)).max_sequence_length

    @property
    def trained(self) -> Literal["full", "lora", "virtual"]:
        """Which weights are trained."""
        if self.virtual.tokens:
            return "virtual"
        return "lora" if self.lora.rank else "full"

    def loaded_tasks(self) -> dict[str, Task]:
        """Returns name -> task.

        Raises:
            ConfigError: No such task.
        """
        return {name: _task(name, data) for name, data in self.tasks.items()}


def check(config: FinetuneConfig) -> FinetuneConfig:
    """Returns the configuration with all values converted; no record is read.

    Raises:
        ConfigError: Everything that contradicts itself, in one message.
    """
    from glmkit.model.attention_names import unknown_attention

    problems: list[str] = []
    trainer = check_values(trainer_types(), choose_bf16(config.trainer), "trainer", problems)
    trainer.setdefault("learning_rate", LEARNING_RATES[config.trained])
    for name, accepted in NOT_SUPPORTED.items():
        if trainer.get(name, accepted) != accepted:
            hint = INSTEAD.get(name, "")
            problems.append(
                f"trainer.{name} = {trainer[name]!r} is not supported in fine-tuning{hint}"
            )
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "num_train_epochs"):
        if not (trainer.get(name) or 0) > 0:
            problems.append(f"trainer.{name} = {trainer.get(name)!r} must be above 0")
    check_precision(trainer, problems)
    check_schedule(
        dict(trainer), problems
    )  # what depends on the number of steps is filled in later
    model = check_values(MODEL_FIELDS, config.model, "model", problems)
    if wrong := unknown_attention(model.get("attn_implementation")):
        problems.append(f"model.{wrong}")
    _check_source(model, problems)
    _check_tasks(config, problems)
    _check_numbers(config, problems)
    if problems:
        raise ConfigError("this run cannot be started:\n- " + "\n- ".join(problems))
    return replace(config, model=model, trainer=trainer)


def _task(name: str, data: TaskData) -> Task:
    """Returns a run's task, with the patterns that it asks alone.

    Raises:
        ConfigError: No such task, or no such pattern.
    """
    task = load_task(data.task or name)
    if data.patterns is None:
        return task
    fewest = min(len(some) for some in task.patterns.values() if some)
    if not data.patterns or not all(0 <= number < fewest for number in data.patterns):
        raise ConfigError(f"patterns = {data.patterns} must be numbers from 0 to {fewest - 1}")
    chosen: dict[Language, list[str]] = {
        language: [some[number] for number in data.patterns]
        for language, some in task.patterns.items()
        if some
    }
    return replace(task, patterns=chosen)


def _check_source(model: Mapping[str, Any], problems: list[str]) -> None:
    if "from" not in model:
        problems.append("model.from is missing: a folder or hub name, for example glm-mini")
        return
    try:
        source = resolve(model["from"])
        if not is_adapter(source):
            read_config(source)
    except UserError as error:
        problems.append(f"model.from = {model['from']!r}: {error}")


def _check_tasks(config: FinetuneConfig, problems: list[str]) -> None:
    if not config.tasks:
        problems.append("tasks: at least one is needed")
    found: list[Task] = []
    for name, data in config.tasks.items():
        try:
            task = _task(name, data)
        except ConfigError as error:
            problems.append(f"tasks.{name}: {error}")
            continue
        found.append(task)
        _check_task_data(name, data, task, problems)
    kinds = {task.kind for task in found}
    if config.method == "head" and (len(config.tasks) > 1 or kinds - {"classification"}):
        problems.append("method = 'head' is for one classification task; use method = 'cloze'")
    with_media = {bool(task.media) for task in found}
    if True in with_media and (
        config.method == "head" or config.virtual.tokens or config.lora.quantize
    ):
        problems.append(
            "a task with media is asked by method = 'cloze', with all weights, LoRA, or none of the GLM's"
        )
    if config.media != MediaSettings() and True not in with_media and found:
        problems.append("media: none of the tasks has any")
    if config.media.cache_mb < 0:
        problems.append(f"media.cache_mb = {config.media.cache_mb} must be at least 0")
    if config.media.freeze_language and (config.lora.rank or not config.media.train):
        problems.append("media.freeze_language = true: nothing of the GLM is trained, so that lora.rank must be 0 and media.train name something")  # fmt: skip
    if "tagging" in kinds and len(config.tasks) > 1:
        problems.append(
            "a task of the kind tagging has a head of its own, so that it is trained alone"
        )


def _check_task_data(name: str, data: TaskData, task: Task, problems: list[str]) -> None:
    """Adds what is wrong with the settings of one task."""
    if "/" in name:
        problems.append(
            f"tasks.{name}: a run's name of a task has no slash; write tasks.{Path(name).name}.task={name}"
        )
    if not data.train:
        problems.append(f"tasks.{name}.train: no file is named")
    if not data.valid and not 0 < data.valid_ratio < 1:
        problems.append(
            f"tasks.{name}.valid_ratio = {data.valid_ratio} must be between 0 and 1, or name files in valid"
        )
    if not data.weight > 0:
        problems.append(f"tasks.{name}.weight = {data.weight} must be above 0")
    for setting in ("limit", "valid_limit"):
        if (value := getattr(data, setting)) is not None and value < 1:
            problems.append(f"tasks.{name}.{setting} = {value} must be at least 1")
    weights = data.class_weights
    if weights is not None and task.kind != "classification":
        problems.append(f"tasks.{name}.class_weights: only a classification has classes")
    if isinstance(weights, dict):
        problems += [
            f"tasks.{name}.class_weights.{label} = {weight}: "
            + (
                "must be above 0"
                if label in task.labels
                else f"no such label{nearest(label, task.labels)} (there are {', '.join(task.labels)})"
            )
            for label, weight in weights.items()
            if label not in task.labels or not weight > 0
        ]


def _check_numbers(config: FinetuneConfig, problems: list[str]) -> None:
    if not 0 <= config.label_smoothing < 1:
        problems.append(
            f"label_smoothing = {config.label_smoothing} must be at least 0 and below 1"
        )
    if not config.temperature > 0:
        problems.append(f"temperature = {config.temperature} must be above 0")
    if config.max_length is not None and config.max_length < 16:
        problems.append(f"max_length = {config.max_length} must be at least 16")
    check_adapters(config.lora, config.virtual, problems)
    if config.best.patience is not None and config.best.patience < 1:
        problems.append(f"best.patience = {config.best.patience} must be at least 1")
