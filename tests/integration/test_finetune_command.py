"""The command finetune: words, options and recipes become one run; answers that are written are counted; mistakes are named."""

from __future__ import annotations

import json

import pytest
import typer
from finetune_samples import base_model, reviews, write_jsonl
from typer.testing import CliRunner

from glmkit.cli.main import build_app
from glmkit.errors import UserError

base = base_model()


def run(*words):
    return CliRunner().invoke(build_app(), ["finetune", *map(str, words)], catch_exceptions=False)


def test_answers_are_counted_before_and_after(base, tmp_path):
    records = [
        {"passage": f"老板{n}，味道好。", "question": "味道？", "answers": ["好"]}
        for n in range(20)
    ]
    data = write_jsonl(tmp_path / "qa.jsonl", records)
    words = (base, "qa", "--data", data, "--rename", "context=passage", "-o", tmp_path / "run")
    options = ("--lora", 2, "--measure", 3, "trainer.max_steps=2", "trainer.use_cpu=true")
    done = run(*words, *options)
    assert done.exit_code == 0
    assert "written answers, LoRA of rank 2" in done.stdout
    numbers = json.loads((tmp_path / "run" / "answers.json").read_text())["qa"]
    for key in ("exact_match", "f1"):
        assert (
            f"qa {key}  {numbers['before'][key]:.3f} -> {numbers['after'][key]:.3f}" in done.stdout
        )
    lines = (tmp_path / "run" / "predictions" / "qa.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == numbers["examples"] <= 3
    assert (
        run(*words, *options).stdout == done.stdout
    )  # finished: nothing is trained or asked again


def test_mistakes_are_named(base, tmp_path):
    data = write_jsonl(tmp_path / "data.jsonl", reviews(20))
    with pytest.raises(
        UserError, match="there is one MODEL and one TASK; files of records go behind"
    ):
        run(base, "sentiment", data, "--data", data)
    with pytest.raises(UserError, match="--data, --valid, --rename and --limit belong to a task"):
        run(base, "--data", data)
    with pytest.raises(UserError, match=r"nothing to learn from: give --data FILE.*text, label"):
        run(base, "sentiment")
    with pytest.raises(UserError, match=r"no file is named"):
        run(base, "sentiment", "tasks.sentiment.train=[]")
    for words in ((), (base,)):
        with pytest.raises(UserError, match="glmkit finetune MODEL TASK --data FILE, or --recipe"):
            run(*words)
    with pytest.raises(UserError, match="no task 'sentimental'; did you mean 'sentiment'"):
        run(base, "sentimental", "--data", data)
    with pytest.raises(UserError, match="did you mean 'label_smoothing'"):
        run(base, "sentiment", "--data", data, "label_smothing=0.1")


def test_help_is_in_both_languages(monkeypatch):
    verbs = {}
    for language in ("en", "zh"):
        monkeypatch.setenv("GLMKIT_LANG", language)
        command = typer.main.get_command(build_app()).commands["finetune"]
        verbs[language] = [
            command.help,
            *(one.help for one in command.params if getattr(one, "help", None)),
        ]
    assert all(a != b for a, b in zip(verbs["en"], verbs["zh"], strict=True))
