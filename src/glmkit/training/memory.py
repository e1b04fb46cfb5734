"""How much memory training needs on each device: a formula for every part, checked against torch's allocator.

In: a model's sizes, a batch, a precision, a division. Out: bytes. Builds no model; knows no device. Not counted: what the
libraries take themselves (a CUDA context, NCCL's and cuBLAS' workspaces: about 1 GiB a GPU) and what an allocator cannot
fill; plan with a tenth to spare.

Shapes: t = B · L tokens of a micro-batch, H hidden, I = 4 H, N heads, V vocabulary, T predicted tokens, C of them in a
chunk of the head. b is the bytes of a number in the layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from glmkit.checkpoint.architecture import Architecture, head_chunk
from glmkit.errors import ConfigError

Precision = Literal["float32", "mixed", "bfloat16"]
PRECISIONS: dict[str, tuple[int, int, int, int]] = {
    "float32": (4, 4, 8, 4),
    "mixed": (4, 4, 8, 2),
    "bfloat16": (2, 4, 12, 2),
}
"""Name -> bytes of a weight, of its gradient, of AdamW's state (two moments; with bfloat16 weights a float32 master too),
and of a number in the layers. "mixed" is `trainer.bf16`, "bfloat16" is `model.dtype`."""

GIB = 2**30


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device.

    Attributes:
        weights: Those that the device holds.
        gradients: Of these weights.
        optimizer: AdamW's moments, and masters.
        gathered: Copies for computing: weights in bfloat16, other devices' weights and their gradients on the way,
            DDP's buckets.
        activations: What the forward pass keeps for the backward pass.
        head: Logits of a chunk and the head's gradients, the most at any moment.
        peak: The most at any moment. Less than the sum of the parts, which are not all there at once: gradients grow
            while activations are given up.
    """

    weights: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int
    head: int
    peak: int


