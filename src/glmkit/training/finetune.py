"""A recipe -> a fine-tuned GLM, in one call that can be killed at any moment and made again.

In: a `FinetuneConfig` that names a model, tasks and files of records. Out: `output_dir/model` (the best weights, or an
adapter, with the tokenizer and the tasks), `report.json`, `report.html`, `curve.png`, `predictions/`, checkpoints. On the
CPU the outcome is the same to the bit, however often the run was interrupted.
"""

from __future__ import annotations

import json
import logging
import math
import time
from itertools import islice
from pathlib import Path
from typing import Any

from glmkit.errors import ConfigError, needs_torch

with needs_torch("Fine-tuning", "微调"):
    import torch
    from transformers import TrainingArguments, set_seed

from glmkit.checkpoint import resolve
from glmkit.config import to_values
from glmkit.model import (
    GLMForConditionalGeneration,
    GLMForSequenceClassification,
    GLMForTokenClassification,
)
from glmkit.model.adapters import add_lora, load_merged, train_head
from glmkit.model.quantized import keep_layout, nf4_options
from glmkit.model.virtual_tokens import add_virtual_tokens
from glmkit.multimodal.building import build_media
from glmkit.multimodal.modeling import GLMForMultimodalGeneration, GLMMediaModel, load_media
from glmkit.multimodal.processor import MediaProcessor
from glmkit.tasks.records import read_questions
from glmkit.tasks.rendering import media_of
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.training import checkpoints, distributed, runs
from glmkit.training.building import choose_attention, special_fields
from glmkit.training.finetune_data import TaskSamples, read_task
from glmkit.training.finetune_report import FinetuneReport
from glmkit.training.finetune_results import finish
from glmkit.training.finetune_settings import FinetuneConfig, check
from glmkit.training.finetune_stream import FinetuneStream
from glmkit.training.finetune_trainer import FinetuneTrainer
from glmkit.training.logs import Progress, RunLog
from glmkit.training.resumable import STATE_FILE
from glmkit.training.settings import check_schedule

logger = logging.getLogger(__name__)

_MAY_CHANGE = {
    "output_dir",
    "per_device_eval_batch_size",
    "use_cpu",
    "logging_steps",
    "save_steps",
    "save_total_limit",
    "disable_tqdm",
    "merge",
}
"""What can differ when a run goes on; all else would give another model."""


def finetune(config: FinetuneConfig, *, progress: Progress | None = None) -> FinetuneReport:
    """Fine-tunes a model, or goes on where an earlier call with the same configuration was interrupted.

    Args:
        config: See `glmkit.config.load_config(FinetuneConfig, recipe, overrides)`.
        progress: For a progress bar.

    Returns:
        The report; that of the earlier call if the run is finished already.

    Raises:
        ConfigError: Contradictions, all in one message, before anything is read; or the folder holds another run.
        DataError: A record that cannot be used, before anything is trained: file, line, remedy.
        CheckpointError: The model cannot be read, or a checkpoint not be written.
        NonFiniteLossError: The loss is not a number any more.
        TrainingStopped: SIGTERM or Ctrl-C; a checkpoint was saved.
        MissingDependencyError: accelerate, TensorBoard, matplotlib (`glmkit[train]`) or PEFT is not installed.
    """
    started = time.monotonic()
    config = check(config)
    run = config.output_dir
    args = training_arguments(config)  # and with them the processes know of each other
    tokenizer = GLMTokenizer.from_pretrained(resolve(config.model["from"]))
    media = read_media(config)
    tasks = read_tasks(config, tokenizer, media)
    if distributed.first_only(lambda: runs.claim(config, run, _MAY_CHANGE)):
        logger.info("%s is finished already", run)
        return FinetuneReport.load(run)
    trainer = build_trainer(config, tokenizer, tasks, progress, media, args)
    found = checkpoints.checkpoints(run)
    resumed_from = checkpoints.step_of(found[-1]) if found else None
    if found and (resumed_from == trainer.args.max_steps or _stopped_early(found[-1])):
        trainer.load(found[-1])  # interrupted between the last checkpoint and the report
        state = json.loads((found[-1] / "trainer_state.json").read_text(encoding="utf-8"))
        history = state["log_history"]
    else:
        if found:
            logger.info("going on from %s", found[-1])
            trainer.args.eval_on_start = False
        runs.train(trainer, found[-1] if found else None)
        history = trainer.state.log_history
    return finish(config, trainer, tasks, history, started, resumed_from)


