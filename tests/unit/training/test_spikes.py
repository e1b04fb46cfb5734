from __future__ import annotations

import json

import pytest

from glmkit.training.spikes import SpikeGuard, SpikeSettings


def feed(guard: SpikeGuard, steps):
    return [guard.skips(loss, norm) for loss, norm in steps]


def test_leaps_of_the_loss_or_of_the_gradient_are_skipped():
    guard = SpikeGuard(SpikeSettings(loss_factor=2, grad_norm_factor=5, window=3))
    calm = [(4.0, 1.0), (3.9, 1.1), (3.8, 0.9)]
    assert feed(guard, calm) == [False] * 3
    assert feed(guard, [(8.0, 1.0), (3.8, 6.0), (7.0, 4.9)]) == [True, True, False]
    assert guard.skipped == 2


def test_nothing_is_skipped_before_the_window_is_full():
    guard = SpikeGuard(SpikeSettings(loss_factor=2, window=3))
    assert feed(guard, [(1.0, 1.0), (9.0, 1.0), (9.0, 1.0)]) == [False] * 3


def test_a_new_level_is_accepted_after_a_while():
    guard = SpikeGuard(SpikeSettings(loss_factor=2, window=2, patience=3))
    feed(guard, [(1.0, 1.0)] * 2)
    assert feed(guard, [(5.0, 1.0)] * 6) == [True] * 3 + [False] * 3
    assert feed(guard, [(11.0, 1.0)]) == [True]


def test_it_goes_on_from_its_state():
    settings = SpikeSettings(loss_factor=1.5, grad_norm_factor=3, window=4, patience=2)
    steps = [(1 + (i * 7 % 5) / 3, 1 + (i * 11 % 7) / 2) for i in range(60)]
    whole = SpikeGuard(settings)
    expected = feed(whole, steps)
    assert 0 < sum(expected) < 50
    for cut in range(0, 60, 7):
        first, second = SpikeGuard(settings), SpikeGuard(settings)
        found = feed(first, steps[:cut])
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert found + feed(second, steps[cut:]) == expected
        assert second.skipped == whole.skipped


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"loss_factor": 1.0}, "loss_factor = 1.0 must be above 1"),
        ({"grad_norm_factor": 0.5}, "grad_norm_factor = 0.5 must be above 1"),
        ({"window": 0}, "window = 0 must be at least 1"),
        ({"patience": 0}, "patience = 0 must be at least 1"),
    ],
)
def test_mistakes(values, said):
    assert said in SpikeSettings(**values).problems()[0]
    assert not SpikeSettings().problems()
    assert not SpikeSettings().is_on
