"""A decode step: one new token at each of T places of a static cache -> logits, by operations of fixed sizes and addresses.

In: six numbers for each token, in one tensor. Out: logits, and the likeliest token that may be written. Nothing here asks the
device for a number, so that a step can be captured once as a CUDA graph and played again; whose row is whose the runner knows.

Shapes: T tokens, H hidden, N heads, D head size, R rows and C capacity of the cache, V vocabulary, M sets of barred tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN

from glmkit.generation.prefill import QUERIES, PlainPrefill, append
from glmkit.model.int8 import Int8Matrix, widened
from glmkit.model.modeling import KERNELS

logger = logging.getLogger(__name__)

FEW = 64
"""Vectors that are multiplied by weights of 8 bits as they are; for more, torch multiplies by them written out."""


class PlainKernels:
    """What `kernels` computes, in torch's operations: for devices without Triton, and to check it."""

    @staticmethod
    def matvec(
        vector: torch.Tensor,
        matrix: torch.Tensor,
        bias: torch.Tensor | None = None,
        *,
        scales: torch.Tensor | None = None,
        norm: nn.LayerNorm | None = None,
        act: str = "",
        residual: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns act(norm(vector) · (scales · matrix)ᵀ + bias) + residual; of any number of vectors [T, K]."""
        if scales is not None:
            matrix = widened(matrix, scales, vector.dtype)
        result = F.linear(vector if norm is None else norm(vector), matrix, bias)
        if act:
            result = _activation(act)(result)
        return result if residual is None else residual + result

    @staticmethod
    def product(
        vectors: torch.Tensor,
        matrix: torch.Tensor,
        scales: torch.Tensor,
        bias: torch.Tensor | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """See `int8_kernels.product`."""
        return PlainKernels.matvec(vectors, matrix, bias, scales=scales, **options)

    @staticmethod
    def attend(
        mixed: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        slots: torch.Tensor,
        places: torch.Tensor,
        limit: int,
    ) -> torch.Tensor:
        """See `kernels.attend`; of each row the first `limit` places are read."""
        query = append(mixed, keys, values, slots, places)
        seen = torch.arange(limit, device=mixed.device) <= places[:, None]
        context = F.scaled_dot_product_attention(
            query[:, :, None],
            keys[:, :, :limit].index_select(0, slots),
            values[:, :, :limit].index_select(0, slots),
            attn_mask=seen[:, None, None],
        )
        return context.flatten(1)


@cache
def _activation(name: str) -> Any:
    return ACT2FN[KERNELS.get(name, name)]


def triton_kernels(
    name: str, device: torch.device, dtype: torch.dtype, sizes: tuple[int, int, str]
) -> Any:
    """Returns a module of Triton kernels if it is there and computes here what torch computes, else None, and says why.

    Args:
        name: A key of `CHECKS`.
        device: Where.
        dtype: Of activations and cache.
        sizes: Heads, head size and activation of the model.
    """
    try:
        kernels = import_module(f"glmkit.generation.{name}")
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            difference = CHECKS[name](kernels, device, dtype, *sizes)
        allowed = 0.01 if dtype == torch.float32 else 0.05  # a product of matrices may be in TF32
        if not difference <= allowed:
            raise ArithmeticError(f"their results are {difference:.2g} off")
    except Exception as error:  # no Triton, no compiler, a device too old: torch's operations do
        why = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        logger.warning("computing without Triton's %s (%s), by torch's operations", name, why)
        return None
    return kernels


@torch.inference_mode()
def _difference(
    kernels: Any, device: torch.device, dtype: torch.dtype, heads: int, size: int, act: str
) -> float:
    """Returns the largest difference between kernels and torch's operations, on a few random tensors of the model's widths."""
    random, width, worst = _random(device, dtype), heads * size, 0.0
    norm = _norm(random, width)
    wide = random(4 * width, width) / width**0.5
    narrow = random(width, 4 * width) / (4 * width) ** 0.5
    vector, longer, bias = random(1, width), random(1, 4 * width), random(4 * width)
    calls: list[tuple[tuple[torch.Tensor, ...], dict[str, Any]]] = [
        ((vector, wide, bias), {"norm": norm, "act": act}),
        ((longer, narrow, bias[:width]), {"residual": vector}),
        ((vector, wide), {"norm": norm}),
    ]
    for given, options in calls:
        worst = max(worst, off(*(one.matvec(*given, **options) for one in (kernels, PlainKernels))))
    cache = random(2, 4, heads, 256, size)
    for slots, places in (([2], [200]), ([1], [0]), ([0, 2, 2, 2, 1], [3, 129, 130, 131, 255])):
        at = [torch.tensor(one, device=device) for one in (slots, places)]
        mixed, both = random(len(slots), 3 * width), [cache.clone(), cache.clone()]
        pair = [
            one.attend(mixed, *held, *at, 256)
            for one, held in zip((kernels, PlainKernels), both, strict=True)
        ]
        worst = max(worst, off(*pair))
        if not torch.equal(*both):
            return torch.inf
    return worst


@torch.inference_mode()
def _prefill_difference(
    kernels: Any, device: torch.device, dtype: torch.dtype, heads: int, size: int, act: str
) -> float:
    """As `_difference`, of `prefill_kernels`: two texts, of 70 tokens of which 69 are part A, and of 9 more of another."""
    random, width = _random(device, dtype), heads * size
    norm, cache = _norm(random, width), random(2, 3, heads, 256, size)
    hidden, delta = random(7, width), random(7, width)
    pairs = zip(
        *(one.add_norm(hidden, delta, norm) for one in (kernels, PlainPrefill)), strict=True
    )
    worst = max(off(*pair) for pair in pairs)
    mixed, both = random(80, 3 * width), [cache.clone(), cache.clone()]
    slots = torch.tensor([1] * 70 + [0] * 9 + [2], device=device)
    places = torch.tensor([*range(70), *range(130, 139), 0], device=device)
    blocks = torch.tensor([[1, 0, QUERIES, 0, 69], [1, QUERIES, 70 - QUERIES, QUERIES, 69], [0, 70, 9, 130, 0], [0] * 5], device=device).T.contiguous()  # fmt: skip
    pair = [
        one.attend(mixed, *held, slots, places, blocks)[:79]
        for one, held in zip((kernels, PlainPrefill), both, strict=True)
    ]
    return max(worst, off(*pair)) if torch.equal(*both) else torch.inf


@torch.inference_mode()
def _int8_difference(
    kernels: Any, device: torch.device, dtype: torch.dtype, heads: int, size: int, act: str
) -> float:
    """As `_difference`, of `int8_kernels` and of `kernels.matvec` with weights of 8 bits."""
    matvec = import_module("glmkit.generation.kernels").matvec
    random, width, worst = _random(device, dtype), heads * size, 0.0
    norm, bias = _norm(random, width), random(4 * width)
    wide = (30 * random(4 * width, width).float()).clamp(-127, 127).to(torch.int8)
    narrow = (30 * random(width, 4 * width).float()).clamp(-127, 127).to(torch.int8)
    scales = random(4 * width).float().abs() / 30 / width**0.5
    if off(kernels.widened(wide, scales, dtype), widened(wide, scales, dtype)) > 0.01:
        return torch.inf
    for tokens in (3, 40):
        vectors, longer = random(tokens, width), random(tokens, 4 * width)
        for given, options in (
            ((vectors, wide, scales, bias), {"act": act}),
            ((longer, narrow, scales[:width], bias[:width]), {"residual": vectors}),
        ):
            expected = PlainKernels.product(*given, **options)
            worst = max(worst, off(kernels.product(*given, **options), expected))
    first, options = vectors[:1], {"norm": norm, "act": act, "scales": scales}
    pair = [one(first, wide, bias, **options) for one in (matvec, PlainKernels.matvec)]
    return max(worst, off(*pair))


CHECKS: dict[str, Callable[..., float]] = {
    "kernels": _difference,
    "prefill_kernels": _prefill_difference,
    "int8_kernels": _int8_difference,
}
"""Module of Triton kernels -> how far they are from torch's operations."""


def _random(device: torch.device, dtype: torch.dtype) -> Callable[..., torch.Tensor]:
    """Returns what draws a tensor of a shape."""
    draw = torch.Generator(device).manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=draw, device=device).to(dtype)


