"""Pretraining on a GPU: as recipes for GPUs say it, stopped and gone on with, and compiled."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from pretrain_samples import KillAt, Killed, curve, make_config, write_prepared
from safetensors.torch import load_file

from glmkit.training.pretrain import build_trainer, pretrain

pytestmark = pytest.mark.gpu

MODEL = {
    "hidden_size": 64,
    "num_layers": 2,
    "num_attention_heads": 2,
    "max_sequence_length": 128,
    "attention_dropout_prob": 0.0,
    "output_dropout_prob": 0.1,
}
"""No dropout of attention: FlexAttention, which a GPU gets by itself then."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("prepared"), documents=300)


def config_of(data: Path, run: Path, device: torch.device, **changes):
    trainer = {
        "use_cpu": device.type == "cpu",
        "max_steps": 20,
        "optim": "muon",
        "bf16": "auto",
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "dataloader_num_workers": 2,
        "logging_steps": 1,
        "eval_steps": 10,
        "save_steps": 10,
        **changes.pop("trainer", {}),
    }
    sections = {
        "data": {"folder": str(data), "row_length": 128, "valid_rows": 8},
        "model": MODEL,
        "average": {"decay": 0.8, "from_step": 2},
        "spikes": {"grad_norm_factor": 50.0, "window": 5},
        **changes,
    }
    return make_config(data, run, sections, **trainer)


def build(kept: list, kill: int | None, *arguments):
    """Builds the trainer, keeps it for the test, and lets it be killed."""
    trainer = build_trainer(*arguments)
    kept.append(trainer)
    if kill is not None:
        trainer.add_callback(KillAt(kill))
    return trainer


@pytest.fixture(scope="module")
def whole(data, device, tmp_path_factory):
    """A run and its trainer."""
    kept: list = []
    config = config_of(data, tmp_path_factory.mktemp("whole") / "run", device)
    return pretrain(config, build=partial(build, kept, None)), kept[0]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in curve(run) if "loss" in line]


def test_it_learns_as_recipes_for_a_gpu_say(whole, device):
    report, trainer = whole
    on_gpu = device.type == "cuda"
    model = trainer.model
    assert {one.device.type for one in model.parameters()} == {device.type}
    assert {one.dtype for one in model.parameters()} == {torch.float32}
    assert model.config._attn_implementation == ("flex_attention" if on_gpu else "sdpa")
    assert trainer.args.bf16 or not on_gpu
    assert type(trainer.optimizer.optimizer).__name__ == "Muon"
    assert report.steps == 20
    assert report.loss_after["loss"] < report.loss_before["loss"] - 1
    assert report.loss_average["loss"] < report.loss_before["loss"]
    lines = [json.loads(line) for line in (report.folder / "log.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "loss" in line]
    assert logged[-1]["skipped_steps"] == 0
    if on_gpu:
        assert 0 < logged[-1]["peak_memory_gib"] < 10
        assert 0 < logged[-1]["mfu"] < 1


def test_stopped_and_resumed_is_not_stopped(whole, data, device, tmp_path, record_property):
    """Of the same batches in the same order. On the CPU to the bit; CUDA's sums may be taken in another order each time,
    and bfloat16 rounds what comes of it: within a hundredth there.
    """
    config = config_of(data, tmp_path / "run", device)
    kept: list = []
    with pytest.raises(Killed):
        pretrain(config, build=partial(build, kept, 13))
    report = pretrain(config, build=partial(build, kept, None))
    assert report.resumed_from == 10
    one, other = losses(whole[0].folder), losses(report.folder)
    assert len(one) == len(other) == 20
    for name in ("model", "model-average"):
        left, right = (
            load_file(run / name / "model.safetensors") for run in (whole[0].folder, report.folder)
        )
        same = all(torch.equal(left[key], right[key]) for key in left)
        record_property(name, "equal to the bit" if same else "not equal to the bit")
        assert same or device.type == "cuda"
        for key, value in left.items():
            moved = (value - right[key]).norm() / value.norm()
            assert moved < 1e-2, (name, key, float(moved))
    assert one == pytest.approx(other, rel=1e-2)
    assert report.tokens == whole[0].tokens
    assert report.predicted_tokens == whole[0].predicted_tokens


@pytest.mark.timeout(300)  # a slow machine compiles for minutes where nothing is cached
def test_a_compiled_model_trains_as_the_plain_one(data, device, tmp_path):
    """In float32, without dropout, whose draws a compiled model makes otherwise."""
    found = {}
    for compiled in (False, True):
        trainer = {
            "max_steps": 3,
            "bf16": False,
            "torch_compile": compiled,
            "dataloader_num_workers": 0,
            "eval_strategy": "no",
            "eval_on_start": False,
        }
        model = {
            **MODEL,
            "num_layers": 1,
            "output_dropout_prob": 0.0,
            "embedding_dropout_prob": 0.0,
        }
        run = tmp_path / f"compiled-{compiled}"
        pretrain(config_of(data, run, device, trainer=trainer, model=model))
        found[compiled] = losses(run)
    assert len(found[True]) == 3
    assert found[True] == pytest.approx(found[False], rel=1e-3)
