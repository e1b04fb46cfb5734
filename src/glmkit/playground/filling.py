"""The tab 填空 Fill: blanks filled in place; a click on one shows the likeliest contents."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from dataclasses import asdict
from math import exp
from typing import Any

import gradio as gr

from glmkit.generation.infill import blank_text
from glmkit.generation.results import Filled
from glmkit.playground import examples, showing
from glmkit.playground.controls import CONTROL, WRITING, Controls, field
from glmkit.playground.desk import Desk
from glmkit.playground.media import fields as media_fields
from glmkit.playground.media import picker, read_items, sending
from glmkit.playground.parts import BUSY, QUIET, result, run_button, settings, tab
from glmkit.playground.parts import examples as example_buttons
from glmkit.serving.media import has_media
from glmkit.serving.schemas import FillRequest
from glmkit.special_tokens import GMASK, MASK, SMASK

# A blank that is clicked on says which text it belongs to: the box above may have another one by now.
_ON_LOAD = """
element.addEventListener('click', event => {
  const blank = event.target.closest('.blank');
  if (!blank) return;
  element.querySelectorAll('.blank').forEach(one => one.classList.toggle('chosen', one === blank));
  const asked = JSON.parse(element.querySelector('.filled').dataset.asked);
  trigger('click', {text: asked.text, blank: Number(blank.dataset.blank)});
});
"""
_CHOOSE = """
element.addEventListener('click', event => {
  const choice = event.target.closest('.choice');
  if (!choice) return;
  const blank = document.querySelector(`#fill-result .blank[data-blank="${choice.dataset.blank}"]`);
  if (blank) blank.textContent = choice.dataset.content;
});
"""


def fill_tab(desk: Desk) -> None:
    """Draws the tab."""
    with tab(desk, "fill", "fill_lead"):
        text = gr.Textbox(label=desk.say("fill_text"), lines=3, max_lines=12, elem_id="fill-text")
        with gr.Row(elem_classes="masks"):
            for mask in (MASK, SMASK, GMASK):
                button = gr.Button(desk.say("insert", mask=mask), size="sm", scale=0, min_width=0)
                button.click(None, text, text, js=f"text => [glmInsert('fill-text', text, {mask!r})]", **QUIET)  # fmt: skip
        holder = picker(desk, "fill")
        example_buttons(desk, "fill", examples.both(examples.FILL, desk.say.code), [text])
        with gr.Row():
            with settings(desk, "fill"):
                controls = Controls(desk, "fill", WRITING, {"max_tokens": 16})
                n = field(desk, "fill-n", desk.say("n_best"), desk.say("n_best_info"), 5)
            with settings(desk, "fill", "control"):
                limits = Controls(desk, "fill", CONTROL)
        run = run_button(desk, "fill", "fill_run")
        shown = result("fill", js_on_load=_ON_LOAD)
        likeliest = gr.HTML(elem_id="fill-likeliest", elem_classes="result", js_on_load=_CHOOSE)
    run.click(
        desk.handler(functools.partial(_fill, desk, controls, limits), lambda html: (html, "")),
        [text, *controls.components, *limits.components, *holder],
        [shown, likeliest],
        js=sending(holder, "fill"),
        **BUSY,
    )
    shown.click(
        desk.click_handler(functools.partial(_likeliest, desk, controls, limits)),
        [n, *controls.components, *limits.components, *holder],
        likeliest,
        js=sending(holder, "fill", again=True),
        **BUSY,
    )


async def _fill(
    desk: Desk, controls: Controls, limits: Controls, text: str, *values: str
) -> AsyncIterator[Any]:
    fields = {**controls.given(values[: len(controls)]), **_further(controls, limits, values)}
    asked = FillRequest.model_validate({**fields, "texts": desk.needed(text, "fill_empty")})
    job = await desk.write(functools.partial(desk.asking.fill, asked), media=has_media(asked))
    [[blanks]] = await job.written()
    contents = [blank_text(desk.glm.vocabulary, blank) for blank in blanks]
    desk.log("got", contents)
    finished = all(blank.finished for blank in blanks)
    yield showing.filled(desk.say, text, job.requests[0].prompt, contents, finished), ""


async def _likeliest(
    desk: Desk, controls: Controls, limits: Controls, event: gr.EventData, n: str, *values: str
) -> AsyncIterator[str]:
    """Shows what else the blank may contain: how it is drawn does not matter for that."""
    drawn = controls.given(values[: len(controls)])
    fields: dict[str, Any] = {name: value for name, value in drawn.items() if name == "max_tokens"}
    fields |= _further(controls, limits, values) | {"texts": event.text, "n": n.strip() or 5}
    asked = FillRequest.model_validate(fields)
    chosen = asdict(desk.asking.fill_settings(asked))

    def search() -> Filled:
        [(prompt, constraints)] = desk.asking.blanks(asked)
        [found] = desk.glm.fill([prompt], n=asked.n, constraints=[constraints], **chosen)
        return found

    found = (await desk.think(search)).alternatives[event.blank]
    shares = [(content, exp(score)) for content, score in found]
    yield showing.alternatives(desk.say, event.blank, shares)


def _further(controls: Controls, limits: Controls, values: tuple[str, ...]) -> dict[str, Any]:
    """Returns what a blank may be, and the media, of all values of the tab's fields."""
    end = len(controls) + len(limits)
    items = read_items(values[end]) if len(values) > end else []
    return {**limits.given(values[len(controls) : end]), **media_fields(items)}
