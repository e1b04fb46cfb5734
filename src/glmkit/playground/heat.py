"""What of an image, a sound or a clip counted, as HTML: a picture under coloured cells, or a line of them.

In: an explanation with values for the rows of media. Out: HTML without scripts. A cell is a row that the model reads: of a picture a part
of its grid, read line by line; of a sound or clip a stretch of time.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence

import numpy as np

from glmkit.explain.results import Evidence, Explanation
from glmkit.multimodal.images import read_image, squared
from glmkit.multimodal.media import as_medium
from glmkit.playground.showing import card, note
from glmkit.playground.words import Speaker

SIDE = 320
"""Pixels of a picture on the page."""

ROLLOUT = "attention_rollout"


def heat_maps(say: Speaker, explanation: Explanation, images: Sequence[str]) -> str:
    """Returns a card for each blank or label, with a figure for each medium and method; empty where there are no media.

    Args:
        say: The page's language.
        explanation: What is shown.
        images: The pictures as data: URLs, in the order of the text.
    """
    pictures = [_square(url) for url in images]
    return "".join(
        card(
            f"<h3>{html.escape(one.name if explanation.kind == 'label' else say('blank', number=number))}: {html.escape(one.content)}</h3>"
            + figures
        )
        for number, one in enumerate(explanation.evidence, 1)
        if (figures := _figures(say, one, pictures))
    )


def _figures(say: Speaker, evidence: Evidence, pictures: Sequence[str]) -> str:
    parts: list[str] = []
    remarks: dict[str, None] = {}
    for method in evidence.attributions:
        for source, values in evidence.media(method).items():
            kind, number = source.split()
            picture = pictures[int(number) - 1] if kind == "image" else None
            name = say(f"heat_{kind}", number=number)
            share = method == ROLLOUT
            total = f"{values.sum():.3f}" if share else f"{values.sum():+.3f} nats"
            remarks[note(say("heat_share" if share else "heat_note"))] = None
            title = html.escape(say("heat_title", name=name, method=say(method), sum=total))
            parts.append(f'<figure class="heat">{_cells(values, picture, name)}<figcaption>{title}</figcaption></figure>')  # fmt: skip
    return f'<div class="heats">{"".join(parts)}</div>{"".join(remarks)}' if parts else ""


def _cells(values: np.ndarray, picture: str | None, name: str) -> str:
    """Returns the cells; over a picture where they are a grid of it."""
    largest = float(np.abs(values).max()) or 1.0
    cells = "".join(
        f'<i style="background:{_colour(value / largest)}" title="{value:+.3f}"></i>'
        for value in values.tolist()
    )
    side = math.isqrt(len(values))
    label = f'role="img" aria-label="{html.escape(name, quote=True)}"'
    if picture is None or side * side != len(values):
        return f'<div class="line" {label}>{cells}</div>'
    return (
        f'<div class="sight" {label} style="background-image:url({picture})">'
        f'<div class="cells" style="grid-template:repeat({side},1fr)/repeat({side},1fr)">{cells}</div></div>'
    )


def _colour(value: float) -> str:
    """Returns blue for what speaks for, orange for what speaks against, in [-1, 1]."""
    red, green, blue = (37, 99, 235) if value > 0 else (234, 120, 12)
    return f"rgba({red},{green},{blue},{0.65 * abs(value):.2f})"


def _square(url: str) -> str:
    """Returns a picture as the model sees it, small, as a data: URL."""
    image = squared(read_image(as_medium("image", url)))
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
