"""A decode step of one token as one CUDA kernel (`one_kernel.cu`), from Hopper on.

In: a model's weights and static cache where torch has them, and the six numbers of a token. Out: logits, and the likeliest token that
is not barred. The kernel is compiled by NVRTC for the model's sizes when the first step is captured, and used where whole steps by it
have been compared with others and are faster (`captured.Workspace`).

Why one kernel: a step of glm-large reads 0.7 GB, which takes an H200 0.15 ms, but is some 120 matrices that wait for one another; as
kernels of their own each costs a microsecond and more in which no memory is read.

Shapes: R rows, N heads, C capacity and D head size of the cache, H hidden, V vocabulary, M sets of barred tokens.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from typing import Any

import torch

from glmkit.generation.steps import matrix_of

BUDGET = 226 * 1024
"""Bytes of shared memory for a block: of the 227 KiB that Hopper has for one, less what alignment may take."""

ACTIVATIONS = {"gelu": 1, "gelu_new": 2, "relu": 3}
"""A configuration's `hidden_act` -> ACTIVATION."""

SOURCE = "one_kernel.cu"

EMULATED = 16
"""Processors where there is no GPU: tests compile the kernel for a CPU."""


class Arguments(ctypes.Structure):
    """The kernel's, as it has them: addresses, and the cache's strides in numbers."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("table", "inputs", "barred", "mail", "epoch", "logits", "out")] + [(name, ctypes.c_longlong) for name in ("row_stride", "head_stride")]  # fmt: skip


def macros(config: Any, dtype: torch.dtype, int8: bool, processors: int) -> dict[str, str]:
    """Returns what the kernel is compiled with.

    Args:
        config: A `GLMConfig`.
        dtype: Of activations and cache.
        int8: Whether matrices have 8 bits.
        processors: Multiprocessors of the device; each gets a block, as far as heads and rows can be shared out evenly.

    Raises:
        ValueError: It has no kernel for such a model.
    """
    hidden, heads, vocabulary = config.hidden_size, config.num_attention_heads, config.vocab_size
    size = hidden // heads
    if dtype not in (torch.bfloat16, torch.float16):
        raise ValueError(f"numbers are {dtype}; bfloat16 and float16 are for it")
    if size not in (32, 64, 128) or vocabulary % 16 or config.hidden_act not in ACTIVATIONS:
        raise ValueError(f"heads of {size}, {vocabulary} rows of the vocabulary or {config.hidden_act!r}")  # fmt: skip
    blocks = max((one for one in range(heads, processors + 1, heads) if hidden % (2 * one) == 0), default=0)  # fmt: skip
    # A thread's columns are read at least 4 bytes at a time.
    warps = max((one for one in (8, 6, 4, 3, 2, 1) if hidden % (one * 32 * (4 if int8 else 2)) == 0), default=0)  # fmt: skip
    if not blocks or not warps or 2 * hidden // blocks > 32 * warps:
        raise ValueError(f"a width of {hidden} with {heads} heads on {processors} processors")
    slot = max(16384, 4 * hidden * (1 if int8 else 2))
    longest = max(4 * hidden // blocks, 8 * -(-vocabulary // 16 // blocks))
    table = 8 * (18 * config.num_layers + 6)
    beside = 8 * warps * longest + 4 * warps * (size + 2) + 64 * warps + table + 1024
    return {name: str(value) for name, value in {
        "LAYERS": config.num_layers, "HIDDEN": hidden, "HEADS": heads, "SIZE": size, "VOCABULARY": vocabulary,
        "BLOCK_POSITIONS": int(config.block_position_encoding), "INT8": int(int8), "HALF": int(dtype == torch.float16),
        "ACTIVATION": ACTIVATIONS[config.hidden_act], "EPSILON": f"{config.layernorm_epsilon!r}f",
        "BLOCKS": blocks, "WARPS": warps, "SLOT": slot, "SLOTS": (BUDGET - beside) // slot, "SHARED": BUDGET,
        "SENT": 3 * hidden // 2 + heads * min(8, blocks // heads) * (size // 2 + 2) + 4 * hidden + 4 * blocks,
    }.items()}  # fmt: skip


def source() -> str:
    """Returns the kernel's text."""
    return (resources.files("glmkit.generation") / SOURCE).read_text(encoding="utf-8")


