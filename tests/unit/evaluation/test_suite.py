"""Several tasks in one folder: what is written, what is done again, what is refused; by function and command."""

from __future__ import annotations

import json

import pytest
import torch

from evaluation_samples import POEMS, TALKS, tiny_glm, write_records
from glmkit.cli import measuring
from glmkit.errors import ConfigError, DataError
from glmkit.evaluation.provenance import weights_fingerprint
from glmkit.evaluation.suite import evaluate_tasks, parse_runs
from glmkit.tasks.task import catalog


@pytest.fixture(scope="module")
def glm():
    return tiny_glm()


@pytest.fixture
def data(tmp_path):
    return {
        "poems": str(write_records(tmp_path / "poems.valid.jsonl", POEMS)),
        "talks": str(write_records(tmp_path / "talks.jsonl", TALKS)),
    }


def lines(folder) -> list[dict]:
    return [
        json.loads(line) for line in (folder / "predictions.jsonl").read_text("utf-8").splitlines()
    ]


def test_results_say_what_they_were_made_of(glm, data, tmp_path):
    runs = parse_runs(["text", "poem_word"], [data["poems"], f"dialogue={data['talks']}"][:1])
    report = evaluate_tasks(glm, runs, tmp_path / "out", model_name="tiny", by="kind")
    saved = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert saved["model"] == "tiny"
    assert list(saved["runs"]) == ["text:poems.valid", "poem_word:poems.valid"]
    for key in ("seed", "parameters", "weights_fingerprint", "versions", "commit"):
        assert key in saved
    assert saved["versions"]["sacrebleu"]
    run = saved["runs"]["text:poems.valid"]
    assert run["examples"] == 3
    assert len(run["data_fingerprint"]) == 64
    assert run["metrics"]["bits_per_character"]["value"] > 0
    assert set(run["groups"]) == {"kind=诗", "kind=verse"}
    assert len(lines(tmp_path / "out")) == 6
    table = (tmp_path / "out" / "table.md").read_text("utf-8")
    assert report.table() in table
    assert "| text | poems.valid, kind=诗 | 2 | bits_per_character |" in table


def test_what_is_done_is_not_done_again_and_what_changed_is(glm, data, tmp_path):
    out = tmp_path / "out"
    seen = []

    def run(*tasks: str, model=glm, **options) -> list[str]:
        """Returns the runs that were really done."""
        seen.clear()
        progress = lambda name, result: seen.append((name, result is not None))  # noqa: E731
        evaluate_tasks(model, parse_runs(tasks, [data["poems"]]), out, progress=progress, **options)
        return [name.split(":")[0] for name, done in seen if done]

    assert run("poem_word") == ["poem_word"]
    before = lines(out)
    assert run("poem_word", "text") == ["text"]
    assert run("poem_word", "text") == []
    assert lines(out)[:3] == before
    assert run("text", limit=2) == ["text"]
    assert len(lines(out)) == 5
    write_records(tmp_path / "poems.valid.jsonl", POEMS[::-1])
    assert run("poem_word") == ["poem_word"]
    assert run("poem_word", seed=1) == ["poem_word"]
    # other weights: nothing of the old ones may stay
    assert run("text", model=tiny_glm(seed=1), seed=1) == ["text"]
    assert {one["run"] for one in lines(out)} == {"text:poems.valid"}


def test_an_interrupted_suite_goes_on(glm, data, tmp_path):
    runs = parse_runs(["poem_word", "text"], [data["poems"]])

    def stop(name, result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_tasks(glm, runs, tmp_path / "out", progress=stop)
    done = []
    evaluate_tasks(glm, runs, tmp_path / "out", progress=lambda name, result: done.append(result))
    assert done[0] is None
    assert done[1] is not None
    whole = evaluate_tasks(glm, runs)
    saved = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))["runs"]
    for name, run in whole.runs.items():
        assert saved[name]["metrics"].keys() == run["metrics"].keys()
        for metric, number in run["metrics"].items():
            assert saved[name]["metrics"][metric]["value"] == pytest.approx(number["value"])


def test_fingerprints_tell_weights_apart():
    one, same, other = tiny_glm(), tiny_glm(), tiny_glm(seed=1)
    assert weights_fingerprint(one.model) == weights_fingerprint(same.model)
    assert weights_fingerprint(one.model) != weights_fingerprint(other.model)


