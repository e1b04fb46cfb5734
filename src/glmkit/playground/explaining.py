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
from glmkit.playground.media import Item, content, picker, read_items, sending
from glmkit.playground.media import fields as media_fields
from glmkit.playground.mistakes import Mistake
from glmkit.playground.parts import BUSY, result, run_button, settings, tab
from glmkit.playground.parts import examples as example_buttons
from glmkit.serving.explanations import ExplainRequest
from glmkit.serving.schemas import ChatRequest, FillRequest
from glmkit.tasks.task import Task

WRITTEN = ("blanks", "reply")
"""What the model writes, or could have written; all else is a label."""


def explain_tab(desk: Desk) -> None:
    """Draws the tab."""
    say = desk.say
    with tab(desk, "explain", "explain_lead"):
        text = gr.Textbox(label=say("text"), lines=3, max_lines=12, elem_id="explain-text")
        holder = picker(desk, "explain")
        kinds = [(say("explain_blanks"), "blanks"), (say("explain_reply"), "reply"), (say("sentiment"), "sentiment"), (say("topics"), "topics")]  # fmt: skip
        kinds += [(name, name) for name in _own_tasks(desk)]
        what = gr.Radio(kinds, value="blanks", label=say("explain_what"), elem_id="explain-what")
        stands = gr.Textbox(label=say("explain_given"), info=say("explain_given_info"), lines=1, max_lines=6, elem_id="explain-given")  # fmt: skip
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
    inputs = [text, what, stands, methods, *controls.components, *holder]
    run.click(listen, inputs, shown, js=sending(holder, "explain"), **BUSY)


def _own_tasks(desk: Desk) -> dict[str, Task]:
    """Returns the classifications that the model was fine-tuned for whose records are one text, media, or both."""
    return {
        name: task
        for name, task in desk.glm.tasks.items()
        if task.kind == "classification"
        and name not in ("sentiment", "topics", *WRITTEN)
        and len(_text_fields(task)) <= 1
    }


def _text_fields(task: Task) -> set[str]:
    """Returns a task's fields that are neither its label nor media."""
    return set(task.fields) - {task.label, *task.media}


async def _explain(
    desk: Desk,
    controls: Controls,
    text: str,
    what: str,
    stands: str,
    methods: list[str],
    *values: Any,
) -> AsyncIterator[str]:
    end = len(controls)
    items = read_items(values[end]) if len(values) > end else []
    given = controls.given(values[:end])
    task = _own_tasks(desk).get(what)
    if not methods:
        raise Mistake(desk.say("explain_methods_empty"))
    if items and task is None and what not in WRITTEN:
        raise Mistake(desk.say("explain_media"))
    bare = task is not None and items and not _text_fields(task)
    read = "" if bare else desk.needed(text, "text_empty")
    make = functools.partial(_asked, desk, read, what, task, stands, given, items)

    def work(progress: Callable[[], None]) -> tuple[str, str]:
        source, options = make()  # refuses what would be cut, too
        [evidence] = desk.glm.explain([source], methods=methods, progress=progress, **options)
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


def _asked(
    desk: Desk,
    text: str,
    what: str,
    task: Task | None,
    stands: str,
    given: dict[str, Any],
    items: list[Item],
) -> tuple[Any, dict[str, Any]]:
    """Returns what `glm.explain` is to read, and its options: of a label a text or record, else a prompt and what stands in its blanks.

    Raises:
        Mistake: More blanks than are explained at a time, or other contents than blanks.
        Failure: It is beyond a limit.
    """
    if what not in WRITTEN:
        if task is None:
            return text, {"task": what}
        asked = ExplainRequest.model_validate({"texts": text, "task": what, **media_fields(items)})
        [record] = desk.asking.records(asked, task)
        return record, {"task": task}
    if what == "reply":
        said = [{"role": "user", "content": content(text, items)}]
        chat = ChatRequest.model_validate({**given, "model": desk.server.settings.name, "messages": said})  # fmt: skip
        [request] = desk.asking.chat(chat)
        prompt, most = request.prompt, request.chooser.settings.max_new_tokens
    else:
        fill = FillRequest.model_validate({**given, "texts": text, **media_fields(items)})
        [prompt] = desk.asking.prompts(text, fill)
        most = desk.asking.fill_settings(fill).max_new_tokens
    count, limit = len(prompt.mask_indices), desk.server.settings.max_explained
    if count > limit:
        raise Mistake(desk.say("explain_too_many", most=limit))
    source = prompt if prompt.media or what == "reply" else text
    if not stands.strip():
        return source, {"max_new_tokens": most}
    # Of one blank all of it, of several a line each.
    contents = [stands.strip()] if count == 1 else [one.strip() for one in stands.strip().splitlines()]  # fmt: skip
    if len(contents) != count or not all(contents):
        raise Mistake(desk.say("explain_given_wrong", count=count))
    desk.asking.texts(stands)
    return source, {"blanks": [contents]}
