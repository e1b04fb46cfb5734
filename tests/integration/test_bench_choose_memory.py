"""The memory formulas against resident memory: a tiny model always, three published sizes among the slow tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "results" / "choose-memory_cpu_2026-11.md"

linux = pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="resident memory is read from /proc"
)


def results(*arguments: str) -> list[dict]:
    command = [sys.executable, ROOT / "benchmarks" / "bench_choose_memory.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])["results"]


@linux
@pytest.mark.slow
def test_smoke():
    """Other libraries' first use is a larger part of so little memory."""
    (one,) = results("--smoke", "--works", "fill")
    assert one["estimated"] == pytest.approx(one["measured"], rel=0.2)


@linux
@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("work", ["fill", "full", "lora"])
def test_three_sizes_within_a_tenth(work):
    pytest.importorskip("peft")
    found = results("--works", work, "--presets", "smoke", "base", "large")
    assert len(found) == 3
    for one in found:
        assert one["estimated"] == pytest.approx(one["measured"], rel=0.1), one


def test_the_page_has_three_sizes_within_a_tenth():
    ratios = re.findall(
        r"^\| \w+ \| \w+ \|.*\| ([\d.]+) \|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    assert len(ratios) == 9
    assert all(0.9 < float(ratio) < 1.1 for ratio in ratios)
