"""The command, run as a person runs it: good calls, wrong calls, pipes, both languages."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from conftest import golden_folder
from glmkit.checkpoint.architecture import Architecture


@dataclass
class Result:
    returncode: int
    stdout: str
    stderr: str


def run(
    *arguments: str, stdin: str | bytes = "", encoding: str = "utf-8", **environment: str
) -> Result:
    """Runs the command in this process, as its entry point does, in a terminal of an encoding."""
    from glmkit.cli.main import main

    raw = io.BytesIO()
    out, err, status = io.TextIOWrapper(raw, encoding), io.StringIO(), 0
    given = stdin.encode(encoding) if isinstance(stdin, str) else stdin
    variables = {"GLMKIT_LANG": "en", "COLUMNS": "100", **environment}
    with (
        mock.patch.dict(os.environ, variables),
        mock.patch("sys.argv", ["glmkit", *arguments]),
        mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(given), encoding)),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    out.flush()
    return Result(status, raw.getvalue().decode(encoding), err.getvalue())


@pytest.fixture
def model() -> str:
    return str(golden_folder("tiny-chinese").path)


def test_help_lists_every_verb_in_both_languages():
    from glmkit.cli.main import VERBS

    english, chinese = run("--help"), run("--help", GLMKIT_LANG="zh")
    assert english.returncode == chinese.returncode == 0
    assert len({name for name, *_ in VERBS}) == len(VERBS)
    for name, _, english_help, chinese_help in VERBS:
        assert name in english.stdout
        assert english_help in english.stdout
        assert chinese_help in chinese.stdout
    assert run("--version").stdout.startswith("glmkit 0.1.0")


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "glmkit", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("glmkit 0.1.0")


def test_a_mistake_is_all_that_is_printed():
    """Training imports PEFT, and that bitsandbytes, which warns of what it lacks on a CPU: that is no business of the user."""
    pytest.importorskip("peft")
    command = [sys.executable, "-m", "glmkit", "finetune", "glm-mini", "sentimnet"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: there is no task 'sentimnet'; did you mean 'sentiment'?")
    assert done.stderr.count("\n") == 1


def test_chinese_help_is_whole_in_a_narrow_terminal():
    """Rich cut every sentence that was wider than its column, and the names of long options."""
    from glmkit.cli.controlling import LEADING
    from glmkit.cli.decoding import CHINESE

    environment = {**os.environ, "GLMKIT_LANG": "zh", "COLUMNS": "80", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "glmkit", "fill", "--help"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, env=environment)  # fmt: skip
    shown = "".join(done.stdout.split())
    for sentence in (*CHINESE.values(), *(chinese for *_, chinese in LEADING)):
        assert "".join(sentence.split()) in shown
    assert "--prompt-lookup-num-tokens" in shown


def test_without_a_verb_it_greets_with_commands_that_exist():
    from glmkit.cli.main import VERBS

    english, chinese = run(GLMKIT_LANG="en_US.UTF-8"), run(GLMKIT_LANG="zh_CN.UTF-8")
    assert english.returncode == chinese.returncode == 0
    assert "Three things to try" in english.stdout
    assert "先试这三样" in chinese.stdout
    for greeting in (english, chinese):
        commands = re.findall(r"^  glmkit (\S+)", greeting.stdout, re.MULTILINE)
        assert len(commands) == 3
        assert set(commands) | {"demo"} <= {name for name, *_ in VERBS}


def test_the_embedded_model_is_the_default(monkeypatch, model: str):
    import glmkit.embedded

    monkeypatch.setattr(glmkit.embedded, "ASSETS", Path(model).parent)
    missing = run("fill", "床前[MASK]光", GLMKIT_MODEL="")
    assert missing.returncode == 2
    assert "'glm-mini' is a model that comes with glmkit" in missing.stderr
    filled = run("fill", "床前[MASK]光", "--max-new-tokens", "2", GLMKIT_MODEL=model)
    assert filled.stdout.startswith("床前")


@pytest.mark.parametrize(
    "verb", ["fill", "generate", "chat", "score", "prepare", "pretrain", "demo"]
)
def test_every_verb_has_help(verb: str):
    result = run(verb, "--help")
    assert result.returncode == 0
    assert "Usage" in result.stdout


def test_fill_prints_text_or_json(model: str):
    text = "北京是中国的[MASK]，[MASK]。"
    plain = run("fill", text, "-m", model, "--max-new-tokens", "3")
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.startswith("北京是中国的")
    assert "MASK" not in plain.stdout
    record = json.loads(
        run("fill", "-m", model, "--json", "--max-new-tokens", "3", stdin=text + "\n").stdout
    )
    assert record["text"] == plain.stdout.strip()
    assert len(record["blanks"]) == len(record["scores"]) == 2


def test_texts_of_another_encoding_are_said_so_and_what_a_terminal_lacks_is_escaped(model: str):
    """Both ended in a traceback: text of GBK on standard input, and a face in a terminal of GBK."""
    for verb in ("fill", "chat"):
        piped = run(verb, "-m", model, stdin="春眠不觉晓".encode("gbk"))
        assert piped.returncode == 2
        assert "standard input is not utf-8: convert it (iconv -f GBK" in piped.stderr
    arguments = ("fill", "😀[MASK]", "-m", model, "--max-new-tokens", "2")
    assert run(*arguments, encoding="gbk").stdout.startswith("\\U0001f600")
    assert run(*arguments).stdout.startswith("😀")


def test_generate_streams_what_json_gives(model: str):
    arguments = ("generate", "今天天气", "-m", model, "--max-new-tokens", "5")
    streamed, record = run(*arguments), run(*arguments, "--json")
    assert streamed.stdout.strip() == json.loads(record.stdout)["text"]


def test_fill_shows_the_likeliest_with_probabilities(model: str):
    arguments = (
        "fill",
        "北京是[MASK]市，[MASK]。",
        "-m",
        model,
        "--n-best",
        "3",
        "--max-new-tokens",
        "2",
    )
    table, record = run(*arguments), json.loads(run(*arguments, "--json").stdout)
    probabilities = [candidate["probability"] for candidate in record["candidates"]]
    assert len(probabilities) == 3
    assert probabilities == sorted(probabilities, reverse=True)
    lines = table.stdout.splitlines()
    assert "probability" in lines[0]
    for line, candidate in zip(lines[1:], record["candidates"], strict=True):
        assert line.split()[0] == f"{candidate['probability']:.1%}"
        assert candidate["text"].split()[0] in line
    assert run(*arguments, "--do-sample").returncode == 2


def test_stop_strings_are_given_one_by_one(model: str):
    arguments = ("generate", "今天天气", "-m", model, "--max-new-tokens", "5")
    written = run(*arguments).stdout.strip()
    stopped = run(*arguments, "--stop", written[2], "--stop", "\\n")
    assert stopped.stdout.strip() == written.split(written[2])[0]
    assert run(*arguments, "--stop", "").returncode == 2


def test_articles_stream_what_json_gives(model: str):
    arguments = ("article", "长城", "-m", model, "--max-characters", "20", "--max-new-tokens", "30")
    arguments += ("--outline", "起源", "--outline", "今天")
    for more in (("--seed", "1"), ("--no-do-sample",)):
        streamed, record = run(*arguments, *more), run(*arguments, *more, "--json")
        assert streamed.returncode == 0, streamed.stderr
        assert streamed.stdout.startswith("长城\n起源\n")
        assert streamed.stdout.rstrip() == json.loads(record.stdout)["text"].rstrip()
    assert run(*arguments, "--no-do-sample", "--top-p", "0.5").returncode == 2


def test_chat_answers_a_turn_a_line_and_remembers(model: str):
    options = ("-m", model, "--max-new-tokens", "4")
    piped = run("chat", *options, "--json", stdin="你好\n再见\n/reset\n再见\n/quit\n你好\n")
    records = [json.loads(line) for line in piped.stdout.splitlines()]
    assert [record["user"] for record in records] == ["你好", "再见", "再见"]
    given = run("chat", "你好", "再见", *options)
    assert given.stdout.splitlines() == [record["reply"] for record in records[:2]]
    alone = run("chat", "再见", *options)
    assert alone.stdout.strip() == records[2]["reply"] != records[1]["reply"]
    told = run("chat", "再见", *options, "--system", "请用英文回答")
    assert told.returncode == 0
    assert run("chat", *options).stdout == ""


def test_score_reads_lines(model: str):
    result = run("score", "-m", model, "--json", stdin="春眠不觉晓\nHello world\n")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["text"] for record in records] == ["春眠不觉晓", "Hello world"]
    assert all(record["log_probability"] < 0 for record in records)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fil",), ("No such command", "fill")),
        (("fill", "x", "-m", "/no/such/folder"), ("/no/such/folder",)),
        (("fill", "x", "-m", "MODEL", "--temperature", "2"), ("need do_sample=True",)),
        (("fill", "-m", "MODEL"), ("standard input is empty",)),
        (("fill", "x", "-m", "MODEL", "--device", "gpu9"), ("gpu9", "cpu")),
        (("fill", "x", "-m", "MODEL", "--dtype", "int3"), ("int3", "bfloat16")),
        (("score", "x", "-m", "MODEL", "--nonsense"), ("--nonsense",)),
        (("convert", "MODEL", "OUT", "--to", "onnx"), ("onnx", "megatron")),
        (("prepare", "/no/such.jsonl", "-o", "OUT", "-t", "MODEL"), ("/no/such.jsonl",)),
        (("train-tokenizer", "/no/such.jsonl", "-o", "OUT"), ("/no/such.jsonl",)),
        (("pretrain", "/no/such.yaml"), ("/no/such.yaml",)),
    ],
)
def test_mistakes_are_explained(model: str, tmp_path: Path, arguments, words):
    """Status 2 and a message that names what was given; never a traceback, nothing half written."""
    named = {"MODEL": model, "OUT": str(tmp_path / "out")}
    result = run(*(named.get(word, word) for word in arguments))
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    message = " ".join(result.stderr.split())
    assert all(word in message for word in words), message
    assert not (tmp_path / "out").exists()


def test_info_counts_the_parameters_of_an_unusual_width(tmp_path: Path):
    """It took the MLP for four times as wide as the rest."""
    config = Architecture(hidden_size=64, num_attention_heads=4, num_layers=2, intermediate_size=80)
    config.save(tmp_path)
    facts = json.loads(run("info", str(tmp_path), "--json").stdout)
    assert facts["parameters"] == f"{config.num_parameters:,}"


def test_info_and_convert(model: str, tmp_path: Path):
    facts = json.loads(run("info", model, "--json").stdout)
    assert facts["format"] == "hub"
    assert facts["vocab_size"] == 50048
    assert "torch" in run("info").stdout
    result = run("convert", model, str(tmp_path / "out"), "--to", "megatron", "--shards", "2")
    assert result.returncode == 0, result.stderr
    assert "largest difference" in result.stdout


def test_a_closed_pipe_is_no_error(model: str):
    """`glmkit … | head -1` ends quietly."""
    command = (
        f"{sys.executable} -c 'from glmkit.cli.main import main; main()' info {model} | head -1"
    )
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr


def test_prepare_a_task(tmp_path):
    from glmkit.tokens.train import train_tokenizer

    train_tokenizer(["总的来说，很好。评价很差。"] * 20, 330, "bpe").save_pretrained(tmp_path / "t")
    records = [{"review": f"第{n}次来", "label": n % 2} for n in range(40)]
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    (tmp_path / "data.jsonl").write_text(lines, encoding="utf-8")
    command = ["prepare", str(tmp_path / "data.jsonl"), "-o", str(tmp_path / "out")]
    command += ["-t", str(tmp_path / "t"), "--task", "sentiment", "--valid-ratio", "0.1"]
    wrong = run(*command)
    assert wrong.returncode == 2
    assert "has no field 'text'" in wrong.stderr
    done = run(*command, "--rename", "text=review")
    assert done.returncode == 0, done.stderr
    assert "task sentiment: 40 records, 40 samples" in done.stdout
    assert (tmp_path / "out" / "train" / "store.json").is_file()


def test_poem_writes_lists_and_checks(model: str, tmp_path: Path):
    listed = run("poem", "--list")
    assert "七言绝句" in listed.stdout
    assert "huanxisha" in listed.stdout
    arguments = [
        "poem",
        "春",
        "秋",
        "--form",
        "五绝",
        "--candidates",
        "1",
        "--seed",
        "1",
        "-m",
        model,
    ]
    plain, as_json = run(*arguments), run(*arguments, "--json")
    assert plain.returncode == as_json.returncode == 0, plain.stderr
    poems = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert [poem["title"] for poem in poems] == ["春", "秋"]
    assert plain.stdout.splitlines()[:3] == ["春 · 五言绝句", *poems[0]["lines"]]
    file = tmp_path / "poem.txt"
    file.write_text("\n".join(poems[0]["lines"]), encoding="utf-8")
    checked = run("poem", "--check", str(file), "--form", "五绝")
    assert (checked.returncode, checked.stdout) == (0, "It keeps the form 五绝.\n")
    broken = run("poem", "--check", "-", "--form", "五绝", "--json", stdin="春眠不觉晓")
    assert broken.returncode == 1
    assert json.loads(broken.stdout)["violations"] == ["1 verses; a 五言绝句 has 4"]
    missing = run("poem", "--check", str(tmp_path / "no"))
    assert missing.returncode == 2
    assert "cannot be read" in missing.stderr
