"""Images, sounds and clips on the page: chosen in the browser, kept there, and sent with what they belong to.

In: what `page.js` sends, JSON in a field that nobody sees. Out: fields of the API's requests. The server keeps nothing of it and no file is
uploaded; the limits are the API's. Where the model reads none, none of this is drawn.
"""

from __future__ import annotations

import html
from typing import Annotated, Any

import gradio as gr
from pydantic import Field, TypeAdapter

from glmkit.playground.desk import Desk
from glmkit.serving.media import FIELDS
from glmkit.serving.schemas import Kind, Sent, Strict

ICONS = {"image": "▣", "audio": "♪", "video": "▶"}
"""In fonts that everybody has."""


class Item(Strict):
    """A medium that somebody chose.

    Attributes:
        kind: Of the medium.
        url: Its file, as a data: URL.
        name: The file's.
        thumb: A small picture of it that the browser made, or None.
    """

    kind: Kind
    url: Annotated[Sent, Field(pattern="^data:")]
    name: Annotated[str, Field(max_length=500)] = ""
    thumb: (
        Annotated[
            str,
            Field(max_length=200_000, pattern=r"^data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/=]+$"),
        ]
        | None
    ) = None  # fmt: skip

    def chip(self) -> str:
        """Returns it as HTML, for a line of text."""
        name = html.escape(self.name)
        sight = f'<img src="{self.thumb}" alt="{name}">' if self.thumb else f'<span class="icon">{ICONS[self.kind]}</span>'  # fmt: skip
        return f'<span class="medium" title="{name}">{sight}<span class="file">{name}</span></span>'


_ITEMS = TypeAdapter(list[Item])


def read_items(given: str) -> list[Item]:
    """Returns what the browser sent.

    Raises:
        ValidationError: It is something else.
    """
    return _ITEMS.validate_json(given) if given else []


def fields(items: list[Item]) -> dict[str, list[str]]:
    """Returns the fields of a request with these media."""
    found: dict[str, list[str]] = {}
    for field, kind in FIELDS.items():
        if some := [one.url for one in items if one.kind == kind]:
            found[field] = some
    return found


def content(text: str, items: list[Item]) -> str | list[dict[str, Any]]:
    """Returns a message of a chat request: media, then what is said about them."""
    if not items:
        return text
    parts = [{"type": f"{one.kind}_url", f"{one.kind}_url": one.url} for one in items]
    return [*parts, {"type": "text", "text": text}]


def picker(desk: Desk, place: str) -> list[gr.Textbox]:
    """Draws where media are chosen; returns the inputs that bring them, none where the model reads none.

    Args:
        desk: The page's.
        place: Of the tab.
    """
    if desk.glm.media is None:
        return []
    say, settings = desk.say, desk.server.settings
    kinds = desk.glm.media.kinds
    accept = ",".join(f"{kind}/*" for kind in kinds)
    names = say("media_between").join(say(f"media_{kind}") for kind in kinds)
    label = html.escape(say("media_add", kinds=names))
    gr.HTML(
        f'<div class="media" data-place="{place}" data-kinds="{" ".join(kinds)}" data-most="{settings.max_media}" '
        f'data-bytes="{settings.max_media_bytes}" data-remove="{html.escape(say("media_remove"))}">'
        f'<label class="pick" tabindex="-1"><input type="file" accept="{accept}" multiple aria-label="{label}">＋ {label}</label>'
        '<ul class="picked"></ul></div>',
        elem_id=f"{place}-media",
    )
    return [gr.Textbox(visible=False, elem_id=f"{place}-media-sent")]


def sending(holder: list[gr.Textbox], place: str, again: bool = False) -> str | None:
    """Returns the script by which a listener's last input brings the media.

    Args:
        holder: What `picker` returned.
        place: Of the tab.
        again: Those that were sent last, instead of those that are chosen now.
    """
    if not holder:
        return None
    return f"(...all) => [...all.slice(0, -1), glmMedia('{place}', {'true' if again else 'false'})]"
