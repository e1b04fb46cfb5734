"""The benchmark of the server runs: its own server, transformers' beside it, right answers, memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_smoke():
    for package in ("openai", "httpx2", "psutil", "llguidance"):
        pytest.importorskip(package)
    command = [sys.executable, ROOT / "benchmarks" / "bench_serve.py", "--smoke", "--soak", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["mixed"]["wrong"] == report["soak"]["wrong"] == []
    assert sum(report["mixed"]["right"].values()) == 42
    assert sum(report["mixed"]["refused"].values()) == 12
    assert report["mixed"]["left"] == 6
    assert report["mixed"]["idle_afterwards"]
    assert len(report["soak"]["memory"]["mib"]) >= 3
    rows = {(row["who"], row.get("at_once")): row for row in report["speed"]["rows"]}
    for who in ("glmkit serve, int8", "glmkit serve, float32", "transformers serve"):
        assert rows[who, 4]["tokens_per_second"] > 0
        assert 0 < rows[who, 4]["first_p50_ms"] <= rows[who, 4]["first_p99_ms"]
