"""Features of an encoder -> rows that a GLM reads beside its words' embeddings.

In: features on a grid. Out: rows of the GLM's width. Two ways: neighbours merged, then a small network; or learned queries.

Shapes: n media, G = (rows, columns) of the grid, P = rows · columns, D width of the encoder, H of the GLM, R rows of one medium.

Sources: LLaVA-1.5 (arXiv 2310.03744) for the network of two layers, InternVL (arXiv 2404.16821, pixel shuffle) for merging,
Flamingo (arXiv 2204.14198, perceiver resampler) for queries.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def linear(width: int, hidden: int, share_of_word: float) -> nn.Linear:
    """Returns a Linear whose outputs are at first so many times as large as a word's embedding; 0: as large as its inputs."""
    made = nn.Linear(width, hidden)
    made.share_of_word = share_of_word  # type: ignore[assignment]
    return made


GELU_SIZE = 0.65
"""Root mean square of GELU(x), x of N(0, 1)."""


class MergeProjector(nn.Module):
    """Neighbouring features side by side -> LayerNorm -> Linear -> GELU -> Linear.

    Attributes:
        rows: R.
        places: (rows, columns) of what is left of the grid: row r stands for the r-th of these places.
    """

    def __init__(self, grid: tuple[int, int], width: int, hidden: int, merge: int):
        super().__init__()
        self.grid = grid
        self.merge = (min(merge, grid[0]), min(merge, grid[1]))
        self.places = tuple(-(-size // step) for size, step in zip(grid, self.merge, strict=True))
        self.rows = self.places[0] * self.places[1]
        joined = width * self.merge[0] * self.merge[1]
        self.norm = nn.LayerNorm(joined)
        self.up = linear(joined, hidden, 0)
        self.out = linear(hidden, hidden, 1 / GELU_SIZE)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[n, P, D] -> [n, R, H]."""
        count, _, width = features.shape
        (rows, columns), (down, across) = self.grid, self.merge
        grid = features.view(count, rows, columns, width)
        # A grid that does not divide is filled up with zeros.
        grid = F.pad(grid, (0, 0, 0, -columns % across, 0, -rows % down))
        blocks = grid.unflatten(2, (-1, across)).unflatten(1, (-1, down)).transpose(2, 3)
        joined = blocks.flatten(3).flatten(1, 2)
        return self.out(F.gelu(self.up(self.norm(joined))))


class Resampler(nn.Module):
    """Learned queries attend to all features, once; then a network of two layers.

    Attributes:
        rows: R, the queries.
        places: (R, 1): a query stands for no place.
    """

    def __init__(self, grid: tuple[int, int], width: int, hidden: int, queries: int):
        super().__init__()
        self.rows, self.places = queries, (queries, 1)
        self.queries = nn.Parameter(torch.empty(queries, width))
        self.places_of_features = nn.Parameter(torch.empty(grid[0] * grid[1], width))
        self.norm = nn.LayerNorm(width)
        heads = next(n for n in range(max(1, width // 64), 0, -1) if width % n == 0)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.out_norm = nn.LayerNorm(width)
        self.up = linear(width, hidden, 0)
        self.out = linear(hidden, hidden, 1 / GELU_SIZE)
        nn.init.normal_(self.queries, std=0.02)
        nn.init.normal_(self.places_of_features, std=0.02)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[n, P, D] -> [n, R, H]."""
        keys = self.norm(features) + self.places_of_features[: features.shape[1]]
        queries = self.queries.expand(len(features), -1, -1)
        found = queries + self.attention(queries, keys, self.norm(features), need_weights=False)[0]
        return self.out(F.gelu(self.up(self.out_norm(found))))


class TimeEmbedding(nn.Module):
    """When a frame is shown, in seconds -> a vector that is added to its rows.

    Sines and cosines of 16 periods from 1/4 s to about 2 hours, then a Linear.
    """

    PERIODS = 16

    def __init__(self, hidden: int):
        super().__init__()
        self.out = linear(2 * self.PERIODS, hidden, 2**0.5)

    def forward(self, seconds: torch.Tensor) -> torch.Tensor:
        """[n, F] -> [n, F, H]."""
        periods = 0.25 * 2 ** torch.arange(self.PERIODS, device=seconds.device, dtype=torch.float32)
        angles = 2 * torch.pi * seconds.float()[..., None] / periods
        waves = torch.cat((angles.sin(), angles.cos()), -1)
        return self.out(waves.to(self.out.weight.dtype))
