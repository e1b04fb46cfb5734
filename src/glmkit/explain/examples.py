"""What each example of a prompt adds: the score of the contents with the whole prompt, and without the example.

In: a text with blanks and their contents. Out: `PromptExample`s for each blank. An example is a paragraph, or a line
where the text has no empty lines; one that holds a blank is the question itself and stays. Its text is really left out
(and encoded again), not hidden, so that the model reads a shorter prompt of the usual kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from glmkit.explain.results import PromptExample
from glmkit.explain.rows import Rows
from glmkit.explain.scoring import scores_of
from glmkit.explain.units import Span

MAX_EXAMPLES = 64


def find_examples(pieces: Sequence[str], separator: str | None = None) -> list[Span]:
    """Returns the spans of a prompt's examples, each with the separator that follows it; none of them holds a blank.

    Args:
        pieces: The text between the blanks at even places, the masks as written at odd ones.
        separator: What stands between examples; by default an empty line where there is one, else the line's end.
    """
    text = "".join(pieces)
    if separator is None:
        separator = "\n\n" if "\n\n" in text else "\n"
    blanks, start = [], 0
    for number, piece in enumerate(pieces):
        if number % 2:
            blanks.append(start)
        start += len(piece)
    ends = [found.end() for found in re.finditer(re.escape(separator), text)] if separator else []
    borders = [0, *ends, len(text)]
    spans = [
        (a, b)
        for a, b in zip(borders, borders[1:], strict=False)
        if text[a:b].strip() and not any(a <= blank < b for blank in blanks)
    ]
    return spans[:MAX_EXAMPLES]


def example_contributions(
    model: Any,
    text: str,
    spans: Sequence[Span],
    rows: Rows,
    without: Callable[[Span], Rows],
) -> list[tuple[PromptExample, ...]]:
    """Returns for each blank the examples with what they add to its score, in nats.

    Args:
        model: A `GLMForConditionalGeneration`.
        text: The text with its blanks.
        spans: Of its examples.
        rows: Of the whole text and the blanks' contents.
        without: Makes the rows of the text without some of its characters, with the same blanks and contents.
    """
    if not spans:
        return [()] * rows.predictions.num_contents
    scores = scores_of(model, [rows, *map(without, spans)])
    added = scores[0] - scores[1:]
    return [
        tuple(
            PromptExample(text[start:end].strip(), start, end, float(value))
            for (start, end), value in zip(spans, np.asarray(column), strict=True)
        )
        for column in added.T
    ]
