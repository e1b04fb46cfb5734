"""The benchmark of generation on a GPU: its check and its page everywhere, and all of it at a tiny size on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bench_generate_gpu

    return bench_generate_gpu


def test_its_check_reads_the_same_logits_with_both_runners(benchmark):
    found = benchmark.check("cpu")
    assert found["passed"]
    assert found["runner"] == "GraphRunner"
    assert found["logits"] > 60


def test_the_table_counts_bytes_and_the_best_peer(benchmark):
    """At 1,000 tokens a second of 0.71 GB of weights and a cache of 19 MB, 727 GB/s of 1,454 are half."""
    values = {
        "new": 128,
        "ceilings": {"copy_gb_s": 1450.0, "matmul_tflop_s": 500.0},
        "results": {
            "large": {
                "glmkit graphs": {"decode 1": [900.0, 1000.0, 1100.0], "step 1": [0.0008], "decode 256": [4e4]},
                "gpt2 dynamic": {"decode 1": [100.0], "decode 256": "OutOfMemoryError: too much"},
                "llama dynamic": {"decode 1": [125.0]},
            }
        },
    }  # fmt: skip
    weights, per_token = benchmark.sizes((24, 1024, 16, 50048, 1024))
    assert (weights, per_token) == (2 * (12 * 24 * 1024**2 + 50048 * 1024), 4 * 24 * 1024)
    ours, peer, _ = benchmark.table(values).splitlines()[2:]
    assert ours.startswith("| large | glmkit graphs | 1,000 | 50% | 0.80 |")
    assert "| failed |" in peer
    assert "| large | 8.00 × llama dynamic |" in benchmark.ratios(values)


@pytest.mark.slow
def test_it_runs_on_a_cpu(tmp_path):
    command = [sys.executable, BENCHMARKS / "bench_generate_gpu.py", "--device", "cpu", "--shapes", "tiny"]  # fmt: skip
    command += ["--seconds", "100", "--rounds", "1", "--new", "4", "--batches", "1"]
    variables = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*map(str, command), "--out", str(tmp_path / "found.json")],
        capture_output=True, text=True, timeout=100, env=variables, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "CHECK PASS" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert json.loads(done.stdout.splitlines()[-1])["results"] == found["results"]
    assert set(found["results"]["tiny"]) == {
        "glmkit graphs", "glmkit torch", "gpt2 dynamic", "gpt2 static", "llama dynamic", "llama static",
    }  # fmt: skip
    assert not found["errors"]
    assert all(isinstance(one["decode 1"], list) for one in found["results"]["tiny"].values())
