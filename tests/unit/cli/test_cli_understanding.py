"""The verbs that understand texts, run as a person runs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from test_cli import run

from understanding_samples import CONTEXT, TEXTS, random_glm

TOPICS = 10


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    glm = random_glm(192)
    glm.model.save_pretrained(folder)
    glm.tokenizer.save_pretrained(folder)
    return str(folder)


def records(stdout: str) -> list[dict]:
    return [json.loads(line) for line in stdout.splitlines()]


def test_sentiment_of_arguments_and_of_standard_input(model: str):
    result = run("sentiment", *TEXTS[:2], "-m", model)
    assert result.returncode == 0, result.stderr
    for line, text in zip(result.stdout.splitlines(), TEXTS, strict=False):
        assert line.endswith(text)
        assert line.split()[0] in {"positive", "negative"}
    found = records(run("sentiment", "-m", model, "--json", stdin="好\n差\n").stdout)
    assert [one["text"] for one in found] == ["好", "差"]
    assert set(found[0]["probabilities"]) == {"positive", "negative"}


def test_classify_by_topic_labels_and_template(model: str):
    [topic] = records(run("classify", "港股缩量回调", "-m", model, "--json").stdout)
    assert len(topic["probabilities"]) == TOPICS
    [own] = records(
        run("classify", "中超", "--labels", "体育， 财经", "--template", "{text}属于[MASK]", "-m", model, "--json").stdout
    )  # fmt: skip
    assert list(own["probabilities"]) == ["体育", "财经"]
    wrong = run("classify", "中超", "--task", "topic", "-m", model)
    assert wrong.returncode == 2
    assert "did you mean 'topics'" in wrong.stderr


def test_answer_from_an_argument_and_a_pipe(model: str):
    options = ("-m", model, "--no-answer", "凯旋门" * 9)  # the random model likes empty blanks
    [found] = records(run("answer", "门在哪里？", CONTEXT, *options, "--json").stdout)
    assert CONTEXT[found["start"] : found["end"]] == found["text"] != ""
    assert run("answer", "门在哪里？", *options, stdin=CONTEXT).stdout.strip() == found["text"]
    nothing = ("answer", "门在哪里？", CONTEXT, "-m", model, "--no-answer-threshold", "1")
    assert run(*nothing).stdout.strip() == "(no answer)"
    assert run(*nothing, GLMKIT_LANG="zh").stdout.strip() == "（无答案）"
    assert "no question was given" in run("answer", " ", CONTEXT, "-m", model).stderr


def test_summaries_a_line_or_of_the_whole(model: str):
    lines = run("summarize", "-m", model, "--max-characters", "5", stdin="很快。\n好吃。\n")
    assert [1 <= len(line) <= 5 for line in lines.stdout.splitlines()] == [True, True]
    [whole] = records(
        run("summarize", "-m", model, "--whole", "--json", stdin="很快。\n好吃。\n").stdout
    )
    assert whole["text"] == "很快。\n好吃。"
    assert whole["summary"]


@pytest.mark.parametrize("verb", ["sentiment", "classify", "answer", "summarize"])
def test_help_and_wrong_languages(verb: str, model: str):
    assert "Usage" in run(verb, "--help").stdout
    texts = ["问题", "文本"] if verb == "answer" else ["文本"]
    wrong = run(verb, *texts, "-m", model, "--language", "fr")
    assert (wrong.returncode, "choose zh or en" in wrong.stderr) == (2, True)


def test_calibrate_with_what_preparation_held_out(model: str, tmp_path):
    """The records are those that `prepare --task` put aside, and the next `sentiment` uses what was fitted."""
    data = tmp_path / "reviews.jsonl"
    lines = [
        {"text": f"第{n}次点，{'好吃' if n % 2 else '难吃'}。", "label": n % 2} for n in range(60)
    ]
    data.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    before = run("sentiment", TEXTS[0], "-m", model, "--json").stdout
    folder = tmp_path / "prepared"
    prepared = run(
        "prepare", str(data), "--task", "sentiment", "-o", str(folder), "-t", model, "--valid-ratio", "0.4"
    )  # fmt: skip
    assert prepared.returncode == 0, prepared.stderr
    arguments = ("calibrate", model, "--data", str(data), "--held-out", "0.4", "--json")
    [found] = records(run(*arguments).stdout)
    held_out = json.loads((folder / "report.json").read_text(encoding="utf-8"))["valid"]
    assert found["records"] == held_out
    assert found["loss_after"] < found["loss_before"]
    after = run("sentiment", TEXTS[0], "-m", model, "--json").stdout
    assert after != before
    again = run("calibrate", model, "--data", str(data), "--no-bias")
    assert "sentiment" in again.stdout
    assert "no records are left" in run(*arguments[:-2], "0").stderr
    Path(found["file"]).unlink()
    data.write_text('{"text": "好吃", "label": 7}\n', encoding="utf-8")
    wrong = run("calibrate", model, "--data", str(data))
    assert "reviews.jsonl:1: the label '7' is not one of" in wrong.stderr
    assert not Path(found["file"]).exists()


def test_a_fine_tuned_models_own_task_is_asked(model: str, tmp_path):
    folder = tmp_path / "tuned"
    shutil.copytree(model, folder)
    (folder / "tasks").mkdir()
    own = "name: own\nkind: classification\nmetric: accuracy\nfields: {text: a, label: b}\nlabel: label\n"
    own += 'labels: {"x": {zh: 好}, "y": {zh: 差}}\npatterns: {zh: ["{text}[MASK]"]}\n'
    (folder / "tasks" / "own.yaml").write_text(own, encoding="utf-8")
    [found] = records(run("classify", "很快", "-m", str(folder), "--json").stdout)
    assert set(found["probabilities"]) == {"x", "y"}
    [topic] = records(
        run("classify", "很快", "-m", str(folder), "--task", "topics", "--json").stdout
    )
    assert len(topic["probabilities"]) == TOPICS
