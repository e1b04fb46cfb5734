"""The documentation's site builds without a warning and works from files: nothing in it is fetched from elsewhere."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FETCHED = re.compile(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//[^"]+"')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip(
        "material", reason="mkdocs-material is not installed: pip install glmkit[docs]"
    )
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_builds_strictly_and_needs_no_network(site: Path):
    pages = sorted(site.rglob("*.html"))
    for page in pages:
        assert not FETCHED.search(page.read_text("utf-8")), page
    names = {page.relative_to(site).as_posix() for page in pages}
    sources = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    for source in sources:
        name = source.as_posix().removesuffix(".md")
        wanted = f"zh/{name.removesuffix('.zh')}.html" if name.endswith(".zh") else f"{name}.html"
        assert wanted in names
    chinese = (site / "zh" / "tutorial" / "03-model.html").read_text("utf-8")
    assert "<math" in chinese
    assert "arithmatex" not in chinese


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_links_lead_to_files(site: Path):
    for page in sorted(site.rglob("*.html")):
        for link in re.findall(r'(?:href|src)="([^"#?]+)[^"]*"', page.read_text("utf-8")):
            if not re.match(r"https?:|mailto:|data:|javascript:", link) and page.name != "404.html":
                assert (page.parent / link).exists(), f"{page}: {link}"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_chinese_can_be_searched(site: Path):
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    found = [one for one in index["docs"] if one["location"].startswith("zh/tutorial/01-blanks")]
    assert any("\u200b" in one["text"] for one in found), "Chinese is not divided into words"


def test_every_page_has_a_place_in_the_navigation(monkeypatch: pytest.MonkeyPatch):
    """Pages that mkdocs.yml does not name are added at the end of their folder's section."""
    pytest.importorskip("latex2mathml")
    pytest.importorskip("mkdocs")
    from mkdocs.config.defaults import MkDocsConfig

    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    hooks = importlib.import_module("hooks")
    config = MkDocsConfig()
    config.load_dict({"docs_dir": str(ROOT / "docs"), "nav": [{"Guides": [{"One": ["guides/serve.md"]}]}, {"Extend": []}]})  # fmt: skip
    config = hooks.on_config(config)
    named = list(hooks._pages(config.nav))
    assert len(named) == len(set(named))
    assert {f"guides/{name}.md" for name in ("serve", "poems", "footguns")} <= set(named)
    assert named[named.index("extend/index.md") - 1].startswith("guides/")
    sys.modules.pop("hooks")


@pytest.mark.slow
def test_figures_are_drawn_by_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from glmkit.errors import UserError

    figures = importlib.import_module("figures")
    try:
        written = figures.main(tmp_path)
    except UserError as error:  # no font with Chinese characters on this machine
        pytest.skip(str(error))
    shipped = {path.name for path in (ROOT / "docs" / "tutorial" / "figures").glob("*.png")}
    assert {path.name for path in written} == shipped
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in written)
    sys.modules.pop("figures")
