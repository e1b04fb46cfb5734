"""Models side by side: what is compared, how, and what the folder and the page say of it."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser

import pytest

from evaluation_samples import POEMS, REVIEWS, TALKS, tiny_glm, write_records
from glmkit.cli import measuring
from glmkit.errors import ConfigError
from glmkit.evaluation import several
from glmkit.evaluation.differences import compare, higher_is_better, matched
from glmkit.evaluation.drawings import Bar, axis, in_bins, interval_plot, reliability_plot
from glmkit.evaluation.metrics import METRICS
from glmkit.evaluation.several import evaluate_models, folder_name, short_names
from glmkit.evaluation.suite import parse_runs


def answers(right: str, got: str, **more) -> list[dict]:
    """One prediction for each letter."""
    return [
        {"where": f"d.jsonl:{n}", "prediction": b, "references": [a], "accuracy": float(a == b), **more}
        for n, (a, b) in enumerate(zip(right, got, strict=True))
    ]  # fmt: skip


def test_accuracy_is_compared_by_mcnemar():
    weak, strong = answers("A" * 20, "B" * 10 + "A" * 10), answers("A" * 20, "A" * 18 + "BB")
    (found,) = compare({"weak": weak, "strong": strong}, ["accuracy"])
    assert (found.first, found.second, found.examples) == ("weak", "strong", 20)
    assert found.value == pytest.approx(0.4)
    assert found.low < 0.4 < found.high
    assert found.test == "exact McNemar"
    # 10 against 2: the binomial tail by hand.
    assert found.p == pytest.approx(2 * (1 + 12 + 66) / 4096)
    assert found.winner == "strong"
    (other,) = compare({"strong": strong, "weak": weak}, ["accuracy"])
    assert other.winner == "strong"
    assert other.value == pytest.approx(-0.4)


def test_numbers_of_the_whole_and_ratios_are_compared():
    a, b = answers("AB" * 30, "A" * 60), answers("AB" * 30, "AB" * 30)
    for n, (one, other) in enumerate(zip(a, b, strict=True)):
        one |= {"bits_per_character_sums": [10.0 + n % 3, 5.0], "perplexity_sums": [9.0, 3.0]}
        other |= {"bits_per_character_sums": [8.0 + n % 3, 5.0], "perplexity_sums": [9.0, 2.0]}
    found = {one.metric: one for one in compare({"a": a, "b": b}, ["macro_f1", "bits_per_character", "perplexity", "calibration_error"])}  # fmt: skip
    assert found["macro_f1"].value == pytest.approx(1 - 1 / 3)
    assert found["macro_f1"].winner == "b"
    bits = found["bits_per_character"]
    assert bits.value == pytest.approx(-2 / 5 / math.log(2))
    assert bits.low == pytest.approx(bits.high) == pytest.approx(bits.value)
    assert bits.winner == "b"  # less is better
    # Other tokens are other units; and nothing says how sure these were.
    assert "perplexity" not in found
    assert "calibration_error" not in found


def test_no_winner_by_chance_and_less_of_it_among_many():
    a, b = answers("A" * 12, "A" * 6 + "B" * 6), answers("A" * 12, "A" * 11 + "B")
    c = answers("A" * 12, "B" * 12)
    (pair,) = compare({"a": a, "b": b}, ["accuracy"])
    assert pair.p == pytest.approx(2 / 32)
    assert pair.winner is None
    three = compare({"a": a, "b": b, "c": c}, ["accuracy"])
    assert [(one.first, one.second) for one in three] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(one.adjusted_p >= one.p for one in three)
    assert next(one for one in three if one.second == "c" and one.first == "a").adjusted_p == pytest.approx(2 / 32)  # fmt: skip


def test_only_what_both_answered_counts_turn_by_turn():
    a = [
        {"where": "d:1", "bleu": 1.0},
        {"where": "d:1", "bleu": 2.0},
        {"where": "d:3", "bleu": 3.0},
    ]
    b = [
        {"where": "d:1", "bleu": 5.0},
        {"where": "d:2", "bleu": 6.0},
        {"where": "d:3", "bleu": 7.0},
    ]
    one, other = matched(a, b)
    assert [(x["bleu"], y["bleu"]) for x, y in zip(one, other, strict=True)] == [(1, 5), (3, 7)]
    assert compare({"a": a[:1], "b": b[1:2]}, ["bleu"]) == []


def test_every_metric_has_a_direction():
    for name, metric in METRICS.items():
        assert higher_is_better(name) == (metric.better == "higher")
    assert higher_is_better("free_exact_match")
    assert not higher_is_better("bits_per_character_token_blanks")


def test_names_that_tell_models_apart():
    assert short_names(["runs/a/model"]) == ["model"]
    assert short_names(["runs/a/model", "runs/b/model"]) == ["a/model", "b/model"]
    assert short_names(["glm-mini", "/x/glm-mini"]) == ["glm-mini", "x/glm-mini"]
    assert len({folder_name(one) for one in short_names(["x/a b", "x/a-b"])}) == 2
    for wrong in ([], ["m", "m"], ["m", "./m"]):
        with pytest.raises(ConfigError, match="at least one model, each once"):
            short_names(wrong)


@pytest.fixture
def data(tmp_path):
    return [
        f"sentiment={write_records(tmp_path / 'reviews.jsonl', REVIEWS * 4)}",
        f"poem_word={write_records(tmp_path / 'poems.jsonl', POEMS)}",
        f"dialogue={write_records(tmp_path / 'talks.jsonl', TALKS)}",
        f"text={write_records(tmp_path / 'texts.jsonl', [{'text': one['lines'][0]} for one in POEMS])}",
    ]


class Tags(HTMLParser):
    """Opened and closed elements, and whatever is fetched from elsewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.elsewhere, self.headings = [], [], []

    def handle_starttag(self, tag, attrs):
        self.elsewhere += [v for k, v in attrs if k in ("src", "href") and not v.startswith("#")]
        if tag not in ("meta", "line", "circle", "rect", "polyline", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] == "h2":
            self.headings.append(text)


