"""What fewer bits cost in quality: perplexity, hidden characters, sentiment, beside float32 on the same records.

    python benchmarks/bench_quantization.py --data FOLDER --model FOLDER [--limit 500] [--smoke] [--save]

Runs tasks of `glmkit evaluate` on the native decoder in each format, of a model that is not quantized yet (glm-mini is). Prints a
table, then one JSON line:

    perplexity     per token, left to right, of the texts together, and its change against float32
    exact match    share of hidden characters of poems that the model names, in points
    accuracy       of sentiment, in points
    MB             of the packed weights
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from results_page import environment, write_table_page

import glmkit
from glmkit.evaluation.suite import Run, evaluate_tasks
from glmkit.native.model import NativeModel
from glmkit.tasks.task import load_task

FORMATS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"quantization": "int8"},
    "int4": {"quantization": "int4"},
}
RUNS = (
    ("text", "poems.valid", "perplexity"),
    ("text", "wiki_zh.valid", "perplexity"),
    ("text", "wiki_en.valid", "perplexity"),
    ("poem_character", "poems.valid", "exact_match"),
    ("sentiment", "sentiment.valid", "accuracy"),
)
"""Task, file, metric."""


def measure(model: str, data: Path, limit: int, options: dict[str, Any]) -> dict[str, float]:
    """Returns the value of each run, and the megabytes of weights."""
    glm = glmkit.load(model, **options)
    assert isinstance(glm.model, NativeModel), "glmkit was installed without its native decoder"
    wanted, found_format = (
        options.get("quantization", options.get("dtype")),
        glm.model.weights.quantization,
    )
    assert found_format == wanted, (
        f"{model} is quantized to {found_format}; give the model it was made of"
    )
    found = {"MB": glm.model.weights.nbytes / 1e6}
    with tempfile.TemporaryDirectory() as folder:
        for task, file, metric in RUNS:
            run = Run(load_task(task), str(data / f"{file}.jsonl.gz"))
            report = evaluate_tasks(glm, [run], Path(folder), model_name=model, limit=limit)
            found[run.name] = report.runs[run.name]["metrics"][metric]["value"]
    return found


def change(metric: str, value: float, base: float) -> float:
    """Returns a change in percent of a perplexity, in points of a share."""
    return 100 * (value / base - 1 if metric == "perplexity" else value - base)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True, help="folder, not quantized")
    parser.add_argument("--limit", type=int, default=500, help="records of each file")
    parser.add_argument("--smoke", action="store_true", help="4 records of each file")
    parser.add_argument("--save", action="store_true", help="write docs/results")
    arguments = parser.parse_args()
    limit = 4 if arguments.smoke else arguments.limit
    begun = time.perf_counter()
    found = {
        name: measure(arguments.model, arguments.data, limit, options)
        for name, options in FORMATS.items()
    }
    names = {f"{task}:{file}": metric for task, file, metric in RUNS}
    lines = [
        "| format | MB | "
        + " | ".join(f"{name}, {metric}" for name, metric in names.items())
        + " |",
        "|---|" + "---:|" * (1 + len(names)),
    ]
    for name, values in found.items():
        cells = []
        for run, metric in names.items():
            unit = " %" if metric == "perplexity" else " points"
            moved = change(metric, values[run], found["float32"][run])
            shown = f"{values[run]:.2f}" if metric == "perplexity" else f"{values[run]:.3f}"
            cells.append(shown if name == "float32" else f"{shown} ({moved:+.2f}{unit})")
        lines.append(f"| {name} | {values['MB']:.1f} | " + " | ".join(cells) + " |")
    table = "\n".join(lines)
    print(table)
    values = {
        "model": Path(arguments.model).name,
        "limit": limit,
        "formats": found,
        "environment": environment(),
        "seconds": round(time.perf_counter() - begun),
    }
    if arguments.save:
        introduction = (
            f"{Path(arguments.model).name} in each format of the native decoder, on the first {limit} records of each held-out file (perplexity per "
            "token, left to right; hidden characters of poems; sentiment by cloze). In brackets the "
            "change against float32 on the same records: of a perplexity in percent, of a share in points. The first records are no sample of a file, "
            "so only the changes mean something; a point of a share is few records."
        )
        command = f"python benchmarks/bench_quantization.py --data FOLDER --model FOLDER --limit {limit} --save"
        write_table_page("quantization", "What fewer bits cost in quality", introduction, table, values, command)  # fmt: skip
    print(json.dumps(values, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
