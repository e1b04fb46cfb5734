"""The tab 对话 Chat: a conversation whose replies appear as they are written, and can be stopped."""

from __future__ import annotations

import functools
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from glmkit.applications import defaults
from glmkit.playground import examples
from glmkit.playground.controls import WRITING, Controls
from glmkit.playground.desk import Desk
from glmkit.playground.media import Item, content, picker, read_items, sending
from glmkit.playground.parts import QUIET, result, settings, tab
from glmkit.playground.parts import examples as example_buttons
from glmkit.serving.media import has_media
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
        holder = picker(desk, "chat")
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
        [said, log, system, *controls.components, *holder],
        [log, said, notice],
        js=sending(holder, "chat"),
        **QUIET,
    )
    stop.click(None, cancels=event, **QUIET)
    forget = "() => { glmForget('chat'); return [[], '']; }"
    clear.click(None, None, [log, notice], js=forget, cancels=event, **QUIET)
    if holder:
        log.change(None, log, None, js="log => { glmLogged(log); }", **QUIET)


async def _reply(
    desk: Desk, controls: Controls, said: str, log: list[Any], system: str, *values: Any
) -> AsyncIterator[Any]:
    """Yields the conversation with its reply, the box emptied, and no notice.

    A conversation that was stopped before a reply began ends with the user's turn: what is said then joins it.
    """
    message, end = desk.needed(said, "chat_empty"), len(controls)
    items = read_items(values[end]) if len(values) > end else []
    turns = _turns(log, items, message)
    opening = [{"role": "system", "content": system}] if (system or "").strip() else []
    messages = [{"role": one.role, "content": content(one.text, one.items)} for one in turns]
    fields = controls.given(values[:end]) | {"model": desk.server.settings.name}
    asked = ChatRequest.model_validate({**fields, "messages": [*opening, *messages]})
    make = functools.partial(desk.asking.chat, asked)
    # What cannot be asked is in no conversation: it would be in the way of all that is said later.
    job = await desk.write(make, live=True, media=has_media(asked))
    try:
        shown = [one.shown() for one in turns]
        yield shown, "", ""
        async for written in desk.grow(job, chat=True):
            yield [*shown, {"role": "assistant", "content": written}], gr.skip(), gr.skip()
    finally:
        job.cancel()


@dataclass
class Turn:
    """A turn of a conversation, as the page knows it.

    Attributes:
        role: "user" or "assistant".
        text: What was said.
        items: Images, sounds and clips that go with it.
    """

    role: str
    text: str
    items: list[Item] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        """Returns it as Gradio shows it."""
        chips = [gr.HTML(one.chip(), render=False) for one in self.items]
        return {"role": self.role, "content": [*chips, self.text] if chips else self.text}


def _turns(log: list[Any], items: list[Item], message: str) -> list[Turn]:
    """Returns the conversation that is shown, with the media of each turn, and what is said now with those that are left."""
    turns, left = [], iter(items)
    for one in log:
        parts = [] if isinstance(one["content"], str) else one["content"]
        count = sum(part.get("type") == "component" for part in parts)
        turns.append(Turn(one["role"], _text(one["content"]), list(itertools.islice(left, count))))
    if turns and turns[-1].role == "user":
        turns[-1].text += "\n" + message
    else:
        turns.append(Turn("user", message))
    turns[-1].items += left
    return turns


def _text(content: Any) -> str:
    """Returns the text of a message as Gradio keeps it."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part.get("type") == "text")
