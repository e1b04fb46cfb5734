"""An explanation as a picture: the coloured text of each method, the largest values, the layers' guesses.

In: an `Explanation`. Out: a PNG, SVG or PDF drawn by matplotlib, with titles in Chinese where the text is mostly Chinese.
Blue speaks for what was written, orange against it; both differ in lightness for every kind of colour vision, and
numbers and signs say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glmkit.errors import missing_dependency
from glmkit.explain.fonts import families
from glmkit.explain.results import Evidence, Explanation, probability
from glmkit.explain.segments import ROW, Segment, segments
from glmkit.explain.units import FIRST_IDEOGRAPH
from glmkit.special_tokens import MEDIA_MARKER
from glmkit.whole_files import write_figure

FOR, AGAINST, FRAME = "#0b6fb8", "#d95f02", "#444444"
WIDTH = 10.0
"""Inches."""
LINE = 62
"""Widths of half a Chinese character in a line of text."""
BARS = 10
EVIDENCES = 4
"""Blanks that are drawn; a page shows all."""
COLUMNS = 12
"""Tokens of the layers' table that are drawn."""

WORDS = {
    "integrated_gradients": ("integrated gradients, nats", "积分梯度（nats）"),
    "ablation": ("ablation, nats", "逐词遮蔽（nats）"),
    "attention_rollout": ("attention rollout, share", "注意力展开（份额）"),
    "lens": ("what each layer would write (logit lens)", "各层会写什么（logit lens）"),
    "layer": ("layer", "层"),
    "legend": ("blue speaks for it, orange against it; of attention, blue is more", "蓝色有利，橙色不利；注意力以蓝色深浅表示多少"),
    "blank": ("blank {0}: {1}   log-probability {2:.3f} nats ({3})", "空白 {0}：{1}   对数概率 {2:.3f} nats（{3}）"),
    "label": ("{1}: log-odds {2:+.3f} nats, probability {3}", "{1}：对数几率 {2:+.3f} nats，概率 {3}"),
}  # fmt: skip

SPECIAL = {"<|endofpiece|>": "⟨end⟩", "<|startofpiece|>": "⟨start⟩", "<|endoftext|>": "⟨eos⟩"}


