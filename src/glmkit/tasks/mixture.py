"""Samples of tasks that are mixed into a stream of text: how many of each, and which.

In: stores of samples, weights, the amount of text. Out: for each window of the stream the samples that go into it.
Which they are depends on the seed and the window's number alone, so a stream can begin anywhere; each task's samples
are read in a shuffled order, all of them once before any is read again.

Source: multi-task instruction pretraining in GLM-130B (arXiv 2210.02414) section 2.2: 5 % of the tokens; sizes
tempered as in T5 (arXiv 1910.10683) section 3.5.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from glmkit.errors import ConfigError, DataError, nearest
from glmkit.tasks.encoding import sample_sizes
from glmkit.tokens.store import TokenStore

_TASKS, _HIDDEN = 4, 5
"""First words of the keys of the random generators here; the stream of texts has 1 to 3."""

HIDDEN_SPAN = 3
"""Mean length of a hidden span, in tokens: that of the token objective."""


@dataclass(frozen=True)
class MixtureSettings:
    """Which tasks are mixed into the text, and how much of them."""

    folders: dict[str, Path] = field(default_factory=dict)
    """Name -> what `glmkit prepare --task` wrote. The name appears in the log: `loss_sentiment`."""
    weights: dict[str, float] = field(default_factory=dict)
    """Name -> factor of a task's share among the tasks; 1 for those that are not named."""
    temperature: float = 1.0
    """A task of n samples counts as n^(1/temperature): 1 follows the sizes, a high one makes the tasks equal."""
    max_share: float = 0.05
    """The tasks' share of all tokens, at most. It is less where one pass over the tasks' samples per pass over the
    text needs less."""
    hide_prob: float = 0.0
    """Probability that words of a sample's question are hidden too, and written after the answer: small labelled data last
    for more passes, and the question's own words are learnt."""
    hide_ratio: float = 0.15
    """Share of such a sample that is hidden."""

    def __post_init__(self) -> None:
        """Checks all values.

        Raises:
            ConfigError: Names every value that is not allowed.
        """
        problems = [
            f"weights.{name}: there is no such task in folders{nearest(name, self.folders)}"
            for name in self.weights
            if name not in self.folders
        ]
        problems += [
            f"weights.{name}={weight}: must not be negative"
            for name, weight in self.weights.items()
            if not weight >= 0
        ]
        problems += [
            f"folders.{name}: a task cannot have the name of an objective"
            for name in self.folders
            if name in ("token", "sentence", "document")
        ]
        if self.folders and not any(self.weights.get(name, 1) > 0 for name in self.folders):
            problems.append("weights: at least one must be positive")
        if not self.temperature > 0:
            problems.append(f"temperature={self.temperature}: must be positive")
        if not 0 <= self.max_share < 1:
            problems.append(f"max_share={self.max_share}: must be at least 0 and below 1")
        for name in ("hide_prob", "hide_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"{name}={getattr(self, name)}: must be between 0 and 1")
        if problems:
            raise ConfigError("the tasks cannot be mixed:\n- " + "\n- ".join(problems))


class TaskMixture:
    """Samples of several tasks for the windows of a stream.

    Args:
        stores: Name -> samples.
        settings: Weights, temperature and share.
        text_tokens: Tokens of text in one pass.
        num_windows: Windows of one pass.
        row_length: A sample must fit into a row, in tokens.
        seed: Of the order.

    Attributes:
        names: Of the tasks, in the order of their numbers.
        share: The tasks' share of all tokens.
        rates: Samples of each task in a window, on average.

    Raises:
        DataError: A sample is longer than a row.
    """

    def __init__(
        self,
        stores: Mapping[str, TokenStore],
        settings: MixtureSettings,
        *,
        text_tokens: int,
        num_windows: int,
        row_length: int,
        seed: int,
    ):
        self.names = tuple(stores)
        self.stores = list(stores.values())
        self.sizes = [sample_sizes(store) for store in self.stores]
        self._seed, self._settings, self._row_length = seed, settings, row_length
        for name, store, sizes in zip(self.names, self.stores, self.sizes, strict=True):
            if sizes.max() > row_length:
                raise DataError(
                    f"task {name!r}: sample {int(sizes.argmax())} of {store.folder} needs {sizes.max()} tokens, rows "
                    f"have {row_length}. Prepare the task again with --max-length {row_length}, or raise "
                    "data.row_length."
                )
        counts = np.array([len(sizes) for sizes in self.sizes], float)
        means = np.array([sizes.mean() for sizes in self.sizes])
        weights = np.array([settings.weights.get(name, 1.0) for name in self.names])
        wanted = weights * counts ** (1 / settings.temperature)
        all_samples = float((counts * means)[weights > 0].sum())
        self.share = min(all_samples / (all_samples + text_tokens), settings.max_share)
        tokens = self.share / (1 - self.share) * text_tokens / num_windows
        self.rates = tokens * wanted / (wanted * means).sum()
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def window(self, number: int) -> list[tuple[int, int, int]]:
        """Returns the samples of the stream's window `number` (from 0, all passes).

        Returns:
            Of each (task, index in its store, how many spans of its question are hidden at most).
        """
        drawn = []
        for task, rate in enumerate(self.rates.tolist()):
            # Rounded up: the first window has a sample of each task, as held-out rows need.
            first, end = math.ceil(number * rate), math.ceil((number + 1) * rate)
            for place in range(first, end):
                turn, index = divmod(place, len(self.sizes[task]))
                drawn.append((task, int(self._order(task, turn)[index])))
        draws = np.random.default_rng((_HIDDEN, self._seed, number)).random(len(drawn))
        return [
            (task, index, self._spans(int(self.sizes[task][index])) if draw else 0)
            for (task, index), draw in zip(drawn, draws < self._settings.hide_prob, strict=True)
        ]

    def _spans(self, size: int) -> int:
        """Returns how many spans of a sample's question can be hidden: each takes two more places of the row."""
        wanted = max(1, round(size * self._settings.hide_ratio / HIDDEN_SPAN))
        return min(wanted, (self._row_length - size) // 2)

    def _order(self, task: int, turn: int) -> np.ndarray:
        """Returns the order in which a task's samples are read the `turn`-th time."""
        if (task, turn) not in self._orders:
            rng = np.random.default_rng((_TASKS, self._seed, task, turn))
            for old in [key for key in self._orders if key[0] == task and key[1] < turn - 1]:
                del self._orders[old]
            self._orders[task, turn] = rng.permutation(len(self.sizes[task]))
        return self._orders[task, turn]
