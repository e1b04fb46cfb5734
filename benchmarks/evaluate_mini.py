"""The embedded model on all held-out data, beside the baselines and the goals: `make evaluate-mini DATA=…`.

    python benchmarks/evaluate_mini.py --data ../shared/data [--model glm-mini] [--out runs/evaluate-mini] [--save] [--smoke]

Runs `glmkit evaluate` task by task (resumable: results of the same weights are kept in `--out`), compares with the newest
`docs/results/baselines_*.json`, prints a table, then one JSON line. `--save` also writes
`docs/results/glm-mini_<hardware>_<yyyy-mm>.md` and `.json`, from which the model card takes its table.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results_page import RESULTS, environment, write_table_page

import glmkit
from glmkit.evaluation.suite import Run, SuiteReport, evaluate_tasks
from glmkit.evaluation.tasks import Number
from glmkit.tasks.task import load_task


@dataclass(frozen=True)
class Planned:
    """A task on one file: the first `limit` records of it, and the field for numbers of their own."""

    task: str
    file: str
    limit: int | None = None
    by: str | None = None


PLAN = (
    Planned("text", "poems.valid"),
    Planned("text", "wiki_zh.valid"),
    Planned("text", "articles_zh.valid"),
    Planned("text", "wiki_en.valid"),
    Planned("poem_character", "poems.valid", 1000),
    Planned("poem_word", "poems.valid", 1000),
    Planned("poem_line", "poems.valid", 200),
    Planned("sentiment", "sentiment.valid", by="domain"),
    Planned("topics", "topics.valid"),
    Planned("qa", "qa.valid"),
    Planned("summary", "summaries.valid"),
    Planned("dialogue", "dialogues.valid"),
)


@dataclass(frozen=True)
class Compared:
    """A line of the table.

    Attributes:
        run: Name of the run.
        metric: Its metric.
        method: How the baseline's method begins; "" where there is none.
        goal: The goal in numbers; None means the baseline; without a baseline there is no goal.
        group: Of the records.
    """

    run: str
    metric: str
    method: str = ""
    goal: float | None = None
    group: str = ""


TABLE = (
    Compared("text:poems.valid", "bits_per_character", "5-gram of poems", 6.3),
    Compared("text:wiki_zh.valid", "bits_per_character", "5-gram of prose"),
    Compared("text:articles_zh.valid", "bits_per_character", "5-gram of prose"),
    Compared("text:wiki_en.valid", "bits_per_character", "5-gram of prose"),
    *(
        Compared(f"text:{name}.valid", f"bits_per_character_{objective}_blanks")
        for name in ("poems", "wiki_zh")
        for objective in ("token", "sentence")
    ),
    Compared("poem_character:poems.valid", "exact_match", "5-gram", 0.30),
    Compared("poem_character:poems.valid", "top_10", "5-gram"),
    Compared("poem_character:poems.valid", "free_exact_match"),
    Compared("poem_word:poems.valid", "exact_match", "5-gram"),
    Compared("poem_word:poems.valid", "top_10", "5-gram"),
    Compared("poem_line:poems.valid", "top_10", "5-gram"),
    Compared("sentiment:sentiment.valid", "accuracy", "TF-IDF", 0.91),
    Compared("sentiment:sentiment.valid", "accuracy", "TF-IDF", group="hotel"),
    Compared("sentiment:sentiment.valid", "accuracy", "TF-IDF", group="waimai"),
    Compared("sentiment:sentiment.valid", "calibration_error", "TF-IDF"),
    Compared("topics:topics.valid", "accuracy", "TF-IDF", 0.87),
    Compared("topics:topics.valid", "macro_f1", "TF-IDF"),
    Compared("summary:summaries.valid", "rouge1", "lead"),
    Compared("summary:summaries.valid", "rouge2", "lead"),
    Compared("summary:summaries.valid", "rougeL", "lead"),
    Compared("qa:qa.valid", "exact_match", "best-overlapping"),
    Compared("qa:qa.valid", "f1", "best-overlapping"),
    Compared("dialogue:dialogues.valid", "bits_per_character", "5-gram"),
    Compared("dialogue:dialogues.valid", "perplexity"),
    Compared("dialogue:dialogues.valid", "distinct_2", "reply to the nearest"),
    Compared("dialogue:dialogues.valid", "bleu", "reply to the nearest"),
)

LOWER = ("bits_per_character", "perplexity", "calibration_error")


def compare(report: SuiteReport, baselines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the lines of the table as records; lines whose run was not made are left out."""
    lines = []
    for one in TABLE:
        run = report.runs.get(one.run)
        if run is None:
            continue
        group = f"domain={one.group}" if one.group else ""
        numbers = run["groups"].get(group, {}) if one.group else run["metrics"]
        if one.metric not in numbers:
            continue
        number = Number(**numbers[one.metric])
        task, _, data = one.run.partition(":")
        place = f"{data}, {one.group}" if one.group else data
        base = baseline(baselines, task, place, one) if one.method else None
        goal = one.goal if one.goal is not None or base is None else base["value"]
        lower = one.metric.startswith(LOWER)
        lines.append(
            {
                "task": task,
                "data": place,
                "examples": run["group_sizes"][group] if one.group else run["examples"],
                "metric": one.metric,
                "model": number.value,
                "low": number.low,
                "high": number.high,
                "baseline": None if base is None else base["value"],
                "method": "" if base is None else base["method"],
                "goal": goal,
                "met": None if goal is None else (number.value <= goal if lower else number.value >= goal),
            }
        )  # fmt: skip
    return lines


