"""The end of a fine-tuning run: the best weights measured, put in place with the tasks that they were trained on, reported.

In: a trainer that is done. Out: `model/` (`adapter/`), `predictions/`, `curve.png`, `report.html` and `report.json`, the
last one last: with it the run is finished.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from glmkit.config import save_config, to_values
from glmkit.model.adapters import load_merged
from glmkit.training import checkpoints
from glmkit.training.finetune_data import TaskSamples
from glmkit.training.finetune_measuring import Measured, measure
from glmkit.training.finetune_report import FinetuneReport, plot_curve
from glmkit.training.finetune_settings import FinetuneConfig
from glmkit.training.finetune_trainer import BEST, FinetuneTrainer
from glmkit.training.logs import RunLog, versions
from glmkit.whole_files import write_text

MANIFEST = "finetuned.json"
"""In `model/`: how its tasks were asked."""


def finish(
    config: FinetuneConfig,
    trainer: FinetuneTrainer,
    tasks: list[TaskSamples],
    history: list[dict[str, Any]],
    started: float,
    resumed_from: int | None,
) -> FinetuneReport:
    """Measures the best weights and puts them in place; the report, last, makes the run finished."""
    run = config.output_dir
    model = trainer.accelerator.unwrap_model(trainer.model)
    evaluated = [line for line in history if "eval_loss" in line]
    for folder in (
        run / BEST,
        run / "adapter",
        run / "model",
    ):  # the later ones of a call killed here
        if folder.is_dir():
            trainer.load_weights(folder)
            break
    trainer.accelerator.wait_for_everyone()  # else the folder may be moved while another process still reads it
    measured = {
        task.name: measure(
            model,
            task,
            trainer.stream.specials,
            rows=trainer.args.per_device_eval_batch_size,
            head=trainer.stream.head,
            prepare=trainer.stream.prepare,
            autocast=trainer.accelerator.autocast,
            move=trainer._prepare_inputs,
        )
        for task in tasks
    }
    names = [task.name for task in tasks]
    notes = [note for task in tasks for note in task.notes]
    before = _by_task(evaluated[0], names) if evaluated[0]["step"] == 0 else {}
    metric = trainer.best.metric(evaluated[-1])
    if (
        before
        and evaluated[0][f"eval_{metric}"] * (1 if metric != "loss" else -1) >= trainer.best.value
    ):
        notes.append(
            f"no evaluation was better than before training ({metric}); try another trainer.learning_rate or more data"
        )
    parameters = list(model.parameters())
    report = FinetuneReport(
        folder=run,
        model=run / "model",
        method=_method(config, tasks),
        parameters=sum(one.numel() for one in parameters),
        trained_parameters=sum(one.numel() for one in parameters if one.requires_grad),
        samples={task.name: (len(task.train), len(task.valid)) for task in tasks},
        steps=max(line["step"] for line in evaluated),
        best_step=trainer.best.step,
        stopped_early=trainer.best.stopped,
        before=before,
        after={name: one.metrics for name, one in measured.items()},
        seconds=time.monotonic() - started,
        resumed_from=resumed_from,
        notes=notes,
        versions=versions(),
    )
    if trainer.args.should_save:
        _write_predictions(run / "predictions", tasks, measured)
        _place_model(config, trainer, model, tasks)
        title = f"{run.name}: {', '.join(names)}, {report.method}"
        plot_curve(history, run / "curve.png", title)
        RunLog(run, settings=to_values(config)).draw(history, trainer.args.max_steps)
        report.save()
        checkpoints.clean(run)
    return report


def _place_model(
    config: FinetuneConfig, trainer: FinetuneTrainer, model: Any, tasks: list[TaskSamples]
) -> None:
    """Moves the best weights to `model/`, tells there how the tasks were asked, and merges an adapter if so wished."""
    run = config.output_dir
    target = run / ("adapter" if config.lora.merge else "model")
    if (run / BEST).is_dir():
        _describe(run / BEST, config, tasks)
        checkpoints.publish(run / BEST, target)
    if config.lora.merge:
        partial = run / checkpoints.PARTIAL / "model"
        shutil.rmtree(partial, ignore_errors=True)
        if config.lora.quantize:  # into the weights as they were, not into what 4 bits keep of them
            merged = load_merged(type(model.get_base_model()), target, dtype="float32")
        else:
            merged = model.merge_and_unload()
        merged.save_pretrained(partial)
        trainer.tokenizer.save_pretrained(partial)
        _describe(partial, config, tasks)
        checkpoints.publish(partial, run / "model")


def _describe(folder: Path, config: FinetuneConfig, tasks: list[TaskSamples]) -> None:
    """Writes the tasks, and how they were asked, into a model's folder."""
    (folder / "tasks").mkdir(exist_ok=True)
    for task in tasks:
        as_asked = replace(task.task, name=task.name, max_length=config.max_length)
        save_config(as_asked, folder / "tasks" / f"{task.name}.yaml")
    values = {
        "method": config.method,
        "tasks": [task.name for task in tasks],
        "max_length": config.max_length or config.positions(),
    }
    write_text(folder / MANIFEST, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def _write_predictions(
    folder: Path, tasks: list[TaskSamples], measured: Mapping[str, Measured]
) -> None:
    """Writes what was chosen for each held-out sample, a JSON object a line."""
    folder.mkdir(exist_ok=True)
    for task in tasks:
        lines = []
        for found in measured[task.name].predictions:
            if task.task.kind == "tagging":
                lines.append(json.dumps(found, ensure_ascii=False) + "\n")
                continue
            names = task.labels or [str(number) for number in range(len(found["probabilities"]))]
            shares = zip(names, found["probabilities"], strict=True)
            line = {
                "where": found["where"],
                "right": names[found["right"]],
                "chosen": names[found["chosen"]],
                "probabilities": {name: round(share, 6) for name, share in shares},
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        if lines:
            write_text(folder / f"{task.name}.jsonl", "".join(lines))


def _by_task(line: Mapping[str, float], names: list[str]) -> dict[str, dict[str, float]]:
    """Returns a log line's metrics by task."""
    found: dict[str, dict[str, float]] = {}
    for name in names:
        prefix = "eval_" if len(names) == 1 else f"eval_{name}_"
        found[name] = {
            key.removeprefix(prefix): value for key, value in line.items() if key.startswith(prefix)
        }
    return found


def _method(config: FinetuneConfig, tasks: list[TaskSamples]) -> str:
    weights = {
        "full": "the media's weights" if config.media.freeze_language else "all weights",
        "lora": f"{'Q' if config.lora.quantize else ''}LoRA of rank {config.lora.rank}",
        "virtual": f"{config.virtual.tokens} virtual tokens ({config.virtual.kind})",
    }[config.trained]
    if tasks[0].task.kind == "tagging":
        return f"a tag for each token, {weights}"
    if config.method == "head":
        return f"head, {weights}"
    kinds = {"cloze" if task.has_choices else "written answers" for task in tasks}
    return f"{' and '.join(sorted(kinds))}, {weights}"
