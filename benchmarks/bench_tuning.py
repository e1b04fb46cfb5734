"""What fine-tuning makes of a small GLM: tasks, ways of training, cloze against head on few records, joint against single.

    python benchmarks/bench_tuning.py DATA --plain runs/text-only/model --work runs/tuning [--jobs few] [--smoke] [--write]

In: a folder with NAME.train.jsonl[.gz] and NAME.valid.jsonl[.gz]; glm-mini, which has seen the labelled train splits in its
pretraining; and for the few-shot curves `--plain`, a model that has read plain text alone. Each job's numbers are kept in
`--work` as soon as they are there: called again, it goes on; called several times at once, each process takes the next job that
is free. Prints a table, then one JSON line; --write makes the page and its picture under docs/results. The weights that are kept
are those with the lowest loss on a tenth of the records to train on, which are not learnt from; of up to 256 records all are
learnt from and the last weights are kept, as a few records cannot choose. `valid` is measured alone.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import shutil
import statistics
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results_page import RESULTS, environment, processor, write_table_page

import glmkit
from glmkit.checkpoint import resolve
from glmkit.config import from_values
from glmkit.evaluation.tasks import evaluate_task
from glmkit.tasks.task import load_task
from glmkit.training.finetune import finetune
from glmkit.training.finetune_settings import FinetuneConfig
from glmkit.whole_files import locked, write_text

WAYS: dict[str, tuple[dict[str, Any], float]] = {
    "lora": ({"lora": {"rank": 16}}, 1e-3),
    "full": ({}, 2e-4),
    "qlora": ({"lora": {"rank": 16, "quantize": "nf4"}}, 1e-3),
    "prefix": ({"virtual": {"tokens": 16}}, 1e-2),
    "ptuning": ({"virtual": {"tokens": 16, "kind": "ptuning"}}, 3e-3),
    "head": ({"method": "head"}, 2e-4),
}
"""Name -> sections of the recipe, learning rate for a model of some million weights."""

PLAIN_RATE = 5e-4
"""Of the few-shot curves, whose model is smaller."""

FEW = 256
"""Up to so many records, nothing is set apart to choose the weights by."""

ALL = 16_807
"""Reviews to train on."""

METRIC = {"qa": "f1", "summary": "rougeL", "dialogue": "perplexity", "sentiment": "accuracy", "topics": "accuracy"}  # fmt: skip
SHORT = {"sentiment", "topics"}
"""Tasks of short texts."""

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
        steps: Of training.
        rows: Samples of a step.
        seed: Of everything.
    """

    part: str
    base: str
    way: str
    tasks: tuple[str, ...]
    records: int
    steps: int
    rows: int = 8
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
        for records, steps, rows, seeds in ((16, 80, 8, 3), (64, 80, 8, 3), (256, 100, 8, 3), (ALL, 250, 32, 1)):  # fmt: skip
            for seed in range(1, seeds + 1):
                for way in ("full", "head"):
                    yield Job(part, "plain", way, ("sentiment",), records, steps, rows, seed)
    elif part == "tasks":
        for task in METRIC:
            yield Job(part, "mini", "none", (task,), 0, 0)
        for way in WAYS:
            ways = {"sentiment": WAYS, "topics": ("full", "lora", "head")}
            for task in METRIC:
                if way in ways.get(task, ("full", "lora")):
                    records, steps = (480, 60) if task == "sentiment" else (240, 40)
                    yield Job(part, "mini", way, (task,), records, steps)
    else:  # as many records and steps of each task as alone
        yield Job(part, "mini", "full", ("topics", "qa", "summary"), 240, 120)


