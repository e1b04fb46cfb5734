"""Weights in bfloat16 with float32 masters: AdamW's own numbers, nothing lost to rounding, exact resume."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from glmkit.training.masters import MasterAdamW

SETTINGS = {"lr": 1e-3, "betas": (0.9, 0.98), "weight_decay": 0.1, "fused": True}


def layer(seed: int = 0) -> nn.Linear:
    """Returns a layer whose weights bfloat16 holds exactly."""
    torch.manual_seed(seed)
    return nn.Linear(8, 8).bfloat16()


def optimizer(model: nn.Module, kind=MasterAdamW) -> torch.optim.Optimizer:
    return kind([{"params": list(model.parameters())}], **SETTINGS)


def run(model: nn.Module, optim: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(step))
        model(inputs.to(model.weight.dtype)).float().square().mean().backward()
        optim.step()
        optim.zero_grad()


def test_masters_are_what_adamw_makes_of_the_same_gradients():
    model, reference = layer(), layer().float()
    optim, exact = optimizer(model), optimizer(reference, torch.optim.AdamW)
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        for weight, other in zip(model.parameters(), reference.parameters(), strict=True):
            weight.grad = torch.randn(weight.shape, generator=generator)
            other.grad = weight.grad.clone()
        optim.step()
        exact.step()
    for weight, other in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.equal(optim.state[weight]["master"], other)
        assert torch.equal(weight, other.bfloat16())


def test_updates_smaller_than_a_rounding_add_up():
    model = layer()
    with torch.no_grad():
        model.weight.fill_(1.0)
    optim = MasterAdamW([{"params": [model.weight]}], lr=1e-4, weight_decay=0.0)
    for _ in range(100):  # bfloat16 has no number between 0.9961 and 1
        model.weight.grad = torch.ones(8, 8)
        optim.step()
    torch.testing.assert_close(optim.state[model.weight]["master"], torch.full((8, 8), 0.99))
    assert (model.weight == torch.tensor(0.99).bfloat16()).all()


def test_micro_batches_are_summed_in_float32():
    model = layer()
    optim = optimizer(model)
    for scale in (1.0, 1e-4):
        (model.weight * scale).sum().backward()
    assert model.weight.grad.dtype == torch.float32
    expected = 1.0 + float(torch.tensor(1e-4).bfloat16())
    assert model.weight.grad[0, 0].item() == pytest.approx(expected, rel=1e-6)
    optim.zero_grad(set_to_none=False)
    assert not model.weight.grad.any()


def test_resume_is_exact():
    model = layer()
    optim = optimizer(model)
    run(model, optim, range(3))
    stored = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optim.state_dict()}, stored)
    run(model, optim, range(3, 6))

    other = layer(seed=1)
    resumed = optimizer(other)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    other.load_state_dict(state["model"])
    resumed.load_state_dict(state["optimizer"])
    run(other, resumed, range(3, 6))
    assert torch.equal(model.weight, other.weight)
    for one, two in zip(optim.state.values(), resumed.state.values(), strict=True):
        assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_weight_without_a_gradient_is_left_alone():
    model = layer()
    optim = optimizer(model)
    before = model.weight.clone()
    model.bias.grad = torch.ones(8)
    optim.step()
    assert torch.equal(model.weight, before)


def test_schedules_and_closures():
    optim = optimizer(layer())
    schedule = torch.optim.lr_scheduler.LambdaLR(optim, lambda step: 0.5**step)
    optim.step()
    schedule.step()
    assert optim.param_groups[0]["lr"] == pytest.approx(5e-4)
    with pytest.raises(ValueError, match="no closure"):
        optim.step(lambda: 0.0)
