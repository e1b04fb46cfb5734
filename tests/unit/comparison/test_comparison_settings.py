"""What is refused before anything is trained, all in one message; and that runs differ in the objective alone."""

from __future__ import annotations

import pytest

from glmkit.comparison.settings import OBJECTIVES, ObjectivesConfig, check_comparison
from glmkit.config import from_values, to_values
from glmkit.errors import ConfigError


@pytest.fixture(autouse=True)
def without_a_corpus(monkeypatch):
    monkeypatch.setattr("glmkit.training.settings._check_folder", lambda *_: None)


def config(**sections) -> ObjectivesConfig:
    values = {
        "data": {"folder": "d", "row_length": 128},
        "model": {"max_sequence_length": 128},
        "classification": {"train": ["a"], "valid": ["b"]},
    }
    return from_values(ObjectivesConfig, {**values, **sections})


def test_all_mistakes_are_said_at_once():
    wrong = config(
        objectives=["brt"],
        tasks=["classification", "infiling"],
        seeds=[1, 1],
        model={"from": "x"},
        classification={"limit": 0},
        infilling={"shortest": 5, "longest": 3},
        data={"folder": "d", "row_length": 16},
    )
    with pytest.raises(ConfigError) as error:
        check_comparison(wrong)
    for part in (
        "no 'brt'; did you mean 'bert'",
        "no 'infiling'; did you mean 'infilling'",
        "seeds = [1, 1]",
        "model.from",
        "classification.limit = 0",
        "infilling.longest = 3 is below",
        "data.row_length = 16 must be at least 72",
        "set classification.train",
    ):
        assert part in str(error.value), part


def test_mistakes_of_pretraining_are_said_before_it():
    with pytest.raises(ConfigError, match=r"num_layres"):
        check_comparison(config(model={"num_layres": 3, "max_sequence_length": 128}))


def test_runs_differ_in_the_objective_and_the_folder_alone():
    checked = check_comparison(config())
    runs = {name: to_values(checked.pretraining(name, 5)) for name in OBJECTIVES}
    for name, run in runs.items():
        assert run["trainer"].pop("output_dir").endswith(f"{name}/seed-5/pretraining")
        del run["objectives"]
    assert all(run == runs["bert"] for run in runs.values())
    assert runs["bert"]["trainer"]["seed"] == 5
