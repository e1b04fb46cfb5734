"""The tab 选型 Choose: `glmkit.choose` for a task, data and a machine."""

from __future__ import annotations

import functools
import html
from collections.abc import AsyncIterator, Iterable

import gradio as gr

from glmkit.choosing.advice import Advice
from glmkit.choosing.ranking import Choice, choose
from glmkit.choosing.report import HEADS, METHOD_WORDS, row
from glmkit.choosing.tasks import NEEDS
from glmkit.playground import showing
from glmkit.playground.controls import field
from glmkit.playground.desk import Desk, whole
from glmkit.playground.mistakes import Mistake
from glmkit.playground.parts import BUSY, result, run_button, tab
from glmkit.playground.parts import examples as example_buttons
from glmkit.playground.words import Speaker

EXAMPLES = (
    ("sentiment", "2000", "1x24GB", "200ms"),
    ("summarize", "50000", "2x RTX 3090", ""),
    ("chat", "0", "cpu:16GB", "1s"),
)


def choose_tab(desk: Desk) -> None:
    """Draws the tab."""
    say = desk.say
    with tab(desk, "choose", "choose_lead"):
        with gr.Row():
            needs = [(need.words.say(say.chinese), need.name) for need in NEEDS]
            task = gr.Dropdown(needs, value=NEEDS[0].name, label=say("choose_task"), elem_id="choose-task")  # fmt: skip
            count = field(desk, "choose-examples", say("choose_examples"), "", 0)
            languages = [(say("language_zh"), "zh"), (say("language_en"), "en")]
            language = gr.Radio(languages, value=say.code, label=say("choose_language"), elem_id="choose-language")  # fmt: skip
        with gr.Row():
            machine = gr.Textbox(label=say("choose_gpu"), info=say("choose_gpu_info"), elem_id="choose-gpu")  # fmt: skip
            latency = gr.Textbox(label=say("choose_latency"), info=say("choose_latency_info"), elem_id="choose-latency")  # fmt: skip
        example_buttons(desk, "choose", EXAMPLES, [task, count, machine, latency])
        run = run_button(desk, "choose", "choose_run")
        shown = result("choose")
    listen = desk.handler(functools.partial(_choose, desk))
    gr.on(
        [run.click, machine.submit, latency.submit],
        listen,
        [task, count, language, machine, latency],
        shown,
        **BUSY,
    )


async def _choose(
    desk: Desk, task: str, count: str, language: str, machine: str, latency: str
) -> AsyncIterator[str]:
    examples = whole(count.strip() or "0", 0, 10**9)
    if examples is None:
        raise Mistake(desk.say("choose_examples_wrong"))
    desk.asking.texts([machine, latency])
    choice = await desk.think(
        lambda: choose(
            task,
            examples=examples,
            language=language,
            gpu=machine.strip() or None,
            latency=latency.strip() or None,
        )
    )
    yield _shown(choice, desk.say)


def _shown(choice: Choice, say: Speaker) -> str:
    """Returns the ranking, the first one's reasons and command, and other families."""
    parts = [_families(say("choose_better"), (one for one in choice.advice if one.better), say)]
    best = choice.best
    if best is None:
        parts.append(f"<p><strong>{html.escape(say('choose_none'))}</strong></p>")
    else:
        method = METHOD_WORDS[best.method].say(say.chinese)
        parts.append(f"<h3>{html.escape(say('choose_best', name=best.candidate.name, method=method))}</h3>")  # fmt: skip
        reasons = [("good", one) for one in best.reasons]
        reasons += [("bad", one) for one in best.problems.values()]
        items = "".join(
            f'<li class="{kind}">{html.escape(one.say(say.chinese))}</li>' for kind, one in reasons
        )
        parts.append(f"<ul class=reasons>{items}</ul><pre>{html.escape(best.command)}</pre>")
    heads = "".join(f"<th scope=col>{html.escape(head.say(say.chinese))}</th>" for head in HEADS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row(one, say.chinese)) + "</tr>"
        for one in choice.ranking
    )  # fmt: skip
    parts.append(f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>')  # fmt: skip
    parts.append(_families(say("choose_worth"), (one for one in choice.advice if not one.better), say))  # fmt: skip
    return showing.card("".join(parts) + showing.note(say("choose_note")))


def _families(title: str, some: Iterable[Advice], say: Speaker) -> str:
    items = "".join(
        f"<li><strong>{html.escape(one.family.say(say.chinese))}</strong>: {html.escape(one.reason.say(say.chinese))} "
        f'<span class="note">[{html.escape(one.source)}]</span></li>'
        for one in some
    )
    return f"<h3>{html.escape(title)}</h3><ul>{items}</ul>" if items else ""
