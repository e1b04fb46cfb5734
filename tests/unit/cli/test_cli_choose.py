"""glmkit choose: in pipes, as JSON, in both languages, and in a real terminal, where it asks."""

from __future__ import annotations

import io
import json
import os
import pty
import shlex
import subprocess
import sys

import pytest
from test_cli import run


def test_a_table_in_both_languages():
    given = ("choose", "--task", "summarize", "--examples", "5000", "--gpu", "1x24GB")
    english = run(*given, "--language", "zh")
    assert english.returncode == 0
    assert "10b-chinese, LoRA:" in english.stdout
    assert "summaries, 5000 examples, language zh" in english.stdout
    chinese = run(*given, GLMKIT_LANG="zh")
    assert "摘要，5000 条样本，语言 zh" in chinese.stdout
    assert "10b-chinese, LoRA:" in chinese.stdout
    assert "language en" in run(*given).stdout


def test_json_and_latency():
    given = ("--task", "sentiment", "--gpu", "cpu:16GB", "--latency", "20ms", "--language", "zh")
    done = run("choose", *given, "--json")
    values = json.loads(done.stdout)
    assert values["best"] == "glm-mini"
    assert values["request"]["latency_seconds"] == 0.02


def test_the_commands_that_it_recommends_exist():
    import typer

    from glmkit.cli.main import build_app

    commands = typer.main.get_command(build_app()).commands
    for task, gpu in (("sentiment", "2x24GB"), ("poem", "cpu:8GB"), ("article", "16GB")):
        for examples in (0, 5000):
            done = run("choose", "--task", task, "--gpu", gpu, "--examples", str(examples), "--json")  # fmt: skip
            values = json.loads(done.stdout)
            for option in values["ranking"] + values["others"]:
                words = shlex.split(option["command"])
                words = words[words.index("glmkit") + 1 :]
                known = {name for one in commands[words[0]].params for name in one.opts}
                assert {word for word in words if word.startswith("-")} <= known


def test_without_a_terminal_it_says_what_to_write():
    done = run("choose")
    assert done.returncode == 2
    assert "glmkit choose --task summarize" in done.stderr
    wrong = run("choose", "--task", "summarizze")
    assert wrong.returncode == 2
    assert "did you mean" in wrong.stderr


ANSWERS = "summarizze\nsummarize\nzh\nmany\n5000\n1x24GB\n\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_it_asks_and_asks_again(monkeypatch, capsys):
    from glmkit.cli.main import main

    monkeypatch.setenv("GLMKIT_LANG", "en")
    monkeypatch.setattr("sys.argv", ["glmkit", "choose"])
    monkeypatch.setattr("sys.stdin", Terminal(ANSWERS))
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    captured = capsys.readouterr()
    assert "did you mean 'summarize'" in captured.err
    assert "'many' is no number of examples" in captured.err
    assert "10b-chinese, LoRA:" in captured.out


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo-terminals")
def test_in_a_real_terminal():
    ours, theirs = pty.openpty()
    environment = {**os.environ, "GLMKIT_LANG": "en", "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, "-m", "glmkit", "choose"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    os.close(theirs)
    os.write(ours, ANSWERS.encode())
    output = process.communicate(timeout=60)[0].decode()
    os.close(ours)
    assert process.returncode == 0
    assert "did you mean 'summarize'" in output
    assert "10b-chinese, LoRA:" in output
