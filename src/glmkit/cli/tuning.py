"""Verbs that train: pretrain, and finetune: a model and labelled data -> a model that does the task. Bodies import what they need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from glmkit.cli.language import say
from glmkit.cli.progress import step_progress
from glmkit.errors import MissingDependencyError, UserError, nearest
from glmkit.whole_files import write_text


def pretrain(
    recipe: Annotated[Path, typer.Argument(help=say("A recipe (YAML).", "配方文件（YAML）。"))],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help=say("Settings as key=value.", "以 key=value 覆盖配方中的设置。")),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(min=1, help=say("Checkpoints to keep.", "保留的检查点个数。")),
    ] = None,
) -> None:
    """Trains a GLM by a recipe; run again after an interruption, it goes on where it was."""
    from glmkit.config import load_config
    from glmkit.training.pretrain import PretrainConfig
    from glmkit.training.pretrain import pretrain as run

    kept = [] if keep is None else [f"trainer.save_total_limit={keep}"]
    config = load_config(PretrainConfig, recipe, [*(settings or []), *kept])
    with step_progress(say("pretraining", "预训练")) as progress:
        report = run(config, progress=progress)
    typer.echo(report.table())


def finetune(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] [TASK] [KEY=VALUE]...",
            help=say(
                "A folder or hub name; a task of the catalog or a YAML file; more settings as in a recipe.",
                "模型目录或 Hub 名称；任务名或 YAML 文件；其余设置同配方。",
            ),
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help=say("Files of records to train on.", "训练数据文件。")),
    ] = None,
    valid: Annotated[
        list[str] | None,
        typer.Option(
            help=say(
                "Files of held-out records; else a tenth of the data.",
                "验证数据文件；不给则留出训练数据的十分之一。",
            )
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=say("Folder of the run.", "运行目录。")),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help=say("A recipe (YAML).", "配方文件（YAML）。"))
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=say(
                "What is trained: full, lora, qlora (4-bit base), prefix, prompt or ptuning (virtual tokens); and of "
                "classification how: cloze (words in the blank) or head. May be given twice.",
                "训练哪些参数：full、lora、qlora（4 位基座）、prefix、prompt 或 ptuning（虚拟词元）；"
                "分类还可选方式：cloze（填空）或 head（分类头）。可给两次。",
            )
        ),
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(
            help=say("Rank of adapters; else all weights.", "LoRA 的秩；不给则训练全部权重。")
        ),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(help=say("The task's field=yours.", "任务字段=你的字段。")),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help=say("Train on so many records (few-shot).", "只用这么多条训练数据。")),
    ] = None,
    measure: Annotated[
        int,
        typer.Option(
            min=0,
            help=say(
                "Written answers: count them on so many held-out records, before and after.",
                "生成类任务：在这么多条验证数据上评测训练前后的答案。",
            ),
        ),
    ] = 20,
) -> None:
    """Fine-tunes a model on labelled data; run again after an interruption, it goes on where it was."""
    from glmkit.config import load_config
    from glmkit.tasks.prepare import parse_rename
    from glmkit.tasks.task import load_task
    from glmkit.training.finetune import finetune as run
    from glmkit.training.finetune_settings import FinetuneConfig

    model, task, settings = _sorted_words(words or [])
    given: dict[str, Any] = {
        "model.from": model,
        "trainer.output_dir": None if output is None else str(output),
        "lora.rank": lora,
        **_method_settings(method or [], lora),
    }
    of_task = {"train": data, "valid": valid, "limit": limit, "rename": parse_rename(rename or [])}
    of_task = {key: value for key, value in of_task.items() if value}
    if task is None:
        if of_task:
            raise UserError(
                "--data, --valid, --rename and --limit belong to a task: glmkit finetune MODEL TASK --data FILE. With a recipe "
                "write tasks.NAME.train=[FILE]"
            )
        if recipe is None and not any(one.startswith("tasks.") for one in settings):
            raise UserError(
                "say which model learns which task from which records: glmkit finetune MODEL TASK --data FILE, or --recipe FILE"
            )
    else:
        name = Path(task).stem if Path(task).suffix in (".yaml", ".yml") else Path(task).name
        fields = load_task(task).fields
        in_settings = any(one.startswith(f"tasks.{name}.train=") for one in settings)
        if not (data or recipe or in_settings):
            raise UserError(
                f"there is nothing to learn from: give --data FILE, records in JSON lines, CSV or Parquet (fields: "
                f"{', '.join(fields)}; --rename where yours are called otherwise)"
            )
        given[f"tasks.{name}"] = {"task": task, **of_task}
    options = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    config = load_config(FinetuneConfig, recipe, [*options, *settings])
    with step_progress(say("fine-tuning", "微调")) as progress:
        report = run(config, progress=progress)
    typer.echo(report.table())
    if measure:
        for line in _measured_answers(config, report, measure):
            typer.echo(line)


def _measured_answers(config: Any, report: Any, count: int) -> Iterator[str]:
    """Yields a line for each task whose answers are written; training knows their loss alone.

    `answers.json` in the run's folder keeps the numbers, `predictions/NAME.jsonl` the answers after training.
    """
    from glmkit.api import load
    from glmkit.evaluation.tasks import evaluate_task
    from glmkit.training.finetune_data import held_out_records

    tasks = {n: t for n, t in config.loaded_tasks().items() if t.kind == "generation"}
    path = report.folder / "answers.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, task in tasks.items():
        if name not in known:
            # A conversation is many questions.
            records = held_out_records(
                task, config.tasks[name], max(1, count // 10) if task.turns else count
            )
            found = {}
            try:
                for side, folder in (("before", config.model["from"]), ("after", report.model)):
                    result, answers = evaluate_task(load(folder), task, records)
                    found[side] = {key: number.value for key, number in result.metrics.items()}
            except MissingDependencyError as error:
                yield f"{name}: {error}"
                continue
            lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in answers)
            (report.folder / "predictions").mkdir(exist_ok=True)
            write_text(report.folder / "predictions" / f"{name}.jsonl", "".join(lines))
            known[name] = {"examples": result.examples, **found}
            write_text(path, json.dumps(known, indent=1) + "\n")
        numbers = known[name]
        for key, after in numbers["after"].items():
            before = numbers["before"].get(key, float("nan"))
            yield f"{name} {key}  {before:.3f} -> {after:.3f} ({numbers['examples']} {say('held-out answers', '条验证答案')})"


ADAPTER_SIZES = {"lora": 16, "qlora": 16, "prefix": 16, "prompt": 32, "ptuning": 32}
"""Method -> rank, or virtual tokens, where none is given."""


def _method_settings(methods: list[str], rank: int | None) -> dict[str, Any]:
    """Returns the settings that the words behind --method stand for.

    Raises:
        UserError: An unknown word, two that contradict each other, or a rank for what has none.
    """
    ways = ("cloze", "head")
    unknown = [word for word in methods if word not in (*ways, "full", *ADAPTER_SIZES)]
    if unknown:
        known = (*ways, "full", *ADAPTER_SIZES)
        raise UserError(f"--method {unknown[0]}: there is {', '.join(known)}{nearest(unknown[0], known)}")  # fmt: skip
    asked = [word for word in methods if word in ways]
    trained = [word for word in methods if word not in ways]
    if len(asked) > 1 or len(trained) > 1:
        raise UserError(f"--method {' --method '.join(asked if len(asked) > 1 else trained)}: choose one of them")  # fmt: skip
    found: dict[str, Any] = {"method": asked[0] if asked else None}
    for word in trained:
        if word in ("lora", "qlora"):
            found["lora.rank"] = ADAPTER_SIZES[word] if rank is None else rank
            found["lora.quantize"] = "nf4" if word == "qlora" else None
        elif rank is not None:
            raise UserError(f"--lora {rank} is the rank of lora and qlora; leave it out with --method {word}")  # fmt: skip
        elif word != "full":
            found |= {"virtual.kind": word, "virtual.tokens": ADAPTER_SIZES[word]}
    return found


def _sorted_words(words: list[str]) -> tuple[str | None, str | None, list[str]]:
    """Returns model, task, settings.

    Raises:
        UserError: More than two words that are no settings.
    """
    settings = [word for word in words if "=" in word and not Path(word).exists()]
    names = [word for word in words if word not in settings]
    if len(names) > 2:
        raise UserError(
            f"{' '.join(names)}: there is one MODEL and one TASK; files of records go behind --data, settings are key=value"
        )
    model, task = [*names, None, None][:2]
    return model, task, settings
