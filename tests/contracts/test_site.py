"""The documentation's site builds without a warning and works from files: nothing in it is fetched from elsewhere."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from browser_samples import Person

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
@pytest.mark.parametrize("served", [False, True])
@pytest.mark.parametrize(
    ("page", "words", "found"),
    [
        ("quickstart.html", "checkpoint", "/guides/convert.html"),
        ("zh/guides/serve.html", "空白", "/zh/guides/control.html"),
        ("zh/guides/serve.html", "GLMConfig", "/zh/api/model.html"),
    ],
)
def test_a_page_finds_its_own_language(site: Path, tmp_path: Path, page: str, words: str, found: str, served: bool):  # fmt: skip
    """The index had both languages, and that of pages that are files had Chinese alone."""
    person = Person(tmp_path, "zh-CN")
    handler = partial(SimpleHTTPRequestHandler, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            root = f"http://127.0.0.1:{server.server_port}" if served else site.as_uri()
            person.driver.get(f"{root}/{page}")
            person.one(".md-search__input").click()
            person.one(".md-search__input").send_keys(words)
            person.wait(lambda: person.all(".md-search-result__link"))
            links = [one.get_attribute("href").removeprefix(root) for one in person.all(".md-search-result__link")]  # fmt: skip
            assert found in {link.partition("?")[0] for link in links}
            assert {link.startswith("/zh/") for link in links} == {page.startswith("zh/")}
            person.driver.get(root + links[0])
            assert person.one("h1").text
        finally:
            person.driver.quit()
            server.shutdown()


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
