from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from glmkit.training.average import AverageSettings, WeightAverage, exported


def step(model: nn.Module) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def test_it_is_the_average_of_torchs_averaged_model(model):
    average = WeightAverage(model, AverageSettings(decay=0.9))
    expected = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for number in range(1, 6):
        step(model)
        average.update(number)
        expected.update_parameters(model)
    own = model.weight.clone()
    with average.applied():
        torch.testing.assert_close(model.weight, expected.module.weight)
    assert torch.equal(model.weight, own)


def test_it_begins_with_the_weights_of_a_later_step(model):
    average = WeightAverage(model, AverageSettings(decay=0.5, from_step=3))
    weights = []
    for number in range(1, 5):
        step(model)
        weights.append(model.weight.detach().clone())
        average.update(number)
        with average.applied():
            assert number > 3 or torch.equal(model.weight, weights[-1])
    with average.applied():
        torch.testing.assert_close(model.weight.detach(), (weights[2] + weights[3]) / 2)


def test_it_comes_back_from_a_checkpoint(model, tmp_path):
    average = WeightAverage(model, AverageSettings(decay=0.9, from_step=1))
    average.save(tmp_path)  # before it has begun
    again = WeightAverage(model, AverageSettings(decay=0.9, from_step=1))
    again.load(tmp_path)
    step(model)
    for one in (average, again):
        one.update(1)
    step(model)
    average.update(2)
    average.save(tmp_path)
    again.load(tmp_path)
    with average.applied():
        expected = model.weight.clone()
    with again.applied():
        assert torch.equal(model.weight, expected)


def test_the_average_of_bfloat16_weights_moves(model):
    """In bfloat16 a thousandth of a change is lost; the average is kept in float32."""
    model.bfloat16()
    average = WeightAverage(model, AverageSettings(decay=0.999))
    with torch.no_grad():
        model.weight.fill_(1.0)
        average.update(1)
        model.weight.fill_(0.0)
        for number in range(2, 1002):
            average.update(number)
    with average.applied():
        assert model.weight.float().mean().item() == pytest.approx(0.999**1000, rel=1e-2)


def test_folders_that_a_run_leaves(model):
    assert list(exported(None)) == ["model"]
    for export, folders in (("beside", ["model", "model-average"]), ("instead", ["model"])):
        average = WeightAverage(model, AverageSettings(decay=0.5, export=export))
        assert list(exported(average)) == folders


def test_mistakes():
    assert AverageSettings(decay=1.0).problems()
    assert AverageSettings(decay=0.5, from_step=-1).problems()
    assert not AverageSettings().problems()