def memory_per_device(
    config: Architecture,
    rows: int,
    row_length: int,
    *,
    precision: Precision = "mixed",
    processes: int = 1,
    shards: int = 1,
    reshard: bool = True,
    checkpointing: bool = False,
    accumulating: bool = False,
    predicted_share: float = 0.5,
    attention: Literal["sdpa", "flex_attention"] = "sdpa",
    device: Literal["cuda", "cpu"] = "cuda",
) -> MemoryEstimate:
    """Returns what a training step takes on each device.

    With P parameters, of which P₀ outside of the layers, weights, gradients and optimizer take w·P, g·P and o·P bytes
    (`PRECISIONS`), all of it divided by `shards`. `gathered`, `activations` and `head` are the functions below.

    Args:
        config: The model.
        rows: B, rows of a micro-batch on the device.
        row_length: L, tokens of a row.
        precision: See `PRECISIONS`.
        processes: Of the run.
        shards: Processes that hold one copy together; 1 is DDP.
        reshard: As in `distributed.divide`.
        checkpointing: Activation checkpointing: of each layer only its input is kept.
        accumulating: Whether gradients of earlier micro-batches are there.
        predicted_share: T / t; 0.15 for token blanks, about 0.5 to 1 for document blanks.
        attention: "sdpa" has a mask of all pairs. With dropout on attention a CPU has no fused kernel: its maps are kept.
        device: "cuda" keeps a dropout's mask as a byte a number, "cpu" as a number.

    Raises:
        ConfigError: An unknown precision, or shards that do not divide the processes.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision = {precision!r}; there are {', '.join(PRECISIONS)}")
    if shards < 1 or processes % shards:
        raise ConfigError(f"shards = {shards} does not divide the {processes} process(es)")
    weight, gradient, state, number = PRECISIONS[precision]
    total = config.num_parameters
    weights, gradients, optimizer = (size * total // shards for size in (weight, gradient, state))
    tokens, predicted = rows * row_length, int(rows * row_length * predicted_share)
    inputs, layer = layer_activations(config, rows, row_length, precision, shards, device)
    mask_number = number if shards > 1 or precision != "mixed" else 4  # the residual stream's type
    mask = rows * row_length**2 * mask_number if attention == "sdpa" else 0
    last = 2 * tokens * config.hidden_size * inputs  # the last LayerNorm's input and output
    kept = config.num_layers * (tokens * config.hidden_size * inputs if checkpointing else layer)
    again = layer - tokens * config.hidden_size * inputs if checkpointing else 0
    copies, passing_copies, late = _gathered(config, precision, processes, shards, reshard)
    table = config.vocab_size * config.hidden_size * (gradient if shards == 1 else number)
    head = _head(config, predicted, number)
    mlp = config.intermediate_size or 4 * config.hidden_size
    passing = tokens * (mlp + config.hidden_size) * number
    before = weights + optimizer + copies + (gradients if accumulating else 0)
    others = gradient * matrices_of_layers(config) // shards
    others = gradients if accumulating else others * (config.num_layers - 1) // config.num_layers
    moments = (
        before + kept + mask + last + max(head, 3 * table),  # the head, forward and backward
        before - copies + passing_copies + kept + mask + again + passing + table,  # the last layer
        weights
        + optimizer
        + others
        + passing_copies
        + mask
        + layer
        + passing
        + table,  # the first layer
        weights + optimizer + gradients + late + table,  # the embedding, backward
    )
    return MemoryEstimate(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        gathered=max(passing_copies, late),
        activations=kept + mask + last + again,
        head=max(head, 3 * table),
        peak=max(moments),
    )


def layer_activations(
    config: Architecture, rows: int, row_length: int, precision: str, shards: int, device: str
) -> tuple[int, int]:
    """Returns the bytes of a number in the residual stream, and of what a layer keeps for its backward pass.

    A token keeps, in numbers: both LayerNorms' inputs (2 H) and outputs (2 H), queries, keys and values (3 H), the
    attention's result (H), the MLP's two widths (2 I). LayerNorms keep a mean and a deviation each, attention a
    logarithm for each head, in float32. In mixed precision the LayerNorms' inputs are float32 (on a CPU not with FSDP,
    whose gathered embeddings are bfloat16; a GPU's autocast makes them float32).
    """
    hidden, number = config.hidden_size, PRECISIONS[precision][3]
    single = precision == "mixed" and (shards == 1 or device == "cuda")
    residual = 4 if single else number
    mlp = config.intermediate_size or 4 * hidden
    tokens = rows * row_length
    bytes_per_token = 2 * hidden * residual + (6 * hidden + 2 * mlp) * number
    bytes_per_token += 4 * (4 + config.num_attention_heads)
    dropped = 1 if device == "cuda" else number
    if config.output_dropout_prob:
        bytes_per_token += 2 * hidden * dropped
    total = tokens * bytes_per_token
    if config.attention_dropout_prob and device == "cpu":
        total += rows * config.num_attention_heads * row_length**2 * 3 * number
    return residual, total


def _gathered(
    config: Architecture, precision: str, processes: int, shards: int, reshard: bool
) -> tuple[int, int, int]:
    """Returns bytes of copies for computing: in the forward pass, in a layer's backward pass, at the backward pass's end.

    DDP has its buckets, as much as the gradients. Mixed precision keeps a copy of the layers' matrices in bfloat16.
    FSDP gathers the weights outside of the layers (P₀), and two layers (all, without `reshard`) and the buffer of a third,
    in b bytes. Backward, there are also a layer's gradients in b bytes, and two layers' in float32, which are being summed;
    at the end the gradients outside of the layers, in b bytes and in float32.
    """
    total, number = config.num_parameters, PRECISIONS[precision][3]
    matrices = matrices_of_layers(config)
    if shards == 1:
        buckets = PRECISIONS[precision][1] * total if processes > 1 else 0
        copies = 2 * matrices if precision == "mixed" else 0
        return buckets + copies, buckets + copies, buckets
    layer = matrices // config.num_layers
    outside = total - matrices
    layers = min(3, config.num_layers) if reshard else config.num_layers + 1
    forward = (outside + layers * layer) * number
    return forward, forward + layer * (number + 8), outside * (2 * number + 4)


def matrices_of_layers(config: Architecture) -> int:
    """Returns the weights of all layers, without biases and LayerNorms, which are few."""
    hidden, mlp = config.hidden_size, config.intermediate_size or 4 * config.hidden_size
    return config.num_layers * (4 * hidden**2 + 2 * hidden * mlp)


def _head(config: Architecture, predicted: int, number: int) -> int:
    """Returns the most bytes of the head in the forward pass.

    Hidden states of the predicted tokens and their gradient (2 T H b), the weights' copy in the layers' type, the head's
    gradient if it is summed over chunks (4 V H), and of a chunk either the logits as they come and twice in float32, or
    once beside their cast and the chunk's share of the head's gradient (C V (4 + b) + V H b).
    """
    hidden, vocabulary = config.hidden_size, config.vocab_size
    chunk = min(predicted, head_chunk(vocabulary))
    cast = 0 if number == 4 else number
    states = 2 * predicted * hidden * number
    table = vocabulary * hidden * (cast + (4 if predicted > chunk else 0))
    share = chunk * vocabulary * (4 + cast) + vocabulary * hidden * number
    return states + table + max(chunk * vocabulary * (8 + cast), share)


SHARDS = (1, 2, 4, 8, 16, 32, 64)


def memory_table(
    presets: tuple[str, ...] = ("base", "large", "2b", "10b", "10b-chinese"),
    rows: int = 8,
    row_length: int = 512,
    checkpointing: bool = False,
) -> str:
    """Returns a Markdown table: GiB on each device at its peak, by preset and number of shards, in mixed precision.

    Attention dropout is 0 (FlexAttention); half of the tokens are predicted.
    """
    head = ["model", "parameters", *(f"{shards}" for shards in SHARDS)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for preset in presets:
        config = Architecture.preset(preset, attention_dropout_prob=0.0)
        peaks = (
            memory_per_device(
                config,
                rows,
                row_length,
                processes=max(shards, 2),
                shards=shards,
                checkpointing=checkpointing,
                attention="flex_attention",
            ).peak
            for shards in SHARDS
        )
        size = config.num_parameters
        name = f"{size / 1e9:.1f} B" if size > 1e9 else f"{size / 1e6:.0f} M"
        lines.append([preset, name, *(f"{peak / GIB:.1f}" for peak in peaks)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
