from __future__ import annotations

import time

import pytest
import torch

from glmkit.training.flops import StepFlops
from glmkit.training.meters import (
    MACHINE_DEPENDENT,
    Window,
    means,
    sample_lengths,
    sums_by_index,
)

FLOPS = StepFlops(per_token=10.0, per_pair=1.0, per_prediction=100.0)


def a_batch():
    """Samples of 3 and 2 tokens in one row, one of 4 in the other; 3 predicted tokens, 3 places of padding."""
    return {
        "segment_ids": torch.tensor([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 0, 0]]),
        "labels": torch.tensor([[-100, -100, 7, -100, 8, -100], [-100, -100, -100, 9, -100, -100]]),
    }


def test_lengths_of_samples():
    lengths = sample_lengths(a_batch()["segment_ids"])
    assert sorted(lengths[lengths > 0].tolist()) == [2, 3, 4]


def test_counts_by_hand():
    window = Window(("token", "document"), FLOPS)
    window.peak_flops = 1e6
    window.count(a_batch())
    window.losses += torch.tensor([[6.0, 4.0], [2.0, 1.0]])
    window.started = time.monotonic() - 2.0
    logs = window.close()
    assert logs["loss_token"] == 3.0
    assert logs["loss_document"] == 4.0
    assert "loss_loss" not in logs
    assert logs["tokens"] == 9
    assert logs["predicted_tokens"] == 3
    assert logs["padding_ratio"] == pytest.approx(3 / 12)
    assert logs["tokens_per_second"] == pytest.approx(4.5, rel=0.05)
    # 9 tokens, 9 + 4 + 16 pairs, 3 predictions
    assert logs["mfu"] == pytest.approx((90 + 29 + 300) / 2 / 1e6, rel=0.05)
    assert 0.01 < logs["peak_memory_gib"] < 1000
    assert set(MACHINE_DEPENDENT) <= set(logs)
    assert window.close()["tokens"] == 9
    assert window.close()["tokens_per_second"] == 0


def test_waiting_for_data_is_measured():
    def slow():
        while True:
            time.sleep(0.02)
            yield a_batch()

    window = Window(("token",), FLOPS)
    batches = window.timed(slow())
    next(batches)
    time.sleep(0.02)
    next(batches)
    assert 0.2 < window.close()["data_wait_ratio"] < 0.95
    assert window.close()["data_wait_ratio"] == 0


def test_a_resumed_window_goes_on_with_its_sums_and_its_clock():
    window = Window(("token",), FLOPS)
    window.count(a_batch())
    window.started -= 10
    again = Window(("token",), FLOPS)
    again.load_state_dict(window.state_dict())
    again.count(a_batch())
    logs = again.close()
    assert logs["tokens"] == 18
    assert logs["tokens_per_second"] == pytest.approx(1.8, rel=0.05)


def test_numbers_are_of_all_processes():
    """Two processes with the same numbers; the state is divided among as many as there are later."""

    def twice(vector):
        return torch.stack((vector, vector))

    windows = [Window(("token",), FLOPS, twice, is_first=first) for first in (True, False)]
    for window in windows:
        window.peak_flops = 1e6
        window.count(a_batch())
        window.losses += torch.tensor([[6.0], [2.0]])
        window.started = time.monotonic() - 1.0
    state = windows[0].state_dict()
    assert windows[0].totals_of_all() == (18, 24, 6)
    logs = windows[0].close()
    assert logs["tokens"] == 18
    assert logs["loss_token"] == 3.0
    assert logs["mfu"] == pytest.approx(419 / 1e6, rel=0.05)  # a process' share of work and peak
    for window in windows:
        window.load_state_dict(state)
    assert [int(window.counts[0]) for window in windows] == [18, 0]


def test_sums_and_means():
    sums = sums_by_index(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0, 2, 2]), 3)
    assert means(sums, ("a", "b", "c")) == {"loss": 3.0, "a_loss": 1.0, "c_loss": 4.0}
