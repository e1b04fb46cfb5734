"""The quickstart's Python runs as written, the same in both languages."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_blocks import blocks

from conftest import golden_folder
from glmkit import embedded

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _some_glm_mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """glm-mini, or where it is not shipped yet a tiny random model under its name."""
    if not (embedded.ASSETS / "glm-mini").is_dir():
        (tmp_path / "glm-mini").symlink_to(golden_folder("tiny-chinese").path.resolve())
        monkeypatch.setattr(embedded, "ASSETS", tmp_path)


def test_python_runs_from_top_to_bottom(capsys: pytest.CaptureFixture):
    names: dict = {}
    python = blocks((ROOT / "docs" / "quickstart.md").read_text("utf-8"), "python")
    for block in python:
        exec(compile(block, "quickstart.md", "exec"), names)
    assert len(python) >= 6
    assert names["poem"].form == "七言绝句"
    assert names["context"][names["answer"].start : names["answer"].end] == names["answer"].text
    assert "床前" in capsys.readouterr().out


def test_both_languages_have_the_same_python():
    """But for comments, which are in the guide's language."""
    english, chinese = (
        [line.split("  #")[0] for block in blocks((ROOT / "docs" / name).read_text("utf-8"), "python") for line in block.splitlines()]
        for name in ("quickstart.md", "quickstart.zh.md")
    )  # fmt: skip
    assert english == chinese
