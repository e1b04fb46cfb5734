"""What a pretraining run is made of, and the contradictions that are refused before anything is built.

In: a recipe. Out: `PretrainConfig`, checked against itself and against the prepared corpus that it names.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from glmkit.blanks.objectives import ObjectiveSettings
from glmkit.config import check_values
from glmkit.errors import ConfigError, UserError, nearest
from glmkit.runtime import has_fast_bfloat16
from glmkit.tasks.encoding import open_task_store, sample_sizes
from glmkit.tasks.mixture import MixtureSettings
from glmkit.training import muon
from glmkit.training.average import AverageSettings
from glmkit.training.spikes import SpikeSettings

logger = logging.getLogger(__name__)

RENAMED = {
    "activation_checkpointing": "gradient_checkpointing",
    "activation_checkpointing_kwargs": "gradient_checkpointing_kwargs",
}
"""Fields of `TrainingArguments` -> their names in transformers 5.20, the newest for Python 3.10."""

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
    "warmup_steps": 0.04,
    "logging_steps": 10,
    "eval_strategy": "steps",
    "eval_steps": 500,
    "save_steps": 500,
    "save_total_limit": 2,
    "seed": 1234,
    "use_cache": True,  # of the saved model: without it `generate` reads everything again for each token
}
"""`TrainingArguments` that differ from transformers' defaults: the published pretraining's (DESIGN.md, section 5)."""

SCHEDULE_DEFAULTS: dict[str, dict[str, Any]] = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 0.2, "decay_type": "1-sqrt"},
}
"""`lr_scheduler_kwargs` where a recipe names none of them. `num_decay_steps` below 1 is a share of `max_steps`, as
`warmup_steps` is; the shape of the decay is the best one of arXiv 2405.18392, figure 5."""

NOT_SUPPORTED = {
    "load_best_model_at_end": False,
    "save_only_model": False,
    "auto_find_batch_size": False,
    "push_to_hub": False,
    "label_smoothing_factor": 0.0,
    "resume_from_checkpoint": None,
    "average_tokens_across_devices": True,
    "fsdp": None,
    "deepspeed": None,
}
"""`TrainingArguments` that pretraining cannot honour, with the only value that is accepted."""


DTYPES = ("float32", "bfloat16")

NOT_FIELDS = ("preset", "from", "attn_implementation", "dtype")
"""Keys of `model` that are no fields of `GLMConfig`."""

WITH_FROM = (
    "hidden_act",
    "embedding_dropout_prob",
    "attention_dropout_prob",
    "output_dropout_prob",
)
"""Fields of `GLMConfig` that may be changed where training goes on from a checkpoint."""


@dataclass(frozen=True)
class DataSettings:
    """Where the text comes from and how it is put into rows."""

    folder: Path
    """What `glmkit prepare` wrote: `train/`, `valid/` and `tokenizer/`."""
    row_length: int = 512
    """Length of a row in tokens; several samples share one. `trainer.per_device_train_batch_size` counts rows."""
    valid_rows: int = 64
    """Rows of held-out text that are evaluated each time."""
    rows_per_step: int | None = None
    """Rows of a step, of all processes together; `trainer.gradient_accumulation_steps` follows from it, so that a run
    goes on with the same batches on another number of processes. By default that setting counts."""


@dataclass(frozen=True)
class DistributionSettings:
    """How a model is divided when there are several processes (torchrun)."""

    shards: int = 1
    """Processes that hold one copy of weights, gradients and optimizer state together (FSDP2): 1 = each holds all (DDP),
    0 = all together, or a divisor of their number (copies of the divided model, as one for each node)."""
    reshard: bool = True
    """Whether a layer's weights are given up between forward and backward pass: less memory, more traffic."""
    offload: bool = False
    """Whether weights and optimizer state lie in the host's memory between their uses: least memory, slow."""


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining run; `glmkit.config.load_config(PretrainConfig, recipe, overrides)` reads it."""

    data: DataSettings
    """The corpus."""
    model: dict[str, Any] = field(default_factory=dict)
    """A new model: fields of `GLMConfig`, and `preset` ("base") to begin with; the tokenizer sets the vocabulary's. Or `from`: a
    folder or hub name in any known format, whose training goes on (dropout may be changed). In both cases
    `attn_implementation`: by default flex_attention on a GPU in rows of 512 or more, without attention dropout; eager on a
    CPU in bfloat16 in rows of less than 256; else sdpa. And `dtype`: of the weights, "float32" or, with float32 masters in the optimizer, "bfloat16"."""
    objectives: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    """How blanks are made."""
    tasks: MixtureSettings = field(default_factory=MixtureSettings)
    """Labelled tasks that are mixed into the text."""
    trainer: dict[str, Any] = field(default_factory=lambda: dict(TRAINER_DEFAULTS))
    """transformers' `TrainingArguments`, under their own names; `bf16: auto` means where the device computes fast in it, and
    `optim` may also be "muon"."""
    average: AverageSettings = field(default_factory=AverageSettings)
    """An average of the weights."""
    spikes: SpikeSettings = field(default_factory=SpikeSettings)
    """Steps that are skipped."""

    distribution: DistributionSettings = field(default_factory=DistributionSettings)
    """How the model is divided among processes."""

    @property
    def output_dir(self) -> Path:
        """Folder of the run."""
        return Path(self.trainer["output_dir"])

    @property
    def uses_muon(self) -> bool:
        """Whether the optimizer is Muon, which `TrainingArguments` does not know."""
        return bool(self.trainer.get("optim") == muon.NAME)


def check(config: PretrainConfig) -> PretrainConfig:
    """Returns the configuration with all values converted; nothing is built.

    Raises:
        ConfigError: Everything that contradicts itself, in one message.
    """
    problems: list[str] = []
    hints = trainer_types()
    if config.uses_muon:
        hints["optim"] = str
        if config.distribution.shards != 1:
            problems.append(
                f"trainer.optim = {muon.NAME!r} needs whole matrices, distribution.shards = "
                f"{config.distribution.shards} divides them; use shards=1 or trainer.optim=adamw_torch"
            )
    trainer = check_values(hints, choose_bf16(config.trainer), "trainer", problems)
    for name, accepted in NOT_SUPPORTED.items():
        if trainer.get(name, accepted) != accepted:
            hint = "; set distribution.shards" if name in ("fsdp", "deepspeed") else ""
            problems.append(
                f"trainer.{name} = {trainer[name]!r} is not supported in pretraining{hint}"
            )
    if trainer.get("save_strategy") == "best":
        problems.append("trainer.save_strategy = 'best' is not supported in pretraining")
    for name in ("max_steps", "per_device_train_batch_size"):
        if (trainer.get(name) or 0) < 1:
            problems.append(f"trainer.{name} = {trainer.get(name)!r} must be at least 1")
    check_precision(trainer, problems)
    check_schedule(trainer, problems)
    problems += config.average.problems() + config.spikes.problems()
    model, positions = _check_model(config.model, config.data.folder, problems)
    _check_dtype(model, trainer, problems)
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
    if config.distribution.shards < 0:
        problems.append(
            f"distribution.shards = {config.distribution.shards} must be at least 0 (0 = all processes)"
        )
    _check_rows_per_step(config.data.rows_per_step, trainer, problems)
    _check_objectives(config.objectives, model, positions, problems)
    _check_folder(config.data.folder, config.tasks, row_length, problems)
    if problems:
        raise ConfigError("this run cannot be started:\n- " + "\n- ".join(problems))
    return replace(config, model=model, trainer=trainer)


def _check_rows_per_step(wanted: int | None, trainer: dict[str, Any], problems: list[str]) -> None:
    """Sets the accumulation that gives the wanted rows of a step on this number of processes."""
    if wanted is None:
        return
    rows = max(1, trainer.get("per_device_train_batch_size") or 0)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if wanted < 1 or wanted % (rows * processes):
        problems.append(
            f"data.rows_per_step = {wanted} must be a multiple of {rows * processes}: trainer.per_device_train_batch_size "
            f"= {rows} rows in each of {processes} process(es)"
        )
        return
    trainer["gradient_accumulation_steps"] = wanted // (rows * processes)


def trainer_types() -> dict[str, Any]:
    """Returns the types of the keys of `trainer`: the fields of `TrainingArguments`, of an older transformers by today's names too."""
    from transformers import TrainingArguments

    found = {**typing.get_type_hints(TrainingArguments), "warmup_steps": float}
    return {**{new: found[old] for new, old in RENAMED.items()}, **found}


