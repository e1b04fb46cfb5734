"""Results as HTML: plain functions; whatever a user or the model wrote is escaped."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from glmkit.generation.prompts import Prompt
from glmkit.generation.results import Poem
from glmkit.playground.words import Speaker


def percent(share: float) -> str:
    """Returns a probability as people read it: with one decimal, a small one with two digits."""
    if share >= 1e-3 or share == 0:
        return f"{100 * share:.1f}%"
    if share < 1e-8:
        return "<0.000001%"
    digits = -math.floor(math.log10(100 * share)) + 1
    return f"{100 * share:.{digits}f}%"


def card(inside: str, kind: str = "") -> str:
    """Returns a result's frame; `inside` is HTML."""
    return f'<div class="card {kind}" role="status">{inside}</div>'


def prose(text: str, *, growing: bool = False) -> str:
    """Returns a text with its lines."""
    caret = '<span class="caret" aria-hidden="true"></span>' if growing else ""
    return card(f'<div class="text">{html.escape(text)}{caret}</div>')


def note(text: str) -> str:
    """Returns a remark."""
    return f'<p class="note">{html.escape(text)}</p>'


def mistake(say: Speaker, message: str, details: str = "") -> str:
    """Returns what is shown in place of a result."""
    more = ""
    if details:
        more = f"<details><summary>{html.escape(say('details'))}</summary><p>{html.escape(details)}</p></details>"
    return (
        f'<div class="card mistake" role="alert"><strong>{html.escape(say("mistake"))}</strong>'
        f"<p>{html.escape(message)}</p>{more}</div>"
    )


def filled(say: Speaker, text: str, prompt: Prompt, blanks: Sequence[str], finished: bool) -> str:
    """Returns a text in which each blank is a button; the text is that of `prompt.assemble`.

    Args:
        say: The page's language.
        text: What was asked; what is clicked on says so again.
        prompt: Its prompt.
        blanks: What its blanks contain, as written.
        finished: Whether all of them ended by themselves.
    """
    parts, before = [html.escape(prompt.parts[0])], prompt.parts[0]
    for number, part in enumerate(prompt.parts[1:]):
        known = replace(prompt, parts=prompt.parts[: number + 2])
        so_far = known.assemble(list(blanks[: number + 1]))
        piece = so_far[len(before) : len(so_far) - len(part)]
        before = so_far
        content = piece.strip()
        label = html.escape(f"{say('blank', number=number + 1)}: {content}", quote=True)
        shown = html.escape(content or say("nothing"))
        button = f'<button type="button" class="blank" data-blank="{number}" aria-label="{label}">{shown}</button>'
        head, _, tail = piece.partition(content) if content else (piece, "", "")
        parts += [head, button, tail, html.escape(part)]
    data = html.escape(json.dumps({"text": text}), quote=True)
    rest = "" if finished else note(say("unfinished"))
    return card(f'<div class="text filled" data-asked="{data}">{"".join(parts)}</div>{rest}')


def alternatives(say: Speaker, blank: int, found: Iterable[tuple[str, float]]) -> str:
    """Returns the likeliest contents of a blank as buttons with bars; numbers are probabilities."""
    some = list(found)
    most = max(share for _, share in some) or 1.0  # a long blank's may all be too small for a float
    rows = "".join(
        f'<li><button type="button" class="choice" data-blank="{blank}" data-content="{html.escape(text, quote=True)}">'
        f"{_bar(text or say('nothing'), share, share / most)}</button></li>"
        for text, share in some
    )
    title = html.escape(say("blank_title", number=blank + 1))
    return card(f"<h3>{title}</h3><ol class=bars>{rows}</ol>{note(say('blank_note'))}")


def bars(shares: Iterable[tuple[str, float]], remark: str) -> str:
    """Returns labels with their probabilities, the likeliest first."""
    ordered = sorted(shares, key=lambda pair: -pair[1])
    rows = "".join(
        f'<li class="{"" if place else "first"}">{_bar(label, share, share)}</li>'
        for place, (label, share) in enumerate(ordered)
    )
    return card(f"<ol class=bars>{rows}</ol>{note(remark)}")


def _bar(label: str, share: float, width: float) -> str:
    return (
        f'<span class="name">{html.escape(label)}</span><span class="track" aria-hidden="true">'
        f'<span style="width:{100 * width:.1f}%"></span></span><span class="share">{percent(share)}</span>'
    )


def marked(context: str, start: int, end: int, answer: str, remark: str) -> str:
    """Returns an answer, and its place in the context."""
    before, inside, after = map(html.escape, (context[:start], context[start:end], context[end:]))
    return card(
        f'<p class="answer">{html.escape(answer)}</p>{note(remark)}'
        f'<div class="text context">{before}<mark>{inside}</mark>{after}</div>'
    )


def poem(one: Poem, untitled: str) -> str:
    """Returns a poem."""
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in one.lines)
    heading = (
        f"<h3>{html.escape(one.title or untitled)}</h3><p class=note>{html.escape(one.form)}</p>"
    )
    return card(f'<div class="poem" lang="zh-CN">{heading}{lines}</div>')
