"""The settings that a tab shows: the API's fields, with the API's names and limits (`serving.schemas.Decoding`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import gradio as gr

from glmkit.playground.desk import Desk
from glmkit.serving.schemas import Decoding

WRITING = ("max_tokens", "temperature", "top_p", "top_k", "seed", "repetition_penalty", "no_repeat_ngram_size")  # fmt: skip

CONTROL = ("choices", "include", "exclude", "regex", "min_characters", "max_characters")
"""What a blank may be."""

LISTS = ("choices", "include", "exclude")
BETWEEN = re.compile(r"\s*[,，、;；\n]\s*")
"""What stands between the items of a field that is a list."""


def items(text: str) -> list[str]:
    """Returns the items that a person wrote into one field."""
    return [one for one in BETWEEN.split(text.strip()) if one]


class Controls:
    """Some fields of settings.

    Attributes:
        components: Gradio's, in the order of the names.
    """

    def __init__(
        self,
        desk: Desk,
        prefix: str,
        names: Sequence[str] = WRITING,
        usual: dict[str, Any] | None = None,
    ):
        """Draws the fields.

        Args:
            desk: The page's.
            prefix: Of the fields' ids on the page.
            names: Which fields.
            usual: What they say at first; else they are empty.
        """
        self._names = tuple(names)
        self.components = [
            field(
                desk,
                f"{prefix}-{name}",
                name,
                _info(desk, name),
                (usual or {}).get(name),
            )
            for name in names
        ]

    def __len__(self) -> int:
        return len(self._names)

    def given(self, values: Sequence[str]) -> dict[str, Any]:
        """Returns the fields that are not empty, as they were typed; the API's classes read and check them."""
        found = zip(self._names, (value.strip() for value in values), strict=True)
        return {name: items(value) if name in LISTS else value for name, value in found if value}


def field(desk: Desk, place: str, label: str, info: str, value: Any = None) -> gr.Textbox:
    """A field for a number that may be empty (`gr.Number` says 0 where it is).

    Args:
        desk: The page's.
        place: Its id on the page.
        label: Its name.
        info: What is allowed.
        value: What it says at first.
    """
    text = "" if value is None else str(value)
    return gr.Textbox(text, label=label, info=info, placeholder=desk.say("default"), max_lines=1, min_width=150, elem_id=place)  # fmt: skip


def drawing(fields: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """Returns the library's arguments for the API's fields: what is drawn from is drawn, temperature 0 takes the likeliest.

    Args:
        fields: Checked fields of `Decoding`; None where nothing was given.
        usual: The application's own settings.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    if "max_tokens" in given:
        given["max_new_tokens"] = given.pop("max_tokens")
    if given.get("temperature") == 0:
        given = {name: value for name, value in given.items() if name not in ("temperature", "top_p", "top_k")}  # fmt: skip
        rest = {name: value for name, value in usual.items() if name not in ("temperature", "top_p", "top_k")}  # fmt: skip
        return {**rest, **given, "do_sample": False}
    return {**usual, **given, "do_sample": True}


def _info(desk: Desk, name: str) -> str:
    limits = {"most": desk.asking.most_tokens}
    if name in Decoding.model_fields:
        for limit in Decoding.model_fields[name].metadata:
            for attribute, word in (("ge", "low"), ("le", "high")):
                if hasattr(limit, attribute):
                    limits[word] = getattr(limit, attribute)
    return desk.say(name, **limits)
