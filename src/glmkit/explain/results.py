"""What an explanation is: small frozen records that print well, become JSON, and are saved as a page or a picture.

Shapes: U units, L layers, N heads, S places of a row, K tokens of a blank's contents (its end included).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from glmkit.errors import UserError, missing_dependency

SHOWN = 8
"""Units that are printed of each method."""

SUFFIXES = (".html", ".png", ".svg", ".pdf", ".json")


@dataclass(frozen=True)
class Unit:
    """A piece of evidence: a word, a Chinese token, a character of several tokens, or a row of an image, a sound or a clip.

    Attributes:
        text: As it is shown.
        start: Of its characters, in the text that `source` names; of a medium's row those of its marker in the text.
        end: After them.
        source: "text", "blank 1", "blank 2" …, the field of a record, or a medium: "image 1", "image 2", "audio 1", "video 1" ….
        index: Of a row within its medium, from 0; None for what is text.
    """

    text: str
    start: int
    end: int
    source: str
    index: int | None = None


@dataclass(frozen=True)
class Attribution:
    """How much each unit contributed, by one method.

    Attributes:
        method: "integrated_gradients", "ablation" or "attention_rollout".
        values: float64 [U]; in nats of the score with a sign (for it, against it), of a rollout shares of attention
            without one.
        score: What is explained, in nats.
        baseline_score: The same with all units replaced by the baseline; NaN for a rollout.
        gap: |sum of values - (score - baseline_score)| as a share of |score - baseline_score|; near 0 the values
            account for all of the score. NaN for a rollout.
        complete: Whether the gap is within what was asked for (1 %, or 0.001 nats where there is hardly a difference).
        steps: Steps of integrated gradients, or None.
    """

    method: str
    values: np.ndarray
    score: float
    baseline_score: float = math.nan
    gap: float = math.nan
    complete: bool = False
    steps: int | None = None


@dataclass(frozen=True)
class Step:
    """A token of a blank's contents, and what the model might have written in its place.

    Attributes:
        token: As text; the end marker is "<|endofpiece|>".
        probability: Given the context and the tokens before it.
        alternatives: The likeliest tokens with their probabilities, best first.
    """

    token: str
    probability: float
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Lens:
    """What each layer would write: its hidden state through the final LayerNorm and the head.

    Attributes:
        tokens: The K tokens written.
        probabilities: float64 [L + 1, K] of these tokens; row 0 is the embedding sum, the last one the model's output.
        top: For each layer and token the likeliest token and its probability.
    """

    tokens: tuple[str, ...]
    probabilities: np.ndarray
    top: tuple[tuple[tuple[str, float], ...], ...]


@dataclass(frozen=True)
class Attention:
    """The attention maps of a row.

    Attributes:
        tokens: The row's S tokens as text, part A first.
        prefix_length: Tokens of part A.
        weights: float32 [L, N, S, S]; weights[l, n, i, j] is how much place i looks at place j, rows sum to 1.
    """

    tokens: tuple[str, ...]
    prefix_length: int
    weights: np.ndarray

    def part(self, query: str, key: str) -> np.ndarray:
        """Returns the maps [L, N, …, …] of what part `query` looks at in part `key` ("A" or "B"); A on B is all 0.

        Raises:
            UserError: Another name of a part.
        """
        cut = {"A": slice(None, self.prefix_length), "B": slice(self.prefix_length, None)}
        if query not in cut or key not in cut:
            raise UserError(f"there are the parts 'A' and 'B', not {query!r} and {key!r}")
        return self.weights[:, :, cut[query], cut[key]]

    def shares(self) -> np.ndarray:
        """Returns float64 [L, N]: which share of its attention part B gives to part A (the rest goes to part B)."""
        maps = self.part("B", "A")
        return (
            maps.sum(-1, dtype=np.float64).mean(-1) if maps.shape[2] else np.zeros(maps.shape[:2])
        )


@dataclass(frozen=True)
class PromptExample:
    """An example (a line or paragraph) of a prompt.

    Attributes:
        text: The example.
        start: Of its characters in the text.
        end: After them.
        contribution: Score of the whole prompt - score without this example, in nats: positive if it helped.
    """

    text: str
    start: int
    end: int
    contribution: float


@dataclass(frozen=True)
class Evidence:
    """Why one blank was filled so, or a text labelled so.

    Attributes:
        name: "blank 1" …, or the label.
        content: What fills the blank, or the label's word.
        score: What is explained, in nats: of a blank the log-probability of its content, of a label its log-odds.
        probability: Of the content (the product over its tokens), or of the label.
        units: The U pieces of evidence.
        attributions: Method -> attribution.
        steps: The content's tokens with alternatives; empty for a head.
        lens: What each layer would write; None for a head.
        examples: What each example of the prompt adds, where it has some.
    """

    name: str
    content: str
    score: float
    probability: float
    units: tuple[Unit, ...]
    attributions: dict[str, Attribution]
    steps: tuple[Step, ...] = ()
    lens: Lens | None = None
    examples: tuple[PromptExample, ...] = ()

    def top(self, method: str, n: int = SHOWN) -> list[tuple[Unit, float]]:
        """Returns the n units that a method gives the largest values, of either sign."""
        values = self.attributions[method].values
        return [(self.units[i], float(values[i])) for i in np.argsort(-np.abs(values), kind="stable")[:n]]  # fmt: skip

    def media(self, method: str) -> dict[str, np.ndarray]:
        """Returns for each medium ("image 1" …) float64 [rows], what a method gives its rows, in their order."""
        values: dict[str, list[float]] = {}
        for unit, value in zip(self.units, self.attributions[method].values, strict=True):
            if unit.index is not None:
                values.setdefault(unit.source, []).append(float(value))
        return {source: np.array(some) for source, some in values.items()}

    def __str__(self) -> str:
        lines = [
            f"{self.name}: {self.content}  ({self.score:+.3f} nats, {probability(self.probability)})"
        ]
        for method, one in self.attributions.items():
            sign = "" if method == "attention_rollout" else "+"
            some = "  ".join(f"{unit.text} {value:{sign}.3f}" for unit, value in self.top(method))
            lines.append(f"  {_title(one)}: {some or '(no context)'}")
            lines += [
                f"    {source}, all {len(values)} rows: {values.sum():{sign}.3f}"
                for source, values in self.media(method).items()
            ]
        for step in self.steps:
            others = "  ".join(f"{text} {probability(share)}" for text, share in step.alternatives)
            lines.append(f"  {step.token} {probability(step.probability)}  of: {others}")
        lines += [
            f"  example {n}: {one.contribution:+.3f} nats  {short(one.text)}"
            for n, one in enumerate(self.examples, start=1)
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Explanation:
    """The evidence for a text.

    Attributes:
        text: What was asked: the text with its blanks, or the classified text (a record's fields by lines).
        filled: The text with its blanks filled; of a classification the text.
        kind: "blanks" or "label".
        evidence: For each blank, or the one label.
        blanks: Where the blanks stand in `text` (start, end).
        probabilities: Of a classification, of each label.
        attention: Maps of the row (of a classification, of each pattern's).
        facts: What else a reader should know: model, baseline, questions …
    """

    text: str
    filled: str
    kind: str
    evidence: tuple[Evidence, ...]
    blanks: tuple[tuple[int, int], ...] = ()
    probabilities: dict[str, float] = field(default_factory=dict)
    attention: tuple[Attention, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join([self.filled, *map(str, self.evidence)])

    def to_dict(self, *, attention: bool = False) -> dict[str, Any]:
        """Returns what `json.dumps` takes, arrays as lists; NaN becomes None.

        Args:
            attention: Whether the maps are in it, which are many numbers.
        """
        found = {
            "text": self.text,
            "filled": self.filled,
            "kind": self.kind,
            "blanks": [list(one) for one in self.blanks],
            "probabilities": self.probabilities,
            "facts": self.facts,
            "evidence": [plain(one) for one in self.evidence],
        }
        if attention:
            found["attention"] = [plain(one) for one in self.attention]
        return found

    def save(self, path: str | Path) -> Path:
        """Writes a page (.html: one file that needs no network), a picture (.png, .svg, .pdf) or data (.json).

        Raises:
            UserError: Another suffix, no such folder, or a picture of Chinese on a machine without a font for it.
            MissingDependencyError: A picture without `glmkit[explain]`.
        """
        path = check_path(path)
        if path.suffix.lower() == ".html":
            from glmkit.explain.page import write_page

            write_page(path, self)
        elif path.suffix.lower() == ".json":
            import json

            from glmkit.whole_files import write_text

            write_text(path, json.dumps(self.to_dict(attention=True), ensure_ascii=False) + "\n")
        else:
            from glmkit.explain.picture import write_picture

            write_picture(path, self)
        return path

    def show(self) -> None:
        """Shows the page in a notebook.

        Raises:
            UserError: There is no IPython; outside of notebooks use `save`.
        """
        try:
            from IPython.display import HTML, display
        except ImportError as error:
            raise UserError(
                'show() draws in a notebook, and IPython is not installed; use .save("evidence.html") and open that '
                "file in a browser"
            ) from error
        display(HTML(self._repr_html_()))

    def _repr_html_(self) -> str:
        """What a notebook shows: the page in a frame of its own, so that its style stays there."""
        import html

        from glmkit.explain.page import page

        return (
            '<iframe style="width:100%;height:46em;border:0" sandbox="allow-scripts" '
            f'srcdoc="{html.escape(page(self))}"></iframe>'
        )


def check_path(path: str | Path) -> Path:
    """Returns where an explanation is saved.

    Raises:
        UserError: A suffix that is none of `SUFFIXES`, or no such folder.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path.name!r}: give a file name that ends with {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}; make it first, or give another path")
    return path


def require_captum() -> Any:
    """Returns `captum.attr`.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import captum.attr
    except ImportError as error:
        raise missing_dependency("captum", "attribution of the context", "explain") from error
    return captum.attr


def probability(value: float) -> str:
    """Returns a probability as people read it, a very small one too."""
    return f"{value:.1%}" if value >= 5e-4 or value == 0 else f"{value:.1e}"


def _title(one: Attribution) -> str:
    if one.steps is None:
        return one.method
    note = "" if one.complete else ", not complete"
    return f"{one.method} ({one.steps} steps, gap {one.gap:.2%}{note})"


def short(text: str, limit: int = 60) -> str:
    """Returns a text on one line, cut to `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def plain(value: Any) -> Any:
    """Returns records, arrays and numbers as JSON has them."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
