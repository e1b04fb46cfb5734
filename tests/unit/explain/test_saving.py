"""Pages, pictures and the command: what they show, what they refuse, and that a text in them cannot act."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from glmkit.errors import UserError
from glmkit.explain import fonts, page
from glmkit.explain.results import Attention, Explanation
from glmkit.explain.segments import segments
from understanding_samples import random_glm
from unit.cli.test_cli import run

pytest.importorskip("captum", reason="captum is not installed")

ATTACK = "<script>alert(1)</script>&\"'</textarea> $x^2$ {好} [MASK]。"


@pytest.fixture(scope="module")
def attacked() -> Explanation:
    return random_glm().explain(ATTACK, blanks=["</script><b>"], methods="ablation")


def evidence(text: str) -> dict:
    """Returns the data in a page."""
    [found] = re.findall(
        r'<script type="application/json" id=evidence>(.*?)</script>', text, re.DOTALL
    )
    return json.loads(found)


def test_a_page_escapes_its_texts(attacked: Explanation, tmp_path: Path):
    text = attacked.save(tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "</textarea>" not in text
    assert "<b>" not in text
    assert text.count("<script") == 3
    assert html.escape("<script>alert(1)</script>") in text
    data = evidence(text)
    assert "".join(part for part, *_ in data["evidence"][0]["segments"]) == attacked.filled
    script = (Path(page.__file__).parent / "page.js").read_text(encoding="utf-8")
    assert "innerHTML" not in script
    assert "insertAdjacentHTML" not in script


def test_a_page_needs_no_network(attacked: Explanation):
    text = page.page(attacked)
    assert not re.search(r"(src|href)\s*=|@import|url\(|fetch\(|https?://", text)
    assert "prefers-color-scheme:dark" in text
    assert "class=zh" in text


def test_a_notebook_gets_the_page_in_a_frame(attacked: Explanation):
    frame = attacked._repr_html_()
    [source] = re.findall(r'srcdoc="([^"]*)"', frame)
    assert html.unescape(source) == page.page(attacked)


def test_maps_of_a_page_are_near_the_weights_and_averaged_where_they_are_many(monkeypatch):
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(5), (2, 3, 5)).astype(np.float32)
    found = Explanation("a", "a", "blanks", (), attention=(Attention(tuple("abcde"), 3, weights),))
    data = evidence(page.page(found))["attention"][0]
    assert (data["layers"], data["heads"], data["prefix"]) == (2, 3, 3)
    import base64

    bytes_ = np.frombuffer(base64.b64decode(data["weights"]), np.uint8).reshape(weights.shape)
    np.testing.assert_allclose((bytes_ / 255.0) ** 2, weights, atol=0.004)
    assert "averaged" not in page.page(found)
    for budget, layers, means in ((60, 2, "heads"), (30, 1, "heads and layers")):
        monkeypatch.setattr(page, "MAX_WEIGHTS", budget)
        text = page.page(found)
        data = evidence(text)["attention"][0]
        assert (data["layers"], data["heads"]) == (layers, 1)
        assert f": {means} are averaged" in text


def test_segments_join_to_the_filled_text():
    found = random_glm().explain("好吃 [MASK]足，\n[MASK]。", blanks=["", "大"], methods=[])
    for one in found.evidence:
        parts = segments(found, one)
        assert "".join(part.text for part in parts).replace("∅", "") == "好吃 足，\n大。"
        assert {part.blank for part in parts} == {None, 0, 1}
        assert {part.unit for part in parts} - {None} == set(range(len(one.units)))


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.gif", "ends with .html, .png"), ("nowhere/x.html", "there is no folder")],
)
def test_a_wrong_path_is_refused(attacked: Explanation, tmp_path: Path, name: str, message: str):
    with pytest.raises(UserError, match=message):
        attacked.save(tmp_path / name)


def test_a_picture_of_chinese_needs_a_font(attacked: Explanation, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(fonts, "_candidates", lambda: [])
    with pytest.raises(UserError, match="apt-get install fonts-noto-cjk"):
        attacked.save(tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
    assert fonts.families("plain text") == ["DejaVu Sans"]


def test_the_font_that_has_most_of_the_characters_is_taken(monkeypatch):
    monkeypatch.setattr(fonts, "_candidates", lambda: [("A", "a"), ("B", "b"), ("C", "c")])
    has = {"a": "一", "b": "一二", "c": "一二三"}
    monkeypatch.setattr(fonts, "_characters", lambda path: frozenset(map(ord, has[path])))
    assert fonts.families("一二x")[0] == "B"
    assert fonts.families("一二三")[0] == "C"


def test_pictures_are_drawn(tmp_path: Path):
    """Of a text without Chinese, which every machine can draw, `$` and several lines in it."""
    glm = random_glm()
    text = "The room was $1 [MASK] and\nthe staff"
    found = glm.explain(text, blanks=["clean"], methods="ablation")
    object.__setattr__(found, "evidence", tuple(_latin(one) for one in found.evidence))
    for name in ("x.png", "x.svg"):
        assert found.save(tmp_path / name).stat().st_size > 10_000
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def _latin(one):
    """Returns evidence whose layers guess nothing that needs a font."""
    from dataclasses import replace

    top = tuple(tuple(("a", share) for _, share in row) for row in one.lens.top)
    return replace(one, lens=replace(one.lens, top=top))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("model")
    glm = random_glm()
    glm.model.save_pretrained(path)
    glm.tokenizer.save_pretrained(path)
    return str(path)


def test_the_command_explains(folder: str, tmp_path: Path):
    made = run("explain", "好吃，[MASK]足", "--blank", "味道", "-m", folder, "--method", "ablation")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("好吃，味道足\nblank 1: 味道")
    assert "integrated_gradients" not in made.stdout
    made = run("explain", "好吃，味道足", "--task", "sentiment", "-m", folder, "--json")
    assert json.loads(made.stdout)["kind"] == "label"
    path = tmp_path / "x.html"
    made = run(
        "explain", "-m", folder, "-o", str(path), "--max-new-tokens", "2", stdin="好吃\n很快"
    )
    assert made.stdout == f"{path}\n"
    assert evidence(path.read_text(encoding="utf-8"))["evidence"][0]["name"] == "blank 1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b"], "2 texts were given; explain takes one"),
        (
            ["好[MASK]", "--blank", "a", "--blank", "b"],
            "the text has 1 blanks, given was 2 contents",
        ),
        (["好", "--method", "saliency"], "there is no method 'saliency'"),
        (["好", "--baseline", "zero"], "must be one of mask, pad, mean"),
        (["好", "--task", "sentimant"], "did you mean 'sentiment'"),
        (["好", "--task", "sentiment", "--blank", "a"], "a label is not written into a text"),
        (["好", "--label", "positive"], "is of a classification"),
        (["好", "--labels", "体育"], "must be at least two"),
        (["好", "--task", "sentiment", "--language", "fr"], "choose zh or en"),
        (["好", "-o", "x.gif"], "ends with .html"),
    ],
)
def test_wrong_arguments_are_said(folder: str, arguments: list[str], message: str):
    made = run("explain", *arguments, "-m", folder)
    assert made.returncode == 2
    assert message in made.stderr
    assert "Traceback" not in made.stderr


def test_its_help_is_in_both_languages():
    assert "Why was this written" in run("explain", "--help").stdout
    assert "解释" in run("explain", "--help", GLMKIT_LANG="zh").stdout
