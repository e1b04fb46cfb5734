"""The tab 理解 Understand: sentiment, topics, summaries, and questions about a text."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from glmkit.playground import examples, showing
from glmkit.playground.controls import field, items
from glmkit.playground.desk import Desk, whole
from glmkit.playground.mistakes import Mistake
from glmkit.playground.parts import BUSY, result, run_button, settings, tab
from glmkit.playground.parts import examples as example_buttons
from glmkit.serving.schemas import ClassifyRequest
from glmkit.tasks.task import load_task

MOST_SUMMARY = 2_000


def understand_tab(desk: Desk) -> None:
    """Draws the tab."""
    with gr.Tab(desk.say("understand"), id="understand", elem_id="tab-understand"), gr.Tabs():
        _sentiment_tab(desk)
        _topics_tab(desk)
        _summary_tab(desk)
        _answer_tab(desk)


def _sentiment_tab(desk: Desk) -> None:
    with tab(desk, "sentiment", "sentiment_lead"):
        text = gr.Textbox(label=desk.say("text"), lines=3, max_lines=12, elem_id="sentiment-text")
        example_buttons(desk, "sentiment", examples.both(examples.SENTIMENT, desk.say.code), [text])
        run = run_button(desk, "sentiment", "classify_run")
        shown = result("sentiment")
    run.click(desk.handler(functools.partial(_sentiment, desk)), text, shown, **BUSY)


async def _sentiment(desk: Desk, text: str) -> AsyncIterator[str]:
    checked = desk.needed(text, "text_empty")
    one = await desk.think(lambda: desk.glm.sentiment(checked))
    shares = [(desk.say(label), share) for label, share in one.probabilities.items()]
    yield showing.bars(shares, _calibration(desk, "sentiment"))


def _topics_tab(desk: Desk) -> None:
    with tab(desk, "topics", "topics_lead"):
        text = gr.Textbox(label=desk.say("text"), lines=3, max_lines=12, elem_id="topics-text")
        labels = gr.Textbox(label=desk.say("topics_labels"), elem_id="topics-labels")
        example_buttons(desk, "topics", examples.both(examples.TOPICS, desk.say.code), [text, labels])  # fmt: skip
        run = run_button(desk, "topics", "classify_run")
        shown = result("topics")
    listen = desk.handler(functools.partial(_topics, desk))
    gr.on([run.click, labels.submit], listen, [text, labels], shown, **BUSY)


async def _topics(desk: Desk, text: str, labels: str) -> AsyncIterator[str]:
    checked = desk.needed(text, "text_empty")
    own = items(labels)
    if own:
        asked = ClassifyRequest.model_validate({"texts": checked, "labels": own})
        one = await desk.think(lambda: desk.glm.classify(checked, labels=asked.labels))
        yield showing.bars(one.probabilities.items(), desk.say("uncalibrated"))
        return
    one = await desk.think(lambda: desk.glm.classify(checked, "topics"))
    words = load_task("topics").labels
    shares = [(_word(words, label, desk), share) for label, share in one.probabilities.items()]
    yield showing.bars(shares, _calibration(desk, "topics"))


def _word(words: Any, label: str, desk: Desk) -> str:
    """Returns a label as the page's language has it."""
    return str(words[label][desk.say.code]) if label in words else label


def _calibration(desk: Desk, task: str) -> str:
    return desk.say("calibrated" if task in desk.glm.calibrations else "uncalibrated")


def _summary_tab(desk: Desk) -> None:
    say = desk.say
    with tab(desk, "summary", "summary_lead"):
        text = gr.Textbox(label=say("text"), lines=5, max_lines=16, elem_id="summary-text")
        example_buttons(desk, "summary", examples.both(examples.SUMMARY, say.code), [text])
        with settings(desk, "summary"):
            most = field(desk, "summary-most", say("summary_most"), say("summary_most_info"))
        run = run_button(desk, "summary", "summary_run")
        shown = result("summary")
    run.click(desk.handler(functools.partial(_summary, desk)), [text, most], shown, **BUSY)


async def _summary(desk: Desk, text: str, most: str) -> AsyncIterator[str]:
    checked = desk.needed(text, "text_empty")
    limit = whole(most, 1, MOST_SUMMARY)
    if most.strip() and limit is None:
        raise Mistake(desk.say("summary_most_wrong"))
    found = await desk.think(lambda: desk.glm.summarize(checked, max_characters=limit))
    desk.log("got", found)
    yield showing.prose(found)


def _answer_tab(desk: Desk) -> None:
    say = desk.say
    with tab(desk, "answer", "answer_lead"):
        context = gr.Textbox(label=say("answer_context"), lines=5, max_lines=16, elem_id="answer-context")  # fmt: skip
        asked = gr.Textbox(label=say("answer_question"), elem_id="answer-question")
        example_buttons(desk, "answer", examples.both(examples.ANSWER, say.code), [context, asked])
        run = run_button(desk, "answer", "answer_run")
        shown = result("answer")
    listen = desk.handler(functools.partial(_answer, desk))
    gr.on([run.click, asked.submit], listen, [context, asked], shown, **BUSY)


async def _answer(desk: Desk, context: str, asked: str) -> AsyncIterator[str]:
    text, question = desk.needed(context, "answer_empty"), desk.needed(asked, "answer_empty")
    one = await desk.think(lambda: desk.glm.answer(question, text))
    if not one.text:
        yield showing.prose(desk.say("answer_none"))
        return
    desk.log("got", one.text)
    remark = desk.say("probability", value=showing.percent(one.score))
    yield showing.marked(text, one.start, one.end, one.text, remark)
