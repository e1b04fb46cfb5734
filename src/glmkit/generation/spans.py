"""The likeliest contents of a blank among all spans of a text, found exactly without scoring them all.

In: a prompt with one blank and a text. Out: its likeliest spans, as characters, with their log-probabilities. A span is
spelled with the tokens that it has as an answer by itself, which may differ from those that it has within the text.

A log-probability only falls as tokens are added. So the best unfinished beginning is always read next (Dijkstra's
algorithm on the tree of spans), and a finished span that is better than all beginnings is the best there is. Where a
span may begin, the likeliest first token of any span from there is the bound, until the search comes to it.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from glmkit.generation.arrays import log_probabilities, reading
from glmkit.generation.choices import content_ids
from glmkit.generation.prompts import Prompt
from glmkit.generation.reading import make_reader
from glmkit.tokens.blanked import encode_content

WIDTH = 32
"""Beginnings that are read at once."""
STARTS = 4
"""Starts that are spelled at once."""
MAX_UNITS = 60
"""Words, numbers or Chinese characters of a span, at most."""
MAX_NODES = 256
"""Beginnings that are read at most, and four times as many as starts that are spelled; then the best finished span so far counts. A model that knows the answer needs few;
one that knows nothing would read nearly all spans."""
PROBES = (1, 2, 3, 4)
"""Lengths (in units) of the spans that tell the possible first tokens at a start, with the longest one."""

_UNIT = re.compile(r"[^\W\d_\u2e80-\U0003ffff]+|\d+|\S", re.UNICODE)
"""What a span does not cut: a word of letters, a number, or one other character (Chinese ones are words too)."""
_SENTENCE_END = re.compile(r"[。！？!?\n]|\.(?=\s|$)")
_NEVER_FIRST = frozenset("，。；：！？、,.;:!?)）】》〉」』”’…")
_NEVER_LAST = frozenset("，。；：！？、,.;:!?(（【《〈「『“‘")


@dataclass(frozen=True)
class FoundSpan:
    """A span that the search found.

    Attributes:
        start: Of its first character.
        end: After its last.
        log_probability: Of its tokens and the end marker, in nats.
    """

    start: int
    end: int
    log_probability: float


def spans_from(text: str, max_units: int) -> dict[int, list[int]]:
    """Returns where spans may start -> where they may end, ascending.

    A span is of whole units (words, numbers, single Chinese characters), within a sentence; it begins and ends with no
    separating punctuation. (With at most 60 units such spans are 99.9 % of DRCD's 6,548 training answers and 96.1 % of the
    3,920 of CMRC 2018, some of which are several sentences; punctuation at the end aside.)

    Args:
        text: The text.
        max_units: Most units of a span.
    """
    units = [found.span() for found in _UNIT.finditer(text)]
    borders = [found.start() for found in _SENTENCE_END.finditer(text)]
    sentence = np.searchsorted(borders, [start for start, _ in units], side="left")
    found: dict[int, list[int]] = {}
    for first, (start, _) in enumerate(units):
        if text[start] in _NEVER_FIRST:
            continue
        ends = [
            end
            for place, (_, end) in enumerate(units[first : first + max_units], start=first)
            if sentence[place] == sentence[first] and text[end - 1] not in _NEVER_LAST
        ]
        if ends:
            found[start] = ends
    return found


@dataclass
class _Node:
    """A beginning: its last token, the beginning before it, and what is known of it."""

    token: int
    parent: int
    depth: int
    total: float = -np.inf
    column: int = -1
    scores: np.ndarray | None = None
    children: dict[int, int] = field(default_factory=dict)
    span: tuple[int, int] | None = None


class SpanSearch:
    """The search in one text for one blank.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode.
        tokenizer: Its `GLMTokenizer`.
        prompt: A prompt with one blank.
        text: The text.
        max_units: Most words, numbers or Chinese characters of a span.
    """

    def __init__(
        self, model: Any, tokenizer: Any, prompt: Prompt, text: str, max_units: int = MAX_UNITS
    ):
        self._model, self._tokenizer, self._prompt, self._text = model, tokenizer, prompt, text
        self._ends = spans_from(text, max_units)
        self._specials = tokenizer.special_ids
        self._reader = make_reader(model, [prompt], self._specials)
        self._nodes = [_Node(self._specials.sop, -1, 0, total=0.0)]
        self._read: list[int] = []
        self._queue: list[tuple[float, int, str, int]] = []
        self._number = count()
        self._score([0])

    def best(self, n: int = 1) -> list[FoundSpan]:
        """Returns the `n` likeliest spans of different texts, best first; fewer where there are not so many."""
        if not self._ends:
            return []
        self._push_starts()
        found: list[FoundSpan] = []
        spelled = 0
        while (
            self._queue
            and len(found) < n
            and len(self._read) < MAX_NODES
            and spelled < MAX_NODES // 4  # a start is some hundred tokens to spell
        ):
            starts: list[int] = []
            nodes: list[int] = []
            while self._queue and len(starts) < STARTS and len(nodes) < WIDTH:
                bound, _, kind, which = self._queue[0]
                if kind == "end":
                    # Proven where nothing that could be better is still open.
                    if not starts and not nodes:
                        heapq.heappop(self._queue)
                        found.append(self._span(which, -bound))
                    break
                heapq.heappop(self._queue)
                (starts if kind == "start" else nodes).append(which)
            self._spell(starts)
            self._read_nodes(nodes)
            spelled += len(starts)
        rest = sorted(entry for entry in self._queue if entry[2] == "end")
        return found + [self._span(which, -bound) for bound, _, _, which in rest[: n - len(found)]]

    def log_probability(self, content: str) -> float:
        """Returns that of any contents of the blank, in nats, the end marker included; part A is not read again.

        Raises:
            GenerationError: They are longer than the model's block positions.
        """
        ids = content_ids(self._model, self._tokenizer, self._prompt, content)
        path = [0]
        for token in ids:
            parent = self._nodes[path[-1]]
            place = parent.children.get(token, -1)
            if place < 0 or self._nodes[place].scores is None:
                # Beside the tree, of which a search only reads what it has queued.
                place = len(self._nodes)
                self._nodes.append(_Node(token, path[-1], parent.depth + 1))
            path.append(place)
        self._score([place for place in path if self._nodes[place].scores is None])
        following = [*ids, self._specials.eop]
        return sum(self._after(place, token) for place, token in zip(path, following, strict=True))

    def _push(self, value: float, kind: str, which: int) -> None:
        heapq.heappush(self._queue, (-value, next(self._number), kind, which))

    def _push_starts(self) -> None:
        probes = [
            (start, end)
            for start, ends in self._ends.items()
            for end in {*(ends[size - 1] for size in PROBES if size <= len(ends)), ends[-1]}
        ]
        bounds: dict[int, float] = {}
        for (start, _), ids in zip(probes, self._encode(probes), strict=True):
            if ids:
                bounds[start] = max(bounds.get(start, -np.inf), self._after(0, ids[0]))
        for start, bound in bounds.items():
            self._push(bound, "start", start)

    def _encode(self, spans: list[tuple[int, int]]) -> Iterator[list[int]]:
        """Yields the ids of spans as answers, many at a time."""
        prompt = self._prompt
        mask = int(prompt.ids[prompt.mask_indices[0]])
        texts = [self._text[start:end] for start, end in spans]
        yield from encode_content(self._tokenizer, prompt.parts[0], mask, texts)

    def _spell(self, starts: list[int]) -> None:
        """Puts all spans from some starts into the tree."""
        spans = [(start, end) for start in starts for end in self._ends[start]]
        for span, ids in zip(spans, self._encode(spans) if spans else (), strict=True):
            place = 0
            for token in ids:
                node = self._nodes[place]
                if token not in node.children:
                    node.children[token] = len(self._nodes)
                    self._nodes.append(_Node(token, place, node.depth + 1))
                    if node.scores is not None:
                        self._open(node.children[token])
                place = node.children[token]
            node = self._nodes[place]
            if place and node.span is None:
                node.span = span
                if node.scores is not None:
                    self._push_end(place)

    def _open(self, place: int) -> None:
        """Queues a node whose parent has been read."""
        node = self._nodes[place]
        node.total = self._nodes[node.parent].total + self._after(node.parent, node.token)
        if node.depth < self._model.config.max_sequence_length:
            self._push(node.total, "node", place)

    def _push_end(self, place: int) -> None:
        self._push(self._nodes[place].total + self._after(place, self._specials.eop), "end", place)

    def _after(self, place: int, token: int) -> float:
        """Returns the log-probability of a token after a node that has been read."""
        scores = self._nodes[place].scores
        assert scores is not None
        return float(scores[token])

    def _read_nodes(self, places: list[int]) -> None:
        """Reads some nodes and queues what follows them."""
        self._score(places)
        for place in places:
            node = self._nodes[place]
            for child in node.children.values():
                self._open(child)
            if node.span is not None:
                self._push_end(place)

    def _score(self, places: list[int]) -> None:
        """Reads some nodes, parents before their children."""
        if not places:
            return
        nodes = [self._nodes[place] for place in places]
        before = len(self._read)
        sees = np.zeros((1, len(nodes), before + len(nodes)), bool)
        for row, node in enumerate(nodes):
            node.column = before + row
            sees[0, row, node.column] = True
            while node.parent >= 0:
                node = self._nodes[node.parent]
                sees[0, row, node.column] = True
        self._read += places
        position = int(self._prompt.mask_indices[0])
        positions = [[position] * len(nodes), [node.depth + 1 for node in nodes]]
        hidden = self._reader.read(
            np.array([[node.token for node in nodes]], np.int64),
            np.array([positions], np.int64),
            sees,
        )
        with reading(self._model):
            scores = log_probabilities(self._model.lm_head(hidden[0]))
        for node, row in zip(nodes, scores, strict=True):
            node.scores = row

    def _span(self, place: int, log_probability: float) -> FoundSpan:
        """Returns a node's span, where its text comes first."""
        start, end = self._nodes[place].span or (0, 0)
        text = self._text[start:end]
        first = next(
            (
                at
                for at, ends in self._ends.items()
                if self._text.startswith(text, at) and at + len(text) in ends
            ),
            start,
        )
        return FoundSpan(first, first + len(text), log_probability)
