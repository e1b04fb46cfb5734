"""Tables and sentences, from numbers that are given."""

from __future__ import annotations

from glmkit.comparison.report import ComparisonReport, as_json


def report(tmp_path) -> ComparisonReport:
    accuracy = {"glm-token": (0.80, 0.81, 0.82), "bert": (0.90, 0.91, 0.92), "gpt": (0.88, 0.93, 0.90)}  # fmt: skip
    nats = {"glm-token": (2.0, 2.1, 2.0), "bert": (4.0, 4.1, 4.0), "gpt": (3.0, 3.1, 3.0)}
    found = {
        name: {
            seed: {
                "pretraining": {"parameters": 1000.0 + seed, "tokens": 5.0, "predicted_tokens": 2.0, "epochs": 0.5, "held_out_loss": 1.0},
                "classification": {"accuracy": accuracy[name][seed]},
                "infilling": {"nats": nats[name][seed], **({} if name == "bert" else {"exact": 0.1})},
            }
            for seed in range(3)
        }
        for name in accuracy
    }  # fmt: skip
    settings = {"trainer": {"max_steps": 7}, "data": {"row_length": 64}, "tuning": {"steps": 3}}
    return ComparisonReport(tmp_path, found, settings, {"torch": "x"}, "abc")


def test_the_best_mean_is_bold_and_what_is_not_there_is_a_dash(tmp_path):
    rows = report(tmp_path).table().splitlines()
    # 0.01 between seeds: 4.303 · 0.01 / sqrt(3) = 0.025
    assert rows[2] == "| classification | accuracy ↑ | 0.810 ± 0.025 | **0.910** ± 0.025 | 0.903 ± 0.063 |"  # fmt: skip
    assert rows[3].startswith("| infilling | nats per right token ↓ | **2.033**")
    assert rows[4].split(" | ")[3] == "–"  # bert does not tell a length


def test_it_says_where_glm_loses(tmp_path):
    classification, infilling = report(tmp_path).findings()
    assert classification == (
        "classification, accuracy: best bert. clearly worse: glm-token (-0.100 ± 0.000). "
        "not told apart from it by these seeds: gpt (-0.007 ± 0.057)."
    )
    assert infilling.startswith("infilling, nats per right token: best glm-token. clearly worse: bert (+2.000")  # fmt: skip


def test_the_budget_is_said(tmp_path):
    rows = report(tmp_path).budget().splitlines()
    assert rows[2] == "| parameters | 1,001 | 1,001 | 1,001 |"
    assert rows[5] == "| passes over the corpus | 0.500 | 0.500 | 0.500 |"


def test_both_languages_have_the_same_numbers(tmp_path):
    import re

    made = report(tmp_path)
    english, chinese = (re.findall(r"\d\.\d{3}", made.page(language)) for language in ("en", "zh"))
    assert english == chinese
    assert len(english) > 20


def test_machines_get_seeds_and_no_infinity(tmp_path):
    made = report(tmp_path)
    for runs in made.found.values():
        del runs[1], runs[2]
    cell = as_json(made)["classification"]["accuracy"]["bert"]
    assert cell == {"mean": 0.9, "half_width": None, "seeds": {0: 0.9}}
    assert "± ?" in made.table()


def test_the_picture_has_a_panel_for_each_task(tmp_path):
    report(tmp_path).save()
    assert (tmp_path / "results.png").stat().st_size > 5000
