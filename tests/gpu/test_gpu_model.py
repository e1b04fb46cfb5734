"""The model on a GPU: the CPU's numbers, the same ones by every attention, their gradients, and the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model_samples import PAD, batch, example, tiny_model
from torch._dynamo.utils import counters

from glmkit.blanks.layout import collate_packed
from glmkit.model.loss import head_loss

pytestmark = pytest.mark.gpu

SIZES = {"hidden_size": 64, "num_attention_heads": 2, "initializer_range": 0.1, "attention_dropout_prob": 0.0}  # fmt: skip
"""Heads of 32: FlexAttention's kernels have none below 16."""


def packed(seed: int) -> dict[str, torch.Tensor]:
    """Returns 2 rows of 256 tokens, two of FlexAttention's blocks, with 5 samples in each and padding behind."""
    rng = np.random.default_rng(seed)
    rows = [
        [example(rng, int(rng.integers(8, 36)), int(rng.integers(1, 12))) for _ in range(5)]
        for _ in range(2)
    ]
    arrays = collate_packed(rows, PAD, 256)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def padded(seed: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return batch([example(rng, length, 4) for length in (9, 30, 17)], side="left")


def on(device: torch.device, fields: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.to(device) for name, value in fields.items()}


def real(fields: dict[str, torch.Tensor]) -> torch.Tensor:
    """Returns bool [B, S]: what is no padding."""
    return fields["input_ids"] != PAD


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Returns the size of a difference as a share of what is expected."""
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    return float((found - expected).norm() / expected.norm())


def losses_and_gradients(model, fields) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    output = model(**fields)
    output.loss.backward()
    gradients = {name: one.grad.clone() for name, one in model.named_parameters()}
    return output.token_losses, gradients


@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 1e-4), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("make", [padded, packed])
def test_logits_are_the_cpus(device, make, dtype, allowed, record_property):
    """In float32 to 1e-4 of their size (a GPU sums in another order); bfloat16 has 8 bits, and is held against the CPU's float32."""
    fields = make(0)
    with torch.no_grad():
        expected = tiny_model(**SIZES)(**fields).logits
        model = tiny_model(**SIZES).to(device, getattr(torch, dtype))
        found = model(**on(device, fields)).logits
    assert found.dtype == getattr(torch, dtype)
    off = distance(found[real(fields).to(device)], expected[real(fields)])
    record_property("off by", f"{off:.1e}")
    assert off < allowed


def test_attentions_agree_on_packed_rows(device, record_property):
    """Forward and backward; FlexAttention is compiled, and learns on a GPU only."""
    fields = packed(1)
    expected_losses, expected = losses_and_gradients(
        tiny_model(implementation="eager", **SIZES), fields
    )
    for implementation in ("eager", "sdpa", "flex_attention"):
        model = tiny_model(implementation=implementation, **SIZES).to(device)
        if implementation == "flex_attention" and device.type == "cpu":
            with torch.no_grad():
                losses, gradients = model(**fields).token_losses, {}
        else:
            losses, gradients = losses_and_gradients(model, on(device, fields))
        torch.testing.assert_close(losses.cpu(), expected_losses, atol=1e-4, rtol=1e-4)
        for name, one in gradients.items():
            off = distance(one, expected[name])
            assert off < 1e-4, (implementation, name, off)
        if gradients:
            worst = max(distance(one, expected[name]) for name, one in gradients.items())
            record_property(implementation, f"gradients off by at most {worst:.1e}")


def test_other_packed_rows_compile_nothing_new(device):
    """The mask's function is another one for each batch; compiled anew each time, FlexAttention would soon not be at all.

    Nor do turns of training and evaluation.
    """
    model = tiny_model(implementation="flex_attention", **SIZES).to(device)

    def step(seed: int) -> None:
        fields = on(device, packed(seed))
        model.train()
        if device.type == "cuda":
            losses_and_gradients(model, fields)
        with torch.no_grad():
            model(**fields)
            model.eval()(**fields)

    step(0)
    compiled = counters["stats"]["unique_graphs"]
    assert compiled > 0
    for seed in range(1, 5):
        step(seed)
    assert counters["stats"]["unique_graphs"] == compiled


@pytest.mark.parametrize("chunk", [None, 70])
@pytest.mark.parametrize(("half", "allowed"), [(False, 1e-4), (True, 2e-2)])
def test_the_heads_loss_is_cross_entropy(device, chunk, half, allowed):
    """In chunks too, in float32 and under autocast to bfloat16, against float64 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(size, 64, generator=generator) for size in (300, 1000))
    labels = torch.randint(1000, (300,), generator=generator)
    wanted = [one.double().requires_grad_() for one in (hidden, 0.1 * weight)]
    expected = F.cross_entropy(F.linear(*wanted), labels)
    expected.backward()
    given = [one.to(device).requires_grad_() for one in (hidden, 0.1 * weight)]
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        loss, losses = head_loss(*given, labels.to(device), chunk=chunk)
    loss.backward()
    assert loss.device.type == device.type
    assert loss.item() == pytest.approx(expected.item(), rel=allowed)
    assert losses.mean().item() == pytest.approx(loss.item(), rel=1e-5)
    for one, other in zip(given, wanted, strict=True):
        assert one.grad.dtype == torch.float32
        assert distance(one.grad, other.grad) < allowed


def test_activation_checkpointing_changes_no_gradient(device):
    """Dropout is on: the layers that are computed again draw the same numbers."""
    implementation = "flex_attention" if device.type == "cuda" else "sdpa"
    fields = on(device, packed(2))
    found = []
    for checkpointing in (False, True):
        model = tiny_model(implementation=implementation, **SIZES, output_dropout_prob=0.2)
        model.to(device).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(5)
        found.append(losses_and_gradients(model, fields))
    (plain_losses, plain), (again_losses, again) = found
    torch.testing.assert_close(again_losses, plain_losses)
    without = losses_and_gradients(model.eval(), fields)[0]
    assert not torch.allclose(without, plain_losses)
    for name, one in plain.items():
        assert distance(again[name], one) < 1e-5, name
