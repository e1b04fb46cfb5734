"""Pages of the documentation that no other test knows: their Python runs as it stands, with the embedded model."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from markdown_blocks import blocks, quotations

from glmkit.cli import main
from glmkit.evaluation import metrics
from glmkit.multimodal import encoders

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [DOCS / "index.md", DOCS / "faq.md", *sorted((DOCS / "extend").glob("*.md"))]
PAGES += sorted((DOCS / "tutorial").glob("*.md"))
PAGES += [DOCS / "guides" / f"{name}.md" for name in ("convert", "from-thudm-code", "from-hub-code", "footguns", "out-of-memory", "ecosystem")]  # fmt: skip
PAGES = [page for page in PAGES if ".zh." not in page.name]


def code(page: Path) -> str:
    """Returns the Python of a page without comments and layout, which differ by language."""
    return ast.unparse(ast.parse("\n".join(blocks(page.read_text("utf-8"), "python"))))


TRAINS = ("04-pretraining.md", "05-finetuning.md")


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page.name in TRAINS)) for page in PAGES],
    ids=lambda page: f"{page.parent.name}/{page.name}",
)
def test_python_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What a page registers is gone after it; other tests look at what glmkit has.
    monkeypatch.setattr(metrics, "METRICS", dict(metrics.METRICS))
    monkeypatch.setattr(encoders, "ENCODERS", dict(encoders.ENCODERS))
    monkeypatch.setattr(main, "VERBS", main.VERBS)
    names: dict = {}
    for block in blocks(page.read_text("utf-8"), "python"):
        exec(compile(block, page.name, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_both_languages_have_the_same_code(page: Path):
    chinese = page.with_suffix(".zh.md")
    assert code(page) == code(chinese)
    assert quotations(page.read_text("utf-8")) == quotations(chinese.read_text("utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_quoted_lines_are_those_of_the_source(page: Path):
    """A block with title="path" shows lines of that file, in their order; `...` stands for lines left out."""
    for path, body in quotations(page.read_text("utf-8")):
        lines = iter((ROOT / path).read_text("utf-8").splitlines())
        for wanted in filter(str.strip, body.splitlines()):
            if wanted.strip() != "...":
                assert any(line.strip() == wanted.strip() for line in lines), f"{path}: {wanted}"
