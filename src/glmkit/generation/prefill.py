"""Reading prompts: the tokens of texts of any lengths, one behind the other, through all layers at once.

In: tokens with their rows and places in a static cache, cut into blocks of one row each. Out: keys and values in the cache, and
logits after the tokens that somebody asks about; the last layer computes for those alone. As in `steps`, nothing asks the device for
a number, so that a pass can be captured as a CUDA graph.

Shapes: T tokens, H hidden, N heads, D head size, B blocks, W tokens whose logits are wanted, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from glmkit.generation.memory import PASS
from glmkit.generation.rows import Row
from glmkit.generation.runner import Feed

QUERIES = 64
"""Tokens of a block at the most."""

LARGEST = PASS
"""Tokens of a pass, unless one text is longer: more at once are no faster, and what they are computed with is kept."""


def append(
    mixed: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    places: torch.Tensor,
) -> torch.Tensor:
    """Adds new tokens to a layer's cache, arguments as of `prefill_kernels.attend`; returns their queries, [T, N, D]."""
    query, key, value = mixed.unflatten(-1, (3, keys.shape[1], -1)).unbind(1)
    keys[slots, :, places] = key
    values[slots, :, places] = value
    return query


class PlainPrefill:
    """What `prefill_kernels` computes, in torch's operations, block by block: to check it, and where nothing is captured."""

    @staticmethod
    def add_norm(
        hidden: torch.Tensor, delta: torch.Tensor, norm: nn.LayerNorm
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns hidden + delta, and that normalised; all are [T, H]."""
        total = hidden + delta
        return total, norm(total)

    @staticmethod
    def attend(
        mixed: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        slots: torch.Tensor,
        places: torch.Tensor,
        blocks: torch.Tensor,
    ) -> torch.Tensor:
        """See `prefill_kernels.attend`."""
        query = append(mixed, keys, values, slots, places)
        out = torch.zeros_like(query)
        for slot, first, count, place, prefix in blocks.T.tolist():
            seen = (torch.arange(place + 1, place + count + 1, device=mixed.device)).clamp_min(prefix)  # fmt: skip
            last = max(place + count, prefix)
            context = F.scaled_dot_product_attention(
                query[first : first + count].transpose(0, 1),
                keys[slot, :, :last],
                values[slot, :, :last],
                attn_mask=torch.arange(last, device=mixed.device) < seen[:, None],
            )
            out[first : first + count] = context.transpose(0, 1)
        return out.flatten(1)


def bucket(tokens: int) -> int:
    """Returns for how many tokens a pass is made that is to read so many: eight sizes between a power of two and the next."""
    step = max(16, 1 << max(0, (tokens - 1).bit_length() - 4))
    return -(-tokens // step) * step


class Layout:
    """How one tensor holds all that a pass is told, so that one copy takes it to the device.

    Args:
        tokens: T.
        blocks: B.
        wanted: W.
    """

    def __init__(self, tokens: int, blocks: int, wanted: int):
        self.sizes = (5 * tokens, 5 * blocks, wanted, wanted)

    @property
    def numbers(self) -> int:
        """How many numbers that are."""
        return sum(self.sizes)

    def parts(self, flat: Any) -> tuple[Any, Any, Any, Any]:
        """Returns views of an array or tensor: [5, T] tokens, [5, B] blocks, [W] wanted, [W] rows of barred tokens."""
        ends = np.cumsum((0, *self.sizes)).tolist()
        tokens, blocks, wanted, barred = (flat[a:b] for a, b in zip(ends, ends[1:], strict=False))
        return tokens.reshape(5, -1), blocks.reshape(5, -1), wanted, barred


def fill(
    tokens: np.ndarray,
    blocks: np.ndarray,
    wanted: np.ndarray,
    feeds: Sequence[Feed],
    rows: Sequence[Row],
    spare: int,
) -> None:
    """Writes what a pass is told about feeds; what is left over belongs to the spare row and is in no block.

    Args:
        tokens: int64 [5, T]: id, position, block position, row, place.
        blocks: int64 [5, B]: row, first token, how many, place of the first, how many of the row are part A.
        wanted: int64 [W]: tokens whose logits are wanted.
        feeds: What is read.
        rows: Of each feed.
        spare: The row that belongs to no sequence.
    """
    tokens[:], blocks[:], wanted[:] = 0, 0, 0
    tokens[3] = spare
    start = block = want = 0
    for feed, row in zip(feeds, rows, strict=True):
        count = len(feed.ids)
        end = start + count
        tokens[0, start:end], tokens[1, start:end] = feed.ids, feed.positions
        tokens[2, start:end], tokens[3, start:end] = feed.blocks, row.place
        tokens[4, start:end] = np.arange(row.length, row.length + count)
        begins = np.arange(0, count, QUERIES)
        some = slice(block, block + len(begins))
        blocks[0, some], blocks[1, some] = row.place, start + begins
        blocks[2, some] = np.minimum(count - begins, QUERIES)
        blocks[3, some], blocks[4, some] = row.length + begins, feed.prefix
        wanted[want : want + feed.num_logits] = np.arange(end - feed.num_logits, end)
        start, block, want = end, some.stop, want + feed.num_logits


def read(
    stepper: Any,
    tokens: torch.Tensor,
    blocks: torch.Tensor,
    wanted: torch.Tensor,
    cache: Sequence[Any],
) -> torch.Tensor:
    """Reads tokens and returns logits [W, V] after those that are wanted, in the model's number type.

    Args:
        stepper: A `steps.Stepper` with `prefill`.
        tokens: As `fill` writes them; so are `blocks` and `wanted`.
        blocks: See there.
        wanted: See there.
        cache: Keys and values of each layer, [R, N, C, D] one after the other; the new tokens' are added.
    """
    ids, positions, block_positions, slots, places = tokens.unbind()
    kernels, multiply = stepper.prefill, stepper.multiply
    transformer, act = stepper.model.glm.transformer, stepper.model.config.hidden_act
    hidden = stepper.embed(ids, positions, block_positions)
    norms = [layer.input_layernorm for layer in transformer.layers] + [transformer.final_layernorm]
    normed = norms[0](hidden)
    for number, layer in enumerate(transformer.layers):
        attention, mlp = layer.attention, layer.mlp
        mixed = multiply(normed, attention.query_key_value)
        context = kernels.attend(mixed, *cache[2 * number : 2 * number + 2], slots, places, blocks)
        if number + 1 == len(transformer.layers):  # keys and values of the others are there
            hidden, context = hidden.index_select(0, wanted), context.index_select(0, wanted)
        more = multiply(context, attention.dense)
        hidden, normed = kernels.add_norm(hidden, more, layer.post_attention_layernorm)
        wide = multiply(normed, mlp.dense_h_to_4h, act=act)
        more = multiply(wide, mlp.dense_4h_to_h)
        hidden, normed = kernels.add_norm(hidden, more, norms[number + 1])
    return multiply(normed, stepper.model.glm.word_embeddings)
