"""What there is to compute on: "1x24GB", "2x RTX 3090", "cpu", "cpu:16GB", or this machine -> memory and speed.

Memory and bandwidth of cards are NVIDIA's and AMD's data sheets' (the SXM form where there are two, GB taken as GiB, as cards
count); operations a second are in `training.flops`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from glmkit.choosing.words import Text
from glmkit.errors import ConfigError, nearest
from glmkit.runtime import choose_device
from glmkit.training.flops import PEAKS, fastest_product

GIB = 2**30

# name in `training.flops.PEAKS`, GiB, GB/s, whether it computes in bfloat16
CARDS: tuple[tuple[str, int, float, bool], ...] = (
    ("B200", 180, 8000, True),
    ("H200", 141, 4800, True),
    ("H100", 80, 3350, True),
    ("H100 PCIe", 80, 2000, True),
    ("H100 NVL", 94, 3900, True),
    ("A100", 80, 2039, True),
    ("A100", 40, 1555, True),
    ("A40", 48, 696, True),
    ("A30", 24, 933, True),
    ("A10", 24, 600, True),
    ("L40S", 48, 864, True),
    ("L40", 48, 864, True),
    ("L4", 24, 300, True),
    ("V100", 32, 900, False),
    ("V100", 16, 900, False),
    ("T4", 16, 300, False),
    ("RTX 4090", 24, 1008, True),
    ("RTX 3090", 24, 936, True),
    ("MI300X", 192, 5300, True),
    ("MI250X", 128, 3277, True),
)

PLAIN_CPU = (8 * 3.0e9 * 32, 2 * 8 * 3.2e9)
"""Operations and bytes a second of "cpu:16GB": 8 cores at 3 GHz with two AVX2 units (32 float32 operations a cycle each), and
two channels of DDR4-3200."""


@dataclass(frozen=True)
class Hardware:
    """What there is to compute on.

    Attributes:
        name: For people.
        count: Of equal devices.
        memory: Bytes of one.
        flops: Operations a second of one, of dense matrix products in the type that it computes in.
        bandwidth: Bytes a second of one's memory.
        device: "cuda" or "cpu".
        dtype: The type that it computes in: bfloat16 or float16 on a card, float32 on a CPU.
        source: Where speed is from.
    """

    name: str
    count: int
    memory: int
    flops: float
    bandwidth: float
    device: Literal["cuda", "cpu"]
    dtype: str
    source: Text

    @property
    def usable(self) -> int:
        """Bytes of one device for models: less a tenth that an allocator cannot fill and 1 GiB of the libraries' own."""
        return int(0.9 * self.memory) - GIB


def parse_hardware(text: str | None = None) -> Hardware:
    """Returns what a description means.

    Args:
        text: "24GB" or "1x24GB" (the slowest card of the table with that much), "RTX 4090", "2x A100 80GB", "cpu" (this
            machine's, measured), "cpu:16GB" (a plain one); None is this machine.

    Raises:
        ConfigError: It means nothing, names a card that is not in the table, or none of that memory.
    """
    if text is None or text.strip().lower() in ("", "here"):
        return this_machine()
    found = re.fullmatch(r"\s*(?:(\d+)\s*[x×*]\s*)?(.+?)\s*", text, re.IGNORECASE)
    assert found is not None
    count, rest = int(found[1] or 1), found[2]
    if not 1 <= count <= 1024:
        raise ConfigError(f"gpu {text!r}: {count} devices; write 1x24GB, 2x24GB …")
    cpu = re.fullmatch(r"cpu(?:[\s:,]+(\d+(?:\.\d+)?)\s*g(?:i?b)?)?", rest, re.IGNORECASE)
    if cpu:
        return _plain_cpu(float(cpu[1])) if cpu[1] else _this_cpu()
    memory = re.fullmatch(r"(\d+(?:\.\d+)?)\s*g(?:i?b)?", rest, re.IGNORECASE)
    if memory:
        return _of_memory(float(memory[1]), count, text)
    return _of_name(rest, count, text)


def this_machine() -> Hardware:
    """Returns this machine's cards, or its CPU."""
    if choose_device() != "cuda":
        return _this_cpu()
    import torch

    properties = torch.cuda.get_device_properties(0)
    count = torch.cuda.device_count()
    for name, *_ in sorted(CARDS, key=lambda card: -len(card[0])):
        if re.search(rf"\b{name}\b", properties.name):
            fitting = min((card for card in CARDS if card[0] == name), key=lambda card: abs(card[1] * GIB - properties.total_memory))  # fmt: skip
            return replace(_of_card(fitting, count), memory=properties.total_memory)
    nearest_size = _of_memory(properties.total_memory / GIB, count, properties.name)
    return replace(nearest_size, name=properties.name, memory=properties.total_memory)


