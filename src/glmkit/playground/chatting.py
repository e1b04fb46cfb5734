"""The tab 对话 Chat: a conversation whose replies appear as they are written, and can be stopped."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from glmkit.applications import defaults
from glmkit.playground import examples
from glmkit.playground.controls import WRITING, Controls
from glmkit.playground.desk import Desk
from glmkit.playground.parts import QUIET, result, settings, tab
from glmkit.playground.parts import examples as example_buttons
from glmkit.serving.schemas import ChatRequest


def chat_tab(desk: Desk) -> None:
    """Draws the tab."""
    say = desk.say
    with tab(desk, "chat", "chat_lead"):
        log = gr.Chatbot(
            label=say("chat_log"),
            show_label=False,
            height=380,
            buttons=["copy"],
            feedback_options=None,
            render_markdown=False,
            allow_tags=False,
            elem_id="chat-log",
        )
        notice = result("chat")
        with gr.Row():
            said = gr.Textbox(
                label=say("chat_said"),
                placeholder=say("chat_placeholder"),
                lines=1,
                max_lines=6,
                submit_btn=False,
                scale=5,
                elem_id="chat-said",
            )
        with gr.Row():
            send = gr.Button(say("chat_send"), variant="primary", elem_id="chat-run", elem_classes="run")  # fmt: skip
            stop = gr.Button(say("stop"), elem_id="chat-stop", scale=0, min_width=110)
            clear = gr.Button(say("chat_clear"), elem_id="chat-clear", scale=0, min_width=110)
        example_buttons(desk, "chat", examples.both(examples.CHAT, say.code), [said])
        with settings(desk, "chat"):
            system = gr.Textbox(label=say("chat_system"), elem_id="chat-system")
            usual = {"max_tokens": defaults.CHAT["max_new_tokens"], "no_repeat_ngram_size": defaults.CHAT["no_repeat_ngram_size"]}  # fmt: skip
            controls = Controls(desk, "chat", WRITING, usual)
    listen = desk.handler(
        functools.partial(_reply, desk, controls),
        lambda html: (gr.skip(), gr.skip(), html),
    )
    event = gr.on(
        [send.click, said.submit],
        listen,
        [said, log, system, *controls.components],
        [log, said, notice],
        **QUIET,
    )
    stop.click(None, cancels=event, **QUIET)
    clear.click(None, None, [log, notice], js="() => [[], '']", cancels=event, **QUIET)


async def _reply(
    desk: Desk, controls: Controls, said: str, log: list[Any], system: str, *values: Any
) -> AsyncIterator[Any]:
    """Yields the conversation with its reply, the box emptied, and no notice.

    A conversation that was stopped before a reply began ends with the user's turn: what is said then joins it.
    """
    message = desk.needed(said, "chat_empty")
    turns = [{"role": one["role"], "content": _text(one["content"])} for one in log]
    if turns and turns[-1]["role"] == "user":
        turns[-1]["content"] += "\n" + message
    else:
        turns.append({"role": "user", "content": message})
    opening = [{"role": "system", "content": system}] if (system or "").strip() else []
    fields = controls.given(values) | {"model": desk.server.settings.name}
    asked = ChatRequest.model_validate({**fields, "messages": [*opening, *turns]})
    yield turns, "", ""
    make = functools.partial(desk.asking.chat, asked)
    async for written in desk.grow(make, chat=True):
        yield [*turns, {"role": "assistant", "content": written}], gr.skip(), gr.skip()


def _text(content: Any) -> str:
    """Returns the text of a message as Gradio keeps it."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part.get("type") == "text")
