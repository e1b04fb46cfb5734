from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from finetune_samples import reviews, write_model

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_finetune.py"


@pytest.mark.slow
def test_the_benchmark_compares_ways_on_the_same_records(tmp_path):
    for name, seed in (("train", 0), ("valid", 1)):
        lines = (json.dumps(record, ensure_ascii=False) for record in reviews(60, seed))
        with gzip.open(tmp_path / f"sentiment.{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(lines))
    model = write_model(tmp_path / "model")
    options = [
        "--records",
        "48",
        "--ways",
        "head",
        "--epochs",
        "1",
        "--valid",
        "40",
        "--max-length",
        "64",
    ]
    command = [sys.executable, BENCHMARK, tmp_path, "--model", model, *options]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    *table, line = done.stdout.splitlines()
    assert [row.split()[0] for row in table] == ["none", "tf-idf", "head"]
    rows = json.loads(line)["rows"]
    assert [row["records"] for row in rows] == [0, 48, 48]
    assert rows[1]["metrics"]["accuracy"] > 0.8  # one word tells the label
    assert 0.2 < rows[0]["metrics"]["accuracy"] < 0.8
