"""The tab 写作 Write: poems that keep their form, and articles that appear sentence by sentence."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from glmkit.applications import defaults
from glmkit.applications.poetry.forms import forms
from glmkit.applications.poetry.writing import SAMPLING
from glmkit.playground import examples, showing
from glmkit.playground.controls import WRITING, Controls, drawing, field
from glmkit.playground.desk import Desk, whole
from glmkit.playground.mistakes import Mistake
from glmkit.playground.parts import BUSY, QUIET, result, run_button, settings, tab
from glmkit.playground.parts import examples as example_buttons
from glmkit.serving.schemas import Decoding, FillRequest

POEM_SETTINGS = ("temperature", "top_p", "top_k", "seed", "repetition_penalty")
MOST_POEMS = 16


def write_tab(desk: Desk) -> None:
    """Draws the tab."""
    with gr.Tab(desk.say("write"), id="write", elem_id="tab-write"), gr.Tabs():
        _poem_tab(desk)
        _article_tab(desk)


def _poem_tab(desk: Desk) -> None:
    say = desk.say
    with tab(desk, "poem", "poem_lead"):
        with gr.Row():
            title = gr.Textbox(label=say("poem_title"), elem_id="poem-title")
            # A form has a name that people of the other language can read beside its Chinese one.
            names = [
                (name if say.chinese else f"{name} ({form.aliases[-1]})", name)
                for name, form in forms().items()
            ]
            form = gr.Dropdown(names, value=names[1][1], label=say("poem_form"), elem_id="poem-form")  # fmt: skip
            acrostic = gr.Textbox(label=say("poem_acrostic"), elem_id="poem-acrostic")
        with gr.Row():
            first = gr.Textbox(label=say("poem_first"), elem_id="poem-first")
            keywords = gr.Textbox(label=say("poem_keywords"), elem_id="poem-keywords")
        wishes = [title, form, acrostic, first, keywords]
        example_buttons(desk, "poem", examples.both(examples.POEM, say.code), wishes)
        with settings(desk, "poem"):
            rhymes = [(say("poem_modern"), "modern"), (say("poem_pingshui"), "pingshui")]
            rhyme = gr.Radio(rhymes, value="modern", label=say("poem_rhyme"), elem_id="poem-rhyme")
            candidates = field(desk, "poem-candidates", say("poem_candidates"), say("poem_candidates_info"), 4)  # fmt: skip
            usual = {"temperature": SAMPLING["temperature"], "top_p": SAMPLING["top_p"]}
            controls = Controls(desk, "poem", POEM_SETTINGS, usual)
        run = run_button(desk, "poem", "poem_run")
        shown = result("poem")
    inputs = [*wishes, rhyme, candidates, *controls.components]
    listen = desk.handler(functools.partial(_poem, desk, controls))
    gr.on([run.click, *(box.submit for box in (title, acrostic, first, keywords))], listen, inputs, shown, **BUSY)  # fmt: skip


async def _poem(
    desk: Desk,
    controls: Controls,
    title: str,
    form: str,
    acrostic: str,
    first: str,
    keywords: str,
    rhyme: str,
    candidates: str,
    *values: Any,
) -> AsyncIterator[str]:
    desk.asking.texts([title, acrostic, first, keywords])
    count = whole(candidates, 1, MOST_POEMS)
    if count is None:
        raise Mistake(desk.say("poem_candidates_wrong"))
    fields = Decoding(**controls.given(values)).model_dump(exclude_none=True)
    desk.log("asked", [title, form, acrostic, first, keywords])
    one = await desk.think(
        lambda: desk.glm.poem(
            title.strip(),
            form,
            acrostic=acrostic.strip() or None,
            first_line=first.strip() or None,
            keywords=keywords.split() or None,
            rhyme=rhyme,
            candidates=count,
            **drawing(fields, SAMPLING),
        )
    )
    desk.log("got", one.lines)
    yield showing.poem(one, desk.say("untitled"))


def _article_tab(desk: Desk) -> None:
    say, most = desk.say, desk.server.settings.max_characters
    with tab(desk, "article", "article_lead"):
        with gr.Row():
            text = gr.Textbox(label=say("article_text"), lines=3, max_lines=10, elem_id="article-text")  # fmt: skip
            outline = gr.Textbox(label=say("article_outline"), lines=3, max_lines=10, elem_id="article-outline")  # fmt: skip
        example_buttons(desk, "article", examples.both(examples.ARTICLE, say.code), [text, outline])
        with settings(desk, "article"):
            least = field(desk, "article-least", say("article_least"), say("article_least_info"), 0)
            length = field(desk, "article-most", say("article_most"), say("article_most_info", most=most), 300)  # fmt: skip
            names = ("temperature", "top_p", "no_repeat_ngram_size")
            controls = Controls(desk, "article", WRITING, {name: defaults.ARTICLE[name] for name in names})  # fmt: skip
        with gr.Row():
            run = run_button(desk, "article", "article_run")
            stop = gr.Button(say("stop"), elem_id="article-stop", scale=0, min_width=110)
        shown = result("article")
    listen = desk.handler(functools.partial(_article, desk, controls))
    event = run.click(listen, [text, outline, least, length, *controls.components], shown, **QUIET)
    stop.click(None, cancels=event, **QUIET)


async def _article(
    desk: Desk,
    controls: Controls,
    text: str,
    outline: str,
    least: str,
    length: str,
    *values: str,
) -> AsyncIterator[str]:
    beginning, most = desk.needed(text, "article_empty"), desk.server.settings.max_characters
    longest = whole(length, 1, most)
    shortest = None if longest is None else whole(least.strip() or "0", 0, longest)
    if shortest is None:
        raise Mistake(desk.say("article_wrong", most=most))
    # The API has no articles; its fields are checked as those of a text to be filled.
    asked = FillRequest(texts=beginning, **controls.given(values))
    desk.asking.fill_settings(asked)
    fields = asked.model_dump(include=set(WRITING), exclude_none=True)
    headings = [line.strip() for line in outline.splitlines() if line.strip()]
    desk.asking.texts([beginning, *headings])
    written = ""
    pieces = desk.glm.article(
        beginning,
        outline=headings,
        min_characters=shortest,
        max_characters=longest,
        stream=True,
        **drawing(fields, defaults.ARTICLE),
    )
    async for piece in desk.steps(pieces):
        written += piece
        yield showing.prose(written, growing=True)
    desk.log("got", written)
    yield showing.prose(written)
