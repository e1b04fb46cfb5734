"""Two processes train the model that one trains, and go on from each other's checkpoints."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
import torch
from pretrain_samples import curve, write_prepared
from process_samples import Runs, config_for, launch

from glmkit.model import GLMForConditionalGeneration
from glmkit.training.checkpoints import checkpoints

STEPS = 20
KINDS = {"one": (1, 1), "ddp": (2, 1), "fsdp": (2, 0)}
"""Name -> processes, shards."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("prepared"))


def run_kind(kind: str, data: Path, run: Path, kill: dict | None = None, **settings) -> list[int]:
    processes, shards = KINDS[kind]
    config = config_for(data, run, processes, shards, max_steps=STEPS, **settings)
    codes = launch(processes, config, run.with_name(run.name + ".log"), kill)
    for path in [] if kill else run.parent.glob(f"{run.name}.log.*"):
        pytest.fail(path.read_text())
    return codes


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Runs:
    """Uninterrupted runs, one of each kind."""
    folder = tmp_path_factory.mktemp("whole")

    def make(kind: str) -> Path:
        assert set(run_kind(kind, data, folder / kind)) == {0}
        return folder / kind

    return Runs(make)


@pytest.fixture(scope="module")
def killed(data, tmp_path_factory) -> Runs:
    """Runs killed in step 11, after their checkpoint of step 8."""
    folder = tmp_path_factory.mktemp("killed")

    def make(kind: str) -> Path:
        codes = run_kind(kind, data, folder / kind, {"when": "step", "at": 10})
        assert codes[0] == -signal.SIGKILL
        assert checkpoints(folder / kind)[-1].name == "checkpoint-8"
        return folder / kind

    return Runs(make)


def assert_close(run: Path, expected: Path) -> None:
    """The same lines with numbers within 1e-5, and the same weights in ordinary safetensors."""
    left, right = curve(run), curve(expected)
    assert [line.keys() for line in left] == [line.keys() for line in right]
    assert len([line for line in left if "loss" in line]) == STEPS
    for line, other in zip(left, right, strict=True):
        assert line == pytest.approx(other, rel=1e-5, abs=1e-6)
    one, two = (
        GLMForConditionalGeneration.from_pretrained(path / "model").state_dict()
        for path in (run, expected)
    )
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
def test_two_processes_train_the_model_that_one_trains(whole, kind):
    assert_close(whole[kind], whole["one"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ddp", "one"),
        ("one", "ddp"),
        ("fsdp", "one"),
        ("one", "fsdp"),
        pytest.param("ddp", "fsdp", marks=pytest.mark.slow),
        pytest.param("fsdp", "ddp", marks=pytest.mark.slow),
    ],
)
def test_resumed_on_another_number_of_processes(whole, killed, data, tmp_path, before, after):
    shutil.copytree(killed[before], tmp_path / "run")
    assert set(run_kind(after, data, tmp_path / "run")) == {0}
    assert_close(tmp_path / "run", whole["one"])