def read_media(config: FinetuneConfig) -> GLMMediaModel | None:
    """Returns what reads the media of the tasks: the model's own, with new parts for kinds that it does not read yet.

    None where no task has any.

    Raises:
        ConfigError: Settings that cannot be, or of a kind that the model reads already.
        CheckpointError: The model cannot be read.
    """
    tasks = {name: task for name, task in config.loaded_tasks().items() if task.media}
    if not tasks:
        return None
    source = resolve(config.model["from"])
    found = load_media(source)
    given = config.media.given()
    kinds: set[str] = set()
    for name, task in tasks.items():
        data = config.tasks[name]
        for record, where in read_questions(task, [*data.train, *data.valid], data.rename):
            kinds |= {one.kind for one in media_of(task, record, where)}
            if kinds == set(task.media.values()):
                break
    set_seed(config.trainer["seed"])
    return build_media(given, kinds, load_merged(GLMForConditionalGeneration, source), found)


def read_tasks(
    config: FinetuneConfig, tokenizer: GLMTokenizer, media: GLMMediaModel | None = None
) -> list[TaskSamples]:
    """Reads all records of a checked configuration.

    Args:
        config: Checked.
        tokenizer: The model's.
        media: What reads the tasks' media.

    Raises:
        DataError: See `finetune_data.read_task`.
        ConfigError: `max_length` is more than the model has positions.
    """
    positions = config.positions()
    if (config.max_length or 0) > positions:
        raise ConfigError(
            f"max_length = {config.max_length} is more than the model's {positions} positions; lower it or leave it out"
        )
    length, seed = config.max_length or positions, config.trainer["seed"]
    rows = None if media is None else MediaProcessor.of(media).count_rows
    return [
        read_task(name, task, config.tasks[name], tokenizer, length, seed, rows)
        for name, task in config.loaded_tasks().items()
    ]


def training_arguments(config: FinetuneConfig) -> TrainingArguments:
    """Returns the arguments of a checked configuration; with them `torch.distributed` begins, where there are several processes.

    Raises:
        MissingDependencyError: accelerate is not installed.
    """
    ours = {
        "eval_on_start": True,
        "eval_strategy": "steps",
        "disable_tqdm": True,
        # A batch may have no sound, and what reads sounds no gradient.
        "ddp_find_unused_parameters": any(task.media for task in config.loaded_tasks().values()),
    }
    return runs.arguments("fine-tuning", **{**ours, **config.trainer})


def build_trainer(
    config: FinetuneConfig,
    tokenizer: GLMTokenizer,
    tasks: list[TaskSamples],
    progress: Progress | None = None,
    media: GLMMediaModel | None = None,
    args: TrainingArguments | None = None,
) -> FinetuneTrainer:
    """Returns the trainer of a checked configuration, nothing trained yet."""
    args = args or training_arguments(config)
    set_seed(args.seed)
    model = build_model(config, tokenizer, tasks, args, media)
    stream = FinetuneStream(
        tasks,
        tokenizer.special_ids,
        rows=args.per_device_train_batch_size,
        seed=args.data_seed if args.data_seed is not None else args.seed,
        head=config.method == "head",
        weights=[config.tasks[task.name].weight for task in tasks],
        temperature=config.temperature,
        rank=args.process_index,
        world_size=args.world_size,
        prepare=None if media is None else MediaProcessor.of(media, config.media.cache_mb * 2**20),
    )
    _set_steps(args, config, stream)
    return FinetuneTrainer(
        model,
        args,
        stream,
        tasks,
        tokenizer,
        best=config.best,
        smoothing=config.label_smoothing,
        callbacks=[RunLog(config.output_dir, progress, to_values(config))],
    )