def test_a_fingerprint_is_the_same_on_any_number_of_threads_and_in_wider_numbers():
    """It was of sums, whose last bits depend on the threads: results on another machine counted as another model's."""
    model = torch.nn.Linear(1000, 3000).to(torch.bfloat16)
    threads = torch.get_num_threads()
    found = set()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.add(weights_fingerprint(model))
    finally:
        torch.set_num_threads(threads)
    assert found == {weights_fingerprint(model.float())}


def test_which_data_go_with_which_task():
    named = parse_runs([], ["text=a.jsonl", "text=b/c.jsonl.gz", "qa=q.csv"])
    assert [run.name for run in named] == ["text:a", "text:c", "qa:q"]
    shared = parse_runs(["poem_word", "qa"], ["p.jsonl", "qa=x=y.jsonl"])
    assert [(run.task.name, run.data) for run in shared] == [("poem_word", "p.jsonl"), ("qa", "x=y.jsonl")]  # fmt: skip


def test_data_of_a_file_are_given_by_its_path_or_its_name(tmp_path):
    """`--tasks spam.yaml --data spam=valid.jsonl`, as two pages had it, was an error: the task had no data."""
    text = (
        catalog()["sentiment"].read_text(encoding="utf-8").replace("name: sentiment", "name: spam")
    )
    (tmp_path / "my-spam.yaml").write_text(text, encoding="utf-8")
    file = str(tmp_path / "my-spam.yaml")
    for tasks, data in (
        ([file], "spam=a.jsonl"),
        ([file], f"{file}=a.jsonl"),
        ([], f"{file}=a.jsonl"),
    ):
        assert [(run.task.name, run.data) for run in parse_runs(tasks, [data])] == [
            ("spam", "a.jsonl")
        ]
    with pytest.raises(ConfigError, match="no task 'spam'"):
        parse_runs([], ["spam=a.jsonl"])


@pytest.mark.parametrize(
    ("tasks", "data", "message"),
    [
        ([], ["sentimen=a.jsonl"], "did you mean 'sentiment'"),
        (["qa"], ["text=a.jsonl"], "'qa' has no data: add --data qa=FILE"),
        (["qa"], ["qa=a.jsonl", "b.jsonl"], "data for no task: b.jsonl"),
        (["qa"], ["qa=a.jsonl", "text=b.jsonl"], "data for no task: text"),
        (["nonsense"], ["a.jsonl"], "there is no task 'nonsense'"),
    ],
)
def test_data_that_fit_no_task(tasks, data, message):
    with pytest.raises(ConfigError, match=message):
        parse_runs(tasks, data)


def test_nothing_twice_and_foreign_results(glm, data, tmp_path):
    with pytest.raises(ConfigError, match="at least one task with data, each pair once"):
        evaluate_tasks(glm, [])
    with pytest.raises(ConfigError, match="each pair once"):
        evaluate_tasks(glm, parse_runs([], [f"text={data['poems']}"] * 2))
    (tmp_path / "results.json").write_text("[]", "utf-8")
    with pytest.raises(DataError, match="holds no results of evaluation"):
        evaluate_tasks(glm, parse_runs(["text"], [data["poems"]]), tmp_path)


def test_the_command_measures_tasks(glm, data, tmp_path, capsys):
    folder = tmp_path / "model"
    glm.model.save_pretrained(folder)
    glm.tokenizer.save_pretrained(folder)
    measuring.evaluate(
        [f"fill_word={data['poems']}"],
        [str(folder)],
        rename=["text=lines"],
        output=tmp_path / "out",
        device="cpu",
    )
    shown = capsys.readouterr()
    assert "| fill_word | poems.valid | 3 | exact_match |" in shown.out
    assert "fill_word:poems.valid" in shown.err
    measuring.evaluate(
        [f"fill_word={data['poems']}"], [str(folder)], rename=["text=lines"], output=tmp_path / "out", device="cpu", as_json=True
    )  # fmt: skip
    shown = capsys.readouterr()
    assert list(json.loads(shown.out)["runs"]) == ["fill_word:poems.valid"]
    assert "done before" in shown.err or "跳过" in shown.err
    with pytest.raises(ConfigError, match="--rename"):
        measuring.evaluate([f"text={data['poems']}"], [str(folder)], text_field="lines")
