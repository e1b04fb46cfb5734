from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.training import peaks
from glmkit.training.flops import StepFlops
from glmkit.training.peaks import measured_flops, peak_flops


def test_the_formula_counts_what_torch_counts():
    """One sample fills the row, so that the kernels' square is the sample's."""
    config = GLMConfig(
        vocab_size=96,
        hidden_size=32,
        num_layers=3,
        num_attention_heads=4,
        intermediate_size=80,
        max_sequence_length=32,
    )
    model = GLMForConditionalGeneration(config).train()
    model.set_attn_implementation("eager")
    labels = torch.full((2, 24), -100)
    labels[:, 5:12] = 3
    with FlopCounterMode(display=False) as counter:
        ids = torch.ones(2, 24, dtype=torch.long)
        model(input_ids=ids, labels=labels).loss.backward()
    expected = StepFlops.of(config).total(tokens=48, pairs=2 * 24**2, predictions=14)
    assert counter.get_total_flops() == expected


def test_large_at_its_published_size():
    """By hand: 6 · 302 M weights in the layers, 24 · 12 · 1024 for a pair, 6 · 1024 · 30592 for a prediction."""
    large = StepFlops.of(GLMConfig.preset("large"))
    assert large.per_token == 6 * 24 * 12 * 1024**2
    assert large.per_pair == 12 * 24 * 1024
    assert large.per_prediction == 6 * 1024 * 30592


def test_the_peak_of_a_cpu_is_measured():
    peak, source = peak_flops(torch.device("cpu"), torch.float32)
    assert peak > 1e8
    assert "measured" in source
    assert measured_flops(torch.device("cpu"), torch.float32, seconds=0) > 0


@pytest.mark.parametrize(
    ("name", "dtype", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", torch.bfloat16, 989),
        ("NVIDIA H100 PCIe", torch.float16, 756),
        ("NVIDIA A100-SXM4-80GB", torch.float32, 19.5),
        ("NVIDIA L40S", torch.bfloat16, 362),
        ("Tesla T4", torch.float16, 65),
        ("NVIDIA H200", torch.bfloat16, 989),
        ("NVIDIA A10", torch.bfloat16, 125),
    ],
)
def test_the_peak_of_a_known_gpu_is_its_data_sheets(monkeypatch, name, dtype, tflops):
    monkeypatch.setattr(peaks.torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda"), dtype)[0] == tflops * 1e12


def test_names_that_only_contain_a_known_one_are_not_it(monkeypatch):
    monkeypatch.setattr(peaks.torch.cuda, "get_device_name", lambda device: "NVIDIA RTX A4000")
    monkeypatch.setattr(peaks, "measured_flops", lambda *_: 7.0)
    assert peak_flops(torch.device("cuda"), torch.float16)[0] == 7.0
