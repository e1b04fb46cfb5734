"""The chunked loss is cross-entropy, in value and gradient, whatever the chunks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from glmkit.model.loss import _head_loss, head_loss


def sample(tokens: int = 7, dtype: torch.dtype = torch.float32):
    """Returns hidden states, head and labels."""
    generator = torch.Generator().manual_seed(tokens)
    hidden = torch.randn(tokens, 16, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(50, 16, generator=generator).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(50, (tokens,), generator=generator)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100, None])
@pytest.mark.parametrize("num_items", [None, 11, torch.tensor(11)])
def test_it_is_cross_entropy(chunk, num_items):
    hidden, weight, labels = sample()
    loss, losses = head_loss(hidden, weight, labels, num_items, chunk)
    (3 * loss).backward()
    got = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    each = F.cross_entropy(F.linear(hidden, weight), labels, reduction="none")
    expected = each.sum() / (7 if num_items is None else 11)
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(losses, each)
    torch.testing.assert_close(got, (hidden.grad, weight.grad))
    assert not losses.requires_grad


@pytest.mark.parametrize("chunk", [2, None])
def test_reduced_precision_softmaxes_in_float32(chunk):
    hidden, weight, labels = sample(dtype=torch.bfloat16)
    loss, losses = head_loss(hidden, weight, labels, chunk=chunk)
    loss.backward()
    exact = F.linear(hidden, weight).float()
    torch.testing.assert_close(losses, F.cross_entropy(exact, labels, reduction="none"))
    assert loss.dtype == losses.dtype == torch.float32
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16
    half, full = sample()[:2], [hidden, weight]
    F.cross_entropy(F.linear(*half), labels).backward()
    for one, other in zip(full, half, strict=True):
        torch.testing.assert_close(one.grad.float(), other.grad, atol=5e-3, rtol=5e-2)


def test_autocast_computes_logits_in_its_type():
    hidden, weight, labels = sample()
    with torch.autocast("cpu", torch.bfloat16):
        loss, losses = head_loss(hidden, weight, labels)
        logits = F.linear(hidden, weight)
    loss.backward()
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(losses, F.cross_entropy(logits.float(), labels, reduction="none"))
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32


@pytest.mark.parametrize("frozen", ["hidden", "weight", "both"])
def test_what_is_frozen_gets_no_gradient(frozen):
    hidden, weight, labels = sample()
    hidden.requires_grad_(frozen == "weight")
    weight.requires_grad_(frozen == "hidden")
    loss, _ = head_loss(hidden, weight, labels)
    assert loss.requires_grad == (frozen != "both")
    if frozen != "both":
        loss.backward()
    assert (hidden.grad is not None, weight.grad is not None) == (
        frozen == "weight",
        frozen == "hidden",
    )


def test_no_predicted_token_is_loss_0_with_its_graph():
    hidden, weight, labels = sample(0)
    loss, losses = head_loss(hidden, weight, labels)
    loss.backward()
    assert loss.item() == 0.0
    assert losses.shape == (0,)
    assert not weight.grad.any()


@pytest.mark.parametrize("needed", [(True, True), (True, False), (False, True)])
def test_it_is_a_sound_operator(needed):
    hidden, weight, labels = sample()
    hidden.requires_grad_(needed[0])
    weight.requires_grad_(needed[1])
    torch.library.opcheck(_head_loss, (hidden, weight, labels, 3, *needed))
