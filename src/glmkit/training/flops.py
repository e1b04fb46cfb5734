"""What a training step costs in floating-point operations, and what devices do of them in a second.

In: a model's sizes. Out: operations; the data sheets' numbers; how a device that is in none of them is measured. Knows no device itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from glmkit.checkpoint.architecture import Architecture

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
    def of(cls, config: Architecture) -> StepFlops:
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


def fastest_product(product: Callable[[int], Callable[[], object]], seconds: float = 0.1) -> float:
    """Returns operations a second in the fastest of some products of square matrices.

    Sizes grow from 256 to 2048 while a product takes less than `seconds`, the order of the time that all of this takes:
    some CPUs need seconds for one large product in bfloat16.

    Args:
        product: Called with a size it gives what multiplies two such matrices and waits for the result.
        seconds: See above.
    """
    best = 0.0
    for size in (256, 512, 1024, 2048):
        multiply = product(size)
        fastest = float("inf")
        for _ in range(3):  # the first warms up
            began = time.perf_counter()
            multiply()
            fastest = min(fastest, time.perf_counter() - began)
        best = max(best, 2.0 * size**3 / fastest)
        if 8 * fastest > seconds:
            break
    return best
