"""The benchmark of the harness runs on real texts, and both sides agree."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from evaluation_samples import tiny_glm

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: glmkit[harness]")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))


def test_harness_and_glmkit_agree(shared_data: Path, tmp_path: Path, monkeypatch):
    import bench_harness

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = bench_harness.measure(tiny_glm(positions=256), shared_data, tmp_path, 4)
    assert [one["task"] for one in rows] == ["last_word_zh", "ending_zh", "last_word_en", "ending_en"]  # fmt: skip
    for one in rows:
        assert one["questions"] == 4
        assert one["harness"] == pytest.approx(one["glmkit"], rel=1e-4)
        assert one["largest_gap_nats"] < 1e-2
