"""`glmkit demo` in two halves: the applications on a model, and the shortened pipeline, twice in one folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from conftest import golden_folder
from glmkit import GLMForConditionalGeneration, GLMTokenizer, embedded
from glmkit.cli.demo import corpus, demo, pipeline, showcase
from glmkit.cli.demo.screen import Screen
from glmkit.cli.demo.showcase import ACTS
from glmkit.errors import CheckpointError


def test_every_application_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("GLMKIT_LANG", "en")
    demo(tmp_path, steps=0, model=str(golden_folder("tiny-chinese").path))
    shown = capsys.readouterr().out
    for call in ("fill", "poem", "sentiment", "classify", "answer", "summarize", "chat"):
        assert f">>> glm.{call}(" in shown
    assert shown.count("\n== ") == len(ACTS) + 2
    assert "\x1b" not in shown, "a log has no colours"
    assert not list(tmp_path.iterdir())


def test_it_speaks_chinese(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setenv("GLMKIT_LANG", "zh")
    monkeypatch.setattr(showcase, "ACTS", ACTS[2:3])
    demo(steps=0, model=str(golden_folder("tiny-chinese").path))
    shown = capsys.readouterr().out
    for words in ("情感分析", "好评", "差评", "万参数", "接下来"):
        assert words in shown


def test_a_picture_is_described(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    pytest.importorskip("peft")
    monkeypatch.setenv("GLMKIT_LANG", "zh")
    showcase.seeing(Screen())
    shown = capsys.readouterr().out
    assert "example.png" in shown
    for words in ("红色方形", "a purple cross", "三个"):
        assert words in shown
    monkeypatch.setattr(showcase, "find_spec", lambda name: None)
    showcase.seeing(Screen())
    assert "略过" in capsys.readouterr().out


def test_a_terminal_shows_pictures_in_colours(tmp_path: Path, capsys: pytest.CaptureFixture):
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "half.png"
    picture = image.new("RGB", (64, 64), (200, 30, 30))
    picture.paste((10, 20, 250), (0, 2, 64, 64))
    picture.save(path)
    screen = Screen()
    screen.console = Console(force_terminal=True, color_system="truecolor", width=80)
    screen.terminal = True
    screen.picture(path)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 16
    assert lines[0].count("▀") == 32
    assert "38;2;200;30;30" in lines[0]
    assert "48;2;10;20;250" in lines[-1]


def test_a_checkout_without_the_embedded_model_still_pretrains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("GLMKIT_LANG", "en")
    monkeypatch.setattr(embedded, "ASSETS", tmp_path)
    runs = []

    def run_pipeline(screen: Screen, output: Path, steps: int) -> None:
        runs.append((output, steps))

    monkeypatch.setattr(pipeline, "run_pipeline", run_pipeline)
    demo(tmp_path / "run", steps=7)
    shown = capsys.readouterr().out
    assert "no glm-mini yet" in shown
    assert "what next" in shown
    assert runs == [(tmp_path / "run", 7)]
    with pytest.raises(CheckpointError, match="recipes/glm-mini/train.sh"):
        demo(tmp_path / "run", steps=0)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_pipeline_runs_from_corpus_to_filled_blanks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("GLMKIT_LANG", "en")
    monkeypatch.setattr(pipeline, "VOCAB_SIZE", 1000)
    # the package's own docstrings and documents are enough here
    monkeypatch.setattr(corpus, "documentation_strings", lambda: iter(()))
    for _ in range(2):
        report = pipeline.run_pipeline(Screen(), tmp_path, steps=3)
    shown = capsys.readouterr().out
    for words in ("corpus", "vocabulary", "untrained", "trained"):
        assert words in shown
    assert report.steps == 3
    assert (tmp_path / "run" / "loss.png").stat().st_size > 1000
    GLMForConditionalGeneration.from_pretrained(tmp_path / "run" / "model")


def test_hidden_words_are_single_tokens_of_suitable_lines():
    tokenizer = GLMTokenizer.from_pretrained(golden_folder("tiny-chinese").path)
    texts = [
        "short",
        "它把[MASK]文本里被遮住的词语都写出来，从左到右，一个接着一个，直到结尾为止。",
        "它把每一个文本里被遮住的词语都写出来，从左到右，一个接着一个，直到结尾为止。",
        "`code` " * 9,
    ]
    [(text, word)] = pipeline.questions(texts, tokenizer)
    assert text.replace("[MASK]", word) == texts[2]
    assert len(tokenizer.tokenize(word)) == 1


def test_bars_and_marks_are_plain_in_a_log(capsys: pytest.CaptureFixture):
    screen = Screen()
    screen.bars([("好评", 0.75), ("no", 0.25)])
    screen.marked("一二三四", 1, 3)
    screen.line("[MASK] is no markup")
    bars, marked = capsys.readouterr().out.split("一", 1)
    assert bars.count("#") == 24
    assert ">>二三<<四" in marked
    assert "[MASK] is no markup" in marked
