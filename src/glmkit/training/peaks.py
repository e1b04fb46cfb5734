"""What a device could do in the time of a training step: the other half of model FLOPs utilisation (`flops` has the first).

In: a device, a number type. Out: operations a second (PaLM, arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import torch

from glmkit.training.flops import PEAKS, fastest_product


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Returns the floating-point operations a second that a device can do, and where the number is from.

    Args:
        device: A GPU of `PEAKS` gives its data sheet's number; any other device is measured.
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
    """Returns operations a second in the fastest of some products of square matrices (`fastest_product`)."""

    def product(size: int) -> Callable[[], object]:
        left = torch.ones(size, size, dtype=dtype, device=device)
        return lambda: torch.nn.functional.linear(left, left)[0, 0].item()  # waits for a GPU

    return fastest_product(product, seconds)
