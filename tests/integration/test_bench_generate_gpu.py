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
    assert found["logits"] > 120


def test_the_table_counts_bytes_and_the_best_peer(benchmark):
    """At 1,000 tokens a second of 0.71 GB of weights and a cache of 19 MB, 727 GB/s of 1,454 are half."""
    values = {
        "new": 128,
        "rounds": 3,
        "ceilings": {"copy_gb_s": 1450.0, "matmul_tflop_s": 500.0},
        "results": {
            "large": {
                "glmkit graphs": {"decode 1": [900.0, 1000.0, 1100.0], "step 1": [0.0008], "decode 256": [4e4], "prefill 1": [5e5], "pass 1": [0.001]},
                "glmkit int8": {"decode 1": [1500.0]},
                "gpt2 dynamic": {"decode 1": [100.0], "decode 256": "OutOfMemoryError: too much"},
                "llama dynamic": {"decode 1": [125.0]},
            }
        },
    }  # fmt: skip
    weights, per_token = benchmark.sizes((24, 1024, 16, 50048, 1024))
    assert (weights, per_token) == (2 * (12 * 24 * 1024**2 + 50048 * 1024), 4 * 24 * 1024)
    ours, small, peer, _ = benchmark.table(values).splitlines()[2:]
    assert ours.startswith("| large | glmkit graphs | 1,000 | 50% | 0.80 | 63% |")
    assert small.startswith(
        "| large | glmkit int8 | 1,500 | 38% |"
    )  # half the weights, all of the cache
    assert "| failed |" in peer
    assert "| large | graphs | 8.00 × llama dynamic |" in benchmark.ratios(values)
    assert "| large | int8 | 12.00 × llama dynamic |" in benchmark.ratios(values)


def test_a_prefill_takes_its_products_and_its_bytes_at_least(benchmark):
    """512 tokens of glm-large: 335 GFLOP, and 0.71 GB of weights with 50 MB of keys and values."""
    ceilings = {"copy_gb_s": 1000.0, "matmul_tflop_s": 500.0}
    products, moved = benchmark.floor((24, 1024, 16, 50048, 1024), 1, ceilings)
    assert products == pytest.approx(512 * 24 * (24 * 1024**2 + 4 * 512 * 1024) / 500e12)
    assert moved == pytest.approx((706e6 + 50e6) / 1e12, rel=0.01)
    results = {"large": {"glmkit graphs": {"prefill 1": [512e3], "pass 1": [0.0009]}, "gpt2 dynamic": {"prefill 1": [51.2e3]}}}  # fmt: skip
    page = benchmark.floors({"ceilings": ceilings, "results": results})
    assert "| large | 1 × 512 | 0.67 | 0.76 | 0.76 | 0.90 | 1.00 |  | 10.00 | 13.2 |" in page


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
        "glmkit graphs", "glmkit int8", "glmkit graphs one", "glmkit int8 one", "glmkit torch", "gpt2 dynamic", "gpt2 static", "llama dynamic",
    }  # fmt: skip
    assert not found["errors"]
    assert all(isinstance(one["decode 1"], list) for one in found["results"]["tiny"].values())