def _norm(random: Callable[..., torch.Tensor], width: int) -> nn.LayerNorm:
    norm = nn.LayerNorm(width)
    norm.weight, norm.bias = nn.Parameter(random(width)), nn.Parameter(random(width))
    return norm


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Returns the largest difference in units of the largest number; infinity where a number is not one."""
    found, expected = found.float(), expected.float()
    difference = float((found - expected).abs().max() / expected.abs().max())
    return difference if difference == difference else torch.inf


WAYS = ("torch", "triton", "early", "one")
"""How a step's matrices are multiplied: by torch, by Triton's kernels, or, with all else too, by those that begin before what they
wait for is done (`early_kernels`), or by one kernel (`one_kernel`)."""

TRIED = ("early",)
"""Which of `WAYS` are tried beside Triton's for one token, from Hopper on. "one" has been compared with torch on a CPU only, where a GPU
is emulated: it is tried where a decoder is told so, until its speed has been measured."""


class Stepper:
    """A model's passes.

    Args:
        model: A `GLMForConditionalGeneration` whose weights stay where they are.
        kernels: `kernels`, or None for torch's operations.
        prefill: `prefill_kernels` or `PlainPrefill`; None where prompts are read otherwise.
        int8: `int8_kernels`, or None.
        tried: As `TRIED`.
    """

    def __init__(
        self,
        model: Any,
        kernels: Any = None,
        prefill: Any = None,
        int8: Any = None,
        tried: Sequence[str] = TRIED,
    ):
        self.model, self.tried = model, tried
        self.kernels, self.prefill, self.int8 = kernels, prefill, int8
        # By number of tokens, which of `WAYS` their matrices are multiplied: as soon as those that there are were tried.
        self.ways: dict[int, str] = {}

    def logits(self, inputs: torch.Tensor, cache: list[Any], limit: int, way: str) -> torch.Tensor:
        """Reads one token at each place and returns logits [T, V] after each, in the model's number type.

        Args:
            inputs: int64 [5 or more, T]: id, position, block position, row of the cache, place in the row.
            cache: Keys and values of each layer, [R, N, C, D] one after the other; the new tokens' are added.
            limit: No place is at or beyond it.
            way: One of `WAYS`; Triton's if T is 1 or weights have 8 bits, "early" if T is 1.
        """
        ids, positions, blocks, slots, places = inputs[:5].unbind()
        transformer, act = self.model.glm.transformer, self.model.config.hidden_act
        attend: Any = (PlainKernels if self.kernels is None else self.kernels).attend
        early = {"early": True} if way == "early" else {}

        def multiply(vectors: torch.Tensor, module: Any, **options: Any) -> torch.Tensor:
            return self.multiply(vectors, module, way=way, **options)

        hidden = self.embed_early(inputs) if early else self.embed(ids, positions, blocks)
        for number, layer in enumerate(transformer.layers):
            attention, mlp = layer.attention, layer.mlp
            mixed = multiply(hidden, attention.query_key_value, norm=layer.input_layernorm)
            context = attend(
                mixed, *cache[2 * number : 2 * number + 2], slots, places, limit, **early
            )
            hidden = multiply(context, attention.dense, residual=hidden)
            wide = multiply(hidden, mlp.dense_h_to_4h, norm=layer.post_attention_layernorm, act=act)
            hidden = multiply(wide, mlp.dense_4h_to_h, residual=hidden)
        return multiply(hidden, self.model.glm.word_embeddings, norm=transformer.final_layernorm)

    def embed(
        self, ids: torch.Tensor, positions: torch.Tensor, blocks: torch.Tensor
    ) -> torch.Tensor:
        """Returns the sum of a token's embedding and those of its two positions, [T, H]."""
        transformer = self.model.glm.transformer
        hidden = self.model.glm.word_embeddings(ids) + transformer.position_embeddings(positions)
        if self.model.config.block_position_encoding:
            hidden = hidden + transformer.block_position_embeddings(blocks)
        return hidden

    def embed_early(self, inputs: torch.Tensor) -> torch.Tensor:
        """As `embed`, by a kernel."""
        transformer, words = self.model.glm.transformer, self.model.glm.word_embeddings
        matrix, scales = matrix_of(words)
        blocks = None
        if self.model.config.block_position_encoding:
            blocks = transformer.block_position_embeddings.weight
        return early_kernels().embed(inputs, matrix, scales, transformer.position_embeddings.weight, blocks)  # fmt: skip

    @staticmethod
    def likeliest(
        logits: torch.Tensor, barred: torch.Tensor, which: torch.Tensor, way: str
    ) -> torch.Tensor:
        """See `likeliest`; `way` as `logits` takes it."""
        return (early_kernels().choose if way == "early" else likeliest)(logits, barred, which)

    def multiply(
        self,
        vectors: torch.Tensor,
        module: Any,
        *,
        norm: nn.LayerNorm | None = None,
        act: str = "",
        residual: torch.Tensor | None = None,
        way: str | None = None,
    ) -> torch.Tensor:
        """Returns act(norm(vectors) · weightᵀ + bias) + residual, [T, M].

        Args:
            vectors: [T, K].
            module: A Linear or an embedding, of 8 bits or more.
            norm: Applied first.
            act: A configuration's `hidden_act`, or "" for none.
            residual: [T, M].
            way: One of `WAYS`; by default Triton's where weights have 8 bits and vectors are few.
        """
        bias: Any = getattr(module, "bias", None)
        options: Any = {"act": act, "residual": residual}
        matrix, scales = matrix_of(module)
        int8 = scales is not None
        if way is None:
            few = int8 and self.int8 is not None and len(vectors) <= FEW
            way = "triton" if few else "torch"
        if way != "torch" and len(vectors) == 1:
            matvec = (early_kernels() if way == "early" else self.kernels).matvec
            return matvec(vectors, matrix, bias, scales=scales, norm=norm, **options)
        if norm is not None:
            vectors = norm(vectors)
        if int8 and self.int8 is not None:
            if way != "torch":
                return self.int8.product(vectors, matrix, scales, bias, **options)
            matrix, scales = self.int8.widened(matrix, scales, vectors.dtype), None
        if act == "gelu_new" and scales is None and vectors.is_cuda and vectors.dtype != torch.float32:  # fmt: skip
            return torch._addmm_activation(bias, vectors, matrix.t(), use_gelu=True)
        return PlainKernels.matvec(vectors, matrix, bias, scales=scales, **options)


def early_kernels() -> Any:
    """Returns the module of that name; only where Triton is there and knows of what begins early."""
    return import_module("glmkit.generation.early_kernels")


def matrix_of(module: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns a Linear's or an embedding's matrix, with the scales of its rows if it has 8 bits."""
    return (module.steps, module.scales) if isinstance(module, Int8Matrix) else (module.weight, None)  # fmt: skip


def likeliest(logits: torch.Tensor, barred: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Returns float64 [2, T]: the likeliest token that is not barred, and its log-probability among those.

    The log-probability is not finite where all are barred.

    Args:
        logits: [T, V].
        barred: bool [M, V].
        which: int64 [T], each token's row of `barred`.
    """
    scores = logits.float().masked_fill(barred.index_select(0, which), -torch.inf)
    best, token = scores.max(-1)
    return torch.stack((token.double(), (best - scores.logsumexp(-1)).double()))
