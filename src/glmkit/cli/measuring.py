"""The verbs that measure: evaluate, on texts (perplexity) or on tasks, and harness. Bodies import what they need."""

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
                "用于评测的文本文件；评测任务时写 TASK=FILE，或只写 FILE（用于所列全部任务）。",
            ),
        ),
    ],
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help=say(
                f"Folders or hub names; several are compared. By default {DEFAULT_MODEL}.",
                f"模型目录或 Hub 名称；给出多个则相互比较。默认 {DEFAULT_MODEL}。",
            )
        ),
    ] = None,
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
                "With tasks: folder for results, predictions and report.html; else a JSON file.",
                "评测任务时：结果、预测与 report.html 的目录；否则为 JSON 文件。",
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
    from glmkit.api import load
    from glmkit.evaluation.report import evaluate_files
    from glmkit.evaluation.several import evaluate_models
    from glmkit.evaluation.suite import names_tasks, parse_runs
    from glmkit.tasks.prepare import parse_rename

    chosen = models or [DEFAULT_MODEL]
    wanted = [name.strip() for name in (tasks or "").split(",") if name.strip()]
    if not wanted and not names_tasks(data):
        if len(chosen) > 1:
            raise ConfigError(
                f"several models are compared on tasks: add --tasks text for perplexity; got {', '.join(chosen)}"
            )
        if by is not None or rename or as_json:
            raise ConfigError(
                "--by, --rename and --json go with tasks; for the perplexity of texts as one add --tasks text"
            )
        glm = load(chosen[0], device=device, dtype=dtype)
        report = evaluate_files(
            glm, data, name=chosen[0], text_field=text_field, max_documents=limit, seed=seed
        )
        typer.echo(report.table())
        if output is not None:
            report.save(output)
        return
    if text_field is not None:
        raise ConfigError(
            "--text-field is for texts without a task; say with --rename which field is which"
        )
    runs, renamed = parse_runs(wanted, data), parse_rename(rename or [])
    found = evaluate_models(
        chosen,
        lambda model: load(model, device=device, dtype=dtype),
        runs,
        output,
        limit=limit,
        by=by,
        seed=seed,
        rename=renamed,
        progress=_say_done,
    )
    if as_json:
        one = found.reports[0]
        values = {"model": chosen[0], **one.facts, "runs": one.runs}
        several = len(chosen) > 1
        typer.echo(json.dumps(found.values() if several else values, ensure_ascii=False))
        return
    typer.echo(found.table(runs))
    if output is not None:
        typer.echo(say("report", "报告") + f": {output / 'report.html'}", err=True)


def _say_done(model: str, run: str, result: TaskResult | None) -> None:
    """Reports a finished run on standard error, so that a log shows how far it is."""
    done = say("done before", "已完成，跳过") if result is None else f"{result.seconds:.0f} s"
    typer.echo(f"  {model}: {run}: {done}", err=True)


def harness(
    tasks: Annotated[
        str,
        typer.Option(
            help=say(
                "Tasks of lm-evaluation-harness or your YAML files, with commas.",
                "lm-evaluation-harness 的任务名或自己的 YAML 文件，用逗号分隔。",
            )
        ),
    ],
    model: Annotated[
        str, typer.Argument(help=say("Folder or hub name.", "模型目录或 Hub 名称。"))
    ] = DEFAULT_MODEL,
    include_path: Annotated[
        Path | None, typer.Option(help=say("Folder with more tasks.", "更多任务所在目录。"))
    ] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(min=0, help=say("Examples before a question.", "少样本示例数。"))
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help=say("At most so many questions of a task.", "每个任务最多问题数。")
        ),
    ] = None,
    mask: Annotated[
        str,
        typer.Option(
            help=say(
                "Blank at the end of a context: gMASK, sMASK, MASK.",
                "上下文末尾的空白：gMASK、sMASK、MASK。",
            )
        ),
    ] = "gMASK",
    end: Annotated[
        bool,
        typer.Option(
            help=say("The end of a blank counts in its probability.", "概率计入空白的结束符。")
        ),
    ] = False,
    chat: Annotated[
        bool, typer.Option(help=say("Ask as in a conversation.", "以对话形式提问。"))
    ] = False,
    batch_size: Annotated[
        str, typer.Option(help=say("Rows at a time, or auto.", "每批行数，或 auto。"))
    ] = "auto",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "--out",
            "-o",
            help=say("JSON file for results and samples.", "写入结果与样本的 JSON 文件。"),
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda …")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16")] = None,
) -> None:
    """Runs EleutherAI's lm-evaluation-harness on a GLM."""
    from glmkit import harness as adapter
    from glmkit.whole_files import write_text

    found = adapter.evaluate(
        adapter.HarnessModel(
            model, mask=mask, end=end, batch_size=batch_size, device=device, dtype=dtype
        ),
        [name.strip() for name in tasks.split(",") if name.strip()],
        include_path=include_path,
        num_fewshot=num_fewshot,
        limit=limit,
        chat=chat,
    )
    typer.echo(adapter.table(found))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, json.dumps(found, ensure_ascii=False, indent=1, default=str) + "\n")
