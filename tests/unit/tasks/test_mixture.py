"""How many samples of each task go into the stream, and which: weights, temperature, a share that is kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from glmkit.errors import ConfigError, DataError
from glmkit.tasks.mixture import MixtureSettings, TaskMixture
from glmkit.tokens.store import TokenStore, TokenStoreWriter


def make_store(folder, samples: int, length: int) -> TokenStore:
    with TokenStoreWriter(folder, "none", 100) as writer:
        for _ in range(samples):
            writer.add([4] * (length + 1))
    return TokenStore.open(folder)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    return {
        "big": make_store(folder / "big", 400, 20),
        "small": make_store(folder / "small", 100, 50),
    }


def make(stores, text_tokens=1_000_000, **settings) -> TaskMixture:
    return TaskMixture(
        stores,
        MixtureSettings(folders=dict.fromkeys(stores, Path()), **settings),
        text_tokens=text_tokens,
        num_windows=50,
        row_length=64,
        seed=1,
    )


def test_one_pass_over_the_tasks_goes_with_one_over_the_text(stores):
    mixture = make(stores, max_share=0.5)
    drawn = [one for window in range(50) for one in mixture.window(window)]
    assert mixture.share == pytest.approx(13_000 / 1_013_000)
    every = [(0, i, 0) for i in range(400)] + [(1, i, 0) for i in range(100)]
    assert Counter(drawn) == Counter(every)


def test_hidden_words_have_room_in_the_row(stores):
    mixture = make(stores, max_share=0.5, hide_prob=0.5, hide_ratio=0.3)
    drawn = [one for window in range(50) for one in mixture.window(window)]
    assert {spans for task, _, spans in drawn if task == 0} == {0, 2}
    assert {spans for task, _, spans in drawn if task == 1} == {0, 5}
    share = np.mean([spans > 0 for *_, spans in drawn])
    assert 0.4 < share < 0.6
    tight = make(stores, max_share=0.5, hide_prob=1.0, hide_ratio=1.0)
    assert max(spans for task, _, spans in tight.window(0) if task == 1) == (64 - 50) // 2


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_the_share_of_tokens_is_kept(stores, share):
    mixture = make(stores, text_tokens=20_000, max_share=share)
    assert mixture.share == share
    sizes = [20, 50]
    tokens = sum(sizes[task] for window in range(500) for task, *_ in mixture.window(window))
    text = 20_000 * 10
    assert tokens / (tokens + text) == pytest.approx(share, rel=0.03)


def test_weights_and_temperature(stores):
    def rates(**settings):
        big, small = make(stores, **settings).rates
        return big / small

    assert rates() == pytest.approx(4)
    assert rates(weights={"small": 2}) == pytest.approx(2)
    assert rates(temperature=2) == pytest.approx(2)
    assert rates(temperature=1e9) == pytest.approx(1)
    assert make(stores, weights={"big": 0}).rates[0] == 0


def test_all_samples_are_read_before_any_is_read_again_and_orders_differ(stores):
    mixture = make(stores, text_tokens=10_000, max_share=0.5)
    drawn = [
        index for window in range(200) for task, index, _ in mixture.window(window) if task == 1
    ]
    turns = [drawn[i : i + 100] for i in range(0, len(drawn) - 99, 100)]
    assert len(turns) >= 3
    assert all(sorted(turn) == list(range(100)) for turn in turns)
    assert turns[0] != turns[1]


def test_a_window_depends_on_its_number_alone(stores):
    whole = make(stores)
    windows = [whole.window(number) for number in range(120)]
    assert make(stores).window(77) == windows[77]
    assert whole.window(3) == windows[3]


def test_mistakes(stores):
    with pytest.raises(DataError, match=r"task 'small': sample 0 .* needs 50 tokens, rows have 32"):
        TaskMixture(stores, MixtureSettings(), text_tokens=1, num_windows=1, row_length=32, seed=0)
    with pytest.raises(ConfigError) as caught:
        MixtureSettings(
            {"qa": "x", "token": "y", "poem": "z"}, {"poems": 1, "qa": -1}, 0, 1.0, hide_prob=2
        )
    for part in (
        "weights.poems",
        "hide_prob=2",
        "did you mean 'poem'",
        "weights.qa=-1",
        "temperature",
        "max_share",
        "folders.token",
    ):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="at least one must be positive"):
        MixtureSettings({"qa": "x"}, {"qa": 0})
    assert np.isfinite(make(stores).rates).all()
