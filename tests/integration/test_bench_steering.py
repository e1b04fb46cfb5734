"""The benchmark of steering runs with a judge of 200 reviews and one draw of each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_steering.py"


@pytest.mark.slow
def test_every_way_is_measured(shared_data: Path):
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--data", shared_data, "--smoke"],
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["rows"]) == 7
    assert result["judge_accuracy"] > 0.6
    for row in result["rows"]:
        assert 0 <= min(row["positive"], row["negative"]) <= 1
        assert row["bits"] > 0
    free = result["rows"][0]
    assert free["positive"] + free["negative"] == pytest.approx(1)  # the same texts
