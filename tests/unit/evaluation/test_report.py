"""`glmkit evaluate`: the report on files, by the command and by the function."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import golden_folder
from glmkit.api import load
from glmkit.cli import measuring
from glmkit.errors import ConfigError, DataError
from glmkit.evaluation.report import evaluate_files

TEXTS = ["春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。" * 4, "The quick brown fox. " * 12, "短"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text(
        "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in TEXTS), "utf-8"
    )
    return path


def test_report_agrees_with_glm_and_with_itself(corpus: Path):
    glm = load(golden_folder("tiny-chinese").path, device="cpu")
    report = evaluate_files(glm, [corpus])
    assert report.documents == 3
    assert set(report.measures) == {
        "left to right",
        "blanks: token",
        "blanks: sentence",
        "blanks: document",
    }
    expected = glm.perplexity(TEXTS, unit="character")
    assert report.measures["left to right"].perplexity("character") == pytest.approx(expected)
    again = evaluate_files(glm, [corpus], batch_size=1)
    assert again.data_fingerprint == report.data_fingerprint
    for name, sums in report.measures.items():
        assert again.measures[name].tokens == sums.tokens
        assert again.measures[name].log_probability == pytest.approx(sums.log_probability)
    other = evaluate_files(glm, [corpus], seed=1)
    assert other.measures["blanks: token"] != report.measures["blanks: token"]
    assert other.measures["left to right"] == report.measures["left to right"]


def test_command_prints_a_table_and_writes_json(corpus: Path, tmp_path: Path, capsys):
    folder = golden_folder("tiny-bert").path
    measuring.evaluate(
        [str(corpus)], [str(folder)], limit=2, output=tmp_path / "new" / "report.json", device="cpu"
    )
    shown = capsys.readouterr().out
    assert "on 2 documents" in shown
    assert "left to right" in shown
    saved = json.loads((tmp_path / "new" / "report.json").read_text("utf-8"))
    assert saved["measures"]["left to right"]["bits_per_character"] > 0
    assert saved["documents"] == 2
    assert saved["versions"]["glmkit"]


def test_no_text_is_an_error(tmp_path: Path):
    (tmp_path / "empty.jsonl").write_text('{"text": " "}\n', "utf-8")
    with pytest.raises(DataError, match=r"empty\.jsonl"):
        evaluate_files(load(golden_folder("tiny-bert").path), [tmp_path / "empty.jsonl"])


def test_options_of_tasks_are_refused_without_tasks(corpus: Path):
    """They were ignored."""
    with pytest.raises(ConfigError, match="--by, --rename and --json go with tasks"):
        measuring.evaluate([str(corpus)], by="kind")
