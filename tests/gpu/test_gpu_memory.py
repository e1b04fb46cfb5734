"""The formulas of memory against CUDA's allocator: within a tenth, as the guides say."""

from __future__ import annotations

import gc
from functools import partial

import pytest
import torch
from memory_samples import adapter_steps, peak_bytes, two_steps

from glmkit.choosing.devices import this_machine
from glmkit.model import GLMConfig
from glmkit.training.adapter_memory import adapter_memory
from glmkit.training.memory import GIB, memory_per_device

pytestmark = pytest.mark.gpu


def make_config(device: torch.device, dropout: float = 0.1) -> GLMConfig:
    """A model that fills a good part of a GiB on a GPU; small on a CPU, where this is tested elsewhere."""
    large = device.type == "cuda"
    return GLMConfig(
        vocab_size=16_000 if large else 1000,
        hidden_size=512 if large else 128,
        num_layers=8 if large else 4,
        num_attention_heads=8 if large else 4,
        max_sequence_length=512,
        attention_dropout_prob=0.0,
        output_dropout_prob=dropout,
        embedding_dropout_prob=dropout,
    )


def measure(run, device: torch.device) -> float:
    """Returns the most bytes that were given out at once during `run(config)`, of the model of these tests.

    A small model goes first: the libraries' workspaces, which the formulas leave out, stay where they are.
    """
    if device.type == "cpu":
        return peak_bytes(lambda: run(make_config(device)))
    small = make_config(torch.device("cpu"))
    run(small)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run(make_config(device))
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize(
    ("precision", "checkpointing", "attention"),
    [
        ("mixed", False, "sdpa"),
        ("mixed", True, "sdpa"),
        ("mixed", False, "flex_attention"),
        ("float32", False, "sdpa"),
        ("bfloat16", False, "sdpa"),
    ],
)
def test_training(device, precision, checkpointing, attention, record_property):
    if device.type == "cpu" and attention == "flex_attention":
        pytest.skip("FlexAttention learns on a GPU only")
    config = make_config(device)
    rows, length = (16, 512) if device.type == "cuda" else (6, 128)
    run = partial(two_steps, rows=rows, length=length, precision=precision, share=0.5, checkpointing=checkpointing, device=device, attention=attention)  # fmt: skip
    measured = measure(run, device)
    estimate = memory_per_device(config, rows, length, precision=precision, checkpointing=checkpointing, attention=attention, device=device.type)  # fmt: skip
    record_property("measured", f"{measured / GIB:.3f} GiB")
    record_property("estimate", f"{estimate.peak / measured:.3f} of it")
    assert estimate.peak == pytest.approx(measured, rel=0.1)


def test_adapters(device, record_property):
    pytest.importorskip("peft")
    rows, length = (16, 512) if device.type == "cuda" else (6, 128)
    run = partial(adapter_steps, rows=rows, length=length, precision="mixed", share=0.5, checkpointing=False, rank=8, device=device)  # fmt: skip
    measured = measure(run, device)
    estimate = adapter_memory(make_config(device), rows, length, rank=8, precision="mixed", device=device.type)  # fmt: skip
    record_property("estimate", f"{estimate.peak / measured:.3f} of {measured / GIB:.3f} GiB")
    assert estimate.peak == pytest.approx(measured, rel=0.1)


def test_this_machine_is_known(device):
    found = this_machine()
    if device.type == "cuda":
        assert found.device == "cuda"
        assert found.count == torch.cuda.device_count()
        assert found.memory == pytest.approx(torch.cuda.get_device_properties(0).total_memory, rel=0.05)  # fmt: skip
        assert found.flops > 1e13
        assert found.bandwidth > 1e11
