"""The benchmark of explanations runs on two texts of each kind, and its page has their tables."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

import glmkit
from understanding_samples import random_glm

pytest.importorskip("captum", reason="captum is not installed")

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
import bench_explain

RECORDS = {
    "sentiment": [{"text": "送餐太慢了，菜都凉了。"}, {"text": "好"}, {"text": "很快，好吃，味道足，量大。"}],
    "poems": [{"lines": ["床前明月光，疑是地上霜。"]}, {"lines": ["白日依山尽，黄河入海流。"]}],
}  # fmt: skip


@pytest.mark.slow
def test_it_measures_and_writes(tmp_path: Path, monkeypatch, capsys):
    for kind, records in RECORDS.items():
        with gzip.open(tmp_path / f"{kind}.valid.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in records)
    monkeypatch.setattr(glmkit, "load", lambda *_, **__: random_glm())
    monkeypatch.setattr(bench_explain, "environment", lambda: {"date": "2026-11-01", "hardware": "a machine", "commit": "c"})  # fmt: skip
    written = {}
    monkeypatch.setattr(bench_explain, "write_table_page", lambda *page, **_: written.update(page=page) or tmp_path)  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["bench", "--data", str(tmp_path), "--smoke", "--write"])
    bench_explain.main()
    values = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert values["sentiment"]["texts"] == values["poems"]["texts"] == 2
    assert values["sentiment"]["complete"] == 1
    assert set(values["poems"]["removals"]) == {"drop", "mask"}
    for method in ("integrated_gradients", "ablation", "attention_rollout", "random"):
        assert method in values["sentiment"]["removals"]["drop"]
    table = written["page"][3]
    assert table.count("| integrated gradients |") == 4
    assert table.count("| ablation (mean) |") == 2