def read(folder: Path, task: str, split: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Returns the first `count` records of one order, so that fewer are a part of more; of few, the classes in turn."""
    path = folder / f"{FILES.get(task, task)}.{split}.jsonl"
    packed = path.with_name(f"{path.name}.gz")
    data = gzip.decompress(packed.read_bytes()) if packed.is_file() else path.read_bytes()
    known = [json.loads(line) for line in data.decode("utf-8").splitlines()]
    order = [known[index] for index in np.random.default_rng(seed).permutation(len(known))]
    if count <= FEW and "label" in order[0]:
        classes: dict[Any, list[dict[str, Any]]] = {}
        for one in order:
            classes.setdefault(one["label"], []).append(one)
        order = [one for turn in zip(*classes.values(), strict=False) for one in turn]
    return order[:count]


def recipe(job: Job, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Writes the records that a job trains on; returns its settings."""
    sections, rate = WAYS[job.way]
    tasks = {}
    few = job.records <= FEW
    for task in job.tasks:
        found = read(options.data, task, "train", job.records + 16 * few, job.seed)
        paths = [folder.parent / f"{job.name}-{task}.{part}.jsonl" for part in ("train", "valid")]
        for path, part in zip(paths, (found[: job.records], found[job.records :]), strict=True):
            write_text(path, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in part))
        tasks[task] = {"train": [str(paths[0])], "valid_ratio": 0.1, "valid_limit": 50}
        if (
            few
        ):  # something must be held out; evaluated once, after the last step, it chooses nothing
            tasks[task]["valid"] = [str(paths[1])]
        if task == "dialogue":  # of a conversation each reply is a sample
            tasks[task]["limit"] = job.records
    return {
        "model": {"from": str(options.plain if job.base == "plain" else options.mini)},
        "tasks": tasks,
        "max_length": options.short if set(job.tasks) <= SHORT else options.max_length,
        "best": {"metric": "loss"},
        "trainer": {
            "output_dir": str(folder),
            "learning_rate": PLAIN_RATE if job.base == "plain" else rate,
            "max_steps": job.steps,
            "eval_on_start": False,
            "eval_steps": job.steps if few else max(1, job.steps // 2),
            "save_steps": job.steps,
            "per_device_train_batch_size": job.rows,
            "seed": job.seed,
            "use_cpu": options.device == "cpu",
            "bf16": "auto",
        },
        **sections,
    }


def run(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Trains and measures."""
    began = time.monotonic()
    folder, trained, samples = options.work / "run" / job.name, 0, 0
    folder.parent.mkdir(parents=True, exist_ok=True)
    model: Any = options.plain if job.base == "plain" else options.mini
    if job.way != "none":
        report = finetune(from_values(FinetuneConfig, recipe(job, options, folder)))
        model, trained = report.model, report.trained_parameters
        samples = sum(train for train, _ in report.samples.values())
    seconds = time.monotonic() - began
    # Capturing graphs takes longer than so few answers.
    glm = glmkit.load(model, device=options.device, backend=None if options.device == "cpu" else "torch")  # fmt: skip
    found = {}
    for task in job.tasks:
        count = {"accuracy": options.valid, "perplexity": options.dialogues}.get(METRIC[task], options.answers)  # fmt: skip
        records = [(one, f"valid:{number}") for number, one in enumerate(read(options.data, task, "valid", count))]  # fmt: skip
        asked = replace(load_task(task), metric=METRIC[task])
        asked = glm.tasks.get(task, asked) if METRIC[task] == "accuracy" else asked
        result, _ = evaluate_task(glm, asked, records)
        number = result.metrics[METRIC[task]]
        found[task] = {"value": number.value, "low": number.low, "high": number.high, "examples": result.examples}  # fmt: skip
    files = sorted(resolve(model).glob("*.safetensors")) if job.way == "none" else []
    weights = (
        hashlib.sha256(b"".join(one.read_bytes() for one in files)).hexdigest() if files else ""
    )
    shutil.rmtree(folder, ignore_errors=True)
    return {**asdict(job), "trained": trained, "samples": samples, "seconds": round(seconds), "weights": weights, "hardware": hardware(options.device), "found": found}  # fmt: skip


def hardware(device: str) -> str:
    """Returns a device's name."""
    return processor() if device == "cpu" else torch.cuda.get_device_name()


def collect(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for each job that is done, now or before; jobs that another process is at are left to it."""
    options.work.mkdir(parents=True, exist_ok=True)
    about = options.work / "environment.json"
    if not about.is_file():
        values = environment()
        if options.device != "cpu":
            values["hardware"] = f"{hardware(options.device)}, {values['hardware']}"
        write_text(about, json.dumps(values, indent=1) + "\n")
    rows = []
    for job in (one for part in options.jobs for one in jobs(part, options.smoke)):
        path = options.work / f"{job.name}.json"
        with locked(path.with_suffix(".lock"), wait=False) as mine:
            if mine and not options.done and not path.is_file():
                try:
                    write_text(path, json.dumps(run(job, options), indent=1) + "\n")
                except Exception:
                    if not options.go_on:
                        raise
                    traceback.print_exc()
        if not path.is_file():
            continue
        rows.append(json.loads(path.read_text(encoding="utf-8")))
        shown = ", ".join(f"{task} {METRIC[task]} {one['value']:.3f}" for task, one in rows[-1]["found"].items())  # fmt: skip
        print(f"{job.name:60} {rows[-1]['seconds']:5} s  {shown}", flush=True)
    ways, tasks = ["none", *WAYS], list(METRIC)
    # As a reader looks for them; jobs run in another order, all tasks by one way first.
    return sorted(rows, key=lambda row: (options.jobs.index(row["part"]), tasks.index(row["tasks"][0]), ways.index(row["way"])))  # fmt: skip


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
            way += "" if row["hardware"] == rows[0]["hardware"] else f" (on {row['hardware']})"
            lines.append(f"| {task} | {METRIC[task]} | {way} | {row['samples']:,} | {row['trained']:,} | {one['examples']} | {interval(one)} | {row['seconds']} |")  # fmt: skip
    few = [one for one in rows if one["part"] == "few"]
    if few:
        lines += ["", "| records | cloze | head |", "|---:|---|---|"]
        for records in sorted({row["records"] for row in few}):
            cells = [_mean(few, records, ways) for ways in (("full", "none"), ("head",))]
            lines.append(f"| {records:,} | {' | '.join(cells)} |")
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
What to read out of it: glm-mini (weights {weights}) has seen the *labelled* train splits of all five tasks in its pretraining, so that
the first table shows how the ways of training compare on a model that knows the tasks, not how much one learns from these records.
The few-shot curves begin with {about_plain}, which has read plain text alone and never a review. "none" is the model as it
is. Measured on `valid`, which chose nothing; intervals are bootstraps over its records, ranges are of seeds. "records" are those
learnt from (of dialogue, replies; of tasks trained jointly, all of them). Steps of 8 rows: 60 in sentiment, 40 in the other
tasks (jointly 120); the curves 80, 100 for 256 records, and 250 of 32 rows, half a pass, for all; Adam, with the learning rates in the benchmark; texts of up to
{short} tokens in sentiment and topics, {max_length} in the others. Seconds are of training, on cores shared with other work.
"""


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--mini", default="glm-mini")
    parser.add_argument("--plain", default="glm-mini", help="model that has read plain text alone")
    parser.add_argument("--about-plain", default="--plain", help="of that model, for the page")
    parser.add_argument("--work", type=Path, default=Path("runs/tuning"))
    parser.add_argument("--jobs", nargs="+", choices=("few", "tasks", "joint"), default=["tasks", "joint", "few"])  # fmt: skip
    parser.add_argument("--valid", type=int, default=400, help="held-out records with labels")
    parser.add_argument("--answers", type=int, default=40, help="held-out questions and texts")
    parser.add_argument("--dialogues", type=int, default=8, help="held-out conversations")
    parser.add_argument("--max-length", type=int, default=192, help="of a sample, in tokens")
    parser.add_argument("--short", type=int, default=96, help="the same, of sentiment and topics")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--hardware", default="cpu", help="for the page's name")
    parser.add_argument("--smoke", action="store_true", help="a run of three steps for each part")
    parser.add_argument("--go-on", action="store_true", help="with the next job, if one fails")
    parser.add_argument(
        "--done", action="store_true", help="what is in --work alone, nothing is run"
    )
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(given)
    rows = collect(options)
    seconds = sum(row["seconds"] for row in rows)
    about = json.loads((options.work / "environment.json").read_text(encoding="utf-8"))
    values = {"environment": about, "seconds": seconds, "rows": rows}
    text = table(rows)
    print(text, file=sys.stderr)
    if options.write:
        weights = next((row["weights"] for row in rows if row["base"] == "mini" and row["weights"]), "")  # fmt: skip
        introduction = INTRODUCTION.format(weights=weights[:12], **vars(options))
        introduction += missing(rows, options)
        picture = f"finetune_{options.hardware}_{about['date'][:7]}.png"
        command = "python benchmarks/bench_tuning.py DATA --plain MODEL --write"
        write_table_page("finetune", "Fine-tuning: tasks, ways of training, few records", introduction, f"{text}\n\n![Few-shot curves and ways of training]({picture})", values, command, options.hardware)  # fmt: skip
        draw(rows, RESULTS / picture)
    print(json.dumps(values))


if __name__ == "__main__":
    main()
