"""What fine-tuning makes of a small GLM: tasks, ways of training, cloze against head on few records, joint against single.

    python benchmarks/bench_tuning.py DATA --plain runs/text-only/model --work runs/tuning [--jobs few] [--smoke] [--write]

In: a folder with NAME.train.jsonl.gz and NAME.valid.jsonl.gz; glm-mini, which has seen the labelled train splits in its
pretraining; and for the few-shot curves `--plain`, a model that has read plain text alone. Each job's numbers are kept in
`--work` as soon as they are there: called again, it goes on. Prints a table, then one JSON line; --write makes the page and its
picture under docs/results. The weights that are kept are chosen on a fifth of the records to train on; `valid` is measured alone.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from results_page import RESULTS, environment, write_table_page

import glmkit
from glmkit.config import from_values
from glmkit.evaluation.tasks import evaluate_task
from glmkit.tasks.task import load_task
from glmkit.training.finetune import finetune
from glmkit.training.finetune_settings import FinetuneConfig
from glmkit.whole_files import write_text

WAYS: dict[str, tuple[dict[str, Any], float]] = {
    "full": ({}, 3e-4),
    "lora": ({"lora": {"rank": 16}}, 2e-3),
    "qlora": ({"lora": {"rank": 16, "quantize": "nf4"}}, 2e-3),
    "prefix": ({"virtual": {"tokens": 16}}, 1e-2),
    "ptuning": ({"virtual": {"tokens": 16, "kind": "ptuning"}}, 3e-3),
    "head": ({"method": "head"}, 3e-4),
}
"""Name -> sections of the recipe, learning rate for a model of some million weights."""

ROWS = 8
METRIC = {"sentiment": "accuracy", "topics": "accuracy", "qa": "f1", "summary": "rougeL", "dialogue": "perplexity"}  # fmt: skip
FILES = {"summary": "summaries", "dialogue": "dialogues"}
"""Task -> beginning of its files' names, where that differs."""


@dataclass(frozen=True)
class Job:
    """One fine-tuning run, or with `way` "none" none: the model as it is.

    Attributes:
        part: Of the page.
        base: "mini" or "plain".
        way: One of `WAYS`, or "none".
        tasks: Trained jointly; each is measured.
        records: To train on, of each task.
        steps: At least; and one pass at least.
        seed: Of everything.
    """

    part: str
    base: str
    way: str
    tasks: tuple[str, ...]
    records: int
    steps: int
    seed: int = 1

    @property
    def name(self) -> str:
        """File name of its numbers."""
        tasks = "+".join(self.tasks)
        return f"{self.part}-{self.base}-{self.way}-{tasks}-{self.records}-{self.steps}-{self.seed}"


def jobs(part: str, smoke: bool) -> Iterator[Job]:
    """Yields the jobs of a part: few, tasks, joint."""
    if smoke:
        yield Job(part, "plain" if part == "few" else "mini", "none", ("sentiment",), 0, 0)
        yield Job(part, "plain" if part == "few" else "mini", "full", ("sentiment",), 24, 3)
        return
    if part == "few":
        yield Job(part, "plain", "none", ("sentiment",), 0, 0)
        for records, seeds in ((16, 3), (64, 3), (256, 3), (2000, 1)):
            for seed in range(1, seeds + 1):
                for way in ("full", "head"):
                    yield Job(part, "plain", way, ("sentiment",), records, 80, seed)
    elif part == "tasks":
        for task in METRIC:
            yield Job(part, "mini", "none", (task,), 0, 0)
            ways = {"sentiment": WAYS, "topics": ("full", "lora", "head")}
            records, steps = (480, 60) if task == "sentiment" else (240, 40)
            for way in ways.get(task, ("full", "lora")):
                yield Job(part, "mini", way, (task,), records, steps)
    else:  # as many records and steps of each task as alone
        yield Job(part, "mini", "full", ("topics", "qa", "summary"), 240, 120)


