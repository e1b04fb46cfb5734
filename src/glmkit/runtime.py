"""Where computation happens: device and number type, chosen for the machine or given by the user.

Nothing is decided at import; torch is imported when a function is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from glmkit.errors import ConfigError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Returns the device asked for, or the best one here: CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: The device does not exist here.
    """
    import torch

    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {str(device)!r} cannot be used here ({str(error).splitlines()[0]}); "
            "leave it out to choose the best one, or pass 'cpu'"
        ) from error
    return chosen


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """Returns the number type asked for; by default bfloat16 on a GPU that has it, else float32.

    Raises:
        ConfigError: No such number type.
    """
    import torch

    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype is None:
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    if dtype not in DTYPES:
        raise ConfigError(
            f"dtype={dtype!r} is not one of {', '.join(DTYPES)}; weights in 8 or 4 bits are quantization='int8' or 'int4', "
            "on the command line --dtype int8 or int4"
        )
    return getattr(torch, dtype)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Returns whether a device multiplies matrices in bfloat16 faster than in float32.

    On a CPU that is so where oneDNN has kernels for it; torch's own loops are many times slower than float32.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
