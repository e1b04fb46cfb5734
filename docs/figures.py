"""Draws the tutorial's figures from the code itself: positions and masks are what the layout makes, guesses are glm-mini's.

    python docs/figures.py                 # writes docs/tutorial/figures/, English and Chinese

Colours are Okabe and Ito's, which differ for every kind of colour vision; words and hatching say the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle

import glmkit
from glmkit.blanks.layout import Example, Piece, collate, dense_mask, lay_out
from glmkit.explain.fonts import families

HERE = Path(__file__).resolve().parent / "tutorial" / "figures"
BLUE, ORANGE, GREEN, GREY = "#56B4E9", "#E69F00", "#009E73", "#DDDDDD"
TEXT = "床前明月光，疑是地上霜。"
BLANKS = ((2, 4), (8, 9))
"""Which tokens of the text are hidden: 明月 and 地."""
PIPELINE = ("今天天气很", "好", "。")
"""The text of the pipeline: what stands before the blank, in it, and after it."""
SHORT = {"<|startofpiece|>": "⟨start⟩", "<|endofpiece|>": "⟨end⟩", "<|endoftext|>": "⟨eos⟩"}
Words = Callable[[str, str], str]


def example(tokenizer: Any) -> tuple[Example, list[str]]:
    """Returns the sample of all figures, and its tokens as people read them."""
    ids = tokenizer(TEXT)["input_ids"]
    first = ids.index(tokenizer.convert_tokens_to_ids("床"))
    context, pieces, at = [], [], 0
    specials = tokenizer.special_ids
    for start, stop in BLANKS:
        context += ids[at : first + start]
        hidden = np.array(ids[first + start : first + stop])
        pieces.append(Piece(len(context), hidden, specials.eop))
        context.append(specials.mask)
        at = first + stop
    made = lay_out([*context, *ids[at:]], pieces, specials.sop)
    tokens = tokenizer.convert_ids_to_tokens(made.input_ids.tolist())
    return made, [SHORT.get(token, token) for token in tokens]


def draw_positions(
    made: Example, tokens: list[str], say: Words, path: Path, tokenizer: Any
) -> None:
    """One column a token: what is read, its two positions, what is predicted."""
    labels = [
        "" if label < 0 else SHORT.get(token := tokenizer.convert_ids_to_tokens([label])[0], token)
        for label in made.labels.tolist()
    ]
    rows = [
        (say("reads", "读入"), tokens),
        (say("position", "位置"), made.position_ids[0]),
        (say("block position", "块内位置"), made.position_ids[1]),
        (say("predicts", "预测"), labels),
    ]
    figure, axes = plt.subplots(figsize=(11, 2.6))
    for row, (name, values) in enumerate(rows):
        axes.text(-0.25, -row, name, ha="right", va="center", fontsize=11)
        for column, value in enumerate(values):
            colour = BLUE if column < made.prefix_length else ORANGE
            drawn = Rectangle(
                (column, -row - 0.45), 0.94, 0.9, color=colour, alpha=(0.75, 0.4, 0.4, 0.2)[row]
            )
            axes.add_patch(drawn)
            size = 7.5 if len(str(value)) > 3 else 12
            axes.text(column + 0.47, -row, str(value), ha="center", va="center", fontsize=size)
    middle = made.prefix_length / 2, (made.prefix_length + len(made)) / 2
    for x, name in zip(middle, (say("part A: read in both directions", "A 部分：双向阅读"), say("part B: written from left to right", "B 部分：从左到右写")), strict=True):  # fmt: skip
        axes.text(x, 0.75, name, ha="center", fontsize=12)
    axes.set(xlim=(-2.6, len(made)), ylim=(-3.6, 1.2))
    axes.axis("off")
    save(figure, path)


def draw_mask(made: Example, tokens: list[str], say: Words, path: Path) -> None:
    """Who sees whom: rows look at columns."""
    seen = dense_mask(collate([made], 0))[0]
    figure, axes = plt.subplots(figsize=(8, 7))
    for row, column in np.argwhere(seen):
        in_b = column >= made.prefix_length
        style = {"fc": ORANGE, "hatch": "//"} if in_b else {"fc": BLUE}
        style |= {"ec": "white", "lw": 0}
        axes.add_patch(Rectangle((column, row), 0.93, 0.93, **style))
    for border in (axes.axhline, axes.axvline):
        border(made.prefix_length - 0.03, color="black", lw=1.2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(np.arange(len(tokens)) + 0.47, tokens, fontsize=9)
    axes.xaxis.tick_top()
    plt.setp(axes.get_xticklabels(), rotation=60, ha="left")
    axes.set(xlim=(0, len(tokens)), ylim=(len(tokens), 0), aspect="equal")
    axes.set_xlabel(say("is looked at (key)", "被看（键）"), fontsize=11)
    axes.set_ylabel(say("looks (query)", "看（查询）"), fontsize=11)
    key = [
        Patch(color=BLUE, label=say("part A, seen by all", "A 部分，谁都看得见")),
        Patch(fc=ORANGE, hatch="//", ec="white", label=say("part B, seen by itself and what follows", "B 部分，自己与后面的看得见")),
    ]  # fmt: skip
    axes.legend(
        handles=key,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.06),
        ncols=2,
        fontsize=10,
        frameon=False,
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    save(figure, path)


def draw_pipeline(glm: Any, say: Words, path: Path) -> None:
    """One text on its way: tokens, blanks, model, probabilities, filled text."""
    before, hidden, after = PIPELINE
    found = glm.fill(f"{before}[MASK]{after}", n=5, max_new_tokens=4).candidates
    tokens = glm.tokenizer.tokenize("".join(PIPELINE))
    steps = [
        (say("text", "文本"), "".join(PIPELINE), "corpus/"),
        (say(f"{len(tokens)} tokens", f"{len(tokens)} 个词元"), " ".join(tokens), "tokens/"),
        (say("part A", "A 部分"), f"[CLS] {before} [MASK] {after} ⟨eos⟩", "blanks/layout.py"),
        (say("part B", "B 部分"), f"⟨start⟩ {hidden}   →   {hidden} ⟨end⟩", "blanks/layout.py"),
        (say("model", "模型"), say(f"{glm.model.config.num_layers} layers, attention, FFN", f"{glm.model.config.num_layers} 层：注意力、前馈"), "model/modeling.py"),
    ]  # fmt: skip
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), width_ratios=[1.6, 1])
    for row, (name, content, where) in enumerate(steps):
        left.add_patch(
            Rectangle((0, -row), 10, 0.72, color=ORANGE if row == 3 else BLUE, alpha=0.45)
        )
        left.text(0.15, 0.36 - row, name, va="center", fontsize=10, weight="bold")
        left.text(2.3, 0.36 - row, content, va="center", fontsize=11)
        left.text(9.9, 0.1 - row, where, va="bottom", ha="right", fontsize=7.5, family="monospace")
        if row:
            arrow = FancyArrowPatch(
                (5, 1 - row), (5, 0.72 - row), arrowstyle="-|>", mutation_scale=12
            )
            left.add_patch(arrow)
    left.set(xlim=(-0.1, 10.2), ylim=(-len(steps) + 0.9, 0.9))
    left.axis("off")
    names = [one.blanks[0] for one in found][::-1]
    right.barh(names, [one.probability for one in found][::-1], color=GREEN)
    right.tick_params(axis="y", labelsize=12)
    right.set_xlabel(
        say("probability that glm-mini gives to this filling", "glm-mini 给这一填法的概率")
    )
    right.set_title(
        say("generation/: the likeliest fillings", "generation/：最可能的填法"), fontsize=11
    )
    right.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Writes a PNG without dates and versions, so that the same picture is the same file."""
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def main(folder: Path = HERE) -> list[Path]:
    """Writes all figures in both languages and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    glm = glmkit.load(device="cpu")
    made, tokens = example(glm.tokenizer)
    plt.rcParams["font.family"] = families(
        TEXT + "".join(PIPELINE) + "读入位置块内预测部分双向阅读谁都看得见"
    )
    written = []
    for suffix, index in (("", 0), ("-zh", 1)):
        say = lambda *texts, index=index: texts[index]
        paths = [folder / f"{name}{suffix}.png" for name in ("positions", "mask", "pipeline")]
        draw_positions(made, tokens, say, paths[0], glm.tokenizer)
        draw_mask(made, tokens, say, paths[1])
        draw_pipeline(glm, say, paths[2])
        written += paths
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=HERE)
    main(parser.parse_args().folder)
