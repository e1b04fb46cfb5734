"""What a training step costs in floating-point operations, and what the machine could do in that time.

In: a model's sizes, a device. Out: model FLOPs utilisation's two halves (PaLM, arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

import functools
import re
import time
from dataclasses import dataclass

import torch

from glmkit.model.configuration import GLMConfig

# TFLOP/s of dense matrix products: 16-bit with float32 sums, TF32, float32. The first name that the
# device's has as words counts. Sources: NVIDIA's data sheets of these products and AMD's of Instinct, values without sparsity.
PEAKS: tuple[tuple[str, float, float, float], ...] = (
    ("B200", 2250.0, 1125.0, 75.0),
    ("H200 NVL", 835.0, 417.0, 60.0),
    ("H200", 989.0, 494.0, 67.0),
    ("GH200", 989.0, 494.0, 67.0),
    ("H100 PCIe", 756.0, 378.0, 51.0),
    ("H100 NVL", 835.0, 417.0, 60.0),
    ("H100", 989.0, 494.0, 67.0),
    ("H800", 989.0, 494.0, 67.0),
    ("A100", 312.0, 156.0, 19.5),
    ("A800", 312.0, 156.0, 19.5),
    ("A30", 165.0, 82.0, 10.3),
    ("A40", 149.7, 74.8, 37.4),
    ("A10", 125.0, 62.5, 31.2),
    ("L40S", 362.0, 183.0, 91.6),
    ("L40", 181.0, 90.5, 90.5),
    ("L4", 121.0, 60.0, 30.3),
    ("V100", 125.0, 15.7, 15.7),
    ("T4", 65.0, 8.1, 8.1),
    ("RTX 4090", 165.2, 82.6, 82.6),
    ("RTX 3090", 71.0, 35.6, 35.6),
    ("MI300X", 1307.4, 653.7, 163.4),
    ("MI250X", 383.0, 95.7, 95.7),
)


@dataclass(frozen=True)
class StepFlops:
    """Operations that a training step needs, forward and backward, as a sum of three products.

    Multiply and add count as two. The backward pass counts twice the forward; what activation checkpointing computes
    again, padding, LayerNorm, softmax and look-ups do not count. Attention counts the square of each sample's length,
    masked or not.

    Attributes:
        per_token: 6 · layers · (4 H² + 2 H I): the linear maps of a real token.
        per_pair: 12 · layers · H: a query and a key of one sample, in QKᵀ and in the weighted sum.
        per_prediction: 6 · H · V: the head, at predicted tokens only.
    """

    per_token: float
    per_pair: float
    per_prediction: float

    @classmethod
    def of(cls, config: GLMConfig) -> StepFlops:
        """Returns the costs of a model."""
        hidden, layers = config.hidden_size, config.num_layers
        assert config.intermediate_size is not None
        return cls(
            6.0 * layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size),
            12.0 * layers * hidden,
            6.0 * hidden * config.vocab_size,
        )

    def total(self, tokens: float, pairs: float, predictions: float) -> float:
        """Returns the operations for so many tokens, pairs of them, and predicted tokens."""
        return tokens * self.per_token + pairs * self.per_pair + predictions * self.per_prediction


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Returns the floating-point operations a second that a device can do, and where the number is from.

    Args:
        device: A GPU of the table above gives its data sheet's number; any other device is measured.
        dtype: Of the matrix products.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for part, half, tf32, single in PEAKS:
            if re.search(rf"\b{part}\b", name):
                wide = tf32 if _uses_tf32() else single
                return (half if dtype.itemsize == 2 else wide) * 1e12, f"data sheet of {part}"
    return measured_flops(device, dtype), "measured, the fastest product of square matrices"


def _uses_tf32() -> bool:
    """Returns whether float32 matrices are multiplied by tensor cores.

    torch refuses to read the old name of it (`allow_tf32`) where the new one was set, as Trainer does with `torch_compile`.
    """
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


@functools.lru_cache
def measured_flops(device: torch.device, dtype: torch.dtype, seconds: float = 0.1) -> float:
    """Returns operations a second in the fastest of some products of square matrices.

    Sizes grow from 256 to 2048 while a product takes less than `seconds`, the order of the time that all of this takes:
    some CPUs need seconds for one large product in bfloat16.
    """
    best = 0.0
    for size in (256, 512, 1024, 2048):
        left = torch.ones(size, size, dtype=dtype, device=device)
        fastest = float("inf")
        for _ in range(3):  # the first warms up
            began = time.perf_counter()
            torch.nn.functional.linear(left, left)[0, 0].item()  # waits for a GPU
            fastest = min(fastest, time.perf_counter() - began)
        best = max(best, 2.0 * size**3 / fastest)
        if 8 * fastest > seconds:
            break
    return best