def choose_bf16(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces `bf16: auto` by what suits the device."""
    import torch

    chosen = dict(trainer)
    if chosen.get("bf16") == "auto":
        on_cpu = chosen.get("use_cpu") or not torch.cuda.is_available()
        chosen["bf16"] = has_fast_bfloat16(torch.device("cpu" if on_cpu else "cuda"))
    return chosen


def _check_dtype(model: dict[str, Any], trainer: dict[str, Any], problems: list[str]) -> None:
    """Adds what forbids weights in bfloat16."""
    dtype = model.get("dtype", "float32")
    if dtype not in DTYPES:
        problems.append(f"model.dtype = {dtype!r}; there are {', '.join(DTYPES)}")
    if dtype != "bfloat16":
        return
    if trainer.get("bf16") or trainer.get("fp16"):
        problems.append(
            "model.dtype = 'bfloat16' is instead of trainer.bf16 and trainer.fp16, which cast float32 weights at every "
            "step; leave those out"
        )
    if str(trainer.get("optim", "adamw_torch")) not in ("adamw_torch", "adamw_torch_fused"):
        problems.append(
            f"model.dtype = 'bfloat16' has its masters in AdamW; trainer.optim = {trainer['optim']!r} has none"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        problems.append(
            "model.dtype = 'bfloat16' is for one process; on several use trainer.bf16=true (with distribution.shards the "
            "weights are float32 shards, and bfloat16 where they are used)"
        )


def check_precision(trainer: dict[str, Any], problems: list[str]) -> None:
    """Adds number types that this machine cannot train with."""
    import torch

    if trainer.get("fp16") and trainer.get("bf16"):
        problems.append("trainer.fp16 and trainer.bf16 are both true; choose one")
    on_gpu = torch.cuda.is_available() and not trainer.get("use_cpu")
    if trainer.get("bf16") and not on_gpu and not has_fast_bfloat16(torch.device("cpu")):
        logger.warning(
            "this CPU has no bfloat16 instructions: trainer.bf16=true is many times slower than float32; bf16=auto chooses"
        )
    if trainer.get("fp16") and not on_gpu:
        problems.append(
            "trainer.fp16 needs a CUDA GPU; on a CPU use trainer.bf16=true, or neither for float32"
        )
    if trainer.get("bf16") and on_gpu and not torch.cuda.is_bf16_supported():
        problems.append(
            f"trainer.bf16: {torch.cuda.get_device_name()} has no bfloat16; use trainer.fp16=true"
        )


def check_schedule(trainer: dict[str, Any], problems: list[str]) -> None:
    """Fills in the schedule's settings; adds those that it does not have."""
    from transformers import SchedulerType
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    name = str(trainer.get("lr_scheduler_type"))
    if name not in [kind.value for kind in SchedulerType]:
        return  # said already
    given = trainer.get("lr_scheduler_kwargs") or {}
    if not isinstance(given, dict):
        problems.append(f"trainer.lr_scheduler_kwargs = {given!r} must be a section")
        return
    settings = {**SCHEDULE_DEFAULTS.get(name, {}), **given}
    if "min_lr" in given:
        settings.pop("min_lr_rate", None)  # the same thing in other units
    schedule: Any = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)]
    parameters = inspect.signature(schedule).parameters
    known = set(parameters) - {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    problems += [
        f"unknown key 'trainer.lr_scheduler_kwargs.{key}'{nearest(str(key), known)} "
        f"(known with {name}: {', '.join(sorted(known)) or 'none'})"
        for key in settings
        if key not in known
    ]
    decay = settings.get("num_decay_steps")
    if isinstance(decay, float) and 0 < decay < 1:
        settings["num_decay_steps"] = round(decay * (trainer.get("max_steps") or 0))
    trainer["lr_scheduler_kwargs"] = settings


def _check_model(
    values: Mapping[str, Any], folder: Path, problems: list[str]
) -> tuple[dict[str, Any], int]:
    """Returns the values converted, and how many positions the model has."""
    from glmkit.checkpoint.architecture import PRESETS, Architecture
    from glmkit.model.attention_names import unknown_attention

    hints = typing.get_type_hints(Architecture)
    allowed = {
        one.name: hints[one.name]
        for one in fields(Architecture)
        if not one.name.endswith("_token_id") and one.name != "num_tokens"
    }
    own_hints = {"preset": str, "from": str, "attn_implementation": str, "dtype": str}
    model = check_values({**own_hints, **allowed}, values, "model", problems)
    if wrong := unknown_attention(model.get("attn_implementation")):
        problems.append(f"model.{wrong}")
    if "from" in model:
        return model, _check_source(model, folder, problems)
    preset = model.setdefault("preset", "base")
    if preset not in PRESETS:
        problems.append(
            f"model.preset = {preset!r}; there are {', '.join(PRESETS)}{nearest(str(preset), PRESETS)}"
        )
        model["preset"] = "base"
    return model, model.get("max_sequence_length") or PRESETS[model["preset"]][3]


def _check_source(model: dict[str, Any], folder: Path, problems: list[str]) -> int:
    """Adds what keeps training from going on from a checkpoint; returns its positions."""
    from glmkit.checkpoint import read_config, resolve
    from glmkit.model.configuration import GLMConfig
    from glmkit.tokens.tokenizer import GLMTokenizer

    for name in sorted(model.keys() - {"from", "attn_implementation", "dtype", *WITH_FROM}):
        problems.append(
            f"model.{name} is the checkpoint's where model.from is given; leave it out "
            f"(may be changed: {', '.join(WITH_FROM)})"
        )
    try:
        source = resolve(model["from"])
        config = GLMConfig(**read_config(source))
    except UserError as error:
        problems.append(f"model.from = {model['from']!r}: {error}")
        return sys.maxsize
    try:
        prepared = GLMTokenizer.from_pretrained(folder / "tokenizer")
    except UserError:
        return config.max_sequence_length  # said with the folder
    if len(prepared) > config.vocab_size:
        problems.append(
            f"the vocabulary of {folder} has {len(prepared)} tokens and {model['from']} {config.vocab_size} rows for "
            "them; extend it with `glmkit extend-vocabulary`, or prepare the corpus with the model's own tokenizer"
        )
    try:
        own = GLMTokenizer.from_pretrained(source)
    except UserError:
        return config.max_sequence_length  # a training folder has none
    if own.fingerprint() != prepared.fingerprint():
        problems.append(
            f"{folder} was prepared with another tokenizer than that of {model['from']}; prepare it again with "
            f"--tokenizer {model['from']}"
        )
    return config.max_sequence_length


def _check_objectives(
    objectives: ObjectiveSettings, model: Mapping[str, Any], positions: int, problems: list[str]
) -> None:
    """Adds where the objectives and the model contradict each other."""
    if objectives.random_positions_below > positions:
        problems.append(
            f"objectives.random_positions_below = {objectives.random_positions_below} is more than the model's "
            f"{positions} positions; lower it or raise model.max_sequence_length"
        )
    if not objectives.block_positions and model.get("block_position_encoding", True):
        problems.append(
            "objectives.block_positions = false needs a model without the second position: set "
            "model.block_position_encoding = false too"
        )


def _check_folder(
    folder: Path, tasks: MixtureSettings, row_length: int, problems: list[str]
) -> None:
    """Adds what is wrong with a prepared corpus and tasks: missing parts, an empty store, another tokenizer."""
    from glmkit.tokens.store import TokenStore
    from glmkit.tokens.tokenizer import GLMTokenizer

    if not (folder / "tokenizer").is_dir():
        problems.append(
            f"data.folder = {str(folder)!r} holds no prepared corpus; write one: glmkit prepare TEXTS -t TOKENIZER -o {folder}"
        )
        return
    try:
        tokenizer = GLMTokenizer.from_pretrained(folder / "tokenizer")
        fingerprint = tokenizer.fingerprint()
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
    for name, place in tasks.folders.items():
        try:
            store = open_task_store(place / "train", tokenizer.special_ids, fingerprint)
        except UserError as error:
            problems.append(f"tasks.folders.{name}: {error}")
            continue
        if (longest := int(sample_sizes(store).max())) > row_length:
            problems.append(
                f"tasks.folders.{name}: a sample of {longest} tokens does not fit into rows of {row_length}; prepare "
                f"the task again with --max-length {row_length}, or raise data.row_length"
            )
