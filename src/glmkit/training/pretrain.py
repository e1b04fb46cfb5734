"""A recipe -> a pretrained GLM, in one call that can be killed at any moment and made again.

In: a `PretrainConfig` that names a prepared corpus. Out: `output_dir/model` (a glmkit folder with its tokenizer),
`report.json`, `report.html`, `loss.png`, `log.jsonl`, TensorBoard files, checkpoints. On the CPU the outcome is the same to the bit,
however often the run was interrupted.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from glmkit.errors import needs_torch

with needs_torch("Pretraining", "预训练"):
    import torch
    from transformers import TrainingArguments, set_seed

from glmkit.blanks.objectives import find_sentinels
from glmkit.config import to_values
from glmkit.model.modeling import GLMForConditionalGeneration
from glmkit.tokens.store import TokenStore
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.training import checkpoints, distributed, runs
from glmkit.training.average import exported
from glmkit.training.building import build_model
from glmkit.training.data import WINDOW_ROWS, PretrainingStream
from glmkit.training.logs import Progress, RunLog, versions
from glmkit.training.report import PretrainReport, plot_loss
from glmkit.training.settings import PretrainConfig, check
from glmkit.training.trainer import GLMTrainer

logger = logging.getLogger(__name__)

BuildTrainer = Callable[[PretrainConfig, Progress | None, TrainingArguments], GLMTrainer]
"""As `build_trainer`."""

_MAY_CHANGE = {
    "output_dir",
    "shards",
    "reshard",
    "offload",
    "rows_per_step",  # a checkpoint knows it and refuses another
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "per_device_eval_batch_size",
    "use_cpu",
    "logging_steps",
    "eval_steps",
    "save_steps",
    "save_total_limit",
    "eval_strategy",
    "disable_tqdm",
    "dataloader_num_workers",
}
"""What can differ when a run goes on; all else would give another model."""

_END = {"trainer.max_steps", "trainer.lr_scheduler_kwargs"}
"""What can differ too, in a `warmup_stable_decay` run whose rate has not begun to fall: when it ends is decided late."""


def pretrain(
    config: PretrainConfig, *, progress: Progress | None = None, build: BuildTrainer | None = None
) -> PretrainReport:
    """Trains a model, or goes on where an earlier call with the same configuration was interrupted.

    Args:
        config: See `glmkit.config.load_config(PretrainConfig, recipe, overrides)`.
        progress: For a progress bar.
        build: Makes the trainer, instead of `build_trainer`: another model on the same corpus and budget.

    Returns:
        The report; that of the earlier call if the run is finished already.

    Raises:
        ConfigError: Contradictions, all in one message, before anything is built; or the folder holds another run.
        CheckpointError: A checkpoint could not be written, as on a full disk.
        NonFiniteLossError: The loss is not a number any more.
        TrainingStopped: SIGTERM or Ctrl-C; a checkpoint was saved.
        MissingDependencyError: accelerate, TensorBoard or matplotlib is not installed (`glmkit[train]`).
    """
    started = time.monotonic()
    config = check(config)
    args = training_arguments(config)
    run = config.output_dir
    excuse = partial(_end_may_change, run)
    if distributed.first_only(lambda: runs.claim(config, run, _MAY_CHANGE, excuse)):
        logger.info("%s is finished already", run)
        return PretrainReport.load(run)
    trainer = (build or build_trainer)(config, progress, args)
    found = checkpoints.checkpoints(run)
    resumed_from = checkpoints.step_of(found[-1]) if found else None
    if resumed_from is None or resumed_from < trainer.args.max_steps:
        if found:
            logger.info("going on from %s", found[-1])
            trainer.args.eval_on_start = False
        runs.train(trainer, found[-1] if found else None)
        history = trainer.state.log_history
    else:  # interrupted between the last checkpoint and the report
        trainer.load(found[-1])
        history = json.loads((found[-1] / "trainer_state.json").read_text("utf-8"))["log_history"]
    return _finish(config, trainer, history, started, resumed_from)


def training_arguments(config: PretrainConfig) -> TrainingArguments:
    """Returns the arguments of a checked configuration; with torchrun, processes know each other from here on.

    Raises:
        ConfigError: The processes cannot be divided as `distribution` says.
        MissingDependencyError: accelerate is not installed.
    """
    ours = {"eval_on_start": True, "disable_tqdm": True, "ddp_find_unused_parameters": False}
    known = {"optim": "adamw_torch"} if config.uses_muon else {}
    args = runs.arguments("pretraining", **{**ours, **config.trainer, **known})
    distributed.check_shards(config.distribution.shards, args.world_size)
    return args


def build_trainer(
    config: PretrainConfig,
    progress: Progress | None = None,
    args: TrainingArguments | None = None,
) -> GLMTrainer:
    """Returns the trainer of a checked configuration: model, data and arguments, nothing trained yet."""
    args = args or training_arguments(config)
    set_seed(args.seed)
    tokenizer = GLMTokenizer.from_pretrained(config.data.folder / "tokenizer")
    model = _build_model(config, tokenizer, args)
    ends = tokenizer.sentence_ends()
    sentinels = find_sentinels(tokenizer.get_vocab())

    def stream(split: str, **options: int) -> PretrainingStream:
        tasks = {
            name: TokenStore.open(folder / split) for name, folder in config.tasks.folders.items()
        }
        return PretrainingStream(
            TokenStore.open(config.data.folder / split),
            tokenizer.special_ids,
            config.objectives,
            sentence_ends=ends,
            sentinels=sentinels,
            tasks={name: store for name, store in tasks.items() if len(store)},
            mixture=config.tasks if split == "train" else replace(config.tasks, hide_prob=0.0),
            **options,
        )

    train, held_out = train_and_held_out(config, args, stream)
    return GLMTrainer(
        model=model,
        args=args,
        stream=train,
        held_out=held_out,
        tokenizer=tokenizer,
        callbacks=[RunLog(config.output_dir, progress, to_values(config))],
        average=config.average,
        spikes=config.spikes,
        use_muon=config.uses_muon,
    )


def train_and_held_out(
    config: PretrainConfig, args: TrainingArguments, stream: Callable[..., PretrainingStream]
) -> tuple[PretrainingStream, list[dict[str, Any]]]:
    """Returns this process's stream of training rows, and the held-out batches.

    Args:
        config: A checked configuration.
        args: Its arguments.
        stream: Makes the stream of a split, "train" or "valid", of rows, their length, the seed and a process's part.
    """
    rows = {
        "row_length": config.data.row_length,
        "seed": args.data_seed if args.data_seed is not None else args.seed,
    }
    train = stream(
        "train",
        **rows,
        rows=args.per_device_train_batch_size,
        rank=args.process_index,
        world_size=args.world_size,
        num_workers=args.dataloader_num_workers,
    )
    valid = stream(
        "valid",
        **rows,
        rows=args.per_device_eval_batch_size,
        window_rows=min(WINDOW_ROWS, config.data.valid_rows),
    )
    return train, valid.held_out(config.data.valid_rows)


def _build_model(
    config: PretrainConfig, tokenizer: GLMTokenizer, args: TrainingArguments
) -> GLMForConditionalGeneration:
    """Returns the model, divided among the processes as the configuration says."""
    settings = config.distribution
    shards = distributed.check_shards(settings.shards, args.world_size)
    if shards == 1:
        return build_model(config, tokenizer, args.device, bf16=args.bf16)
    empty = distributed.rank() > 0
    model = build_model(config, tokenizer, args.device, bf16=args.bf16, empty=empty)
    distributed.divide(
        model,
        model.glm.transformer.layers,
        shards,
        args.device,
        compute_dtype=torch.bfloat16 if args.bf16 else None,
        reshard=settings.reshard,
        offload=settings.offload,
    )
    return model


def _end_may_change(
    run: Path, different: set[str], before: dict[str, Any], now: dict[str, Any]
) -> bool:
    """Returns whether only the end differs, and both schedules agree so far: warm-up and constant rate, no decay yet."""
    if not different <= _END:
        return False
    found = checkpoints.checkpoints(run)
    step = checkpoints.step_of(found[-1]) if found else 0
    for trainer in (before["trainer"], now["trainer"]):
        decay = (trainer["lr_scheduler_kwargs"] or {}).get("num_decay_steps")
        if trainer["lr_scheduler_type"] != "warmup_stable_decay" or trainer["warmup_steps"] < 1:
            return False
        if decay is None or step > trainer["max_steps"] - decay:
            return False
    return True


def _finish(
    config: PretrainConfig,
    trainer: GLMTrainer,
    history: list[dict[str, Any]],
    started: float,
    resumed_from: int | None,
) -> PretrainReport:
    """Saves the model, the picture and the report; the last makes the run finished."""
    run, model = config.output_dir, trainer.accelerator.unwrap_model(trainer.model)
    evaluated = [line for line in history if "eval_loss" in line]
    averaged = {}
    if trainer.average is not None:
        with trainer.average.applied():
            averaged = _losses(trainer.held_out_losses())
    if not evaluated or evaluated[-1]["step"] != trainer.args.max_steps:
        evaluated.append({**trainer.held_out_losses(), "step": trainer.args.max_steps})
        history = [*history, evaluated[-1]]
    logged = [line for line in history if "loss" in line]
    totals = trainer.totals
    report = PretrainReport(
        folder=run,
        model=run / "model",
        parameters=model.num_parameters(),
        steps=trainer.args.max_steps,
        epochs=trainer.stream.epochs,
        tokens=totals[0],
        predicted_tokens=totals[2],
        padding_ratio=1 - totals[0] / totals[1],
        tokens_per_second=statistics.median(
            [line["tokens_per_second"] for line in logged] or [0.0]
        ),
        train_loss=logged[-1]["loss"] if logged else float("nan"),
        loss_before=_losses(evaluated[0]) if evaluated and evaluated[0]["step"] == 0 else {},
        loss_after=_losses(evaluated[-1]),
        loss_average=averaged,
        seconds=time.monotonic() - started,
        resumed_from=resumed_from,
        versions=versions(),
    )
    for name, average in exported(trainer.average).items():
        unfinished = run / checkpoints.PARTIAL / name
        with average():
            weights = distributed.whole_weights(model)
            if trainer.args.should_save:
                model.save_pretrained(unfinished, state_dict=weights)
        if trainer.args.should_save:
            trainer.tokenizer.save_pretrained(unfinished)
            checkpoints.publish(unfinished, run / name)
    if trainer.args.should_save:
        title = f"{run.name}: {report.parameters / 1e6:.1f} M parameters, {report.tokens / 1e6:,.1f} M tokens"
        plot_loss(history, run / "loss.png", title)
        RunLog(run, settings=to_values(config)).draw(history, trainer.args.max_steps)
        report.save()
        checkpoints.clean(run)
    return report


def _losses(line: dict[str, Any]) -> dict[str, float]:
    return {name.removeprefix("eval_"): line[name] for name in line if name.endswith("loss")}
