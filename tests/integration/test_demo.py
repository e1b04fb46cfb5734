"""`glmkit demo`, shortened: the whole pipeline from raw text to filled blanks, twice in one folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from glmkit import GLMForConditionalGeneration
from glmkit.cli import demo


@pytest.mark.timeout(300)
def test_demo_runs_from_corpus_to_filled_blanks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("GLMKIT_LANG", "en")
    monkeypatch.setattr(demo, "VOCAB_SIZE", 1000)
    # the package's own docstrings and documents are enough here
    monkeypatch.setattr(demo, "_documentation_strings", lambda: iter(()))
    for _ in range(2):
        demo.demo(tmp_path, steps=3)
    shown = capsys.readouterr().out
    for words in ("1/5", "5/5", "untrained", "trained", "[MASK]", "What next"):
        assert words in shown
    assert (tmp_path / "run" / "loss.png").stat().st_size > 1000
    GLMForConditionalGeneration.from_pretrained(tmp_path / "run" / "model")