class OneKernel:
    """A model's step, with the addresses that it reads and what its blocks send each other; for one stream at a time.

    Args:
        model: A `GLMForConditionalGeneration` whose weights stay where they are.
        buffers: Keys and values of each layer, [R, N, C, D] one after the other, which stay too.
        barred: bool [M, V].
        launch: What starts the kernel, given macros and arguments; by default on the model's GPU.

    Raises:
        ValueError: It has no kernel for such a model.
        RuntimeError: It cannot be compiled or started here.
    """

    def __init__(
        self,
        model: Any,
        buffers: Sequence[Any],
        barred: torch.Tensor,
        launch: Callable[[dict[str, str], Arguments], None] | None = None,
    ):
        config, transformer = model.config, model.glm.transformer
        words, scales = matrix_of(model.glm.word_embeddings)
        positions = transformer.position_embeddings.weight
        blocks = transformer.block_position_embeddings.weight if config.block_position_encoding else None  # fmt: skip
        device, dtype = positions.device, positions.dtype
        processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else EMULATED  # fmt: skip
        self._macros = macros(config, dtype, scales is not None, processors)
        self._launch = launch or launched
        tensors: list[torch.Tensor | None] = []
        for number, layer in enumerate(transformer.layers):
            attention, mlp = layer.attention, layer.mlp
            for norm, linears in (
                (layer.input_layernorm, (attention.query_key_value, attention.dense)),
                (layer.post_attention_layernorm, (mlp.dense_h_to_4h, mlp.dense_4h_to_h)),
            ):
                tensors += norm.weight, norm.bias
                for linear in linears:
                    matrix, by_row = matrix_of(linear)
                    tensors += matrix, linear.bias, by_row
            tensors += buffers[2 * number : 2 * number + 2]
        final = transformer.final_layernorm
        tensors += words, scales, positions, blocks, final.weight, final.bias
        expected = (dtype, torch.int8 if scales is not None else dtype, torch.float32)
        if any(one is not None and (one.dtype not in expected or not one.is_contiguous() or one.data_ptr() % 16 or one.device != device) for one in tensors):  # fmt: skip
            raise ValueError("weights of several types or devices, or that are not stored one after the other")  # fmt: skip
        self._barred, self._keys = barred, buffers[0]
        self._held = tensors
        addresses = [0 if one is None else one.data_ptr() for one in tensors]
        self._table = torch.tensor(addresses, dtype=torch.long).to(device)
        self._mail = torch.zeros(int(self._macros["SENT"]), dtype=torch.long, device=device)
        self._epoch = torch.zeros(1, dtype=torch.int32, device=device)
        self.logits = torch.empty(1, config.vocab_size, dtype=dtype, device=device)
        self.best = torch.empty(2, 1, dtype=torch.float64, device=device)

    def __call__(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns logits [1, V] and what `steps.likeliest` returns, both until the next call.

        Args:
            inputs: int64 [6 or more, 1], contiguous: id, position, block position, row of the cache, place in it, row of `barred`.
        """
        held = (self._table, inputs, self._barred, self._mail, self._epoch, self.logits, self.best)
        self._launch(self._macros, Arguments(*(one.data_ptr() for one in held), self._keys.stride(0), self._keys.stride(1)))  # fmt: skip
        return self.logits, self.best


def launched(given: dict[str, str], arguments: Arguments) -> None:
    """Starts the kernel on torch's current device and stream.

    All its blocks run at once, or none (a cooperative launch): they wait for one another.

    Raises:
        RuntimeError: It cannot be compiled or started.
    """
    from cuda.bindings import driver

    kernel = _compiled(torch.cuda.current_device(), tuple(sorted(given.items())))
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = int(given["BLOCKS"]), 1, 1
    config.blockDimX, config.blockDimY, config.blockDimZ = 32 * (int(given["WARPS"]) + 1), 1, 1
    config.sharedMemBytes = BUDGET
    config.hStream = driver.CUstream(torch.cuda.current_stream().cuda_stream)
    together = driver.CUlaunchAttribute()
    together.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_COOPERATIVE
    together.value.cooperative = 1
    config.attrs, config.numAttrs = [together], 1
    pointers = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
    _checked(driver.cuLaunchKernelEx(config, kernel, ctypes.addressof(pointers), 0))


@cache
def _compiled(device: int, given: tuple[tuple[str, str], ...]) -> Any:
    """Returns the kernel on a device."""
    from cuda.bindings import driver, nvrtc

    major, minor = torch.cuda.get_device_capability(device)
    options = [f"--gpu-architecture=sm_{major}{minor}", "-std=c++17", "-default-device"]
    options += [f"-D{name}={value}" for name, value in given]
    program = _checked(nvrtc.nvrtcCreateProgram(source().encode(), SOURCE.encode(), 0, [], []))
    done = nvrtc.nvrtcCompileProgram(program, len(options), [one.encode() for one in options])
    if int(done[0]):
        log = bytes(_checked(nvrtc.nvrtcGetProgramLogSize(program)))
        _checked(nvrtc.nvrtcGetProgramLog(program, log))
        raise RuntimeError(f"{SOURCE} is not compiled: {log.decode(errors='replace')[:500]}")
    image = bytes(_checked(nvrtc.nvrtcGetCUBINSize(program)))
    _checked(nvrtc.nvrtcGetCUBIN(program, image))
    _checked(nvrtc.nvrtcDestroyProgram(program))
    kernel = _checked(driver.cuModuleGetFunction(_checked(driver.cuModuleLoadData(image)), b"glmkit_step"))  # fmt: skip
    _checked(driver.cuFuncSetAttribute(kernel, driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, BUDGET))  # fmt: skip
    return kernel


def _checked(answer: tuple[Any, ...]) -> Any:
    """Returns what a call of the driver or of NVRTC answered."""
    error, *values = answer
    if int(error):
        raise RuntimeError(f"{type(error).__name__} {error.name}")
    return values[0] if values else None
