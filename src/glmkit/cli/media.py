"""Options of fill, generate, chat, classify and explain that name images, sounds and clips, and the arguments that they make.

In: paths of a command line. Out: what `glm.fill` and `glm.chat` take. A file that is not there is said before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from glmkit.cli.language import say
from glmkit.errors import MediaError
from glmkit.multimodal.media import KINDS, Kind, as_medium

Given = Mapping[Kind, Sequence[str]]
"""Kind -> paths, in their order."""

Image = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="PATH",
        help=say(
            "An image that the text is about, at its <|image|> or before it; once for each.",
            "文本所说的图片，位于 <|image|> 处，否则在文本之前；可多次给出。",
        ),
    ),
]
Audio = Annotated[
    list[str] | None,
    typer.Option(
        "--audio",
        metavar="PATH",
        help=say("Likewise a sound, at <|audio|>.", "同上，声音，位于 <|audio|> 处。"),
    ),
]
Video = Annotated[
    list[str] | None,
    typer.Option(
        "--video",
        metavar="PATH",
        help=say("Likewise a clip, at <|video|>.", "同上，视频，位于 <|video|> 处。"),
    ),
]


def given_media(
    image: Sequence[str] | None, audio: Sequence[str] | None, video: Sequence[str] | None
) -> dict[Kind, list[str]]:
    """Returns what the options name, by kind.

    Raises:
        MediaError: A file that is not there, an address.
    """
    found = {
        kind: list(some or ()) for kind, some in zip(KINDS, (image, audio, video), strict=True)
    }
    for kind, some in found.items():
        for one in some:
            check_medium(kind, one)
    return {kind: some for kind, some in found.items() if some}


def check_medium(kind: Kind, path: str) -> None:
    """Refuses what cannot be opened.

    Raises:
        MediaError: A file that is not there, an address.
    """
    medium = as_medium(kind, path, where=f"--{kind}")
    with medium.file():
        pass


def for_each_text(given: Given, count: int) -> dict[str, list[Any]]:
    """Returns the arguments of `glm.fill` for a list of texts: one text has all media, of several each has its own.

    Args:
        given: Of the options.
        count: Of the texts.

    Raises:
        MediaError: Neither one medium of a kind for all texts, nor one for each.
    """
    arguments: dict[str, list[Any]] = {}
    for kind, some in given.items():
        if count == 1:
            arguments[f"{kind}s"] = [list(some)]
        elif len(some) in (1, count):
            arguments[f"{kind}s"] = list(some) * (count // len(some))
        else:
            raise MediaError(
                say(
                    f"there are {count} texts and --{kind} was given {len(some)} times; give it once for all texts, or once for each "
                    "in their order",
                    f"有 {count} 段文本，而 --{kind} 给了 {len(some)} 次；请给一次（用于所有文本），或按顺序每段文本各给一次",
                )
            )
    return arguments


def message(text: str, given: Given) -> str | list[dict[str, str]]:
    """Returns the content of a chat message: media, then what is said about them."""
    if not any(given.values()):
        return text
    parts = [{"type": kind, kind: path} for kind, some in given.items() for path in some]
    return [*parts, {"type": "text", "text": text}]