def read(path: Path, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Returns the first `count` records of one order, so that fewer are a part of more."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        known = [json.loads(line) for line in file]
    return [known[index] for index in np.random.default_rng(seed).permutation(len(known))[:count]]


def run(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Trains and measures."""
    began = time.monotonic()
    base = options.plain if job.base == "plain" else options.mini
    folder, trained, samples = options.work / "run" / job.name, 0, 0
    model: Any = base
    if job.way != "none":
        sections, rate = WAYS[job.way]
        tasks = {}
        for task in job.tasks:
            found = read(options.data / f"{FILES.get(task, task)}.train.jsonl.gz", job.records, job.seed)  # fmt: skip
            text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found)
            folder.parent.mkdir(parents=True, exist_ok=True)
            path = folder.parent / f"{job.name}-{task}.jsonl"
            write_text(path, text)
            # Of a conversation each reply is a sample.
            limit = {"limit": job.records} if task == "dialogue" else {}
            tasks[task] = {"train": [str(path)], "valid_ratio": 0.2, "valid_limit": 100, **limit}
        steps = max(job.steps, math.ceil(0.8 * job.records * len(job.tasks) / ROWS))
        values = {
            "model": {"from": str(base)},
            "tasks": tasks,
            "max_length": options.max_length,
            "trainer": {
                "output_dir": str(folder),
                "learning_rate": rate,
                "max_steps": steps,
                "eval_steps": max(1, steps // 4),
                "per_device_train_batch_size": ROWS,
                "seed": job.seed,
                "use_cpu": True,
                "bf16": "auto",
            },
            **sections,
        }
        report = finetune(from_values(FinetuneConfig, values))
        model, trained = report.model, report.trained_parameters
        samples = sum(train for train, _ in report.samples.values())
    glm = glmkit.load(model, device="cpu")
    seconds, found = time.monotonic() - began, {}
    for task in job.tasks:
        count = options.valid if METRIC[task] == "accuracy" else options.answers
        path = options.data / f"{FILES.get(task, task)}.valid.jsonl.gz"
        records = [(one, f"valid:{number}") for number, one in enumerate(read(path, count))]
        asked = replace(load_task(task), metric=METRIC[task])
        asked = glm.tasks.get(task, asked) if METRIC[task] == "accuracy" else asked
        result, _ = evaluate_task(glm, asked, records)
        number = result.metrics[METRIC[task]]
        found[task] = {"value": number.value, "low": number.low, "high": number.high, "examples": result.examples}  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    return {**asdict(job), "trained": trained, "samples": samples, "seconds": round(seconds), "found": found}  # fmt: skip


def collect(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for each job, made now or before."""
    rows = []
    options.work.mkdir(parents=True, exist_ok=True)
    for job in (one for part in options.jobs for one in jobs(part, options.smoke)):
        path = options.work / f"{job.name}.json"
        if options.done and not path.is_file():
            continue
        if not path.is_file():
            write_text(path, json.dumps(run(job, options), indent=1) + "\n")
        rows.append(json.loads(path.read_text(encoding="utf-8")))
        shown = ", ".join(f"{task} {METRIC[task]} {one['value']:.3f}" for task, one in rows[-1]["found"].items())  # fmt: skip
        print(f"{job.name:60} {rows[-1]['seconds']:5} s  {shown}", flush=True)
    return rows


def missing(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """Returns a sentence about the jobs that are not among the rows, or nothing."""
    there = {Job(**{**{name: row[name] for name in Job.__dataclass_fields__}, "tasks": tuple(row["tasks"])}).name for row in rows}  # fmt: skip
    names = [job.name for part in options.jobs for job in jobs(part, options.smoke)]
    left = [name for name in names if name not in there]
    return f"Not run yet, of {len(names)} jobs: {', '.join(left)}." if left else ""


def interval(one: dict[str, Any]) -> str:
    value = f"{one['value']:.3f}"
    return value if one["low"] is None else f"{value} ({one['low']:.3f}–{one['high']:.3f})"


def table(rows: list[dict[str, Any]]) -> str:
    """Returns a row for each task and way of the parts tasks and joint, then few-shot means over seeds, in Markdown."""
    lines = ["| task | metric | way | records | weights trained | `valid` | value (95 % interval) | seconds |", "|---|---|---|---:|---:|---:|---|---:|"]  # fmt: skip
    for row in (one for one in rows if one["part"] != "few"):
        for task, one in row["found"].items():
            way = row["way"] if row["part"] == "tasks" else f"{row['way']}, jointly with {len(row['tasks']) - 1} more"  # fmt: skip
            lines.append(f"| {task} | {METRIC[task]} | {way} | {row['records']} | {row['trained']:,} | {one['examples']} | {interval(one)} | {row['seconds']} |")  # fmt: skip
    few = [one for one in rows if one["part"] == "few"]
    if few:
        lines += ["", "| records | cloze | head |", "|---:|---|---|"]
        for records in sorted({row["records"] for row in few}):
            cells = [_mean(few, records, ways) for ways in (("full", "none"), ("head",))]
            lines.append(f"| {records} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _values(rows: list[dict[str, Any]], records: int, ways: tuple[str, ...]) -> list[float]:
    return [row["found"]["sentiment"]["value"] for row in rows if row["records"] == records and row["way"] in ways]  # fmt: skip


def _mean(rows: list[dict[str, Any]], records: int, ways: tuple[str, ...]) -> str:
    values = _values(rows, records, ways)
    if not values:
        return "–"
    spread = f" ({min(values):.3f}–{max(values):.3f}, {len(values)} seeds)" if len(values) > 1 else ""  # fmt: skip
    return f"{statistics.mean(values):.3f}{spread}"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws the few-shot curves: a dot for each seed, a line through the means; and sentiment and topics by way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    few = [one for one in rows if one["part"] == "few"]
    sizes = sorted({one["records"] for one in few if one["records"]})
    for way, label, colour in (("full", "cloze", "tab:blue"), ("head", "head", "tab:orange")):
        for size in sizes:
            values = _values(few, size, (way,))
            left.plot([size] * len(values), values, "o", color=colour, alpha=0.35, markersize=4)
        means = [statistics.mean(_values(few, size, (way,)) or [math.nan]) for size in sizes]
        left.plot(sizes, means, "-", color=colour, label=label)
    left.set_xscale("log")
    left.set_xticks(sizes, [f"{size:,}" for size in sizes])
    left.set_xticks([], minor=True)
    left.set_ylim(0.4, 1)
    left.set_xlabel("records to train on")
    left.set_ylabel("accuracy")
    left.set_title("sentiment, from a model that read plain text alone", fontsize=9)
    left.legend()
    left.grid(alpha=0.3)
    labels = [one for one in rows if one["part"] == "tasks" and METRIC[one["tasks"][0]] == "accuracy"]  # fmt: skip
    for number, row in enumerate(labels):
        one = row["found"][row["tasks"][0]]
        low, high = one["low"] or one["value"], one["high"] or one["value"]
        colour = "tab:green" if row["tasks"][0] == "topics" else "tab:blue"
        right.errorbar(one["value"], number, xerr=[[one["value"] - low], [high - one["value"]]], fmt="o", capsize=3, color=colour)  # fmt: skip
    right.set_yticks(range(len(labels)), [f"{row['tasks'][0]}, {row['way']}" for row in labels])
    right.invert_yaxis()
    right.set_xlabel("accuracy, 95 % interval")
    right.set_title("ways of training glm-mini", fontsize=9)
    right.grid(axis="x", alpha=0.3)
    figure.savefig(path)


INTRODUCTION = """
What to read out of it: glm-mini has seen the *labelled* train splits of all five tasks in its pretraining, so that the first
table shows how the ways of training compare on a model that knows the tasks, not how much one learns from these records. The
few-shot curves begin with a model of the same code that has read poems and encyclopedia paragraphs alone ({plain}) and
has never seen a review: one label in two is right by chance. "none" is the model as it is. Measured on `valid`, which chose nothing; intervals are bootstraps over its
records. Steps of 8 rows: sentiment 60, other tasks 40 (jointly 40 each), the curves 80, or one pass where that is more; max_length
{max_length}. Seconds are of training and
loading, on a core shared with other work.
"""


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--mini", default="glm-mini")
    parser.add_argument("--plain", default="glm-mini", help="model that has read plain text alone")
    parser.add_argument("--about-plain", default="--plain", help="of that model, for the page")
    parser.add_argument("--work", type=Path, default=Path("runs/tuning"))
    parser.add_argument("--jobs", nargs="+", choices=("few", "tasks", "joint"), default=["few", "tasks", "joint"])  # fmt: skip
    parser.add_argument("--valid", type=int, default=400, help="held-out records with labels")
    parser.add_argument("--answers", type=int, default=40, help="held-out records with answers")
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--smoke", action="store_true", help="a run of three steps for each part")
    parser.add_argument(
        "--done", action="store_true", help="what is in --work alone, nothing is run"
    )
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(given)
    rows = collect(options)
    seconds = sum(row["seconds"] for row in rows)
    values = {"environment": environment(), "seconds": seconds, "rows": rows}
    text = table(rows)
    print(text, file=sys.stderr)
    if options.write:
        introduction = INTRODUCTION.format(plain=options.about_plain, max_length=options.max_length)  # fmt: skip
        introduction += missing(rows, options)
        picture = f"finetune_cpu_{values['environment']['date'][:7]}.png"
        command = f"python benchmarks/bench_tuning.py DATA --plain MODEL --valid {options.valid} --answers {options.answers} --write"  # fmt: skip
        write_table_page("finetune", "Fine-tuning: tasks, ways of training, few records", introduction, f"{text}\n\n![Few-shot curves and ways of training]({picture})", values, command)  # fmt: skip
        draw(rows, RESULTS / picture)
    print(json.dumps(values))


if __name__ == "__main__":
    main()
