"""The tab 解释 Explain: the evidence of `glm.explain`, as its own page in a frame."""

from __future__ import annotations

import functools
import html
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import gradio as gr

from glmkit.explain.attribution import METHODS
from glmkit.explain.page import page
from glmkit.playground import examples
from glmkit.playground.controls import Controls
from glmkit.playground.desk import Desk
from glmkit.playground.heat import heat_maps
from glmkit.playground.media import fields as media_fields
from glmkit.playground.media import picker, read_items, sending
from glmkit.playground.mistakes import Mistake
from glmkit.playground.parts import BUSY, result, run_button, settings, tab
from glmkit.playground.parts import examples as example_buttons
from glmkit.serving.schemas import FillRequest


def explain_tab(desk: Desk) -> None:
    """Draws the tab."""
    say = desk.say
    with tab(desk, "explain", "explain_lead"):
        text = gr.Textbox(label=say("text"), lines=3, max_lines=12, elem_id="explain-text")
        holder = picker(desk, "explain")
        kinds = [(say("explain_blanks"), "blanks"), (say("sentiment"), "sentiment"), (say("topics"), "topics")]  # fmt: skip
        what = gr.Radio(kinds, value="blanks", label=say("explain_what"), elem_id="explain-what")
        example_buttons(
            desk, "explain", examples.both(examples.EXPLAIN, say.code), [text, what], told=1
        )
        with settings(desk, "explain"):
            choices = [(say(name), name) for name in METHODS]
            methods = gr.CheckboxGroup(choices, value=list(METHODS), label=say("explain_methods"), elem_id="explain-methods")  # fmt: skip
            controls = Controls(desk, "explain", ("max_tokens",), {"max_tokens": 8})
        run = run_button(desk, "explain", "explain_run")
        shown = result("explain")
    listen = desk.handler(functools.partial(_explain, desk, controls))
    inputs = [text, what, methods, *controls.components, *holder]
    run.click(listen, inputs, shown, js=sending(holder, "explain"), **BUSY)


async def _explain(
    desk: Desk, controls: Controls, text: str, what: str, methods: list[str], *values: Any
) -> AsyncIterator[str]:
    end = len(controls)
    items = read_items(values[end]) if len(values) > end else []
    given = {**controls.given(values[:end]), **media_fields(items)}
    asked = FillRequest.model_validate({**given, "texts": desk.needed(text, "text_empty")})
    if not methods:
        raise Mistake(desk.say("explain_methods_empty"))
    if items and what != "blanks":
        raise Mistake(desk.say("explain_media"))
    most = desk.asking.fill_settings(asked).max_new_tokens
    options: dict[str, Any] = {"max_new_tokens": most} if what == "blanks" else {"task": what}

    def work(progress: Callable[[], None]) -> tuple[str, str]:
        read: Any = asked.texts
        if what == "blanks":
            most = desk.server.settings.max_explained
            [prompt] = desk.asking.prompts(asked.texts, asked)  # refuses what would be cut, too
            if len(prompt.mask_indices) > most:
                raise Mistake(desk.say("explain_too_many", most=most))
            read = prompt if prompt.media else read
        [evidence] = desk.glm.explain([read], methods=methods, progress=progress, **options)
        # The library names the model by its folder, which is the server's own business.
        facts = {**evidence.facts, "model": desk.server.settings.name}
        maps = heat_maps(desk.say, evidence, [one.url for one in items if one.kind == "image"])
        return maps, page(replace(evidence, facts=facts), desk.say.code)

    maps, evidence = await desk.explain(work)
    # A frame of its own: its style stays there, and its script reaches nothing of this page.
    yield maps + (
        f'<iframe class="evidence" title="{html.escape(desk.say("explain"))}" sandbox="allow-scripts" '
        f'srcdoc="{html.escape(evidence, quote=True)}"></iframe>'
    )
