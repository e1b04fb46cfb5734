"""Pieces of which every tab is made, so that all tabs look and behave alike."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr

from glmkit.playground.desk import Desk

# What waits, waits in the server's own queue, which has its own limit and its own way to say that it is full.
_OWN: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None}

QUIET: dict[str, Any] = {**_OWN, "show_progress": "hidden"}
"""Of a listener whose result says itself that it is growing."""

BUSY: dict[str, Any] = {**_OWN, "show_progress": "minimal"}
"""Of a listener whose result takes a while and comes at once."""


@contextmanager
def tab(desk: Desk, name: str, lead: str) -> Iterator[None]:
    """A tab with its sentence; what is inside is its content."""
    with gr.Tab(desk.say(name), id=name, elem_id=f"tab-{name}", elem_classes="glm-tab"):
        gr.HTML(f'<p class="lead">{desk.say(lead)}</p>')
        yield


@contextmanager
def settings(desk: Desk, name: str, title: str = "settings") -> Iterator[None]:
    """A fold with settings."""
    with gr.Accordion(desk.say(title), open=False, elem_id=f"{name}-{title}"):
        gr.HTML(f'<p class="note">{desk.say(f"{title}_note")}</p>')
        with gr.Row(equal_height=True):
            yield


def run_button(desk: Desk, name: str, text: str) -> gr.Button:
    """The button that Ctrl/⌘ + Enter presses."""
    return gr.Button(desk.say(text), variant="primary", elem_id=f"{name}-run", elem_classes="run")


def result(name: str, **options: Any) -> gr.HTML:
    """Where a result, or a mistake, is shown."""
    return gr.HTML(elem_id=f"{name}-result", elem_classes="result", **options)


def examples(
    desk: Desk, name: str, some: Sequence[Sequence[Any]], inputs: Sequence[Any], told: int = 9
) -> None:
    """Examples as buttons that fill the inputs, in the browser alone; the first `told` values are their labels."""
    with gr.Row(elem_classes="examples", elem_id=f"{name}-examples"):
        gr.HTML(f'<span class="note">{desk.say("examples")}</span>', min_width=60, scale=0)
        for one in some:
            label = " · ".join(str(value).replace("\n", " / ") for value in one[:told] if value)
            button = gr.Button(
                label if len(label) <= 28 else label[:27] + "…", size="sm", scale=0, min_width=0
            )
            button.click(None, None, list(inputs), js=f"() => {json.dumps(list(one))}", **QUIET)
