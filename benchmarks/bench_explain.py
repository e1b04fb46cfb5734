"""Are explanations faithful? Words go and come in the order that each method gives, against random orders.

    python benchmarks/bench_explain.py --model glm-mini --data DATA [--texts 200] [--write] [--smoke]

DATA has sentiment.valid.jsonl.gz (`text`: why has it its label?) and poems.valid.jsonl.gz (`lines`: why do two hidden
characters stand there?). Prints tables, then one JSON line. Metrics are those of `glmkit.explain.faithfulness`, of words left
out of the text ("drop") and of words replaced by [MASK] ("mask"); each with its difference to random orders, positive where the
method is better, and the 95 % bootstrap interval over texts. `--baselines` texts compare baselines of the attributions.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from results_page import environment, write_table_page

import glmkit
from glmkit.explain.attribution import BASELINES, METHODS
from glmkit.explain.faithfulness import (
    HIGHER_IS_BETTER,
    METRICS,
    compare,
    curves,
    order_of,
    question_of,
    random_orders,
)
from glmkit.tasks.task import load_task

LENGTHS = (8, 60)
"""Characters of the texts that are taken."""
VERSE_END = re.compile(r"[，。？！；]")


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the records of a file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def questions(data: Path, kind: str, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields texts and what `glm.explain` is asked of them."""
    rng = np.random.default_rng(0)
    found = 0
    for record in records(data / f"{kind}.valid.jsonl.gz"):
        text = record["text"] if kind == "sentiment" else "".join(record["lines"])
        if not LENGTHS[0] <= len(text) <= LENGTHS[1] or found >= count:
            continue
        if kind == "sentiment":
            yield text, {"task": "sentiment"}
        else:
            ends = [one.start() for one in VERSE_END.finditer(text) if one.start() >= 2]
            end = int(rng.choice(ends)) if ends else len(text)
            hidden = text[end - 2 : end]
            yield text[: end - 2] + "[MASK]" + text[end:], {"blanks": [hidden]}
        found += 1


class Measured:
    """The metrics of some texts, and how the attributions did."""

    def __init__(self, removals: tuple[str, ...]):
        self.metrics: dict[str, dict[str, list[dict[str, float]]]] = {one: {} for one in removals}
        self.gaps: list[float] = []
        self.steps: list[int] = []
        self.complete: list[bool] = []
        self.units: list[int] = []
        self.seconds = {"explain": 0.0, "measure": 0.0}

    def add(
        self,
        glm: glmkit.GLM,
        text: str,
        asked: dict[str, Any],
        baselines: tuple[str, ...],
        seeds: int,
    ) -> None:
        """Explains a text with each baseline and measures all orders."""
        start = time.perf_counter()
        found = {
            name: glm.explain(text, baseline=name, attention=False, **asked) for name in baselines
        }
        self.seconds["explain"] += time.perf_counter() - start
        first = found[baselines[0]]
        task = load_task(asked["task"]) if "task" in asked else None
        orders = {}
        for name, one in found.items():
            for method, values in one.evidence[0].attributions.items():
                plain = method == "attention_rollout" or len(baselines) == 1
                orders[method if plain else f"{method} ({name})"] = order_of(values.values)
        size = len(first.evidence[0].units)
        gradients = first.evidence[0].attributions["integrated_gradients"]
        self.gaps.append(gradients.gap)
        self.complete.append(gradients.complete)
        self.steps.append(gradients.steps)
        self.units.append(size)
        start = time.perf_counter()
        question = question_of(glm.model, glm.tokenizer, first, task)
        drawn = random_orders(size, range(seeds))
        for removal, metrics in self.metrics.items():
            made = curves(
                glm.model,
                question,
                [*orders.values(), *drawn],
                removal=removal,
                mask=glm.tokenizer.special_ids.mask,
            )
            numbers = [one.metrics() for one in made]
            for method, one in zip(orders, numbers, strict=False):
                metrics.setdefault(method, []).append(one)
            mean = {
                name: float(np.mean([one[name] for one in numbers[len(orders) :]]))
                for name in METRICS
            }
            metrics.setdefault("random", []).append(mean)
        self.seconds["measure"] += time.perf_counter() - start

    def summary(self) -> dict[str, Any]:
        """Returns the numbers."""
        return {
            "texts": len(self.units),
            "units_mean": float(np.mean(self.units)),
            "gap_median": float(np.median(self.gaps)),
            "complete": float(np.mean(self.complete)),
            "steps_mean": float(np.mean(self.steps)),
            "steps_max": int(max(self.steps)),
            "seconds_explain": self.seconds["explain"] / len(self.units),
            "seconds_measure": self.seconds["measure"] / len(self.units),
            "removals": {name: compare(one) for name, one in self.metrics.items()},
        }  # fmt: skip


