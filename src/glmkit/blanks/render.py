"""An example as text that a person can read: part A, the blanks of part B, and the table of all fields.

In: an `Example` or one row of a batch, and a function that decodes ids. Out: a string; nothing is printed.
Knows no tokenizer: `decode` may be `tokenizer.decode` or `tokenizer.convert_ids_to_tokens`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from glmkit.blanks.layout import IGNORE_INDEX, Example

Decode = Callable[[list[int]], str | Sequence[str]]

TABLE_LIMIT = 80
"""Longest example that is shown as a table too, in tokens."""


def render(example: Example | Mapping[str, np.ndarray], decode: Decode) -> str:
    """Shows one example, or every example of one row of a batch.

    Args:
        example: An `Example`, or one row of what `layout.collate` or `layout.collate_packed` return: the
            same fields without their first axis.
        decode: Turns a list of ids into a text, or into a list of tokens.

    Returns:
        Part A with its blanks numbered from left to right, then part B's pieces in the order in which they
        are written, with what they read and what they predict. Below, for examples of at most `TABLE_LIMIT`
        tokens, a table with one line for each token.
    """
    if isinstance(example, Example):
        return _render_one(example, decode)
    samples = examples_of_row(example)
    if len(samples) == 1:
        return _render_one(samples[0], decode)
    return "\n\n".join(
        f"sample {number} of {len(samples)}\n{_render_one(sample, decode)}"
        for number, sample in enumerate(samples, start=1)
    )


def examples_of_row(row: Mapping[str, np.ndarray]) -> list[Example]:
    """Returns the examples of one row of a batch (`{name: array[i] for name, array in batch.items()}`)."""
    row = {name: np.asarray(array) for name, array in row.items()}
    real = row["segment_ids"] if "segment_ids" in row else row["attention_mask"]
    examples = []
    for segment in range(1, int(real.max(initial=0)) + 1):
        here = np.flatnonzero(real == segment)
        positions = row["position_ids"][:, here]
        prefix_length = (
            int(np.count_nonzero(here < row["prefix_lengths"]))
            if "prefix_lengths" in row
            else int(np.count_nonzero(positions[1] == 0))
        )
        examples.append(
            Example(row["input_ids"][here], positions, row["labels"][here], prefix_length)
        )
    return examples


def _render_one(example: Example, decode: Decode) -> str:
    blocks, n_a = example.position_ids[1], example.prefix_length
    # A piece begins where the block position does not go on (it is 1 all through where it is not used).
    goes_on = np.append(False, (blocks[1:] == blocks[:-1] + 1))
    if not (blocks > 1).any():
        goes_on = np.append(False, np.diff(example.position_ids[0]) == 0)
    starts = [i for i in range(n_a, len(example)) if i == n_a or not goes_on[i]]
    ends = [*starts, len(example)][1:]
    places = example.position_ids[0, starts].tolist() if starts else []
    number_of = {place: number for number, place in enumerate(sorted(set(places)), start=1)}
    lines = [
        f"part A: {n_a} tokens",
        f"  {_part_a(example, number_of, decode)}",
    ]
    lines.append(f"part B: {len(example) - n_a} tokens")
    for place, start, end in zip(places, starts, ends, strict=True):
        labels = example.labels[start:end]
        predicted = _text(labels[labels != IGNORE_INDEX], decode) or "(nothing)"
        lines.append(f"  blank {number_of[place]} at position {place}")
        lines.append(f"    reads    {_text(example.input_ids[start:end], decode)}")
        lines.append(f"    predicts {predicted}")
    if len(example) <= TABLE_LIMIT:
        lines += ["", *_table(example, decode)]
    return "\n".join(lines)


def _part_a(example: Example, number_of: dict[int, int], decode: Decode) -> str:
    """Returns part A's text, with `⟨1⟩`, `⟨2⟩` … behind the mask tokens that part B fills."""
    ids, parts, start = example.input_ids[: example.prefix_length], [], 0
    for place, number in number_of.items():
        parts += [_text(ids[start : place + 1], decode), f"⟨{number}⟩"]
        start = place + 1
    return "".join([*parts, _text(ids[start:], decode)])


def _table(example: Example, decode: Decode) -> list[str]:
    from rich.cells import cell_len

    header = ("index", "part", "token", "position", "block", "label")
    rows = [header]
    for index, (token, label) in enumerate(
        zip(example.input_ids.tolist(), example.labels.tolist(), strict=True)
    ):
        rows.append(
            (
                str(index),
                "A" if index < example.prefix_length else "B",
                _token(token, decode),
                str(example.position_ids[0, index]),
                str(example.position_ids[1, index]),
                "" if label == IGNORE_INDEX else _token(label, decode),
            )
        )
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _text(ids: np.ndarray, decode: Decode) -> str:
    if not len(ids):
        return ""
    text = decode(ids.tolist())
    return text if isinstance(text, str) else " ".join(text)


def _token(token: int, decode: Decode) -> str:
    """Returns one token's text on one line, white space made visible, or its id where it has none."""
    text = _text(np.array([token]), decode)
    return text.replace("\n", "⏎").replace(" ", "␣") or f"#{token}"
