from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from finetune_samples import reviews, write_model

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_tuning.py"


@pytest.mark.slow
def test_the_benchmark_measures_each_part_and_goes_on(tmp_path):
    for name, seed in (("train", 0), ("valid", 1)):
        lines = (json.dumps(record, ensure_ascii=False) for record in reviews(60, seed))
        with gzip.open(tmp_path / f"sentiment.{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(lines))
    model = write_model(tmp_path / "model")
    options = ["--mini", model, "--plain", model, "--work", tmp_path / "work", "--short", 48]
    command = [sys.executable, BENCHMARK, tmp_path, *options, "--smoke"]
    done, again = (
        subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert [(row["part"], row["way"]) for row in rows] == [
        (part, way) for part in ("tasks", "joint", "few") for way in ("none", "full")
    ]
    for row in rows:
        found = row["found"]["sentiment"]
        assert found["examples"] == 60
        assert found["low"] <= found["value"] <= found["high"]
        assert (row["trained"] > 0) == (row["way"] == "full")
    assert json.loads(again.stdout.splitlines()[-1])["rows"] == rows  # nothing was trained again
    assert "| records | cloze | head |" in again.stderr
