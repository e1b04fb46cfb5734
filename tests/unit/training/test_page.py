from __future__ import annotations

import base64
import re

from glmkit.training.page import CHARTS, flat, write_page

HISTORY = [
    {"step": 0, "eval_loss": 9.0, "eval_token_loss": 8.5, "eval_document_loss": 9.5},
    *(
        {"step": s, "loss": 9 - s / 10, "loss_token": 8.0, "learning_rate": 1e-3, "grad_norm": 1.0,
         "tokens_per_second": 100.0, "peak_memory_gib": 1.5, "mfu": 0.4}
        for s in range(1, 11)
    ),
]  # fmt: skip


def write(tmp_path, history=HISTORY, **changes):
    facts = {
        "summary": {("steps", "步数"): "10 / 20"},
        "settings": {"data": {"folder": "语料"}, "trainer": {"output_dir": "<b>run</b>", "kwargs": {}}},
        "environment": {"torch": "2"},
        **changes,
    }  # fmt: skip
    write_page(tmp_path / "report.html", "运行 & run", history, **facts)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def pictures(page: str) -> list[bytes]:
    return [base64.b64decode(one) for one in re.findall(r"data:image/png;base64,([^\"]+)", page)]


def test_one_file_holds_everything(tmp_path):
    page = write(tmp_path)
    assert not re.search(r"(src|href)=.?(http|/|\.)|@import|url\(", page)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert all(one.startswith(b"\x89PNG") and len(one) > 2000 for one in pictures(page))
    titles = re.findall(r'alt="([^"]+)"', page)
    assert titles == [chart.title[0] for chart in CHARTS]


def test_it_is_in_both_languages_and_nothing_breaks_out(tmp_path):
    page = write(tmp_path)
    for chart in CHARTS:
        for language, text in zip(("en", "zh"), chart.title, strict=True):
            assert f"<span class={language}>{text}</span>" in page
    assert "步数" in page
    assert "<b>run</b>" not in page
    assert "&lt;b&gt;run&lt;/b&gt;" in page
    assert "<title>运行 &amp; run</title>" in page


def test_only_what_was_logged_is_drawn(tmp_path):
    titles = re.findall(r'alt="([^"]+)"', write(tmp_path, HISTORY[:1]))
    assert titles == ["Loss", "Held-out loss by objective"]
    assert not pictures(write(tmp_path, []))


def test_resumes_are_marked(tmp_path):
    plain = write(tmp_path)
    page = write(tmp_path, resumes=[{"step": 5, "time": "2026-01-02 03:04:05+00:00"}])
    assert "2026-01-02 03:04:05+00:00" in page
    assert "Dashed lines" in page
    assert "Dashed lines" not in plain
    assert all(a != b for a, b in zip(pictures(plain), pictures(page), strict=True))


def test_flat_settings():
    assert flat({"a": {"b": 1, "c": {"d": 2}}, "e": {}}) == {"a.b": 1, "a.c.d": 2, "e": {}}
