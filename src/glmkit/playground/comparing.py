"""The tab 比较 Compare: one text under two settings, written at the same time, side by side."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import gradio as gr

from glmkit.playground import examples, showing
from glmkit.playground.controls import WRITING, Controls
from glmkit.playground.desk import Desk
from glmkit.playground.parts import QUIET, result, run_button, tab
from glmkit.playground.parts import examples as example_buttons
from glmkit.serving.schemas import CompletionRequest

SIDES = (
    ("side_a", {"max_tokens": 64}),
    ("side_b", {"max_tokens": 64, "temperature": 0.8, "top_p": 0.9, "seed": 1}),
)


def compare_tab(desk: Desk) -> None:
    """Draws the tab."""
    say = desk.say
    with tab(desk, "compare", "compare_lead"):
        text = gr.Textbox(label=say("compare_text"), lines=3, max_lines=12, elem_id="compare-text")
        example_buttons(desk, "compare", examples.both(examples.COMPARE, say.code), [text])
        sides, shown = [], []
        with gr.Row():
            for name, usual in SIDES:
                with gr.Column(min_width=280), gr.Accordion(say(name)), gr.Row(equal_height=True):
                    sides.append(Controls(desk, f"compare-{name}", WRITING, usual))
        with gr.Row():
            run = run_button(desk, "compare", "compare_run")
            stop = gr.Button(say("stop"), elem_id="compare-stop", scale=0, min_width=110)
        notice = result("compare")
        with gr.Row():
            for name, _ in SIDES:
                with gr.Column(min_width=280):
                    gr.HTML(f"<h3>{say(name)}</h3>")
                    shown.append(result(f"compare-{name}"))
    listen = desk.handler(
        functools.partial(_compare, desk, sides), lambda html: (gr.skip(), gr.skip(), html)
    )
    fields = [one for side in sides for one in side.components]
    event = run.click(listen, [text, *fields], [*shown, notice], **QUIET)
    stop.click(None, cancels=event, **QUIET)


async def _compare(
    desk: Desk, sides: Sequence[Controls], text: str, *values: Any
) -> AsyncIterator[Any]:
    """Yields both sides whenever one has grown."""
    checked, name = desk.needed(text, "text_empty"), desk.server.settings.name
    halves = [values[: len(sides[0])], values[len(sides[0]) :]]
    asked = [
        CompletionRequest(model=name, prompt=checked, **side.given(half))
        for side, half in zip(sides, halves, strict=True)
    ]
    yield "", "", ""
    written = ["", ""]
    grown = asyncio.Event()

    async def follow(number: int) -> None:
        make = functools.partial(desk.asking.completion, asked[number])
        async for so_far in desk.grow(await desk.write(make, live=True)):
            written[number] = so_far
            grown.set()

    followers = [asyncio.ensure_future(follow(number)) for number in range(len(asked))]
    try:
        both = asyncio.gather(*followers)
        both.add_done_callback(lambda _: grown.set())
        while not both.done():
            await grown.wait()
            grown.clear()
            busy = [not one.done() for one in followers]
            yield *(showing.prose(one, growing=more) for one, more in zip(written, busy, strict=True)), ""  # fmt: skip
        await both  # raises what went wrong
        yield *map(showing.prose, written), ""
    finally:
        for one in followers:
            one.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