def _of_memory(gib: float, count: int, text: str) -> Hardware:
    """Returns the slowest card with so much memory; where the table has none, the slowest of all."""
    if not 1 <= gib <= 1024:
        raise ConfigError(f"gpu {text!r}: {gib:g} GB of memory; write 24GB, 1x24GB, 2x24GB …")
    same = [card for card in CARDS if abs(card[1] - gib) < 0.05 * gib] or list(CARDS)
    slowest = min(same, key=lambda card: card[2])
    like = _of_card(slowest, count)
    source = Text(
        f"as slow as the slowest card of the table with that memory, {slowest[0]}; name yours for its own speed",
        f"速度按表中同显存最慢的 {slowest[0]} 计；写出显卡型号可按其实际速度估计",
    )
    return replace(like, name=f"{gib:g} GB", memory=int(gib * GIB), source=source)


def _of_name(name: str, count: int, text: str) -> Hardware:
    parts = re.fullmatch(r"(.+?)(?:[\s:,-]*\b(\d+)\s*g(?:i?b)?)?", name, re.IGNORECASE)
    assert parts is not None
    wanted = _plain(parts[1])
    same = [card for card in CARDS if _plain(card[0]) == wanted]
    if parts[2]:
        same = [card for card in same if card[1] == int(parts[2])]
    if not same:
        known = sorted({card[0] for card in CARDS})
        raise ConfigError(
            f"gpu {text!r}: the table has {', '.join(f'{card[0]} {card[1]}GB' for card in CARDS)}; for another card give its "
            f"memory (1x24GB), for no card cpu or cpu:16GB{nearest(parts[1], known)}"
        )
    return _of_card(min(same, key=lambda card: card[1]), count)


def _plain(name: str) -> str:
    return re.sub(r"nvidia|geforce|tesla|amd|instinct|[\s_-]", "", name.lower())


def _of_card(card: tuple[str, int, float, bool], count: int) -> Hardware:
    name, gib, bandwidth, has_bfloat16 = card
    half = {peak[0]: peak[1] for peak in PEAKS}[name]
    return Hardware(
        name=f"{name} {gib} GB",
        count=count,
        memory=gib * GIB,
        flops=half * 1e12,
        bandwidth=bandwidth * 1e9,
        device="cuda",
        dtype="bfloat16" if has_bfloat16 else "float16",
        source=Text(f"data sheet of {name}", f"{name} 的数据手册"),
    )


def _plain_cpu(gib: float) -> Hardware:
    if not 1 <= gib <= 16384:
        raise ConfigError(f"cpu:{gib:g}GB: write cpu:16GB for a machine with 16 GB")
    flops, bandwidth = PLAIN_CPU
    source = Text(
        "8 cores with AVX2, two channels of DDR4-3200", "按 8 核 AVX2、双通道 DDR4-3200 计"
    )
    return Hardware(f"CPU, {gib:g} GB", 1, int(gib * GIB), flops, bandwidth, "cpu", "float32", source)  # fmt: skip


def _this_cpu() -> Hardware:
    """Returns this machine's CPU: its memory, and its speed as measured in half a second."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError) as error:
        raise ConfigError("this system does not tell its memory; write cpu:16GB") from error
    flops = fastest_product(_product)
    source = Text("measured on this machine", "在本机测得")
    return Hardware(f"this CPU, {memory / GIB:.0f} GB", 1, memory, flops, _measured_bandwidth(), "cpu", "float32", source)  # fmt: skip


def _product(size: int) -> Callable[[], object]:
    # Two matrices: NumPy multiplies one by its own transpose in half of the operations.
    left, right = np.ones((2, size, size), np.float32)
    return lambda: left @ right


def _measured_bandwidth() -> float:
    """Returns bytes a second of a matrix times a vector, which is what writing a token is; 128 MiB, beyond any cache."""
    matrix, vector = np.ones((8192, 4096), np.float32), np.ones(4096, np.float32)
    fastest = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        matrix @ vector
        fastest = min(fastest, time.perf_counter() - began)
    return matrix.nbytes / fastest
