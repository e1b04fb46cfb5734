"""The benchmark of guesses runs; how many passes they save depends on how many are right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from glmkit.native import library

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_speculation.py"


@pytest.mark.slow
def test_smoke():
    if (reason := library.why_not()) is not None:
        pytest.skip(reason)
    command = [sys.executable, BENCHMARK, "--smoke", "--formats", "int8"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    passes = {row["written"]: row["passes"] for row in rows}
    assert passes["alone"] == passes["assistant, 4 guesses, 0% right"] == 17
    assert passes["assistant, 4 guesses, 100% right"] == 4
    assert passes["assistant, 8 guesses, 100% right"] == 2
    assert all(row["tokens_per_second"] > 0 for row in rows)
