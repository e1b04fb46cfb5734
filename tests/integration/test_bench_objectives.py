"""`glmkit bench objectives`: every objective pretrains, is fine-tuned, is measured; again where it stopped."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from comparison_samples import comparison, write_labelled
from pretrain_samples import KillAt, Killed
from typer.testing import CliRunner

from glmkit import GLMTokenizer
from glmkit.cli.main import build_app
from glmkit.comparison import experiment, pretraining
from glmkit.comparison.experiment import compare_objectives
from glmkit.comparison.layouts import reading
from glmkit.comparison.measuring import classification
from glmkit.comparison.models import build_peer
from glmkit.comparison.pretraining import pretrain_family
from glmkit.comparison.questions import labelled
from glmkit.comparison.report import ComparisonReport
from glmkit.comparison.settings import OBJECTIVES, TASKS, ClassificationSettings, TuningSettings
from glmkit.comparison.tuning import Classifier, tune
from glmkit.errors import ConfigError, DataError
from glmkit.training import runs
from glmkit.training.building import model_config
from glmkit.training.pretrain import build_trainer, training_arguments
from glmkit.whole_files import locked


@pytest.mark.slow  # its parts are tested in tests/unit/evaluation/test_comparison.py
def test_one_objective_from_corpus_to_page(tmp_path):
    said: list[tuple[str, dict | None]] = []
    config = comparison(tmp_path, objectives=["bert"])
    report = compare_objectives(config, said=lambda *one: said.append(one))
    assert [name.rpartition(", ")[2] for name, _ in said] == ["pretraining", *TASKS]
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert set(results["found"]["bert"]["1"]) == {"pretraining", *TASKS}
    assert results["families"] == {"bert": "bert"}
    for page in ("results.md", "results.zh.md"):
        assert "![" in (tmp_path / "out" / page).read_text(encoding="utf-8")
    assert (tmp_path / "out" / "results.png").read_bytes()[:4] == b"\x89PNG"
    # Again: nothing is trained, the numbers are the same.
    said.clear()
    again = compare_objectives(config, said=lambda *one: said.append(one))
    assert [numbers for _, numbers in said] == [None] * 4
    assert again.found == report.found
    with pytest.raises(ConfigError, match=r"other settings.*tuning\.steps"):
        compare_objectives(
            comparison(tmp_path, objectives=["bert"], tuning={"steps": 9, "rows": 4})
        )


@pytest.mark.slow
@pytest.mark.parametrize("family", [pytest.param("bert", marks=pytest.mark.slow), "gpt"])
def test_an_interrupted_peer_goes_on_to_the_same_weights(tmp_path, family, monkeypatch):
    config = comparison(tmp_path)
    whole = pretrain_family(config.pretraining(family, 1), family)
    other = comparison(tmp_path, output_dir=str(tmp_path / "killed"))
    build = pretraining._build_trainer

    def killed(*args):
        trainer = build(*args)
        trainer.add_callback(KillAt(4))
        return trainer

    monkeypatch.setattr(pretraining, "_build_trainer", killed)
    with pytest.raises(Killed):
        pretrain_family(other.pretraining(family, 1), family)
    monkeypatch.undo()
    resumed = pretrain_family(other.pretraining(family, 1), family)
    assert resumed.resumed_from == 3
    assert resumed.loss_after == whole.loss_after
    weights = [(one.model / "model.safetensors").read_bytes() for one in (whole, resumed)]
    assert weights[0] == weights[1]


def test_all_objectives_read_the_same_documents_in_the_same_order(tmp_path):
    config = comparison(tmp_path)
    orders = []
    for objective, (family, _) in OBJECTIVES.items():
        run = config.pretraining(objective, 1)
        args = training_arguments(run)
        trainer = (
            build_trainer(run, None, args)
            if family == "glm"
            else pretraining._build_trainer(family, run, None, args)
        )
        orders.append(trainer.stream._order(0).tolist())
    assert orders == [orders[0]] * len(OBJECTIVES)


@pytest.mark.parametrize("family", [pytest.param("bert", marks=pytest.mark.slow), "gpt"])
def test_fine_tuning_learns(tmp_path, family):
    """A head on a new model goes from chance to more than 90 % where one word tells the label."""
    config = comparison(tmp_path)
    tokenizer = GLMTokenizer.from_pretrained(tmp_path / "data" / "tokenizer")
    files = (str(write_labelled(tmp_path / "more.jsonl")),)
    train, _ = labelled(ClassificationSettings(train=files, valid=files), tokenizer, 40)
    torch.manual_seed(0)
    run = config.pretraining(family, 1)
    head = Classifier(build_peer(family, model_config(run, tokenizer)), 2, 16).eval()
    examples = [reading(ids) for ids in train.ids]
    before = classification(head, examples, train.labels, tokenizer.special_ids.pad)
    drawn = experiment._drawn(len(examples), 60 * 8, 1)
    tune(
        head,
        [examples[index] for index in drawn],
        TuningSettings(steps=60, rows=8, learning_rate=5e-3),
        run.trainer,
        tokenizer.special_ids.pad,
        1,
        [int(train.labels[index]) for index in drawn],
    )
    after = classification(head, examples, train.labels, tokenizer.special_ids.pad)
    assert before["accuracy"] == pytest.approx(np.mean(train.labels == 0))  # the head begins at 0
    assert after["accuracy"] > 0.9


@pytest.mark.slow
def test_seeds_may_be_added(tmp_path):
    tasks = {"objectives": ["gpt"], "tasks": ["generation"]}
    before = compare_objectives(comparison(tmp_path, **tasks))
    report = compare_objectives(comparison(tmp_path, seeds=[1, 2], **tasks))
    assert set(report.found["gpt"]) == {1, 2}
    assert report.found["gpt"][1] == before.found["gpt"][1]


@pytest.mark.slow
@pytest.mark.timeout(300)  # the processes import torch anew
def test_several_processes_share_the_runs(tmp_path, capfd):
    """Each run is made once, and its numbers are those of one process."""
    tasks = {"objectives": ["gpt", "bert"], "tasks": ["generation"]}
    report = compare_objectives(comparison(tmp_path, **tasks), said=say, processes=2)
    said = capfd.readouterr().out.split()
    assert sorted(said) == sorted(
        f"{one}/1/{task}" for one in ("gpt", "bert") for task in ("pretraining", "generation")
    )
    other = comparison(tmp_path, output_dir=str(tmp_path / "other"), **tasks)
    assert _measured(report) == _measured(compare_objectives(other))


@pytest.mark.slow
@pytest.mark.timeout(300)  # the processes import torch anew
def test_an_error_in_one_of_several_processes_is_raised(tmp_path):
    files = {"train": [str(tmp_path / "labelled.jsonl")], "valid": [str(tmp_path / "none.jsonl")]}
    with pytest.raises(DataError, match=r"none\.jsonl"):
        compare_objectives(comparison(tmp_path, classification=files), processes=2)


def test_a_run_of_another_process_is_left_to_it(tmp_path):
    config = comparison(tmp_path, objectives=["gpt"])
    runs.claim(config, config.output_dir, set())
    folder = config.folder("gpt", 1)
    folder.mkdir(parents=True)
    with locked(folder / runs.LOCK):
        assert compare_objectives(config).found == {}


def say(name: str, numbers: dict[str, float] | None) -> None:
    sys.stdout.write(name.replace(", seed ", "/").replace(", ", "/") + "\n")
    sys.stdout.flush()


def _measured(report: ComparisonReport) -> dict[str, list]:
    return {
        objective: [
            {**numbers, "seconds": 0} for parts in seeds.values() for numbers in parts.values()
        ]
        for objective, seeds in report.found.items()
    }


@pytest.mark.slow
def test_the_smoke_comparison_needs_no_data(tmp_path):
    out = tmp_path / "smoke"
    done = CliRunner().invoke(build_app(), ["bench", "objectives", "--smoke", "-o", str(out), "--json"])  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == set(TASKS)
    assert set(found["infilling"]["nats"]) == set(OBJECTIVES)
    assert "bert" not in found["infilling"]["exact"]  # it cannot tell a length
    assert set(found["infilling"]["exact_in_order"]) == {"bert"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["objective"], "did you mean 'objectives'"),
        (["objectives"], "which corpus"),
        (["objectives", "data.folder=x", "recipe.yaml"], "one recipe comes first"),
    ],
)
def test_mistakes_on_the_command_line_are_said(arguments, message):
    done = CliRunner().invoke(build_app(), ["bench", *arguments])
    assert isinstance(done.exception, ConfigError)
    assert message in str(done.exception)
