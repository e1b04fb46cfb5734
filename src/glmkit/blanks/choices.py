"""Many possible contents of one blank as a tree: what they have in common is read once.

In: the token ids of each choice. Out: the tree's nodes as arrays, their positions, and which node may look at which.
Knows ids only.

A node is a token that part B reads, the root the start marker. A node sees part A and its own path from the root, so
that every choice is read as if it were the only one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ChoiceTree:
    """The contents that a blank may have, common beginnings merged.

    Attributes:
        tokens: int64 [n], what is read at each node; parents come before their children.
        parents: int64 [n], -1 at the root.
        depths: int64 [n], 0 at the root.
        ends: int64 [choices], the node where each choice ends (equal choices end at one node).
    """

    tokens: np.ndarray
    parents: np.ndarray
    depths: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def positions(self, mask_index: int) -> np.ndarray:
        """Returns int64 [2, n]: the mask's position, and block positions that begin with 1 at the root."""
        return np.stack((np.full(len(self), mask_index), self.depths + 1))

    def visibility(self) -> np.ndarray:
        """Returns bool [n, n]: whether a node (row) sees a node, which is so on its path from the root."""
        sees = np.eye(len(self), dtype=bool)
        for node, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                sees[node] |= sees[parent]
        return sees


def build_tree(choices: Sequence[Sequence[int]], sop: int) -> ChoiceTree:
    """Returns the tree of choices, each a sequence of ids (an empty one ends at the root).

    Args:
        choices: The contents, without start and end markers.
        sop: Id of `<|startofpiece|>`, read at the root.
    """
    tokens, parents, depths, ends = [sop], [-1], [0], []
    children: dict[tuple[int, int], int] = {}
    for choice in choices:
        node = 0
        for token in map(int, choice):
            child = children.setdefault((node, token), len(tokens))
            if child == len(tokens):
                tokens.append(token)
                parents.append(node)
                depths.append(depths[node] + 1)
            node = child
        ends.append(node)
    return ChoiceTree(*(np.asarray(values, np.int64) for values in (tokens, parents, depths, ends)))
