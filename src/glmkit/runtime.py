"""Where computation happens: device, number type and threads, chosen for the machine or given by the user.

Nothing is decided at import. Torch is asked, and so imported, where it alone knows: not for the CPU, on a machine without a GPU.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from glmkit.errors import ConfigError, MissingDependencyError, needs_torch

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")

DEVICES, PROCESSORS = Path("/dev"), Path("/sys/devices/system/cpu")

DRIVERS = ("nvidia*", "nvhost*", "nvgpu*", "nvmap", "dxg", "kfd")
"""Their files on Linux: NVIDIA's, also on Jetson boards, that of GPUs under Windows (WSL), AMD's."""


def choose_device(device: str | torch.device | None = None) -> str:
    """Returns the name of the device asked for, or of the best one here: CUDA, then Apple's MPS, then the CPU.

    Without torch that is the CPU.

    Raises:
        ConfigError: The device does not exist here.
        MissingDependencyError: It is not the CPU, and torch is not installed.
    """
    if str(device) == "cpu" or (device is None and not may_have_accelerator()):
        return "cpu"
    try:
        with needs_torch(f"device={str(device)!r}", f"device={str(device)!r} "):
            import torch
    except MissingDependencyError:
        if device is None:
            return "cpu"
        raise
    if device is None:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {str(device)!r} cannot be used here ({str(error).splitlines()[0]}); "
            "leave it out to choose the best one, or pass 'cpu'"
        ) from error
    return str(chosen)


def may_have_accelerator() -> bool:
    """Returns whether torch could find a GPU here, without asking torch: False only where there is none for certain.

    That is so on Linux without the file of a driver and without NVIDIA's library, which one in the network would have, too.
    """
    if sys.platform != "linux" or any(any(DEVICES.glob(name)) for name in DRIVERS):
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def choose_dtype(dtype: str | torch.dtype | None, device: str | torch.device) -> str:
    """Returns the name of the number type asked for; by default "bfloat16" on a GPU that has it, else "float32".

    Raises:
        ConfigError: No such number type.
    """
    if dtype is None:
        if not str(device).startswith("cuda"):
            return "float32"
        import torch

        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    if type(dtype).__module__ != "torch" and dtype not in DTYPES:
        raise ConfigError(
            f"dtype={dtype!r} is not one of {', '.join(DTYPES)}; weights in 8 or 4 bits are quantization='int8' or 'int4', "
            "on the command line --dtype int8 or int4"
        )
    return str(dtype).removeprefix("torch.")


def num_threads() -> int:
    """Returns with how many threads torch computes on the CPU or, where it is not imported, would compute.

    Source: torch's `aten/src/ATen/ParallelOpenMP.cpp`. With MKL, on x86, these are as many as there are cores, or fewer where
    MKL_NUM_THREADS or else OMP_NUM_THREADS says so; elsewhere one for each processor, or as many as these variables say.
    Outside Linux, and without torch, one for each processor.
    """
    if "torch" not in sys.modules and sys.platform == "linux":
        on_x86 = platform.machine() == "x86_64"
        most = _cores() if on_x86 else len(os.sched_getaffinity(0))
        for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
            told = os.environ.get(name, "").partition(",")[0].strip()
            if told.isdecimal() and int(told):
                return min(int(told), most) if on_x86 else int(told)
        return most
    try:
        import torch
    except ModuleNotFoundError:
        return os.cpu_count() or 1
    return torch.get_num_threads()


def _cores() -> int:
    """Returns how many cores this process may run on; two threads of one core count once."""
    found = set()
    for processor in os.sched_getaffinity(0):
        place = PROCESSORS / f"cpu{processor}" / "topology" / "thread_siblings_list"
        try:
            found.add(place.read_text())
        except OSError:
            found.add(str(processor))
    return len(found)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Returns whether a device multiplies matrices in bfloat16 faster than in float32.

    On a CPU that is so where oneDNN has kernels for it; torch's own loops are many times slower than float32.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
