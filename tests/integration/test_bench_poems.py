from __future__ import annotations

import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from glmkit.applications.poetry.forms import forms

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_poems.py"


def benchmark():
    spec = importlib.util.spec_from_file_location("bench_poems", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_longest_shared_run_against_brute_force():
    training = ["春眠不觉晓处处闻啼鸟", "夜来风雨声花落知多少", "床前明月光"]
    texts = ["春眠不觉晓夜来风雨声", "我见处处闻啼鸟花落知", "花落知多", "花落知", "", "床前明月光"]

    def brute(text: str) -> int:
        runs = [len(g) for n in range(4, 11) for g in (text[i : i + n] for i in range(len(text) - n + 1))
                if any(g in one for one in training)]  # fmt: skip
        return max(runs, default=0)

    assert benchmark().longest_shared(texts, training) == [brute(text) for text in texts]
    assert benchmark().longest_shared(texts, training) == [5, 5, 4, 0, 0, 5]
    assert benchmark().distinct(["春春春", "春秋"], 2) == 2 / 3


@pytest.mark.slow
def test_the_benchmark_runs_and_every_poem_obeys(tmp_path: Path):
    """Ten seconds: a process of its own, which imports torch and writes a poem of every form."""
    from poem_samples import random_glm

    glm = random_glm()
    glm.model.save_pretrained(tmp_path / "model")
    glm.tokenizer.save_pretrained(tmp_path / "model")
    for split in ("train", "valid"):
        with gzip.open(tmp_path / f"poems.{split}.jsonl.gz", "wt", encoding="utf-8") as file:
            record = {
                "title": "登鹳雀楼",
                "lines": ["白日依山尽，黄河入海流。", "欲穷千里目，更上一层楼。"],
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    command = [
        sys.executable,
        BENCHMARK,
        "--smoke",
        "--model",
        tmp_path / "model",
        "--data",
        tmp_path,
    ]
    done = subprocess.run(
        [*command, "--device", "cpu", "--rhyme", "pingshui", "--out", tmp_path / "poems.jsonl"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(done.stdout.splitlines()[-1])["forms"]
    assert set(rows) == {*forms(), "all"}
    assert rows["all"]["obey"] == 1.0
    assert rows["all"]["shared_max"] <= 4
    assert rows["五言绝句"]["poets"] == 1.0
    assert rows["七言绝句"]["poets"] is None
    assert len((tmp_path / "poems.jsonl").read_text(encoding="utf-8").splitlines()) == len(forms())
