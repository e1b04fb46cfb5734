"""Calibration: fitted where the truth is known, kept beside a model."""

from __future__ import annotations

import numpy as np
import pytest

from glmkit.applications.calibration import (
    Calibration,
    fit,
    load_calibrations,
    save_calibrations,
)
from glmkit.errors import ConfigError, DataError


def drawn(n: int, temperature: float, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and answers drawn from softmax(scores / temperature + bias)."""
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 3, (n, len(bias))) - 20  # log-probabilities are far below zero
    labels = [str(i) for i in range(len(bias))]
    truth = Calibration(temperature, dict(zip(labels, bias.tolist(), strict=True)))
    shares = truth.probabilities(scores, labels).cumsum(1)
    return scores, (rng.random((n, 1)) > shares).sum(1)


def test_the_fit_recovers_what_the_data_were_drawn_with():
    bias = np.array([0.5, -0.5, 0.0])
    scores, answers = drawn(4000, 2.5, bias)
    found = fit(scores, answers, ["0", "1", "2"])
    assert found.temperature == pytest.approx(2.5, rel=0.1)
    np.testing.assert_allclose(list(found.bias.values()), bias, atol=0.15)
    alone = fit(scores, answers, ["0", "1", "2"], bias=False)
    assert alone.bias == {}
    assert alone.temperature == pytest.approx(2.5, rel=0.15)


def test_probabilities_by_hand():
    scores = np.log([[0.8, 0.2]]) - 7.0
    plain = Calibration().probabilities(scores, ["a", "b"])
    np.testing.assert_allclose(plain, [[0.8, 0.2]])
    shifted = Calibration(1.0, {"b": np.log(4.0)}).probabilities(scores, ["a", "b"])
    np.testing.assert_allclose(shifted, [[0.5, 0.5]])
    flat = Calibration(1e6).probabilities(scores, ["a", "b"])
    np.testing.assert_allclose(flat, [[0.5, 0.5]], atol=1e-5)
    extreme = Calibration(1e-3).probabilities(np.array([[-1e4, -9e3]]), ["a", "b"])
    np.testing.assert_allclose(extreme, [[0.0, 1.0]])


def test_a_perfect_or_one_sided_sample_does_not_run_away():
    scores = np.array([[0.0, -5.0]] * 20)
    found = fit(scores, np.zeros(20, np.int64), ["a", "b"])
    assert 0.01 < found.temperature < 100
    assert max(map(abs, found.bias.values())) < 20


def test_saved_and_loaded_other_tasks_are_kept(tmp_path):
    assert load_calibrations(tmp_path) == {}
    first = {"sentiment": Calibration(1.5, {"1": 0.25, "0": -0.25})}
    save_calibrations(first, tmp_path)
    path = save_calibrations({"topics": Calibration(2.0)}, tmp_path)
    assert load_calibrations(tmp_path) == {**first, "topics": Calibration(2.0)}
    assert path.name == "calibration.json"


@pytest.mark.parametrize("damage", ["{", "[]", '{"a": 3}', '{"a": {"temperature": 0}}', '{"a": {"bias": {"x": "y"}}}'])  # fmt: skip
def test_a_damaged_file_is_named(tmp_path, damage: str):
    (tmp_path / "calibration.json").write_text(damage, encoding="utf-8")
    with pytest.raises(ConfigError, match="calibration"):
        load_calibrations(tmp_path)


def test_what_cannot_be_fitted_is_named():
    with pytest.raises(DataError, match="at least one example"):
        fit(np.zeros((0, 2)), np.zeros(0, np.int64), ["a", "b"])
    with pytest.raises(ConfigError, match="temperature=-1"):
        Calibration(-1)