def build_model(
    config: FinetuneConfig,
    tokenizer: GLMTokenizer,
    tasks: list[TaskSamples],
    args: TrainingArguments,
    media: GLMMediaModel | None = None,
) -> Any:
    """Returns the model to train, with its LM head or a new head, with an adapter or without; on the CPU, unless it is of 4 bits.

    Raises:
        CheckpointError: `model.from` cannot be read.
        ConfigError: Its attention cannot train, or LoRA has no such layer.
        MissingDependencyError: PEFT, or bitsandbytes for a model of 4 bits, is not installed.
    """
    options = {
        name: value
        for name, value in config.model.items()
        if name not in ("from", "attn_implementation")
    }
    cls: Any = GLMForConditionalGeneration
    labels: list[str] = []
    if config.method == "head" or tasks[0].task.kind == "tagging":
        tags = tasks[0].task.kind == "tagging"
        cls = GLMForTokenClassification if tags else GLMForSequenceClassification
        labels = tasks[0].labels
        options["num_labels"] = len(labels)
    source = resolve(config.model["from"])
    if config.lora.quantize:
        options |= nf4_options("bfloat16" if args.bf16 else "float16" if args.fp16 else "float32")
    model = load_merged(cls, source, dtype="float32", **options)
    if config.lora.quantize:
        keep_layout(model)
    given = config.model["from"]
    # An adapter finds its base again from any working directory.
    model.name_or_path = str(source.resolve()) if Path(given).exists() else given
    for name, value in special_fields(tokenizer).items():
        setattr(model.config, name, value)
    if labels:
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: number for number, label in enumerate(labels)}
        model.config.problem_type = "single_label_classification"
    length = config.max_length or model.config.max_sequence_length
    asked = config.model.get("attn_implementation")
    bf16 = args.bf16 or model.dtype == torch.bfloat16
    model.set_attn_implementation(choose_attention(model.config, args.device, length, bf16, asked))
    if config.virtual.tokens:
        virtual = config.virtual
        like = _first_ids(tasks, virtual.tokens)
        wrapped = add_virtual_tokens(
            model, virtual.kind, virtual.tokens, like=like, encoder_size=virtual.encoder_size
        )
        train_head(model)
        return wrapped
    if media is not None:
        model = GLMForMultimodalGeneration.of(model, media)
        model.requires_grad_(not config.media.freeze_language)
    wrapped = model
    if config.lora.rank:
        wrapped = add_lora(
            model,
            rank=config.lora.rank,
            alpha=config.lora.alpha,
            dropout=config.lora.dropout,
            target_modules=config.lora.target_modules,
        )
    if media is not None:
        media.train_parts(tuple(config.media.train))
    return wrapped


def _first_ids(tasks: list[TaskSamples], count: int) -> list[int]:
    """Returns ids of the texts to train on, of the tasks in turn: what virtual tokens are like at first."""
    share = -(-count // len(tasks))
    found: list[int] = []
    for task in tasks:
        own = (int(one) for sample in task.train for one in sample.ids)
        found += islice(own, share)
    return found[:count]


def _stopped_early(checkpoint: Path) -> bool:
    state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    return bool(state["parts"]["best"]["stopped"])


def _set_steps(args: TrainingArguments, config: FinetuneConfig, stream: FinetuneStream) -> None:
    """Sets the numbers of steps that follow from the data: of the run, and between evaluations and checkpoints."""
    epoch = stream.batches_per_epoch / args.gradient_accumulation_steps
    if args.max_steps < 1:
        args.max_steps = max(1, math.ceil(args.num_train_epochs * epoch))
    evaluated = config.trainer.get("eval_steps") or max(1, round(epoch))
    args.eval_steps = min(int(evaluated), args.max_steps)
    args.save_steps = int(config.trainer.get("save_steps") or args.eval_steps)
    schedule = {**config.trainer, "max_steps": args.max_steps}
    check_schedule(schedule, [])
    args.lr_scheduler_kwargs = schedule["lr_scheduler_kwargs"]
