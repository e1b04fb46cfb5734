"""The verb that measures: evaluate, on texts (perplexity) or on tasks. The body imports what it needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glmkit.cli.language import say
from glmkit.embedded import DEFAULT_MODEL
from glmkit.errors import ConfigError

if TYPE_CHECKING:
    from glmkit.evaluation.tasks import TaskResult


def evaluate(
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            help=say(
                "Texts to read; with tasks TASK=FILE, or FILE for all tasks named.",
                "评测文本；评测任务时写 TASK=FILE，或只写 FILE（用于所列全部任务）。",
            ),
        ),
    ],
    model: Annotated[
        str, typer.Argument(help=say("Folder or hub name.", "模型目录或 hub 名称。"))
    ] = DEFAULT_MODEL,
    tasks: Annotated[
        str | None,
        typer.Option(
            help=say(
                "Tasks of the catalog or YAML files, with commas; by default those in --data.",
                "任务名或 YAML 文件，用逗号分隔；默认取自 --data。",
            )
        ),
    ] = None,
    text_field: Annotated[
        str | None,
        typer.Option(
            help=say("Without tasks: field or template.", "不评测任务时：记录的字段或模板。")
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help=say("At most so many records.", "最多记录数。"))
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help=say("Field for numbers of their own.", "按该字段的取值分别统计。")),
    ] = None,
    seed: Annotated[int, typer.Option(help=say("Of the blanks.", "空白的随机种子。"))] = 0,
    rename: Annotated[
        list[str] | None,
        typer.Option(help=say("The task's field=yours.", "任务字段=你的字段。")),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "--out",
            "-o",
            help=say(
                "With tasks: folder for results and predictions; else a JSON file.",
                "评测任务时：结果与预测的目录；否则为 JSON 文件。",
            ),
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda …")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help=say("With tasks: print JSON.", "评测任务时输出 JSON。"))
    ] = False,
) -> None:
    """Measures perplexity on texts, or how well tasks are done."""
    from glmkit.evaluation.suite import evaluate_tasks, names_tasks, parse_runs

    wanted = [name.strip() for name in (tasks or "").split(",") if name.strip()]
    if not wanted and not names_tasks(data):
        _perplexity(model, data, text_field, limit, output, device, seed)
        return
    if text_field is not None:
        raise ConfigError(
            "--text-field is for texts without a task; say with --rename which field is which"
        )
    from glmkit.api import load
    from glmkit.tasks.prepare import parse_rename

    runs, renamed = parse_runs(wanted, data), parse_rename(rename or [])
    report = evaluate_tasks(
        load(model, device=device, dtype=dtype),
        runs,
        output,
        model_name=model,
        limit=limit,
        by=by,
        seed=seed,
        rename=renamed,
        progress=_say_done,
    )
    values = {"model": report.model, **report.facts, "runs": report.runs}
    typer.echo(json.dumps(values, ensure_ascii=False) if as_json else report.table(runs))


def _say_done(name: str, result: TaskResult | None) -> None:
    """Reports a finished run on standard error, so that a log shows how far it is."""
    done = say("done before", "已完成，跳过") if result is None else f"{result.seconds:.0f} s"
    typer.echo(f"  {name}: {done}", err=True)


def _perplexity(
    model: str,
    data: list[str],
    text_field: str | None,
    limit: int | None,
    output: Path | None,
    device: str | None,
    seed: int,
) -> None:
    from glmkit.evaluation.report import evaluate_files

    report = evaluate_files(
        model, data, text_field=text_field, max_documents=limit, device=device, seed=seed
    )
    typer.echo(report.table())
    if output is not None:
        report.save(output)
