"""Verbs that run a model on texts: fill, generate, score. Texts come as arguments or on standard input."""

from __future__ import annotations

import dataclasses
import gc
import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from glmkit.cli.controlling import constraint_of, leading_of, with_control
from glmkit.cli.decoding import with_decoding_settings
from glmkit.cli.language import say
from glmkit.cli.media import Audio, Image, Video, for_each_text, given_media
from glmkit.embedded import DEFAULT_MODEL
from glmkit.errors import UserError
from glmkit.generation.settings import DecodingSettings

Texts = Annotated[
    list[str] | None,
    typer.Argument(
        help=say(
            "Texts; without any, one a line on standard input.", "文本；不给则逐行读标准输入。"
        )
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar="GLMKIT_MODEL",
        help=say(
            "Name of an embedded model, folder, training file or hub name.",
            "内置模型名、模型目录、训练检查点或 Hub 名称。",
        ),
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …")]
Dtype = Annotated[
    str | None,
    typer.Option(
        help=say(
            "float32, bfloat16, float16, int8; int4 on a CPU",
            "float32、bfloat16、float16、int8；CPU 上还有 int4",
        )
    ),
]
AssistantModel = Annotated[
    str | None,
    typer.Option(
        help=say(
            "A smaller model of the same vocabulary that guesses ahead; the text stays the same.",
            "同一词表的小模型，用来预先猜测后文；生成结果不变。",
        )
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help=say("One JSON object a line.", "每行输出一个 JSON 对象。"))
]


@with_control
@with_decoding_settings
def fill(
    settings: DecodingSettings,
    control: dict[str, Any],
    texts: Texts = None,
    model: Model = DEFAULT_MODEL,
    image: Image = None,
    audio: Audio = None,
    video: Video = None,
    n_best: Annotated[
        int | None,
        typer.Option(
            help=say(
                "Show the N likeliest ways to fill all blanks, with probabilities.",
                "列出最可能的 N 种填法及其概率。",
            )
        ),
    ] = None,
    as_json: Json = False,
    batch_size: Annotated[int, typer.Option(help=say("Texts at a time.", "每批文本数。"))] = 8,
    device: Device = None,
    dtype: Dtype = None,
    assistant_model: AssistantModel = None,
) -> None:
    """Fills every [MASK], [sMASK] and [gMASK] of each text."""
    given = given_media(image, audio, video)
    lines = read_texts(texts)
    media = for_each_text(given, len(lines))
    glm = load_model(model, device, dtype, assistant_model)
    arguments = dataclasses.asdict(settings) | leading_of(control) | media
    limit = constraint_of(glm.vocabulary, control)
    for name, value in {
        "constraints": limit,
        "negative_prompt": control["negative_prompt"],
    }.items():
        arguments[name] = None if value is None else [value] * len(lines)
    results = glm.fill(lines, n=n_best, batch_size=batch_size, **arguments)
    for result in results:
        if as_json:
            print_json(dataclasses.asdict(result))
            continue
        if result.candidates:
            _print_candidates(result)
            continue
        typer.echo(result.text)
        if sys.stdout.isatty():
            for number, blank in enumerate(result.blanks):
                line = f"  [{number + 1}] {blank}  ({result.scores[number]:.2f})"
                others = result.alternatives[number][1:] if result.alternatives else []
                typer.secho(
                    line + "".join(f" | {text} ({score:.2f})" for text, score in others), dim=True
                )


@with_control
@with_decoding_settings
def generate(
    settings: DecodingSettings,
    control: dict[str, Any],
    texts: Texts = None,
    model: Model = DEFAULT_MODEL,
    image: Image = None,
    audio: Audio = None,
    video: Video = None,
    as_json: Json = False,
    device: Device = None,
    dtype: Dtype = None,
    assistant_model: AssistantModel = None,
) -> None:
    """Continues each text; in a terminal the continuation appears as it is written."""
    given = given_media(image, audio, video)
    lines = read_texts(texts)
    media = for_each_text(given, len(lines))
    glm = load_model(model, device, dtype, assistant_model)
    settled = dataclasses.asdict(settings) | leading_of(control)
    limit = constraint_of(glm.vocabulary, control)
    for number, text in enumerate(lines):
        arguments = settled | {name: some[number] for name, some in media.items()}
        if as_json or settings.num_beams > 1 or control["prefer"]:
            continuation = glm.generate(text, constraints=limit, **arguments)
            if as_json:
                print_json({"prompt": text, "text": continuation})
            else:
                typer.echo(continuation)
            continue
        for piece in glm.generate(text, stream=True, constraints=limit, **arguments):
            typer.echo(piece, nl=False)
            sys.stdout.flush()
        typer.echo()


def score(
    texts: Texts = None,
    model: Model = DEFAULT_MODEL,
    as_json: Json = False,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Prints the log-probability (nats) and perplexity of each text, left to right."""
    lines = read_texts(texts)
    glm = load_model(model, device, dtype)
    for line, result in zip(lines, glm.score(lines), strict=True):
        if as_json:
            print_json(dataclasses.asdict(result))
        else:
            typer.echo(f"{result}\t{line}")


def _print_candidates(result: Any) -> None:
    """Prints the ways to fill a text as a table, the likeliest first."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(say("probability", "概率"), justify="right", no_wrap=True)
    table.add_column(say("text", "文本"), overflow="fold")
    for candidate in result.candidates:
        share = candidate.probability if candidate.preference is None else candidate.preference
        table.add_row(f"{share:.1%}", Text(candidate.text))
    Console(highlight=False).print(table)


def load_model(
    model: str, device: str | None, dtype: str | None, assistant_model: str | None = None
) -> Any:
    """Loads the model that the options name."""
    gc.disable()  # nothing that is imported or loaded is garbage: a tenth of the time goes into looking
    try:
        from glmkit.api import load
        from glmkit.native.loading import QUANTIZED

        bits: Any = {"quantization": dtype} if dtype in QUANTIZED else {"dtype": dtype}
        return load(model, device=device, assistant_model=assistant_model, **bits)
    finally:
        gc.enable()


def read_texts(texts: list[str] | None) -> list[str]:
    """Returns the texts given as arguments, or the lines of standard input.

    Raises:
        UserError: There are none, or they are not in the encoding of the terminal.
    """
    if texts:
        return texts
    if sys.stdin.isatty():
        raise UserError(
            say(
                "no text was given; pass one in quotes, or pipe text in",
                "没有给出文本；请加引号传入，或用管道输入",
            )
        )
    lines = list(input_lines())
    if not lines:
        raise UserError(say("standard input is empty", "标准输入为空"))
    return lines


def input_lines() -> Iterator[str]:
    """Yields the lines of standard input.

    Raises:
        UserError: They are in another encoding than Python expects.
    """
    try:
        yield from (line.rstrip("\r\n") for line in sys.stdin)
    except UnicodeDecodeError as error:
        raise UserError(
            say(
                f"standard input is not {error.encoding}: convert it (iconv -f GBK -t UTF-8), or set PYTHONIOENCODING to what it is",
                f"标准输入不是 {error.encoding} 编码：请先转换（iconv -f GBK -t UTF-8），或用 PYTHONIOENCODING 指明其编码",
            )
        ) from error


def print_json(record: dict[str, Any]) -> None:
    """Prints one JSON object as a line."""
    typer.echo(json.dumps(record, ensure_ascii=False))