def baseline(
    rows: list[dict[str, Any]], task: str, place: str, one: Compared
) -> dict[str, Any] | None:
    """Returns method and value of a baseline, or None where it was not measured."""
    for row in rows:
        fits = row["task"] == task and row["data"] == place and row["method"].startswith(one.method)
        if fits and one.metric in row["metrics"]:
            return {"method": row["method"], "value": row["metrics"][one.metric]}
    return None


def markdown(lines: list[dict[str, Any]], model: str) -> str:
    """Returns the table."""
    head = [f"| task | data | n | metric | {model} (95 % interval) | baseline | goal | |", "|" + "---|" * 8]  # fmt: skip
    for one in lines:
        base = f"{one['baseline']:.3f} ({one['method']})" if one["method"] else "–"
        lower = one["metric"].startswith(LOWER)
        goal = "–" if one["goal"] is None else f"{'≤' if lower else '≥'} {one['goal']:.3f}"
        mark = {None: "", True: "✓", False: "✗"}[one["met"]]
        value = Number(one["model"], one["low"], one["high"])
        head.append(
            f"| {one['task']} | {one['data']} | {one['examples']:,} | {one['metric']} | {value} | {base} | {goal} | {mark} |"
        )
    return "\n".join(head)


def main(arguments: list[str] | None = None) -> None:
    """Measures, compares, prints, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="glm-mini")
    parser.add_argument("--out", type=Path, default=Path("runs/evaluate-mini"))
    parser.add_argument("--baselines", type=Path, help="by default the newest in docs/results")
    parser.add_argument("--only", help="tasks, with commas")
    parser.add_argument("--save", action="store_true", help="write the page in docs/results")
    parser.add_argument("--smoke", action="store_true", help="2 records of each file")
    chosen = parser.parse_args(arguments)
    found = chosen.baselines or max(RESULTS.glob("baselines_*.json"), default=None)
    baselines = json.loads(found.read_text(encoding="utf-8"))["rows"] if found else []
    started = time.monotonic()
    glm = glmkit.load(chosen.model)
    report = SuiteReport(chosen.model)
    for one in PLAN:
        if chosen.only and one.task not in chosen.only.split(","):
            continue
        run = Run(load_task(one.task), str(chosen.data / f"{one.file}.jsonl.gz"))
        report = evaluate_tasks(
            glm,
            [run],
            chosen.out,
            model_name=chosen.model,
            limit=2 if chosen.smoke else one.limit,
            by=one.by,
        )
        print(f"  {run.name}: {report.runs[run.name]['seconds']:.0f} s", file=sys.stderr, flush=True)  # fmt: skip
    lines = compare(report, baselines)
    print(table := markdown(lines, chosen.model))
    seconds = round(sum(run["seconds"] for run in report.runs.values()))
    values = {
        "model": chosen.model,
        **{name: report.facts[name] for name in ("parameters", "weights_fingerprint", "seed")},
        "lines": lines,
        "seconds": seconds,
        "environment": environment(),
    }
    if chosen.save:
        met = [line["met"] for line in lines if line["met"] is not None]
        write_table_page(
            "glm-mini",
            f"{chosen.model} on the held-out data",
            INTRODUCTION.format(
                parameters=report.facts["parameters"], met=sum(met), goals=len(met)
            ),
            table,
            values,
            f"make evaluate-mini DATA={chosen.data}",
        )
    print(json.dumps({**values, "wall_seconds": round(time.monotonic() - started)}, ensure_ascii=False))  # fmt: skip


INTRODUCTION = """
{parameters:,} parameters, no fine-tuning. All of each `valid` file, except filling, which takes its first poems (n is the number
of questions), and blanks in texts (the first 1,000 texts). Filling is told the number of characters; `free_exact_match` is not. ✓ and ✗ say whether the goal is met; where no
number was set the goal is the baseline, which `benchmarks/baselines.py` measured on the same records and blanks. BLEU is from 0 to 100,
bits and perplexities are better when lower. **Goals met: {met} of {goals}.**
"""


if __name__ == "__main__":
    main()
