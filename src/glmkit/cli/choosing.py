"""The verb choose: a task, data, a machine -> which GLM. Its body imports what it needs."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from glmkit.cli.language import say, speaks_chinese
from glmkit.errors import ConfigError, UserError


def choose(
    task: Annotated[
        str | None,
        typer.Option(
            help=say(
                "summarize, classify, sentiment, answer, fill, poem, chat …, or a task's YAML file.",
                "summarize、classify、sentiment、answer、fill、poem、chat 等，或任务 YAML 文件。",
            )
        ),
    ] = None,
    examples: Annotated[
        int, typer.Option(help=say("Labelled records there are.", "已有的标注样本数。"))
    ] = 0,
    gpu: Annotated[
        str | None,
        typer.Option(
            help=say(
                "1x24GB, 2x RTX 3090, A100 80GB, cpu, cpu:16GB; by default this machine.",
                "1x24GB、2x RTX 3090、A100 80GB、cpu、cpu:16GB；默认为本机。",
            )
        ),
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option(help=say("That an answer may take: 200ms, 1.5s.", "单次回答时限：200ms、1.5s。")),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(help=say("Of the texts, zh or en; by default yours.", "文本语言，zh 或 en；默认为你的语言。")),
    ] = None,
    hours: Annotated[
        float, typer.Option(help=say("That training may take.", "训练时限（小时）。"))
    ] = 48.0,
    input_tokens: Annotated[
        int | None, typer.Option(help=say("Of a text; else the task's usual.", "文本的词元数；默认按任务。"))
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option(help=say("Of an answer.", "回答的词元数。"))
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=say("All of it as JSON.", "输出全部内容的 JSON。"))] = False,
) -> None:  # fmt: skip
    """Says which GLM suits a task, data and a machine, how to train it, what it takes, and when another family is better."""
    given: dict[str, Any] = {
        "task": task,
        "examples": examples,
        "gpu": gpu,
        "latency": latency,
        "language": language or ("zh" if speaks_chinese() else "en"),
    }
    if task is None:
        if not sys.stdin.isatty():
            raise ConfigError(
                say(
                    "what is the task? For example: glmkit choose --task summarize --examples 5000 --gpu 1x24GB (in a terminal, "
                    "glmkit choose asks)",
                    "任务是什么？例如：glmkit choose --task summarize --examples 5000 --gpu 1x24GB（在终端里 glmkit choose 会逐项询问）",
                )
            )
        given = _ask(given)
    from glmkit.choosing.ranking import choose as rank
    from glmkit.choosing.report import as_dict, as_text

    choice = rank(**given, hours=hours, input_tokens=input_tokens, output_tokens=output_tokens)
    if as_json:
        typer.echo(json.dumps(as_dict(choice), ensure_ascii=False))
    else:
        typer.echo(as_text(choice, chinese=speaks_chinese()))


def _ask(given: dict[str, Any]) -> dict[str, Any]:
    """Returns the answers to five questions, each asked again until it means something; Enter takes what is in brackets."""
    from glmkit.choosing.devices import parse_hardware
    from glmkit.choosing.ranking import parse_seconds
    from glmkit.choosing.tasks import NEEDS, find_need

    chinese = speaks_chinese()
    for need in NEEDS:
        typer.echo(f"  {need.name:<10} {need.words.say(chinese)}")
    answers = {
        "task": _until(say("Task", "任务"), "summarize", lambda text: find_need(text) and text),
        "language": _until(say("Language of the texts", "文本语言"), given["language"], str),
        "examples": _until(say("Labelled examples", "标注样本数"), str(given["examples"]), _count),
        "gpu": _until(
            say("Device (1x24GB, RTX 4090, cpu, here)", "设备（1x24GB、RTX 4090、cpu、here 为本机）"),
            given["gpu"] or "here",
            lambda text: parse_hardware(text),
        ),
        "latency": _until(
            say("An answer within (200ms, 1s; - for no limit)", "回答时限（200ms、1s；- 表示不限）"),
            given["latency"] or "-",
            lambda text: None if text == "-" else parse_seconds(text),
        ),
    }  # fmt: skip
    typer.echo()
    return answers


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise ConfigError(say(f"{text!r} is no number of examples", f"{text!r} 不是样本数"))
    return number


def _until(question: str, default: str, read: Any) -> Any:
    while True:
        text = typer.prompt(question, default=default)
        try:
            return read(text.strip())
        except UserError as error:
            typer.secho(str(error), fg="red", err=True)
