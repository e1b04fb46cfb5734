"""The benchmark of a cold start runs and reports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_smoke():
    command = [sys.executable, ROOT / "benchmarks" / "bench_start.py", "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    report = json.loads(done.stdout.splitlines()[-1])
    assert set(report["seconds"]) == {"glmkit --version", "glmkit (greeting)"}
    for values in report["seconds"].values():
        assert values["cpu"] > 0
        assert 0 < values["wall"] <= values["first_wall"]
