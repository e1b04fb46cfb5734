"""The benchmark of choosing tokens runs, and both of its contenders choose."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_sampling.py"


@pytest.mark.slow
def test_the_benchmark_measures_all_settings():
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--smoke"], capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["rows"]) == 6
    assert all(row["glmkit"] > 0 and row["transformers"] > 0 for row in result["rows"])
