"""The benchmark of what fewer bits cost runs on a few records."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import golden_folder
from glmkit.native import library

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_quantization.py"


@pytest.mark.slow
def test_every_format_is_measured(shared_data: Path):
    if (reason := library.why_not()) is not None:
        pytest.skip(reason)
    done = subprocess.run(
        [
            sys.executable,
            BENCHMARK,
            "--data",
            shared_data,
            "--model",
            golden_folder("tiny-chinese").path,
            "--smoke",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    formats = json.loads(done.stdout.splitlines()[-1])["formats"]
    sizes = [one["MB"] for one in formats.values()]
    assert sizes == sorted(sizes, reverse=True)
    base, eight = (formats[name]["text:poems.valid"] for name in ("float32", "int8"))
    assert 0 < abs(eight / base - 1) < 0.01  # rounded, and little the worse for it
