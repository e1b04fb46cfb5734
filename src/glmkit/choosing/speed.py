"""How long it takes: from operations, bytes that are read, and what a device does of either in a second.

In: a model's sizes, a device, what its weights are and what computes with them, lengths. Out: seconds. Estimates for planning, within a factor of two at best.
"""

from __future__ import annotations

from dataclasses import dataclass

from glmkit.checkpoint.architecture import Architecture
from glmkit.choosing.devices import Hardware
from glmkit.generation.memory import Backend, number_bytes
from glmkit.training.flops import StepFlops

COMPUTE_SHARE = {"cuda": 0.35, "cpu": 0.8}
"""Share of a device's operations that training reaches. GPUs: the tables of PaLM (arXiv 2204.02311) have 21 to 46 % for large
models on many chips. CPUs: our assumption; in `docs/results/choose-memory_cpu_2026-11.md` steps from 109 M
parameters on took 1.4 times what it gives."""

BANDWIDTH_SHARE = 0.6
"""Share of the memory's bandwidth that writing a token reaches; our assumption."""

LAYER_SECONDS = 3.2e-4
"""Of Python and of starting kernels, for each layer and token: measured on one core of an AMD EPYC (2.45 GHz) with a model of
hidden size 64, whose arithmetic takes no time (0.30 to 0.33 ms a layer, with 48 and 12 layers)."""

CAPTURED_ONE, CAPTURED_MANY = (0.85, 1.5e-5), (BANDWIDTH_SHARE, 4e-5)
"""Both, of a step of one text that is captured as a CUDA graph, and of many texts: with them the steps of
`docs/results/generate_h200_2026-11.md`, of three shapes and 1, 64 and 256 texts, come out at 0.75 to 1.25 times what they took."""

NATIVE_SHARE = {"float32": 1.0, "int8": 2.2, "int4": 2.2}
"""Of the native decoder: its products a second over those of float32 that NumPy does. Between AVX2 (0.7, 1.1 and 1.4) and AVX-512 (1.6,
4.2 and 3.7), of an AMD EPYC (Zen 5) and a model of 109 M parameters; `docs/results/choose-memory_cpu_2026-11.md` has three sizes."""

NATIVE_BANDWIDTH_SHARE, NATIVE_LAYER_SECONDS = 0.9, 2e-5
"""Of the native decoder: its share of the memory's bandwidth, and what threads wait for each other in each layer and step."""

EPOCHS = 3
"""As in `glmkit finetune`."""


def training_seconds(
    config: Architecture,
    hardware: Hardware,
    *,
    examples: int,
    row_length: int,
    predicted: int,
    adapters: bool = False,
    checkpointing: bool = False,
    epochs: int = EPOCHS,
) -> float:
    """Returns the seconds of fine-tuning: operations over what all devices do.

    Of a step's operations (`StepFlops`) a third is forward, a third the gradients of activations, a third those of weights;
    adapters leave out the last, checkpointing adds a forward pass.

    Args:
        config: The model.
        hardware: What there is to compute on.
        examples: Records.
        row_length: Tokens of one, with its answer.
        predicted: Tokens of its answer.
        adapters: Whether adapters alone are trained.
        checkpointing: Activation checkpointing.
        epochs: Times that each record is seen.
    """
    one = StepFlops.of(config).total(row_length, row_length**2, predicted)
    thirds = 3 - adapters + checkpointing
    share = COMPUTE_SHARE[hardware.device]
    return epochs * examples * one * thirds / 3 / (hardware.flops * share * hardware.count)


@dataclass(frozen=True)
class Way:
    """How answers are computed.

    Attributes:
        dtype: What is asked of the weights: a number type, int8 or int4.
        backend: What computes.
        stored: The number type of the checkpoint, if it is known.
        devices: That the layers are divided among.
    """

    dtype: str
    backend: Backend = "torch"
    stored: str | None = None
    devices: int = 1


def reading_seconds(
    config: Architecture, hardware: Hardware, way: Way, tokens: int, batch_size: int = 1
) -> float:
    """Returns the seconds until the first token: a forward pass over part A, which also reads all weights once.

    Args:
        config: The model.
        hardware: What there is to compute on.
        way: How it computes.
        tokens: That each text has.
        batch_size: Texts.
    """
    operations = batch_size * StepFlops.of(config).total(tokens, tokens**2, 1) / 3
    return _pass_seconds(config, hardware, way, operations, 0, BANDWIDTH_SHARE, LAYER_SECONDS)


def writing_seconds(
    config: Architecture, hardware: Hardware, way: Way, tokens: int, batch_size: int = 1
) -> float:
    """Returns the seconds of a token of every text of a batch, after `tokens` tokens.

    All weights are read, and each text's keys and values; or, in large batches, the operations take longer.

    Args:
        config: The model.
        hardware: What there is to compute on.
        way: How it computes.
        tokens: That each text has.
        batch_size: Texts.
    """
    cached = batch_size * tokens * 2 * config.num_layers * config.hidden_size
    operations = batch_size * StepFlops.of(config).total(1, tokens, 1) / 3
    share, layer = BANDWIDTH_SHARE, LAYER_SECONDS
    if way.backend == "graphs":
        share, layer = CAPTURED_ONE if batch_size == 1 else CAPTURED_MANY
    return _pass_seconds(config, hardware, way, operations, cached, share, layer)


def _pass_seconds(
    config: Architecture,
    hardware: Hardware,
    way: Way,
    operations: float,
    cached: int,
    share: float,
    layer: float,
) -> float:
    """Returns the seconds of a pass that reads all weights and so many numbers of the cache.

    With torch what takes longer counts, reading (at a share of the bandwidth) or computing, and so many seconds a layer; with the
    native decoder both, one after the other.
    """
    weight, number = number_bytes(way.dtype, way.backend, way.stored)
    read = (weight * config.num_parameters + number * cached) / hardware.bandwidth
    computed = operations / hardware.flops
    if way.backend == "native":
        return (
            read / NATIVE_BANDWIDTH_SHARE
            + computed / NATIVE_SHARE[way.dtype]
            + NATIVE_LAYER_SECONDS * config.num_layers
        )
    return max(read / share, computed / COMPUTE_SHARE[hardware.device]) + layer * config.num_layers
