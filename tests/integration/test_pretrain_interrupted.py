"""Runs that are killed, stopped or out of disk, and end as if nothing had been: the same numbers to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from pretrain_samples import curve, write_prepared
from process_samples import Runs, config_for, launch
from safetensors.torch import load_file

from glmkit.errors import CheckpointError, ConfigError
from glmkit.training.checkpoints import PARTIAL, checkpoints
from glmkit.training.pretrain import pretrain

KINDS = {"one": (1, 1), "ddp": (2, 1), "fsdp": (2, 0)}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """So little text that a run of 12 steps reads it several times."""
    return write_prepared(tmp_path_factory.mktemp("prepared"), documents=40)


def run_kind(kind: str, data: Path, run: Path, kill: dict | None = None, **settings) -> list[int]:
    processes, shards = KINDS[kind]
    config = config_for(data, run, processes, shards, dropout=True, **settings)
    return launch(processes, config, said_in(run), kill)


def said_in(run: Path) -> Path:
    return run.with_name(run.name + ".log")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Runs:
    folder = tmp_path_factory.mktemp("whole")

    def make(kind: str) -> Path:
        assert set(run_kind(kind, data, folder / kind)) == {0}
        return folder / kind

    return Runs(make)


def assert_same(run: Path, expected: Path) -> None:
    assert curve(run) == curve(expected)
    left, right = (load_file(path / "model" / "model.safetensors") for path in (run, expected))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert not list(run.glob(".*"))


@pytest.mark.parametrize(
    ("kind", "when", "at", "left"),
    [
        ("one", "step", 6, 4),
        ("one", "write", 8, 4),
        ("one", "publish", 8, 4),
        pytest.param("one", "write", 4, None, marks=pytest.mark.slow),
        pytest.param("ddp", "step", 6, 4, marks=pytest.mark.slow),
        pytest.param("ddp", "publish", 8, 4, marks=pytest.mark.slow),
        pytest.param("fsdp", "step", 6, 4, marks=pytest.mark.slow),
        pytest.param("fsdp", "write", 8, 4, marks=pytest.mark.slow),
    ],
)
def test_kill_9(whole, data, tmp_path, kind, when, at, left):
    run = tmp_path / "run"
    assert run_kind(kind, data, run, {"when": when, "at": at})[0] == -signal.SIGKILL
    newest = [path.name for path in checkpoints(run)][-1:]
    assert newest == ([f"checkpoint-{left}"] if left else [])
    assert any((run / PARTIAL).iterdir()) == (when != "step")
    assert set(run_kind(kind, data, run)) == {0}, said_in(run).with_suffix(".0").read_text()
    assert_same(run, whole[kind])


def test_kill_9_at_the_end_of_an_epoch(whole, data, tmp_path):
    steps = [line for line in curve(whole["one"]) if "loss" in line]
    ends = [
        a["step"]
        for a, b in zip(steps, steps[1:], strict=False)
        if int(a["epoch"]) != int(b["epoch"])
    ]
    assert ends
    run = tmp_path / "run"
    end = ends[0]
    assert run_kind("one", data, run, {"when": "step", "at": end + 1}, save_steps=end)[0] < 0
    assert checkpoints(run)[-1].name == f"checkpoint-{end}"
    assert set(run_kind("one", data, run, save_steps=end)) == {0}
    assert_same(run, whole["one"])


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        pytest.param("one", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("ddp", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("fsdp", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_a_checkpoint_and_stops(whole, data, tmp_path, kind, number):
    """One process is sent it; all stop after the same step."""
    run = tmp_path / "run"
    assert set(run_kind(kind, data, run, {"when": "step", "at": 5, "signal": number})) == {1}
    assert (
        "TrainingStopped: stopped by a signal after step 6 of 12"
        in said_in(run).with_suffix(".0").read_text()
    )
    assert checkpoints(run)[-1].name == "checkpoint-6"
    assert set(run_kind(kind, data, run)) == {0}
    assert_same(run, whole[kind])


@pytest.mark.parametrize("kind", ["one", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_a_full_disk_leaves_the_last_good_checkpoint(whole, data, tmp_path, kind):
    run = tmp_path / "run"
    assert set(run_kind(kind, data, run, {"when": "full", "at": 6})) == {1}
    said = said_in(run).with_suffix(".0").read_text()
    assert "checkpoint-8 could not be written" in said
    assert "the last good one is checkpoint-4. Make room on the disk" in said
    assert [path.name for path in checkpoints(run)] == ["checkpoint-4"]
    assert not (run / PARTIAL).exists()
    assert set(run_kind(kind, data, run)) == {0}
    assert_same(run, whole[kind])


def test_a_disk_without_room(data, tmp_path):
    """A real file system of a megabyte, where one can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        config = config_for(data, disk / "run", 1, max_steps=40, save_steps=1, save_total_limit=9)
        with pytest.raises(CheckpointError, match="No space left|could not be written"):
            pretrain(config)
        assert checkpoints(disk / "run")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_so_many_checkpoints_are_kept(data, tmp_path):
    config = config_for(data, tmp_path / "run", 1, max_steps=6, save_steps=1, save_total_limit=3)
    pretrain(config)
    names = [path.name for path in checkpoints(tmp_path / "run")]
    assert names == ["checkpoint-4", "checkpoint-5", "checkpoint-6"]


def test_steps_of_another_size_are_refused(data, tmp_path):
    """More processes or other accumulation: the batches would be others."""
    run = tmp_path / "run"
    assert run_kind("one", data, run, {"when": "step", "at": 5})[0] == -signal.SIGKILL
    config = config_for(data, run, 1, dropout=True)
    config.trainer.update(per_device_train_batch_size=8)
    object.__setattr__(config.data, "rows_per_step", 16)
    with pytest.raises(
        ConfigError, match=r"with 4 rows a step, now there are 16.*rows_per_step = 4"
    ):
        pretrain(config)
    object.__setattr__(config.data, "rows_per_step", 12)
    with pytest.raises(ConfigError, match="rows_per_step = 12 must be a multiple of 8"):
        pretrain(config)
    object.__setattr__(config.distribution, "shards", 3)
    object.__setattr__(config.data, "rows_per_step", 16)
    with pytest.raises(ConfigError, match=r"shards = 3 does not divide the 1 process"):
        pretrain(config)
