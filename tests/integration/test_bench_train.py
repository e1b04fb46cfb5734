from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_train.py"


@pytest.mark.slow
def test_the_benchmark_runs_and_both_learn_nothing_yet():
    """Ten seconds: each contender is a process of its own, which imports torch."""
    command = [sys.executable, BENCHMARK, "--smoke", "--dtypes", "float32", "--contenders"]
    done = subprocess.run([*command, "glmkit", "gpt2"], capture_output=True, text=True, check=True)
    *table, line = done.stdout.splitlines()
    assert [row.split()[0] for row in table[2:]] == ["glmkit", "gpt2"]
    ours, peers = json.loads(line)["results"]
    for row in (ours, peers):  # random weights: as good as guessing among 512
        assert abs(row["loss"] - math.log(512)) < 0.2
        assert row["tokens_per_second"] > 0
    assert peers["predicted"] == 1.0
    assert 0.1 < ours["predicted"] < 0.7
