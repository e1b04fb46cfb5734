"""A decode step: one new token at each of T places of a static cache -> logits, by operations of fixed sizes and addresses.

In: six numbers for each token, in one tensor. Out: logits, and the likeliest token that may be written. Nothing here asks the
device for a number, so that a step can be captured once as a CUDA graph and played again; whose row is whose the runner knows.

Shapes: T tokens, H hidden, N heads, D head size, R rows and C capacity of the cache, V vocabulary, M sets of barred tokens.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN

from glmkit.model.modeling import KERNELS

logger = logging.getLogger(__name__)


class PlainKernels:
    """What `kernels` computes, in torch's operations: for devices without Triton, and to check it."""

    @staticmethod
    def matvec(
        vector: torch.Tensor,
        matrix: torch.Tensor,
        bias: torch.Tensor | None = None,
        *,
        norm: nn.LayerNorm | None = None,
        act: str = "",
        residual: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns act(norm(vector) · matrixᵀ + bias) + residual; of any number of vectors [T, K]."""
        result = F.linear(vector if norm is None else norm(vector), matrix, bias)
        if act:
            result = _activation(act)(result)
        return result if residual is None else residual + result

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
        query, key, value = mixed.unflatten(-1, (3, keys.shape[1], -1)).unbind(1)  # [T, N, D]
        keys[slots, :, places] = key
        values[slots, :, places] = value
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


def triton_kernels(device: torch.device, dtype: torch.dtype, sizes: tuple[int, int, str]) -> Any:
    """Returns the module of Triton kernels if it is there and computes here what torch computes, else None, and says why.

    Args:
        device: Where.
        dtype: Of weights and cache.
        sizes: Heads, head size and activation of the model.
    """
    try:
        from glmkit.generation import kernels

        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            difference = _difference(kernels, device, dtype, *sizes)
        allowed = 0.01 if dtype == torch.float32 else 0.05  # a product of matrices may be in TF32
        if not difference <= allowed:
            raise ArithmeticError(f"their results are {difference:.2g} off")
    except Exception as error:  # no Triton, no compiler, a device too old: torch's operations do
        why = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        logger.warning("decoding without Triton kernels (%s), by torch's operations", why)
        return None
    return kernels


@torch.inference_mode()
def _difference(
    kernels: Any, device: torch.device, dtype: torch.dtype, heads: int, size: int, act: str
) -> float:
    """Returns the largest difference between kernels and torch's operations, on a few random tensors of the model's widths."""
    draw = torch.Generator(device).manual_seed(0)
    width, worst = heads * size, 0.0

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw, device=device).to(dtype)

    norm = nn.LayerNorm(width, device=device, dtype=dtype)
    norm.weight.copy_(random(width))
    norm.bias.copy_(random(width))
    wide = random(4 * width, width) / width**0.5
    narrow = random(width, 4 * width) / (4 * width) ** 0.5
    vector, longer, bias = random(1, width), random(1, 4 * width), random(4 * width)
    calls: list[tuple[tuple[torch.Tensor, ...], dict[str, Any]]] = [
        ((vector, wide, bias), {"norm": norm, "act": act}),
        ((longer, narrow, bias[:width]), {"residual": vector}),
        ((vector, wide), {"norm": norm}),
    ]
    for given, options in calls:
        pair = [one.matvec(*given, **options).float() for one in (kernels, PlainKernels)]
        worst = max(worst, float((pair[0] - pair[1]).abs().max() / pair[1].abs().max()))
    cache = random(2, 4, heads, 256, size)
    for slots, places in (([2], [200]), ([1], [0]), ([0, 2, 2, 2, 1], [3, 129, 130, 131, 255])):
        at = [torch.tensor(one, device=device) for one in (slots, places)]
        mixed, both = random(len(slots), 3 * width), [cache.clone(), cache.clone()]
        pair = [
            one.attend(mixed, *held, *at, 256).float()
            for one, held in zip((kernels, PlainKernels), both, strict=True)
        ]
        worst = max(worst, float((pair[0] - pair[1]).abs().max() / pair[1].abs().max()))
        if not torch.equal(*both):
            return torch.inf
    return worst


class Stepper:
    """A model's decode step.

    Args:
        model: A `GLMForConditionalGeneration` whose weights stay where they are.
        kernels: What `triton_kernels` returned.
    """

    def __init__(self, model: Any, kernels: Any = None):
        self.model = model
        self.kernels = kernels
        # Whether one token's matrices are left to them; None until both were tried.
        self.fuses: bool | None = None

    def logits(
        self, inputs: torch.Tensor, cache: list[Any], limit: int, fused: bool
    ) -> torch.Tensor:
        """Reads one token at each place and returns logits [T, V] after each, in the model's number type.

        Args:
            inputs: int64 [5 or more, T]: id, position, block position, row of the cache, place in the row.
            cache: Keys and values of each layer, [R, N, C, D] one after the other; the new tokens' are added.
            limit: No place is at or beyond it.
            fused: Whether matrices too are left to `kernels`, which multiply by one vector: T must be 1.
        """
        ids, positions, blocks, slots, places = inputs[:5].unbind()
        glm = self.model.glm
        transformer, act = glm.transformer, self.model.config.hidden_act
        assert not fused or len(ids) == 1
        matvec = (self.kernels if fused else PlainKernels).matvec
        attend: Any = (PlainKernels if self.kernels is None else self.kernels).attend
        hidden = glm.word_embeddings(ids) + transformer.position_embeddings(positions)
        if self.model.config.block_position_encoding:
            hidden = hidden + transformer.block_position_embeddings(blocks)
        for number, layer in enumerate(transformer.layers):
            attention, mlp = layer.attention, layer.mlp
            first, out = attention.query_key_value, attention.dense
            mixed = matvec(hidden, first.weight, first.bias, norm=layer.input_layernorm)
            context = attend(mixed, *cache[2 * number : 2 * number + 2], slots, places, limit)
            hidden = matvec(context, out.weight, out.bias, residual=hidden)
            up, down = mlp.dense_h_to_4h, mlp.dense_4h_to_h
            wide = matvec(hidden, up.weight, up.bias, norm=layer.post_attention_layernorm, act=act)
            hidden = matvec(wide, down.weight, down.bias, residual=hidden)
        words = glm.word_embeddings.weight
        return matvec(hidden, words, norm=transformer.final_layernorm)


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
