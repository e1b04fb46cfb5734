"""Fine-tuning of one model by several ways on few and many records, against TF-IDF on the same records.

    python benchmarks/bench_finetune.py DATA --model glm-mini [--task sentiment] [--records 64,256,1024] [--write]

In: a folder with NAME.train.jsonl.gz and NAME.valid.jsonl.gz. Prints a table, then one JSON line; --write makes the page
under docs/results too. The weights that are kept are chosen on records set apart from `train`; `valid` is only measured.

    cloze     the words that fill the blank are compared; all weights are trained
    head      a new classification head; all weights are trained
    lora      cloze, through adapters of rank 16
    none      the model as it is, its words compared
    tf-idf    character 1- to 4-grams and logistic regression, on the same records
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from results_page import environment, metrics_table, write_table_page

import glmkit
from glmkit.config import from_values
from glmkit.tasks.task import load_task
from glmkit.training.finetune import finetune
from glmkit.training.finetune_settings import FinetuneConfig

WAYS: dict[str, dict[str, Any]] = {
    "cloze": {"method": "cloze"},
    "head": {"method": "head"},
    "lora": {"method": "cloze", "lora": {"rank": 16}},
}
RATES = {"cloze": 3e-4, "head": 3e-4, "lora": 2e-3}
"""Of a model of some million weights."""

ROWS = 16
FEWEST_STEPS = 60


def records(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def few(known: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Returns the first `count` of one order, so that fewer records are a part of more."""
    order = np.random.default_rng(0).permutation(len(known))
    return [known[index] for index in order[:count]]


def tune(
    way: str, part: list[dict[str, Any]], folder: Path, arguments: argparse.Namespace
) -> glmkit.GLM:
    """Fine-tunes on a part of the records; returns the loaded model."""
    path = folder / "part.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in part) + "\n", encoding="utf-8")
    epochs = max(arguments.epochs, math.ceil(FEWEST_STEPS * ROWS / len(part)))
    values = {
        "model": {"from": arguments.model},
        "tasks": {arguments.task: {"train": [str(path)], "valid_ratio": 0.2, "valid_limit": 200}},
        "max_length": arguments.max_length,
        "trainer": {
            "output_dir": str(folder / "run"),
            "learning_rate": RATES[way],
            "num_train_epochs": epochs,
            "per_device_train_batch_size": ROWS,
            "eval_steps": max(20, math.ceil(epochs * len(part) / ROWS / 4)),
            "use_cpu": True,
            "bf16": "auto",
        },
        **WAYS[way],
    }
    report = finetune(from_values(FinetuneConfig, values))
    print(report, file=sys.stderr)
    return glmkit.load(report.model, device="cpu")


def tf_idf(part: list[dict[str, Any]], valid: list[dict[str, Any]], label: str) -> list[str]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True)
    model = make_pipeline(vectors, LogisticRegression(C=10.0, max_iter=300))
    model.fit([one["text"] for one in part], [str(one[label]) for one in part])
    return [str(one) for one in model.predict([one["text"] for one in valid])]


def results(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for each way and number of records."""
    task = load_task(arguments.task)
    label = str(task.label)
    known = records(arguments.data / f"{arguments.task}.train.jsonl.gz")
    valid = few(records(arguments.data / f"{arguments.task}.valid.jsonl.gz"), arguments.valid)
    right = [str(one[label]) for one in valid]
    rows: list[dict[str, Any]] = []

    def row(way: str, count: int, found: list[str], seconds: float) -> None:
        share = sum(a == b for a, b in zip(found, right, strict=True)) / len(right)
        error = math.sqrt(share * (1 - share) / len(right))
        metrics = {"accuracy": share, "standard_error": error}
        rows.append({"way": way, "records": count, "seconds": round(seconds), "metrics": metrics})
        print(f"{way:8} {count:7,} {share:.3f} ± {error:.3f}  {seconds:5.0f} s", flush=True)

    def labels(glm: glmkit.GLM) -> list[str]:
        found = glm.classify([one["text"] for one in valid], arguments.task, batch_size=32)
        return [one.label for one in found]

    row("none", 0, labels(glmkit.load(arguments.model, device="cpu")), 0.0)
    for count in arguments.records:
        part = few(known, count)
        began = time.monotonic()
        row("tf-idf", len(part), tf_idf(part, valid, label), time.monotonic() - began)
        for way in arguments.ways:
            with tempfile.TemporaryDirectory() as folder:
                began = time.monotonic()
                glm = tune(way, part, Path(folder), arguments)
                seconds = time.monotonic() - began
                row(way, len(part), labels(glm), seconds)
    return rows


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="glm-mini")
    parser.add_argument("--task", default="sentiment")
    parser.add_argument(
        "--records", type=lambda t: [int(n) for n in t.split(",")], default=[64, 256, 1024]
    )
    parser.add_argument("--ways", type=lambda text: text.split(","), default=list(WAYS))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--valid", type=int, default=1000, help="held-out records to measure")
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--about", default="", help="of the model, for the page")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args(given)
    began = time.monotonic()
    rows = results(arguments)
    seconds = round(time.monotonic() - began)
    values = {"environment": environment(), "seconds": seconds, "rows": rows}
    if arguments.write:
        command = (
            f"python benchmarks/bench_finetune.py DATA --model {Path(arguments.model).name} --task {arguments.task} "
            f"--records {','.join(map(str, arguments.records))} --ways {','.join(arguments.ways)} --epochs {arguments.epochs} "
            f"--valid {arguments.valid} --max-length {arguments.max_length} --write"
        )
        about = f"{arguments.about} Accuracy on {arguments.valid} records of `valid`; seconds are of training, on a shared core."
        title = f"Fine-tuning on {arguments.task}: ways and numbers of records"
        table = metrics_table(("way", "records", "seconds"), rows)
        page = write_table_page(f"finetune-{arguments.task}", title, about, table, values, command)
        print(page)
    print(json.dumps(values))


if __name__ == "__main__":
    main()