def test_two_models_side_by_side(data, tmp_path):
    models = {"runs/one/model": tiny_glm(), "runs/two/model": tiny_glm(seed=1)}
    runs = parse_runs([], [data[0], data[3]])
    out, loaded, done = tmp_path / "out", [], []

    def measure():
        loaded.clear()
        done.clear()
        return evaluate_models(
            list(models),
            lambda path: loaded.append(path) or models[path],
            runs,
            out,
            by="domain",
            progress=lambda model, run, result: done.append((model, run, result is not None)),
        )

    found = measure()
    assert loaded == list(models)
    assert {path.name for path in out.iterdir()} == {"one-model", "two-model", "comparison.json", "table.md", "report.html"}  # fmt: skip
    assert json.loads((out / "one-model" / "results.json").read_text("utf-8"))["model"] == "runs/one/model"  # fmt: skip
    saved = json.loads((out / "comparison.json").read_text("utf-8"))
    assert list(saved["models"]) == ["one/model", "two/model"]
    assert saved["models"]["two/model"]["path"] == "runs/two/model"
    run = saved["runs"]["sentiment:reviews"]
    a, b = (run["metrics"][name]["accuracy"]["value"] for name in saved["models"])
    accuracy = next(one for one in run["differences"] if one["metric"] == "accuracy")
    assert accuracy["value"] == pytest.approx(b - a)
    texts = {one["metric"] for one in saved["runs"]["text:texts"]["differences"]}
    assert texts == {"bits_per_character", "perplexity"}  # one vocabulary: the same tokens
    assert "| task | data | metric | one/model | two/model |" in found.table()
    assert all(one[2] for one in done)
    page = (out / "report.html").read_bytes()
    measure()
    assert not any(one[2] for one in done)
    assert (out / "report.html").read_bytes() == page
    # One model's interrupted run goes on; the other's stays.
    (out / "two-model" / "predictions.jsonl").unlink()
    measure()
    assert [one[2] for one in done] == [False] * 2 + [True] * 2


