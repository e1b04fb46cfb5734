from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import golden_folder

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_constraints.py"


@pytest.mark.slow
def test_the_benchmark_runs_and_measures_every_constraint():
    pytest.importorskip("llguidance")
    folder = golden_folder("tiny-chinese").path
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--tokenizer", folder, "--smoke"],
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["rows"]) == 9
    assert result["decode_step_ms"] > 0
    assert all(row["median_ms"] > 0 for row in result["rows"])
