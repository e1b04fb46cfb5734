from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_blanks.py"


@pytest.mark.slow
def test_the_benchmark_runs_and_measures_every_objective():
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--smoke"], capture_output=True, text=True, check=True
    )
    *table, line = done.stdout.splitlines()
    names = [row[:12].strip() for row in table[2:]]
    assert names == ["token", "sentence", "document", "published", "with tasks", "training"]
    result = json.loads(line)
    assert all(one["tokens_per_second"] > 0 for one in result["medians"].values())
    # With the sentence objective alone, short samples of one sentence have nothing to hide: rows stay emptier.
    assert all(
        0 <= one["padding"] < (0.6 if name == "sentence" else 0.2)
        for name, one in result["medians"].items()
    )
    assert 0 <= result["training"]["data_wait_ratio"] < 1
