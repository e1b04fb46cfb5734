"""`glmkit poem`: writes poems, lists the forms, checks poems."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from glmkit.applications.poetry.forms import forms
from glmkit.cli.language import say
from glmkit.cli.writing import Device, Dtype, Json, Model, load_model, print_json
from glmkit.embedded import DEFAULT_MODEL
from glmkit.errors import DataError

DEFAULT_FORM = "七言绝句"


def poem(
    titles: Annotated[
        list[str] | None, typer.Argument(help=say("Titles.", "题目，可多个。"))
    ] = None,
    form: Annotated[
        str, typer.Option(help=say("The form, see --list.", "体裁或词牌，见 --list。"))
    ] = DEFAULT_FORM,
    first_line: Annotated[
        str | None, typer.Option(help=say("The first verse, or several.", "首句（可多句）。"))
    ] = None,
    acrostic: Annotated[
        str | None, typer.Option(help=say("What the verses begin with.", "藏头：各句的首字。"))
    ] = None,
    keywords: Annotated[
        str | None, typer.Option(help=say("Words, with spaces between.", "关键词，以空格分隔。"))
    ] = None,
    author: Annotated[
        str | None, typer.Option(help=say("Whose style to follow.", "仿谁的风格。"))
    ] = None,
    rhyme: Annotated[
        str,
        typer.Option(
            help=say("Sounds: modern or pingshui.", "声韵：modern 新韵，pingshui 平水韵。")
        ),
    ] = "modern",
    rhyme_with: Annotated[
        str | None, typer.Option(help=say("Rhyme with this character.", "与此字同韵。"))
    ] = None,
    tones: Annotated[bool, typer.Option(help=say("Keep the tones.", "是否遵守平仄。"))] = True,
    candidates: Annotated[
        int, typer.Option(help=say("Poems to choose from.", "候选数，保留概率最高的一首。"))
    ] = 4,
    temperature: Annotated[
        float, typer.Option(help=say("Higher is more daring.", "越高越大胆。"))
    ] = 0.8,
    top_p: Annotated[
        float, typer.Option(help=say("Draw among the likeliest.", "核采样概率。"))
    ] = 0.9,
    seed: Annotated[
        int | None, typer.Option(help=say("Makes it repeatable.", "随机种子。"))
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", help=say("Show the forms.", "列出全部体裁与词牌。"))
    ] = False,
    check: Annotated[
        str | None,
        typer.Option(
            help=say(
                "Check the poem in this file (- is standard input) against --form.",
                "按 --form 检查该文件中的诗（- 为标准输入）。",
            )
        ),
    ] = None,
    as_json: Json = False,
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Writes a poem that keeps its form."""
    if listing:
        _list(as_json)
        return
    if check is not None:
        _check(check, form, rhyme, tones, as_json)
        return
    glm = load_model(model, device, dtype)
    poems = glm.poem(
        titles or [""],
        form,
        first_line=first_line,
        acrostic=acrostic,
        keywords=keywords,
        author=author,
        rhyme=rhyme,
        rhyme_with=rhyme_with,
        tones=tones,
        candidates=candidates,
        seed=seed,
        temperature=temperature,
        top_p=top_p,
    )
    for number, one in enumerate(poems):
        if as_json:
            print_json(dataclasses.asdict(one))
        else:
            typer.echo(("\n" if number else "") + str(one))


def _list(as_json: bool) -> None:
    for form in forms().values():
        lengths = [len(verse) for verse in form.verses]
        if as_json:
            names = {"form": form.name, "aliases": list(form.aliases), "tune": form.tune}
            print_json({**names, "verses": lengths})
            continue
        shape = "".join(f"{len(verse)}{verse.mark}" for verse in form.verses)
        typer.echo(f"{form.name}  {', '.join(form.aliases)}  {shape}")


def _check(file: str, form: str, rhyme: str, tones: bool, as_json: bool) -> None:
    """Prints what is wrong with a poem; the exit status is 1 if anything is."""
    from glmkit.applications.poetry.checking import check_poem  # needs the vocabulary's libraries

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the poem in {file} cannot be read: {error}") from error
    wrong = check_poem(text, form, rhyme=rhyme, tones=tones)
    if as_json:
        print_json({"form": form, "violations": wrong})
    else:
        typer.echo("\n".join(wrong) or say(f"It keeps the form {form}.", f"合乎{form}。"))
    if wrong:
        raise typer.Exit(1)
