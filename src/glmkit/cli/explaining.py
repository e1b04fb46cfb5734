"""The verb explain: why blanks were filled so, or why a text has its label; in the terminal, as a page, picture or JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from glmkit.cli.language import say
from glmkit.cli.media import Audio, Image, Video, given_media
from glmkit.cli.understanding import Language, check_language
from glmkit.cli.writing import Device, Dtype, Json, Model, load_model, print_json, read_texts
from glmkit.embedded import DEFAULT_MODEL
from glmkit.errors import UserError


def explain(
    text: Annotated[
        list[str] | None,
        typer.Argument(
            help=say(
                "The text, with or without blanks; without it, all of standard input.",
                "文本，可含空白；不给则读取全部标准输入。",
            )
        ),
    ] = None,
    model: Model = DEFAULT_MODEL,
    image: Image = None,
    audio: Audio = None,
    video: Video = None,
    blank: Annotated[
        list[str] | None,
        typer.Option(
            help=say(
                "What fills a blank, once for each; by default what the model writes.",
                "空白的内容，每个空白给一次；默认由模型填写。",
            )
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help=say(
                "Explain a label: a task of the catalog, such as sentiment, or your own YAML file.",
                "解释分类：内置任务名（如 sentiment）或自己的 YAML 文件。",
            )
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help=say(
                "Explain the choice among labels a,b,c.", "解释在标签中的选择，形如 体育,财经。"
            )
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help=say(
                "The label to explain; by default the likeliest.", "要解释的标签；默认最可能的。"
            )
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=say(
                "integrated_gradients, ablation or attention_rollout; by default all.",
                "integrated_gradients、ablation 或 attention_rollout；默认全部。",
            )
        ),
    ] = None,
    baseline: Annotated[
        str,
        typer.Option(
            help=say(
                "What stands for an unknown word: mask, pad or mean.",
                "用什么代表未知的词：mask、pad 或 mean。",
            )
        ),
    ] = "mask",
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help=say("Page or picture: x.html, x.png …", "网页或图片：x.html、x.png 等。"),
        ),
    ] = None,
    max_new_tokens: Annotated[
        int,
        typer.Option(
            help=say("Most tokens of a blank that the model fills.", "模型填写的空白最多词元数。")
        ),
    ] = 16,
    as_json: Json = False,
    language: Language = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Says which words made the model write, or choose, what it did."""  # fmt: skip
    if text and len(text) > 1:
        raise UserError(
            say(
                f"{len(text)} texts were given; explain takes one, in quotes",
                f"给出了 {len(text)} 段文本；请用引号给出一段",
            )
        )
    if out is not None:
        _check_out(out)
    media = given_media(image, audio, video)
    given = "\n".join(read_texts(text))
    names = [name.strip() for name in (labels or "").replace("，", ",").split(",") if name.strip()]
    settings: dict[str, Any] = {"blanks": blank or None, "methods": method or None, "baseline": baseline}  # fmt: skip
    if task or names:
        settings |= {"task": task, "labels": names or None, "label": label, "language": check_language(language)}  # fmt: skip
    else:
        settings |= {"label": label, "language": check_language(language)}
        if not blank:
            settings["max_new_tokens"] = max_new_tokens
    glm = load_model(model, device, dtype)
    result = glm.explain(given, **{f"{kind}s": some for kind, some in media.items()}, **settings)
    if out is not None:
        typer.echo(str(result.save(out)), err=as_json)
    if as_json:
        print_json(result.to_dict())
    elif out is None:
        _print(result)


def _check_out(out: Path) -> None:
    """Refuses a file name before a model is loaded.

    Raises:
        UserError: Another suffix, or no such folder.
    """
    from glmkit.explain.results import check_path

    check_path(out)


def _print(result: Any) -> None:
    """Prints the evidence; in a terminal the text's words are coloured by the first method, blue for, orange against."""
    typer.echo(str(result))
    if not sys.stdout.isatty():
        return
    for one in result.evidence:
        method = next(iter(one.attributions), None)
        if method is None or not one.units:
            continue
        values = one.attributions[method].values
        largest = max(map(abs, values.tolist())) or 1.0
        words = [
            typer.style(unit.text, fg="blue" if value > 0 else "yellow", bold=True)
            if abs(value) > largest / 4
            else unit.text
            for unit, value in zip(one.units, values.tolist(), strict=True)
        ]
        note = say("blue for, yellow against", "蓝色有利，黄色不利")
        typer.echo(f"{one.name} ({method}; {note}): {' '.join(words)}")
