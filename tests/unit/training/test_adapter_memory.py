"""The memory of training adapters against torch's allocator: within a tenth, whatever the shape."""

from __future__ import annotations

import pytest
from memory_samples import adapter_steps, peak_bytes, quantized_adapter_bytes

from glmkit.errors import ConfigError
from glmkit.model import GLMConfig
from glmkit.training.adapter_memory import adapter_memory, num_adapter_parameters
from glmkit.training.memory import GIB, memory_per_device

# vocabulary, hidden, layers, tokens of a row, rows
DEEP = (1000, 128, 6, 128, 6)
BIG_VOCABULARY = (8000, 128, 2, 128, 8)
MANY_WEIGHTS = (2000, 256, 6, 128, 1)
SLOW = pytest.mark.slow


def make_config(vocabulary, hidden, layers, length) -> GLMConfig:
    return GLMConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_layers=layers,
        num_attention_heads=4,
        max_sequence_length=length,
        attention_dropout_prob=0.0,
        output_dropout_prob=0.0,
        embedding_dropout_prob=0.0,
    )


@pytest.mark.parametrize(
    ("shape", "precision", "checkpointing"),
    [
        (DEEP, "float32", False),
        (MANY_WEIGHTS, "float32", True),
        (MANY_WEIGHTS, "mixed", False),
        pytest.param(BIG_VOCABULARY, "float32", False, marks=SLOW),
        pytest.param(BIG_VOCABULARY, "mixed", False, marks=SLOW),
        pytest.param(DEEP, "float32", True, marks=SLOW),
        pytest.param(DEEP, "mixed", False, marks=SLOW),
    ],
)
def test_the_estimate_is_within_a_tenth_of_what_is_allocated(shape, precision, checkpointing):
    pytest.importorskip("peft")
    *sizes, rows = shape
    config, length = make_config(*sizes), sizes[3]
    measured = peak_bytes(
        lambda: adapter_steps(config, rows, length, precision, 0.5, checkpointing, rank=8)
    )
    estimate = adapter_memory(
        config,
        rows,
        length,
        rank=8,
        precision=precision,
        checkpointing=checkpointing,
        device="cpu",
    )
    assert estimate.peak == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(
    ("shape", "precision", "checkpointing"),
    [
        (DEEP, "float32", False),
        (MANY_WEIGHTS, "float32", True),
        pytest.param(MANY_WEIGHTS, "float32", False, marks=SLOW),
        pytest.param(DEEP, "mixed", False, marks=SLOW),
        pytest.param(DEEP, "mixed", True, marks=SLOW),
    ],
)
def test_the_estimate_with_a_base_of_4_bits(shape, precision, checkpointing, tmp_path):
    pytest.importorskip("peft")
    pytest.importorskip("bitsandbytes")
    *sizes, rows = shape
    config, length = make_config(*sizes), sizes[3]
    measured = quantized_adapter_bytes(config, rows, length, precision, checkpointing, tmp_path)
    estimate = adapter_memory(
        config,
        rows,
        length,
        rank=8,
        precision=precision,
        checkpointing=checkpointing,
        device="cpu",
        quantize="nf4",
    )
    assert estimate.peak == pytest.approx(measured, rel=0.1)


def test_the_largest_model_fits_two_gpus_of_24_gib():
    """GLM-10B, whole on each of two GPUs (DDP); with weights of 4 bytes it does not."""
    config = GLMConfig.preset("10b")
    common = {"processes": 2, "checkpointing": True, "predicted_share": 0.2}
    assert adapter_memory(config, 4, 512, quantize="nf4", **common).peak < 0.6 * 24 * GIB
    assert adapter_memory(config, 1, 512, **common).peak > 24 * GIB


def test_the_number_of_adapter_weights_is_pefts():
    pytest.importorskip("peft")
    from glmkit.model import GLMForConditionalGeneration
    from glmkit.model.adapters import add_lora

    config = make_config(*DEEP[:4])
    model = add_lora(GLMForConditionalGeneration(config), rank=3)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert num_adapter_parameters(config, 3) == trained


def test_adapters_take_less_than_all_weights_and_wrong_settings_are_refused():
    config = GLMConfig.preset("2b")
    full, lora = memory_per_device(config, 4, 512), adapter_memory(config, 4, 512)
    assert lora.peak < full.peak / 1.5
    assert lora.optimizer < full.optimizer / 50
    assert adapter_memory(config, 4, 512, checkpointing=True).peak < lora.peak
    with pytest.raises(ConfigError, match="rank = 0"):
        adapter_memory(config, 4, 512, rank=0)
    with pytest.raises(ConfigError, match="'fp8'; there are float32"):
        adapter_memory(config, 4, 512, precision="fp8")  # type: ignore[arg-type]
