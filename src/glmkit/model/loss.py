"""Cross-entropy through the LM head, a chunk of predicted tokens at a time: the logits [T, V] never exist at once.

In: hidden states of the predicted tokens, the head's weight, labels. Out: the loss, ready for backward, and each
token's loss. The gradient of a chunk is taken while its logits are there, so that backward computes no logits again.
To torch.compile all of it is one operator.

Shapes: T predicted tokens, H hidden, V vocabulary, C tokens of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import register_flop_formula

from glmkit.checkpoint.architecture import head_chunk


def head_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    num_items: torch.Tensor | int | None = None,
    chunk: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the loss of predicting each label from its hidden state, with logits = hidden · weightᵀ.

    Args:
        hidden: [T, H].
        weight: [V, H], the word embedding.
        labels: int64 [T], ids below V.
        num_items: What the sum of the losses is divided by, the predicted tokens of the global batch; by default T.
        chunk: C; by default `head_chunk`.

    Returns:
        The loss (float32, differentiable once, 0 where T = 0) and the losses (float32 [T], without gradient).
        Logits are computed in the type that `hidden` or autocast says, and are softmaxed in float32.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    total, losses, _, _ = _head_loss(
        hidden,
        weight,
        labels,
        chunk or head_chunk(weight.shape[0]),
        torch.is_grad_enabled() and hidden.requires_grad,
        torch.is_grad_enabled() and weight.requires_grad,
    )
    if num_items is None:
        num_items = max(1, labels.shape[0])
    elif isinstance(num_items, torch.Tensor):
        num_items = num_items.to(total.device)
    return total / num_items, losses.detach()


@torch.library.custom_op("glmkit::head_loss", mutates_args=())
def _head_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    chunk: int,
    needs_hidden: bool,
    needs_weight: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the sum of -log softmax(h Wᵀ)[label], its terms [T], and its gradients [T, H] and [V, H].

    d/dlogits = softmax - onehot. A gradient that is not needed is empty.
    """
    head = weight.to(hidden.dtype)
    losses = hidden.new_empty(labels.shape, dtype=torch.float32)
    grad_hidden = torch.empty_like(hidden if needs_hidden else hidden[:0])
    grad_weight = weight.new_zeros(weight.shape if needs_weight and not len(labels) else 0)
    for start in range(0, len(labels), chunk):
        part = slice(start, start + chunk)
        label = labels[part, None]
        log_probs = torch.log_softmax(F.linear(hidden[part], head), 1, dtype=torch.float32)
        right = log_probs.gather(1, label)
        losses[part] = -right.squeeze(1)
        if not (needs_hidden or needs_weight):
            continue
        slope = log_probs.exp_()
        slope = slope.scatter_add_(1, label, torch.full_like(right, -1.0)).to(hidden.dtype)
        if needs_hidden:
            grad_hidden[part] = slope @ head
        if needs_weight:
            share = slope.t() @ hidden[part]
            if start == 0:  # several chunks are summed in float32
                grad_weight = share.float() if len(labels) > chunk else share
            else:
                grad_weight += share
    return losses.sum(), losses, grad_hidden, grad_weight.to(weight.dtype)


@_head_loss.register_fake
def _(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    chunk: int,
    needs_hidden: bool,
    needs_weight: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    losses = hidden.new_empty(labels.shape, dtype=torch.float32)
    grad_hidden = torch.empty_like(hidden if needs_hidden else hidden[:0])
    grad_weight = weight.new_empty(weight.shape if needs_weight else 0)
    return losses.new_empty(()), losses, grad_hidden, grad_weight


@register_flop_formula(torch.ops.glmkit.head_loss)
def _flops(
    hidden: Any,
    weight: Any,
    labels: Any,
    chunk: int,
    needs_hidden: bool,
    needs_weight: bool,
    **_: Any,
) -> int:
    """2·T·H·V of the logits, as many of each gradient (torch's counter passes shapes)."""
    return 2 * hidden[0] * hidden[1] * weight[0] * (1 + needs_hidden + needs_weight)


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.needed = inputs[-2:]
    ctx.save_for_backward(*output[2:])


def _scale_gradients(ctx: Any, grad_total: torch.Tensor, *_: Any) -> tuple[Any, ...]:
    grads = (
        grad * grad_total.to(grad.dtype) if needed else None
        for grad, needed in zip(ctx.saved_tensors, ctx.needed, strict=True)
    )
    return *grads, None, None, None, None


_head_loss.register_autograd(_scale_gradients, setup_context=_keep_gradients)
