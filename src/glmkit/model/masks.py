"""Who may attend to whom, from the small fields of a batch to what an attention back end takes.

In: prefix lengths, key padding, segments, or one of the mask forms of the published code. Out: None
(everyone sees everyone), an additive mask (eager, SDPA) or a block mask (FlexAttention). Made once a
forward pass and shared by all layers.

Shapes: B rows, Q queries, K keys (cached ones included), P cached keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from glmkit.attention_rule import may_attend
from glmkit.errors import UserError


@dataclass(frozen=True)
class MaskFields:
    """What is known about visibility, all optional, in the model's own terms.

    Attributes:
        dense: [B or 1, 1, Q, K] bool; if given, nothing else counts.
        prefix_lengths: int64 [B or 1]; keys below are part A, keys at or above are part B.
        key_visible: bool [B, K]; False on padding.
        segment_ids: int64 [B, Q], packed rows (0 = padding); with `in_part_b`.
        in_part_b: bool [B, Q], for packed rows.
    """

    dense: torch.Tensor | None = None
    prefix_lengths: torch.Tensor | None = None
    key_visible: torch.Tensor | None = None
    segment_ids: torch.Tensor | None = None
    in_part_b: torch.Tensor | None = None

    def rule(self, row: Any, query: Any, key: Any) -> Any:
        """Returns whether `query` of `row` may attend to `key`; all are index tensors that broadcast."""
        if self.segment_ids is not None:
            assert self.in_part_b is not None
            segment = self.segment_ids[row, key]
            return may_attend(
                query_index=query,
                key_index=key,
                key_in_part_b=self.in_part_b[row, key],
                key_is_visible=(segment == self.segment_ids[row, query]) & (segment > 0),
            )
        if self.prefix_lengths is not None:
            prefix_row = row if len(self.prefix_lengths) > 1 else row * 0
            in_part_b = key >= self.prefix_lengths[prefix_row]
        else:
            in_part_b = key < 0
        visible = key >= 0
        if self.key_visible is not None:
            visible = visible & self.key_visible[row, key]
        return may_attend(
            query_index=query, key_index=key, key_in_part_b=in_part_b, key_is_visible=visible
        )

    @property
    def device(self) -> torch.device:
        """Where the fields live."""
        tensors = (self.dense, self.prefix_lengths, self.key_visible, self.segment_ids)
        return next(tensor.device for tensor in tensors if tensor is not None)


def mask_fields(
    *,
    attention_mask: torch.Tensor | None,
    prefix_lengths: torch.Tensor | None,
    segment_ids: torch.Tensor | None,
    block_positions: torch.Tensor,
    batch_size: int,
    query_length: int,
    past_length: int,
) -> MaskFields:
    """Reads the forward pass's arguments, in glmkit's or in one of the published code's forms.

    Args:
        attention_mask: None; 4-D [B or 1, 1, Q, ≥ K] with 1 = may attend (cropped on the left); 2-D [B, K]
            with 1 = real token; or, without `prefix_lengths`, a separator n (0-d or one element for all
            rows, [B] or [B, 1] one a row): the first n tokens see each other, the rest is causal. None
            without `prefix_lengths` is n = 0: causal.
        prefix_lengths: int64 [B], tokens of part A (padding on the left included).
        segment_ids: int64 [B, Q], packed rows.
        block_positions: int64 [B, Q], second row of the position ids.
        batch_size: B.
        query_length: Q.
        past_length: P; a separator counts from there, the cached keys being visible to all.

    Raises:
        UserError: A shape that none of the forms has, or fields that contradict each other.
    """
    if segment_ids is not None:
        if past_length or attention_mask is not None or prefix_lengths is not None:
            raise UserError(
                "segment_ids (packed rows) cannot be combined with attention_mask, prefix_lengths or a cache"
            )
        return MaskFields(segment_ids=segment_ids, in_part_b=block_positions > 0)
    keys = past_length + query_length
    if attention_mask is None:
        zero = torch.full((1,), past_length, device=block_positions.device)
        return MaskFields(prefix_lengths=zero if prefix_lengths is None else prefix_lengths)
    if attention_mask.dim() == 4:
        return MaskFields(dense=attention_mask[:, :, -query_length:, -keys:] > 0.5)
    if prefix_lengths is None and (
        attention_mask.numel() == 1 or attention_mask.numel() == batch_size
    ):
        return MaskFields(prefix_lengths=attention_mask.reshape(-1).long() + past_length)
    if attention_mask.dim() == 2 and attention_mask.shape[1] >= keys:
        return MaskFields(
            prefix_lengths=prefix_lengths, key_visible=attention_mask[:, -keys:] > 0.5
        )
    raise UserError(
        f"attention_mask of shape {list(attention_mask.shape)} fits none of the forms [B or 1, 1, Q, K], "
        f"[B, K] or one separator a row, with B={batch_size}, Q={query_length}, K={keys}"
    )


def dense_visibility(
    fields: MaskFields, batch_size: int, query_length: int, past_length: int, key_length: int
) -> torch.Tensor:
    """Returns who may attend to whom: bool [B or 1, 1, Q, K]; keys beyond the last query are invisible.

    `key_length` may exceed P + Q: a static cache has room for keys that are not there yet.
    """
    if fields.dense is not None:
        visible = fields.dense
        missing = key_length - visible.shape[-1]
        return torch.nn.functional.pad(visible, (0, missing)) if missing else visible
    device = fields.device
    n_rows = 1 if fields.key_visible is None and fields.segment_ids is None else batch_size
    if fields.prefix_lengths is not None:
        n_rows = max(n_rows, len(fields.prefix_lengths))
    row = torch.arange(n_rows, device=device)[:, None, None]
    query = past_length + torch.arange(query_length, device=device)[:, None]
    key = torch.arange(past_length + query_length, device=device)
    visible = fields.rule(row, query, key).expand(n_rows, query_length, -1)[:, None]
    missing = key_length - visible.shape[-1]
    return torch.nn.functional.pad(visible, (0, missing)) if missing else visible


def additive_mask(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
    """Returns 0 where visible and the dtype's lowest value elsewhere, or None if all is visible (on CPU).

    The lowest value and not minus infinity: a row that sees nothing (padding) becomes uniform attention
    as in the original, not NaN, because adding a score to it changes nothing.
    """
    if visible.device.type == "cpu" and not torch.compiler.is_compiling() and bool(visible.all()):
        return None
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(
        ~visible, torch.finfo(dtype).min
    )


def block_mask(
    fields: MaskFields,
    batch_size: int,
    query_length: int,
    past_length: int,
    key_length: int,
    virtual: int = 0,
) -> BlockMask:
    """Returns FlexAttention's block mask for the same rule; blocks that nobody sees are skipped.

    In front of the keys stand `virtual` more, which everyone sees.
    """
    if fields.dense is not None or past_length or key_length != query_length:
        # Without the axis of heads: until torch 2.10, no index may be a number here.
        visible = dense_visibility(fields, batch_size, query_length, past_length, key_length)[:, 0]
        rows = visible.shape[0]

        def mask_mod(row: Any, head: Any, query: Any, key: Any) -> Any:
            return visible[row if rows > 1 else row * 0, query, key]

    else:

        def mask_mod(row: Any, head: Any, query: Any, key: Any) -> Any:
            return fields.rule(row, query, key)

    def with_virtual(row: Any, head: Any, query: Any, key: Any) -> Any:
        return (key < virtual) | mask_mod(row, head, query, (key - virtual).clamp(min=0))

    return create_block_mask(
        with_virtual if virtual else mask_mod,
        batch_size,
        None,
        query_length,
        virtual + key_length,
        device=str(fields.device),
    )
