from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_loss.py"


@pytest.mark.slow
def test_the_benchmark_runs_and_its_losses_agree():
    """Twelve seconds: each contender is a process of its own, which imports torch."""
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--smoke"], capture_output=True, text=True, check=True
    )
    *table, line = done.stdout.splitlines()
    assert [row.split()[0] for row in table[2:]] == ["predicted", "full", "backbone"]
    medians = json.loads(line)["medians"]
    assert medians["predicted"]["loss"] == pytest.approx(medians["full"]["loss"], rel=1e-5)
