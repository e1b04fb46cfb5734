"""`glmkit chat`, a conversation in the terminal or one turn a line through a pipe; and `glmkit article`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from glmkit.applications import defaults
from glmkit.cli.decoding import with_decoding_settings
from glmkit.cli.language import say
from glmkit.cli.media import Audio, Given, Image, Video, check_medium, given_media, message
from glmkit.cli.writing import (
    AssistantModel,
    Device,
    Dtype,
    Json,
    Model,
    Texts,
    input_lines,
    load_model,
    print_json,
    read_texts,
)
from glmkit.embedded import DEFAULT_MODEL
from glmkit.errors import MediaError
from glmkit.generation.settings import DecodingSettings
from glmkit.multimodal.media import KINDS, Kind

Turns = Annotated[
    list[str] | None,
    typer.Argument(
        help=say(
            "What you say, turn by turn; without it, a conversation, or a turn a line on standard input.",
            "你说的话，每个参数一轮；不给则进入对话，或从标准输入逐行读取。",
        )
    ),
]


@functools.partial(with_decoding_settings, defaults=defaults.CHAT)
def chat(
    settings: DecodingSettings,
    turns: Turns = None,
    model: Model = DEFAULT_MODEL,
    system: Annotated[
        str, typer.Option(help=say("A message before the conversation.", "对话前的系统消息。"))
    ] = "",
    image: Image = None,
    audio: Audio = None,
    video: Video = None,
    as_json: Json = False,
    device: Device = None,
    dtype: Dtype = None,
    assistant_model: AssistantModel = None,
) -> None:
    """Answers each turn, with what was said before in mind; in a terminal the reply appears as it is written.

    Images, sounds and clips of the options belong to the first turn; in the conversation /image PATH adds one to the next.
    """
    interactive = not turns and sys.stdin.isatty()
    media = given_media(image, audio, video)
    glm = load_model(model, device, dtype, assistant_model)
    if interactive:
        _greet(glm)
    opening = [{"role": "system", "content": system}] if system else []
    messages: list[dict[str, Any]] = list(opening)
    for said in turns or _turns(interactive):
        command, _, rest = said.strip().partition(" ")
        if said.strip() in ("/quit", "/exit"):
            break
        if said.strip() == "/reset":
            messages, media = list(opening), {}
            continue
        with _told(interactive):
            if command in COMMANDS:
                _add(media, COMMANDS[command], rest)
                continue
            asked = [*messages, {"role": "user", "content": message(said, media)}]
            reply = _answer(glm, asked, said, media, settings, as_json, interactive)
            messages, media = [*asked, {"role": "assistant", "content": reply}], {}


@functools.partial(with_decoding_settings, defaults=defaults.ARTICLE)
def article(
    settings: DecodingSettings,
    texts: Texts = None,
    outline: Annotated[
        list[str] | None,
        typer.Option(
            help=say("A heading; give it once for each.", "小标题；可多次给出，一次一个。")
        ),
    ] = None,
    max_characters: Annotated[
        int, typer.Option(help=say("Most characters to write.", "最多写多少字符。"))
    ] = 600,
    min_characters: Annotated[
        int, typer.Option(help=say("Fewest characters to write.", "最少写多少字符。"))
    ] = 0,
    model: Model = DEFAULT_MODEL,
    as_json: Json = False,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Writes an article of each title, or goes on with each beginning; it appears as it is written."""
    given = read_texts(texts)
    glm = load_model(model, device, dtype)
    arguments = dataclasses.asdict(settings) | {
        "outline": outline or (),
        "max_characters": max_characters,
        "min_characters": min_characters,
    }
    for text in given:
        if as_json:
            print_json({"prompt": text, "text": glm.article(text, **arguments)})
            continue
        for piece in glm.article(text, stream=True, **arguments):
            typer.echo(piece, nl=False)
            sys.stdout.flush()
        typer.echo()


COMMANDS: dict[str, Kind] = {f"/{kind}": kind for kind in KINDS}
"""What is typed in a conversation -> the kind of medium whose path follows it."""


def _greet(glm: Any) -> None:
    """Says what can be typed."""
    english = "Say something. /reset forgets the conversation, /quit ends it."
    chinese = "说点什么吧。/reset 重新开始，/quit 结束。"
    if glm.media is not None:
        names = " ".join(f"/{kind}" for kind in glm.media.kinds)
        english += f" {names} PATH goes with what you say next."
        chinese += f"{names} 路径：随下一句话一起发送。"
    typer.secho(say(english, chinese), dim=True)


def _add(media: dict[Kind, list[str]], kind: Kind, typed: str) -> None:
    """Adds a medium to those of the next turn.

    Raises:
        MediaError: There is no such file.
    """
    path = typed.strip().strip("'\"")  # as terminals write what is dropped on them
    path = path if path.startswith("data:") else os.path.expanduser(path)
    check_medium(kind, path)
    media.setdefault(kind, []).append(path)


@contextlib.contextmanager
def _told(interactive: bool) -> Iterator[None]:
    """Says what was wrong with a medium and goes on, where somebody sits before the terminal."""
    try:
        yield
    except MediaError as error:
        if not interactive:
            raise
        typer.secho(str(error), fg="red", err=True)


def _answer(
    glm: Any,
    messages: list[dict[str, Any]],
    said: str,
    media: Given,
    settings: DecodingSettings,
    as_json: bool,
    interactive: bool,
) -> str:
    """Prints the reply to the last message and returns it."""
    arguments = dataclasses.asdict(settings)
    if as_json or settings.num_beams > 1:
        reply: str = glm.chat(messages, **arguments)
        if as_json:
            shown = {f"{kind}s": some for kind, some in media.items()}
            print_json({"user": said, **shown, "reply": reply})
        else:
            typer.echo(reply)
        return reply
    if interactive:
        typer.secho("GLM  ", fg="cyan", nl=False)
    pieces: list[str] = []
    for piece in glm.chat(messages, stream=True, **arguments):
        pieces.append(piece if pieces else piece.lstrip())
        typer.echo(pieces[-1], nl=False)
        sys.stdout.flush()
    typer.echo()
    return "".join(pieces).strip()


def _turns(interactive: bool) -> Iterator[str]:
    """Yields what is typed at a prompt until end of file or interrupt, or the lines of standard input."""
    if not interactive:
        yield from input_lines()
        return
    with contextlib.suppress(ImportError):  # Windows has none
        import readline  # noqa: F401 - editing and history of the lines typed
    while True:
        try:
            line = input(say("you  ", "你   "))
        except (EOFError, KeyboardInterrupt):
            typer.echo()
            return
        if line.strip():
            yield line
