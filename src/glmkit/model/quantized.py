"""A frozen base in 4 bits, under adapters that are trained (QLoRA): bitsandbytes through transformers' quantization settings.

In: the number type to compute in. Out: options of `from_pretrained`. Only the Linears of the layers are of 4 bits: embeddings,
positions, norms and heads are as they were. On a GPU or, more slowly, on a CPU. Inference on a CPU has kernels of its own
(`native`).

Source: QLoRA (arXiv 2305.14314): nf4, with double quantization.
"""

from __future__ import annotations

from typing import Any

import torch

from glmkit.checkpoint.naming import HEADS
from glmkit.errors import missing_dependency


def nf4_options(compute_dtype: str) -> dict[str, Any]:
    """Returns options of `from_pretrained` that load the layers' Linears in 4 bits.

    Args:
        compute_dtype: Number type that a Linear's weights are unpacked to when it computes.

    Raises:
        MissingDependencyError: bitsandbytes is not installed.
    """
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise missing_dependency("bitsandbytes", "QLoRA (lora.quantize)", "qlora") from error
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, compute_dtype),
        # Whole names: a layer has a "dense" too, and bare names count as ends.
        llm_int8_skip_modules=[f"^{name.rstrip('.')}$" for name in HEADS],
    )
    return {"quantization_config": settings}


def keep_layout(model: torch.nn.Module) -> None:
    """Keeps a CPU with AVX-512 BF16 from laying out the weights of 4 bits for inference when a model in training is evaluated.

    bitsandbytes does so for good, and a Linear laid out like that has no gradient (0.50, `Linear4bit.forward`).
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
