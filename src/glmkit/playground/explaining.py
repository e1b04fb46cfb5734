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
from glmkit.playground.mistakes import Mistake
from glmkit.playground.parts import BUSY, result, run_button, settings, tab
from glmkit.playground.parts import examples as example_buttons
from glmkit.serving.schemas import FillRequest


def explain_tab(desk: Desk) -> None:
    """Draws the tab."""
    say = desk.say
    with tab(desk, "explain", "explain_lead"):
        text = gr.Textbox(label=say("text"), lines=3, max_lines=12, elem_id="explain-text")
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
    run.click(listen, [text, what, methods, *controls.components], shown, **BUSY)


async def _explain(
    desk: Desk, controls: Controls, text: str, what: str, methods: list[str], *values: Any
) -> AsyncIterator[str]:
    asked = FillRequest(texts=desk.needed(text, "text_empty"), **controls.given(values))
    if not methods:
        raise Mistake(desk.say("explain_methods_empty"))
    most = desk.asking.fill_settings(asked).max_new_tokens
    options: dict[str, Any] = {"max_new_tokens": most} if what == "blanks" else {"task": what}

    def work(progress: Callable[[], None]) -> str:
        if what == "blanks":
            most = desk.server.settings.max_explained
            # Refuses what would be cut, too.
            if len(desk.asking.prompt(str(asked.texts)).mask_indices) > most:
                raise Mistake(desk.say("explain_too_many", most=most))
        evidence = desk.glm.explain(asked.texts, methods=methods, progress=progress, **options)
        # The library names the model by its folder, which is the server's own business.
        facts = {**evidence.facts, "model": desk.server.settings.name}
        return page(replace(evidence, facts=facts), desk.say.code)

    evidence = await desk.explain(work)
    # A frame of its own: its style stays there, and its script reaches nothing of this page.
    yield (
        f'<iframe class="evidence" title="{html.escape(desk.say("explain"))}" sandbox="allow-scripts" '
        f'srcdoc="{html.escape(evidence, quote=True)}"></iframe>'
    )
