"""Fine-tuning on a GPU: words in a blank, adapters, adapters on 4 bits; what is measured there is what inference gives."""

from __future__ import annotations

import json

import pytest
import torch
from finetune_samples import make_config, reviews, write_jsonl, write_model

import glmkit
from glmkit.training.finetune import finetune

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("data")
    train = write_jsonl(folder / "train.jsonl", reviews(80))
    valid = write_jsonl(folder / "valid.jsonl", reviews(30, seed=1))
    return {"train": [str(train)], "valid": [str(valid)]}


@pytest.fixture(scope="module")
def base(data, device, tmp_path_factory):
    """A run of all weights: adapters have something to adapt then."""
    folder = tmp_path_factory.mktemp("base")
    return finetune(
        config_of(write_model(folder / "model"), folder / "run", data, device, learning_rate=1e-2)
    )


def config_of(model, run, data, device, sections=None, **changes):
    trainer = {
        "use_cpu": device.type == "cpu",
        "max_steps": 24,
        "eval_steps": 12,
        "learning_rate": 3e-2,
        **changes,
    }
    sections = {"best": {"metric": "loss"}, **(sections or {})}
    return make_config(model, run, {"sentiment": data}, sections, **trainer)


def check(report, device) -> None:
    """It learnt, and the model that was written answers on the device as was measured."""
    assert report.after["sentiment"]["loss"] < report.before["sentiment"]["loss"] - 0.01
    glm = glmkit.load(report.model, device=device.type, dtype="float32", backend="torch")
    assert glm.model.device.type == device.type
    lines = (report.folder / "predictions" / "sentiment.jsonl").read_text("utf-8").splitlines()
    texts = [record["text"] for record in reviews(30, seed=1)]
    for found, line in zip(glm.classify(texts, "sentiment"), map(json.loads, lines), strict=True):
        assert found.probabilities == pytest.approx(line["probabilities"], abs=1e-4)


def test_all_weights(base, device):
    check(base, device)


def test_lora(base, data, device, tmp_path):
    pytest.importorskip("peft")
    report = finetune(config_of(base.model, tmp_path / "run", data, device, {"lora": {"rank": 4}}))
    assert report.trained_parameters < report.parameters / 2
    check(report, device)


def test_lora_on_a_base_of_4_bits(base, data, device, tmp_path):
    pytest.importorskip("peft")
    pytest.importorskip("bitsandbytes")
    sections = {"lora": {"rank": 4, "quantize": "nf4"}}
    report = finetune(config_of(base.model, tmp_path / "run", data, device, sections))
    assert report.method == "cloze, QLoRA of rank 4"
    assert report.after["sentiment"]["loss"] < report.before["sentiment"]["loss"] - 0.01


@pytest.mark.parametrize("way", [{"bf16": "auto"}, {"fp16": True}])
def test_half_precision_learns(base, data, device, tmp_path, way):
    """`bf16: auto` is bfloat16 on this kind of GPU; float16 trains nowhere but on a GPU."""
    if device.type == "cpu" and "fp16" in way:
        pytest.skip("a CPU does not train in float16")
    report = finetune(
        config_of(base.model, tmp_path / "run", data, device, learning_rate=1e-2, **way)
    )
    assert report.after["sentiment"]["loss"] < report.before["sentiment"]["loss"] - 0.01
    weights = glmkit.load(report.model, device="cpu", dtype="float32", backend="torch").model
    assert all(torch.isfinite(one).all() for one in weights.parameters())
