"""The native decoder and its `Runner`s (`generation.runner`): sequences of tokens in, logits out.

In: a configuration and `NativeWeights`. Out: logits or hidden states, NumPy arrays. Keys and values are float32 where the weights
are, else float16. Knows no blanks, no settings and no text. Calls from several threads run one after the other; other Python
threads go on meanwhile.

Shapes: T tokens of all feeds, H hidden, V vocabulary.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np

from glmkit.blanks.media import check_media, one_table
from glmkit.checkpoint.packing import FORMATS, PARTS
from glmkit.checkpoint.quantized import (
    LAYER,
    MATRICES,
    TABLES,
    VECTORS,
    WORDS,
    NativeWeights,
    check_shapes,
)
from glmkit.native.library import Sizes, check, load
from glmkit.runtime import num_threads

ACTIVATIONS = ("gelu", "gelu_new", "relu")
"""In the order of the library's numbers for them."""


class NativeDecoder:
    """A GLM's weights in the hands of the native decoder.

    Attributes:
        threads: How many it computes with.
    """

    def __init__(self, config: Any, weights: NativeWeights, threads: int | None = None):
        """Hands the weights to the decoder, which reads them where they lie.

        Args:
            config: The model's `Architecture`, or whatever has its fields.
            weights: Its weights.
            threads: By default as many as `runtime.num_threads` says.

        Raises:
            NativeError: The native decoder is not here.
            CheckpointError: The weights are not those of the configuration.
        """
        check_shapes(config, weights, "the weights")
        self.library = load()
        self.vocabulary, self.hidden = config.vocab_size, config.hidden_size
        sizes = Sizes(
            layers=config.num_layers,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            mlp=config.intermediate_size,
            vocabulary=config.vocab_size,
            positions=config.max_sequence_length + 1,
            activation=ACTIVATIONS.index(config.hidden_act),
            block_positions=config.block_position_encoding,
            half_cache=weights.quantization != "float32",
            epsilon=config.layernorm_epsilon,
        )
        self.threads = threads or num_threads()
        self.model = self.library.glmkit_new(ctypes.byref(sizes), self.threads)
        if not self.model:
            self.checked(-1)
        self._kept: list[np.ndarray] = []  # what the decoder reads must stay where it is
        self._set_matrix(0, 0, weights, WORDS)
        for layer in range(config.num_layers):
            for role, name in enumerate(MATRICES, start=1):
                self._set_matrix(role, layer, weights, LAYER.format(layer) + name)
            for role, name in enumerate(VECTORS):
                self._set_vector(role, layer, weights.vectors[LAYER.format(layer) + name])
        for role, name in enumerate(TABLES, start=len(VECTORS)):
            if name in weights.vectors:
                self._set_vector(role, 0, weights.vectors[name])

    def __del__(self) -> None:
        if getattr(self, "model", None):
            self.library.glmkit_delete(self.model)

    def head(self, states: np.ndarray) -> np.ndarray:
        """Returns the logits, float32 [n, V], of hidden states [n, H]."""
        states = np.ascontiguousarray(states, np.float32)
        logits = np.empty((len(states), self.vocabulary), np.float32)
        addresses = states.ctypes.data, logits.ctypes.data
        self.checked(self.library.glmkit_head(self.model, len(states), *addresses))
        return logits

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values of all sequences; what several share counts once."""
        return self.checked(self.library.glmkit_cache_bytes(self.model))

    def checked(self, status: int) -> int:
        """Returns a result of the library, or raises the `NativeError` that it reports."""
        return check(self.library, status)

    def _set_matrix(self, role: int, layer: int, weights: NativeWeights, name: str) -> None:
        packed = weights.matrices[name]
        addresses = [
            self._keep(packed.parts[name]) if name in packed.parts else None for name in PARTS
        ]
        number = FORMATS.index(packed.format)
        self.checked(self.library.glmkit_set_matrix(self.model, role, layer, number, *addresses))

    def _set_vector(self, role: int, layer: int, vector: np.ndarray) -> None:
        if vector.ndim == 1:  # read in steps of 16
            vector = np.pad(vector, (0, -len(vector) % 16))
        address = self._keep(vector)
        self.checked(self.library.glmkit_set_vector(self.model, role, layer, address))

    def _keep(self, array: np.ndarray) -> int:
        array = np.ascontiguousarray(array)
        self._kept.append(array)
        return array.ctypes.data


class NativeRunner:
    """Sequences that a decoder has read; they are forgotten with their runner. A decoder may have many runners at a time."""

    chooses = True

    def __init__(self, decoder: NativeDecoder):
        self._decoder = decoder
        self._library, self._model = decoder.library, decoder.model
        self._sequences: set[int] = set()
        self._logits = np.empty((0, decoder.vocabulary), np.float32)

    def __del__(self) -> None:
        for sequence in self._sequences:
            self._library.glmkit_close(self._model, sequence)

    def open(self) -> int:
        """Returns the handle of a new, empty sequence."""
        return self._new(self._library.glmkit_open(self._model))

    def fork(self, sequence: int) -> int:
        """Returns the handle of a copy that goes on by itself; what both have read is held once."""
        return self._new(self._library.glmkit_fork(self._model, sequence))

    def truncate(self, sequence: int, length: int) -> None:
        """Forgets all but the first `length` tokens."""
        self._decoder.checked(self._library.glmkit_truncate(self._model, sequence, length))

    def close(self, sequence: int) -> None:
        """Forgets a sequence; its handle is never given again."""
        self._decoder.checked(self._library.glmkit_close(self._model, sequence))
        self._sequences.discard(sequence)

    def length(self, sequence: int) -> int:
        """Returns the number of tokens that a sequence has read."""
        return self._decoder.checked(self._library.glmkit_length(self._model, sequence))

    def forward(self, feeds: Sequence[Any]) -> list[Any]:
        """Reads each feed (`generation.runner.Feed`), at most one for a sequence.

        Returns:
            For each feed logits, float32 [num_logits, V]; or, where it says what is barred, what is chosen at each place: the
            likeliest other token, with its log-probability among those.

        Raises:
            GenerationError: Ids of media without their rows, or rows that are not as wide as the model.
            NativeError: An id or a position beyond the model's tables, an unknown sequence, one that is fed twice, or a prefix
                into a sequence that is not empty. No sequence has grown then.
        """
        barred: list[Any] = [getattr(feed, "barred", None) for feed in feeds]
        if not all(barred):
            answers: list[Any] = self._read(feeds, logits=True)
            return [self._likeliest(answer, some) if some else answer for answer, some in zip(answers, barred, strict=True)]  # fmt: skip
        ends = [0, *accumulate(map(len, barred))]
        # Nobody else sees these logits: they need no new room at each step.
        if len(self._logits) < ends[-1]:
            self._logits = np.empty((ends[-1], self._decoder.vocabulary), np.float32)
        self._read(feeds, logits=True, results=self._logits)
        chosen = self._likeliest(self._logits, [one for some in barred for one in some])
        return [chosen[first:end] for first, end in pairwise(ends)]

    def states(self, feeds: Sequence[Any]) -> list[np.ndarray]:
        """Reads each feed as `forward` does; returns float32 [num_logits, H] after the final LayerNorm."""
        return self._read(feeds, logits=False)

    def _likeliest(
        self, logits: np.ndarray, barred: Sequence[np.ndarray]
    ) -> list[tuple[int, float]]:
        """Returns for each row of logits, float32 [at least n, V], the likeliest token that is not barred, bool n times [≤ V]."""
        barred = [np.ascontiguousarray(one, bool) for one in barred]
        numbers = bytes(8 * len(barred))
        tokens, scores = array("q", numbers), array("d", numbers)
        arrays: list[array[Any]] = [
            array("Q", [one.ctypes.data for one in barred]),
            array("q", map(len, barred)),
            tokens,
            scores,
        ]
        addresses = (logits.ctypes.data, *map(_address, arrays))
        self._decoder.checked(self._library.glmkit_likeliest(self._model, len(barred), *addresses))
        return list(zip(tokens, scores, strict=True))

    def _read(
        self, feeds: Sequence[Any], *, logits: bool, results: np.ndarray | None = None
    ) -> list[np.ndarray]:
        if not feeds:
            return []
        for feed in feeds:
            check_media(feed.ids, feed.media, self._decoder.hidden)
        ids, table = one_table([feed.ids for feed in feeds], [feed.media for feed in feeds])
        media = None if table is None else as_float32(table)
        rows = (None, 0) if media is None else (media.ctypes.data, len(media))
        counts = [feed.num_logits for feed in feeds]
        width = self._decoder.vocabulary if logits else self._decoder.hidden
        if results is None:
            results = np.empty((sum(counts), width), np.float32)
        # Quicker to make than NumPy's, which counts where a token takes some milliseconds.
        arrays: list[array[int]] = [
            array("q", [feed.sequence for feed in feeds]),
            array("i", [len(feed.ids) for feed in feeds]),
            array("i", [feed.prefix for feed in feeds]),
            array("i", counts),
            _joined(ids),
            _joined([feed.positions for feed in feeds]),
            _joined([feed.blocks for feed in feeds]),
        ]
        addresses = map(_address, arrays)
        where = results.ctypes.data
        targets = (None, where) if logits else (where, None)
        status = self._library.glmkit_forward(self._model, len(feeds), *addresses, *rows, *targets)
        self._decoder.checked(status)
        ends = accumulate(counts)
        return [results[end - count : end] for count, end in zip(counts, ends, strict=True)]

    def _new(self, sequence: int) -> int:
        self._sequences.add(self._decoder.checked(sequence))
        return sequence


def as_float32(values: Any) -> np.ndarray:
    """Returns floating numbers of any kind, an array or a tensor, as float32 side by side in memory."""
    if not isinstance(values, np.ndarray):
        values = values.detach().float().cpu().numpy()
    return np.ascontiguousarray(values, np.float32)


def _joined(parts: Sequence[Any]) -> array[int]:
    """Returns whole numbers one after the other, int32; what does not fit becomes the largest or least, which no table has."""
    try:
        return array("i", chain.from_iterable(parts))
    except OverflowError:
        return array("i", [max(-(2**31), min(one, 2**31 - 1)) for part in parts for one in part])


def _address(numbers: array[Any]) -> int:
    return numbers.buffer_info()[0]
