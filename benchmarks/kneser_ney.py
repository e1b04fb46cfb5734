"""An n-gram model of characters with interpolated modified Kneser-Ney smoothing, in NumPy: the baseline of glm-mini.

In: texts. Out: probabilities of characters, bits per character, the likeliest contents of a gap. Source: Chen and
Goodman 1998 (TR-10-98), section 3, equations 20 to 26.

An n-gram has a dense id; that of order k is found by (id of its first k-1 characters, last character), so the
tables of an order are a sorted array of int64 keys and arrays beside it. 24 million characters take about 2 minutes
and 4 GB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BEGIN, UNSEEN = 0, 1
"""Ids: before a text's first character; a character that training did not have."""

UNSEEN_CHARACTERS = 50_000
"""Characters that training did not have, among which the mass of one is divided."""


@dataclass
class _Order:
    """Tables of the n-grams of one order; the last ones are by context (an n-gram of the order below)."""

    keys: np.ndarray
    """int64, sorted: context * V + character."""
    shares: np.ndarray
    """float32: (count - discount) / total of the context."""
    backoff: np.ndarray
    """float32: what is left for the order below."""


class KneserNey:
    """An n-gram model; `fit` makes one."""

    def __init__(self, ids: dict[str, int], orders: list[_Order], unigrams: np.ndarray):
        """Keeps the tables: character -> id, orders 2 to n, probability [V] of each id without context."""
        self.ids = ids
        self.characters = {number: character for character, number in ids.items()}
        self.orders = orders
        self.unigrams = unigrams
        self.size = len(unigrams)
        self.context = len(orders)
        frequent = np.argsort(-unigrams, kind="stable")
        self._letters = np.array(
            [n for n in frequent if n > UNSEEN and self.characters[n].isalpha()]
        )

    @classmethod
    def fit(cls, texts: Sequence[str], order: int = 5) -> KneserNey:
        """Counts texts; each begins after `order - 1` begin markers, and no end is predicted."""
        alphabet = sorted(set().union(*map(set, texts)))
        ids = {character: number for number, character in enumerate(alphabet, 2)}
        stream = _stream(ids, texts, order - 1)
        size = len(ids) + 2
        grams = [stream]
        tables: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # keys, a place, count of each
        for _ in range(order - 1):
            below = grams[-1]
            keys = np.concatenate((below[:1], below[:-1])).astype(np.int64) * size + stream
            unique, place, number, count = np.unique(
                keys, return_index=True, return_inverse=True, return_counts=True
            )
            tables.append((unique, place, count))
            grams.append(number.astype(np.int32))
        orders = []
        for level, (keys, place, count) in enumerate(tables):
            if level + 1 < len(tables):
                # Below the highest order: in how many different contexts an n-gram is seen.
                above = tables[level + 1][1]
                count = np.bincount(grams[level + 1][above], minlength=len(keys))
            count = np.where(stream[place] == BEGIN, 0, count)
            contexts = tables[level - 1][0].size if level else size
            orders.append(_smooth(keys, count, keys // size, contexts))
        seen = np.bincount(stream[tables[0][1]], minlength=size).astype(float)
        seen[BEGIN] = 0
        base = np.full(size, 1 / (size - 2 + UNSEEN_CHARACTERS))
        unigrams = _discounted(seen, np.zeros(size, np.int64), 1)
        probabilities = unigrams[0] + unigrams[1][0] * base
        probabilities[BEGIN] = 0
        return cls(ids, orders, probabilities)

    def encode(self, text: str) -> np.ndarray:
        """Returns the ids (int64) of a text."""
        return np.array([self.ids.get(character, UNSEEN) for character in text], np.int64)

    def log_probabilities(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns for each text the natural logarithm of each character's probability."""
        rows = _stream(self.ids, texts, self.context)
        probabilities = self.probabilities(rows[None])[0]
        keep = np.log(probabilities[rows != BEGIN])
        return np.split(keep, np.cumsum([len(text) for text in texts])[:-1])

    def bits_per_character(self, texts: Sequence[str]) -> float:
        """Returns the mean bits of a character of texts."""
        scores = self.log_probabilities(texts)
        return -sum(map(np.sum, scores)) / np.log(2) / sum(map(len, scores))

    def probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Returns the probability [R, L] of each id in rows [R, L] from those left of it (begin markers: of no use)."""
        probability = self.unigrams[rows]
        grams = rows
        for order in self.orders:
            contexts = np.concatenate((np.full((len(rows), 1), -1), grams[:, :-1]), 1)
            if rows.shape[1] and (rows[:, 0] == BEGIN).all():
                contexts[:, 0] = grams[:, 0]  # before the begin markers there are more of them
            probability, grams = self._step(order, contexts, rows, probability)
        return probability

    def _step(
        self, order: _Order, contexts: np.ndarray, ids: np.ndarray, probability: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Goes one order up: returns probabilities and n-gram ids (-1: never seen)."""
        keys = contexts * self.size + ids
        place = np.minimum(np.searchsorted(order.keys, keys), len(order.keys) - 1)
        found = (contexts >= 0) & (order.keys[place] == keys)
        backoff = np.where(contexts >= 0, order.backoff[np.maximum(contexts, 0)], 1)
        return np.where(found, order.shares[place], 0) + backoff * probability, np.where(
            found, place, -1
        )

    def next_probabilities(self, contexts: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Returns [R, C]: probability of each candidate id [C] after each context [R, n-1]."""
        shape = (len(contexts), len(candidates))
        ids = np.broadcast_to(candidates, shape)
        probability = np.broadcast_to(self.unigrams[candidates], shape)
        for level, order in enumerate(self.orders):
            gram = contexts[
                :, -level - 1
            ].copy()  # id of the context of this order, built from the left
            for step in range(level):
                lower = self.orders[step]
                keys = gram * self.size + contexts[:, -level + step]
                place = np.minimum(np.searchsorted(lower.keys, keys), len(lower.keys) - 1)
                gram = np.where((gram >= 0) & (lower.keys[place] == keys), place, -1)
            probability, _ = self._step(
                order, np.broadcast_to(gram[:, None], shape), ids, probability
            )
        return probability

    def fill(
        self, before: str, after: str, length: int, num: int = 10, beam: int = 50, pool: int = 4000
    ) -> list[str]:
        """Returns the likeliest contents of a gap of known length, best first, judged from both sides.

        The contents are letters (Chinese characters among them). A gap of one is searched over all letters; a longer
        one by a beam from the left over the `pool` most frequent ones. The last beam is scored again with the
        characters after the gap.
        """
        everything = self._letters
        candidates = everything if length == 1 else everything[:pool]
        left = np.concatenate((np.full(self.context, BEGIN), self.encode(before)))[-self.context :]
        rows, scores = left[None], np.zeros(1)
        for step in range(length):
            total = scores[:, None] + np.log(
                self.next_probabilities(rows[:, -self.context :], candidates)
            )
            last = step == length - 1
            keep = total.size if length == 1 else min(total.size, 4 * beam if last else beam)
            best = np.argpartition(-total.ravel(), keep - 1)[:keep]
            row, column = np.divmod(best, len(candidates))
            rows = np.concatenate((rows[row], candidates[column][:, None]), 1)
            scores = total.ravel()[best]
        right = self.encode(after[: self.context])
        if len(right):
            whole = np.concatenate(
                (rows[:, -self.context :], np.broadcast_to(right, (len(rows), len(right)))), 1
            )
            scores = scores + np.log(self.probabilities(whole)[:, self.context :]).sum(1)
        order = np.argsort(-scores, kind="stable")[:num]
        return ["".join(self.characters[one] for one in rows[n, -length:]) for n in order]


def _stream(ids: dict[str, int], texts: Sequence[str], padding: int) -> np.ndarray:
    begin = [BEGIN] * padding
    flat: list[int] = []
    for text in texts:
        flat += begin
        flat += [ids.get(character, UNSEEN) for character in text]
    return np.array(flat, np.int64)


def _smooth(keys: np.ndarray, count: np.ndarray, context: np.ndarray, contexts: int) -> _Order:
    shares, backoff = _discounted(count.astype(float), context, contexts)
    return _Order(keys, shares.astype(np.float32), backoff.astype(np.float32))


def _discounted(
    count: np.ndarray, context: np.ndarray, contexts: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the discounted share of each n-gram, and of each context what the discounts leave over."""
    n1, n2, n3, n4 = (np.count_nonzero(count == number) for number in (1, 2, 3, 4))
    if min(n1, n2, n3):
        y = n1 / (n1 + 2 * n2)
        values = np.array([0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        values = np.clip(values, 0, [0, 0.99, 1.99, 2.99])
    else:  # too little text for the estimate
        values = np.array([0, 0.5, 0.75, 0.75])
    discount = values[np.minimum(count, 3).astype(int)]
    total = np.bincount(context, count, minlength=contexts)
    left = np.bincount(context, discount, minlength=contexts)
    known = total > 0
    backoff = np.where(known, left / np.where(known, total, 1), 1)
    return (count - discount) / np.where(known, total, 1)[context], backoff
