"""The tab 填空 Fill: blanks filled in place; a click on one shows the likeliest contents."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from dataclasses import asdict
from math import exp
from typing import Any

import gradio as gr

from glmkit.generation.infill import blank_text
from glmkit.playground import examples, showing
from glmkit.playground.controls import WRITING, Controls, field
from glmkit.playground.desk import Desk
from glmkit.playground.parts import BUSY, QUIET, result, run_button, settings, tab
from glmkit.playground.parts import examples as example_buttons
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
        example_buttons(desk, "fill", examples.both(examples.FILL, desk.say.code), [text])
        with settings(desk, "fill"):
            controls = Controls(desk, "fill", WRITING, {"max_tokens": 16})
            n = field(desk, "fill-n", desk.say("n_best"), desk.say("n_best_info"), 5)
        run = run_button(desk, "fill", "fill_run")
        shown = result("fill", js_on_load=_ON_LOAD)
        likeliest = gr.HTML(elem_id="fill-likeliest", elem_classes="result", js_on_load=_CHOOSE)
    run.click(
        desk.handler(functools.partial(_fill, desk, controls), lambda html: (html, "")),
        [text, *controls.components],
        [shown, likeliest],
        **BUSY,
    )
    shown.click(
        desk.click_handler(functools.partial(_likeliest, desk, controls)),
        [n, *controls.components],
        likeliest,
        **BUSY,
    )


async def _fill(desk: Desk, controls: Controls, text: str, *values: Any) -> AsyncIterator[Any]:
    asked = FillRequest(texts=desk.needed(text, "fill_empty"), **controls.given(values))
    job = await desk.write(functools.partial(desk.asking.fill, asked))
    [[blanks]] = await job.written()
    prompt = job.requests[0].prompt
    contents = [blank_text(desk.glm.tokenizer, blank) for blank in blanks]
    desk.log("got", contents)
    finished = all(blank.finished for blank in blanks)
    yield showing.filled(desk.say, text, prompt, contents, finished), ""


async def _likeliest(
    desk: Desk, controls: Controls, event: gr.EventData, n: str, *values: str
) -> AsyncIterator[str]:
    """Shows what else the blank may contain: how it is drawn does not matter for that."""
    given = {name: value for name, value in controls.given(values).items() if name == "max_tokens"}
    asked = FillRequest.model_validate({**given, "texts": event.text, "n": n.strip() or 5})
    [text] = desk.asking.texts(asked.texts)
    chosen = asdict(desk.asking.fill_settings(asked))
    prompt = desk.asking.prompt(text)
    found = await desk.think(lambda: desk.glm.fill([prompt], n=asked.n, **chosen))
    contents = found[0].alternatives[event.blank]
    yield showing.alternatives(
        desk.say, event.blank, [(content, exp(score)) for content, score in contents]
    )