def table(summary: dict[str, Any]) -> str:
    """Returns a summary in Markdown: a table for each way to remove words."""
    lines = []
    for removal, methods in summary["removals"].items():
        way = {"drop": "words left out of the text", "mask": "words replaced by [MASK]"}[removal]
        lines += [f"\n{way}:\n"]
        lines += ["| order | " + " | ".join(f"{name} {'↑' if HIGHER_IS_BETTER[name] else '↓'}" for name in METRICS) + " |", "|---|" + "---|" * len(METRICS)]  # fmt: skip
        for method, numbers in methods.items():
            cells = []
            for name in METRICS:
                one = numbers[name]
                better = f" ({one['difference']:+.4f}: {one['low']:+.4f} … {one['high']:+.4f})"
                cells.append(f"{one['value']:.4f}{'' if method == 'random' else better}")
            lines.append(f"| {method.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def facts(kind: str, summary: dict[str, Any]) -> str:
    """Returns a sentence on the attributions."""
    return (
        f"{kind}: {summary['texts']} texts of {summary['units_mean']:.1f} units on average; integrated gradients within 1 % "
        f"of the score's difference (or 0.001 nats) in {summary['complete']:.1%} of the texts, median gap "
        f"{summary['gap_median']:.3%}, {summary['steps_mean']:.0f} steps on average, {summary['steps_max']} at most; "
        f"{summary['seconds_explain']:.2f} s for an explanation."
    )


def measure(
    glm: glmkit.GLM,
    data: Path,
    kind: str,
    count: int,
    baselines: tuple[str, ...],
    seeds: int,
    removals: tuple[str, ...],
) -> dict[str, Any]:
    """Returns the summary of some texts."""
    measured = Measured(removals)
    for number, (text, asked) in enumerate(questions(data, kind, count), start=1):
        measured.add(glm, text, asked, baselines, seeds)
        if number % 50 == 0:
            print(f"{kind} {baselines}: {number}", flush=True)
    return measured.summary()


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="glm-mini")
    parser.add_argument("--described", help="what the page calls the model; by default --model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--kinds", default="sentiment,poems", help="of texts, separated by commas")
    parser.add_argument(
        "--baselines", type=int, default=40, help="texts that compare baselines (0 = none)"
    )
    parser.add_argument("--seeds", type=int, default=5, help="random orders of each text")
    parser.add_argument("--device", default=None)
    parser.add_argument("--write", action="store_true", help="write docs/results/explain_….md")
    parser.add_argument("--smoke", action="store_true", help="two texts of each kind")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.texts, arguments.baselines, arguments.seeds = 2, 1, 2
    start = time.perf_counter()
    glm = glmkit.load(arguments.model, device=arguments.device)
    values: dict[str, Any] = {"benchmark": "explain", "model": arguments.described or arguments.model, "methods": METHODS, "seeds": arguments.seeds}  # fmt: skip
    pages = []
    for kind in arguments.kinds.split(","):
        found = measure(glm, arguments.data, kind, arguments.texts, ("mask",), arguments.seeds, ("drop", "mask"))  # fmt: skip
        values[kind] = found
        pages.append(f"## {kind}\n\n{facts(kind, found)}\n{table(found)}\n")
        print(pages[-1], flush=True)
    if arguments.baselines:
        for kind in arguments.kinds.split(","):
            found = measure(glm, arguments.data, kind, arguments.baselines, BASELINES, arguments.seeds, ("drop",))  # fmt: skip
            values[f"{kind}_baselines"] = found
            pages.append(f"## Baselines of the attributions: {kind}, {found['texts']} texts\n{table(found)}\n")  # fmt: skip
            print(pages[-1], flush=True)
    values["seconds"] = round(time.perf_counter() - start)
    if arguments.write:
        values["environment"] = environment()
        command = f"python benchmarks/bench_explain.py --model MODEL --data DATA --kinds {arguments.kinds} --texts {arguments.texts} --baselines {arguments.baselines} --seeds {arguments.seeds} --write"  # fmt: skip
        page = write_table_page(
            "explain",
            "Are explanations faithful?",
            f"Model: {values['model']}.\n\n{introduction(arguments)}",
            "\n".join(pages).rstrip(),
            values,
            command,
            hardware="cpu" if str(glm.model.device) == "cpu" else "gpu",
        )
        print(page.name)
    print(json.dumps(values, ensure_ascii=False))


def introduction(arguments: argparse.Namespace) -> str:
    """Returns what the page says before its tables."""
    return (
        "Words are taken out of a text in the order that a method gives them, and put back; the numbers are of the model's belief in "
        "what it explains: the probability of a review's likeliest label; of two hidden characters of a poem the mean log-probability of "
        "their tokens, in nats. Deletion and sufficiency are good when low (↓), insertion and comprehensiveness when high (↑). In brackets: "
        f"better than random orders ({arguments.seeds} of each text, averaged) by so much, positive is better whatever the metric, with "
        "the 95 % bootstrap interval over texts. “Left out” shortens the text, which no method looks at; [MASK] is also what "
        "ablation and integrated gradients replace words by, which favours them there."
    )


if __name__ == "__main__":
    main()
