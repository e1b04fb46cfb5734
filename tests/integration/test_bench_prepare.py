from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_prepare.py"


@pytest.mark.slow
def test_the_contenders_agree():
    """A minute: two vocabularies are trained. glmkit and datasets write the same tokens."""
    pytest.importorskip("datasets")
    done = subprocess.run([sys.executable, BENCHMARK, "--smoke"], capture_output=True, text=True, check=True)  # fmt: skip
    *table, line = done.stdout.splitlines()
    rows = {row.split()[0]: row.split() for row in table[2:]}
    assert list(rows) == ["glmkit", "datasets", "sentencepiece"]
    assert rows["glmkit"][-1] == rows["datasets"][-1]
    assert json.loads(line)["characters_per_second"].keys() == rows.keys()


@pytest.mark.slow
def test_memory_is_measured():
    done = subprocess.run([sys.executable, BENCHMARK, "--smoke", "--memory"], capture_output=True, text=True, check=True)  # fmt: skip
    assert 50 < json.loads(done.stdout.splitlines()[-1])["peak_mib"] < 2000