def write_picture(path: Path, explanation: Explanation) -> None:
    """Writes the picture in the format of the path's suffix.

    Raises:
        MissingDependencyError: There is no matplotlib.
        UserError: There is no font for the text's characters.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise missing_dependency("matplotlib", "a picture of an explanation", "explain") from error
    known = [explanation.filled, *(f"{one.name} {one.content}" for one in explanation.evidence)]
    guesses = [text for one in explanation.evidence if one.lens for row in one.lens.top for text, _ in row]  # fmt: skip
    chinese = _mostly_chinese(explanation.filled)
    titles = [WORDS[name][1] for name in WORDS] if chinese else []
    used = families("".join([*known, *guesses, *titles, ROW]))
    with matplotlib.rc_context({"font.family": used, "axes.unicode_minus": False, "svg.fonttype": "path"}):  # fmt: skip
        write_figure(path, _figure(explanation, int(chinese)))


def _figure(explanation: Explanation, language: int) -> Any:
    from matplotlib.figure import Figure

    shown = explanation.evidence[:EVIDENCES]
    lines = {id(one): _lines(segments(explanation, one)) for one in shown}
    heights: list[float] = []
    for one in shown:
        texts = len(one.attributions) * (0.36 + 0.34 * len(lines[id(one)]))
        bars = 0.8 + 0.21 * min(BARS, max(1, len(one.units)))
        lens = 0.9 + 0.26 * len(one.lens.top) if one.lens else 0.0
        heights += [0.35 + texts, bars, lens]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.3), dpi=150, facecolor="white")
    top = sum(heights) + 0.3

    def axes(left: float, right: float, height: float) -> Any:
        low = top - height
        return figure.add_axes((left / WIDTH, low / figure.get_figheight(), (right - left) / WIDTH, height / figure.get_figheight()))  # fmt: skip

    for number, one in enumerate(shown):
        text_height, bar_height, lens_height = heights[3 * number : 3 * number + 3]
        _draw_texts(axes(0.3, WIDTH - 0.3, text_height), explanation, number, one, lines[id(one)], language)  # fmt: skip
        top -= text_height + 0.3
        count = len(one.attributions)
        step = (WIDTH - 0.6) / max(1, count)
        for place, method in enumerate(one.attributions):
            panel = axes(0.3 + step * place + 0.95, 0.3 + step * (place + 1) - 0.45, bar_height - 0.75)  # fmt: skip
            _draw_bars(panel, one, method)
            panel.set_title(WORDS[method][language], fontsize=8.5, color="#555", loc="left", pad=3)
        top -= bar_height - 0.3
        if one.lens:
            _draw_lens(axes(1.0, WIDTH - 0.3, lens_height - 0.45), one, language)
        top -= lens_height
    figure.text(0.3 / WIDTH, 0.1 / figure.get_figheight(), WORDS["legend"][language], fontsize=8, color="#555")  # fmt: skip
    return figure


def _draw_texts(
    axes: Any,
    explanation: Explanation,
    number: int,
    one: Evidence,
    lines: Sequence[Sequence[tuple[int, Segment]]],
    language: int,
) -> None:
    """Draws the text once for each method, units coloured by their values."""
    from matplotlib.patches import Rectangle

    box = axes.get_position()
    height = axes.figure.get_figheight() * box.height
    axes.set(xlim=(0, LINE), ylim=(height, 0))
    axes.axis("off")
    title = WORDS["blank" if explanation.kind == "blanks" else "label"][language]
    name = one.content if explanation.kind == "blanks" else one.name
    axes.text(0, 0.2, _plain(title.format(number + 1, name, one.score, probability(one.probability))), fontsize=11, weight="bold", va="center")  # fmt: skip
    y = 0.35
    for method, found in one.attributions.items():
        axes.text(0, y + 0.2, WORDS[method][language], fontsize=8.5, color="#555", va="center")
        y += 0.36
        largest = float(np.abs(found.values).max()) if len(found.values) else 0.0
        for line in lines:
            for column, segment in line:
                width = _width(segment.text)
                value = 0.0 if segment.unit is None else float(found.values[segment.unit])
                if value:
                    share = abs(value) / largest if largest else 0.0
                    axes.add_patch(
                        Rectangle(
                            (column, y + 0.02),
                            width,
                            0.29,
                            facecolor=(*_rgb(FOR if value >= 0 else AGAINST), 0.75 * share),
                        )
                    )
                later = segment.blank is not None and segment.blank > number
                axes.text(column + width / 2, y + 0.165, _plain(segment.text.strip("\n")), fontsize=11, ha="center", va="center", color="#999" if later else "black")  # fmt: skip
            asked = [
                (a, a + _width(segment.text)) for a, segment in line if segment.blank == number
            ]
            if asked and explanation.kind == "blanks":
                left, right = asked[0][0], asked[-1][1]
                axes.add_patch(Rectangle((left, y + 0.02), right - left, 0.29, fill=False, edgecolor=FRAME, linewidth=1.3))  # fmt: skip
            y += 0.34


def _draw_bars(axes: Any, one: Evidence, method: str) -> None:
    """Draws the largest values with their numbers."""
    top = one.top(method, BARS)
    values = [value for _, value in top]
    bars = axes.barh(range(len(top)), values, color=[FOR if value >= 0 else AGAINST for value in values], height=0.7)  # fmt: skip
    axes.set_yticks(range(len(top)), [_plain(_cut(unit.text, 12)) for unit, _ in top], fontsize=8.5)
    sign = "" if method == "attention_rollout" else "+"
    axes.bar_label(bars, [f"{value:{sign}.3f}" for value in values], padding=2, fontsize=7.5)
    axes.invert_yaxis()
    axes.margins(x=0.34)
    if method == "attention_rollout":
        axes.set_xlim(left=0)
    axes.axvline(0, color=FRAME, linewidth=0.8)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axes.tick_params(length=0)


def _draw_lens(axes: Any, one: Evidence, language: int) -> None:
    """Draws each layer's likeliest tokens; the output on top."""
    lens = one.lens
    assert lens is not None
    columns = min(COLUMNS, len(lens.tokens))
    shares = np.array([[share for _, share in row[:columns]] for row in lens.top])
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.25, aspect="auto", origin="lower")
    for layer, row in enumerate(lens.top):
        for column, (text, share) in enumerate(row[:columns]):
            weight = "bold" if text == lens.tokens[column] else "normal"
            axes.text(column, layer, f"{_plain(_token(text))} {share:.0%}", ha="center", va="center", fontsize=8, weight=weight, color="white" if share > 0.75 else "black")  # fmt: skip
    axes.set_xticks(range(columns), [_plain(_token(text)) for text in lens.tokens[:columns]], fontsize=9)  # fmt: skip
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(lens.top)), [str(layer) for layer in range(len(lens.top))], fontsize=8)  # fmt: skip
    axes.set_ylabel(WORDS["layer"][language], fontsize=8.5)
    axes.set_xlabel(WORDS["lens"][language], fontsize=8.5, color="#555")
    axes.tick_params(length=0)


def _lines(parts: Sequence[Segment]) -> list[list[tuple[int, Segment]]]:
    """Returns segments in lines of `LINE`, each with the column where it starts."""
    lines: list[list[tuple[int, Segment]]] = [[]]
    column = 0
    for part in parts:
        whole = part.unit is not None or MEDIA_MARKER.fullmatch(part.text)
        rest = [part] if whole else [Segment(c, None, part.blank) for c in part.text]
        for one in rest:
            if column + _width(one.text) > LINE and column:
                lines.append([])
                column = 0
            lines[-1].append((column, one))
            column += _width(one.text)
            if "\n" in one.text:
                lines.append([])
                column = 0
    return [line for line in lines if line] or [[]]


def _width(text: str) -> int:
    """Returns a text's width in halves of a Chinese character."""
    return sum(2 if ord(character) >= FIRST_IDEOGRAPH else 1 for character in text)


def _mostly_chinese(text: str) -> bool:
    letters = [character for character in text if character.isalpha()]
    return 2 * sum(ord(one) >= FIRST_IDEOGRAPH for one in letters) > len(letters)


def _plain(text: str) -> str:
    """Returns a text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


def _token(text: str) -> str:
    return _cut(SPECIAL.get(text, text), 10)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
    return red, green, blue