def test_the_page_holds_everything_and_nothing_breaks_out(data, tmp_path):
    evil = "</table><script>alert(1)</script>*"
    tricky = [{"text": f"很快 {evil}", "label": 1}, *REVIEWS]
    data[0] = f"sentiment={write_records(tmp_path / 'reviews.jsonl', tricky)}"
    models = {"好/模型": tiny_glm(), "<b>two</b>": tiny_glm(seed=1)}
    evaluate_models(list(models), models.__getitem__, parse_runs([], data), tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    tags = Tags()
    tags.feed(page)
    assert not tags.elsewhere
    assert tags.open == []
    assert not re.search(r"@import|url\(", page)
    for run in ("sentiment:reviews", "poem_word:poems", "dialogue:talks", "text:texts"):
        assert run in tags.headings
    assert "<b>two</b>" not in page.replace("<b>0", "")
    assert "alert(1)" not in page.replace("&lt;script&gt;alert(1)", "")
    assert page.count("<span class=en>") == page.count("<span class=zh>") > 20
    assert page.count("<svg") >= 9  # a picture of each run, of its differences, and of sureness
    assert "模型" in page


def test_one_model_has_the_folder_for_itself(data, tmp_path):
    glm = tiny_glm()
    found = evaluate_models(["m"], lambda path: glm, parse_runs([], data[:2]), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"results.json", "predictions.jsonl", "table.md", "report.html"}
    assert found.differences == {}
    assert found.table() == found.reports[0].table()


def test_results_of_other_records_are_not_compared(data, tmp_path):
    glm, other = tiny_glm(), tiny_glm(seed=1)
    runs = parse_runs([], data[1:2])
    first = several.evaluate_tasks(glm, runs, model_name="a")
    second = several.evaluate_tasks(other, runs, model_name="b", limit=2)
    assert several.differences([first, second]) == {}
    third = several.evaluate_tasks(other, runs, model_name="c")
    (found,) = several.differences([first, second, third]).values()
    assert {(one.first, one.second) for one in found} == {("a", "c")}


def test_the_command_compares(data, tmp_path, capsys):
    for name, seed in (("a", 0), ("b", 1)):
        glm = tiny_glm(seed)
        glm.model.save_pretrained(tmp_path / name)
        glm.tokenizer.save_pretrained(tmp_path / name)
    models = [str(tmp_path / "a"), str(tmp_path / "b")]
    measuring.evaluate(data[:1], models, output=tmp_path / "out", device="cpu")
    shown = capsys.readouterr()
    assert "| task | data | metric | a | b |" in shown.out
    assert "report.html" in shown.err
    measuring.evaluate(data[:1], models, output=tmp_path / "out", device="cpu", as_json=True)
    assert set(json.loads(capsys.readouterr().out)) == {"models", "runs"}
    with pytest.raises(ConfigError, match="add --tasks text"):
        measuring.evaluate([data[3].partition("=")[2]], models, device="cpu")


def test_pictures_by_numbers():
    assert axis(0, 1) == (0, 1, pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1]))
    low, high, ticks = axis(0.5, 0.5)
    assert low < 0.5 < high
    assert len(ticks) > 2
    assert axis(-3.2, 12)[:2] == (-5, 15)
    drawn = interval_plot([Bar("a", 0.25, 0.0, 0.5), Bar("b", 1.0, None, None)])
    (first, second) = (float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn))
    ends = [float(x) for x in re.findall(r'<line x1="([\d.]+)" x2="[\d.]+" y1="17', drawn)]
    assert ends[0] == pytest.approx(190)
    assert first - ends[0] == pytest.approx((second - ends[0]) / 4, abs=0.2)
    assert in_bins([(0.05, True), (0.1, False), (0.95, True)]) == [(pytest.approx(0.075), 0.5, 2), (0.95, 1.0, 1)]  # fmt: skip
    assert reliability_plot({"a": [(0.9, True)], "b": []}).count("<circle") == 1
