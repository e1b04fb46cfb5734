"""A runner without a model, random requests for it, and writing them without an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from zlib import crc32

import numpy as np

from glmkit.blanks.layout import Piece, lay_out
from glmkit.generation.constraints import Choices
from glmkit.generation.decoding import BlankTokens, TokenChooser, random_stream
from glmkit.generation.guidance import Guidance
from glmkit.generation.prompts import Prompt
from glmkit.generation.request import Request
from glmkit.generation.runner import Feed
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.stopping import Cut

PAD, EOP, SOP, MASK = range(4)
VOCABULARY = 16
POSITIONS = 60


def logits_after(tokens: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Logits [V] that depend on all tokens and their places, most on the last two: texts that repeat themselves."""
    texts = repr([token for token, _, _ in tokens[-2:]]), repr(list(tokens))
    last, all_of_them = (
        np.random.default_rng(crc32(text.encode())).standard_normal(VOCABULARY) for text in texts
    )
    return (3 * last + all_of_them).astype(np.float32)


@dataclass
class PaperRunner:
    """Keeps what each sequence has read; `passes` are the feeds of each call."""

    sequences: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    passes: list[list[Feed]] = field(default_factory=list)
    opened: int = 0

    def open(self) -> int:
        self.opened += 1
        self.sequences[self.opened] = []
        return self.opened

    def fork(self, sequence: int) -> int:
        copy = self.open()
        self.sequences[copy] = list(self.sequences[sequence])
        return copy

    def truncate(self, sequence: int, length: int) -> None:
        assert length <= self.length(sequence)
        del self.sequences[sequence][length:]

    def close(self, sequence: int) -> None:
        del self.sequences[sequence]

    def length(self, sequence: int) -> int:
        return len(self.sequences[sequence])

    def forward(self, feeds: Sequence[Feed]) -> list[np.ndarray]:
        self.passes.append(list(feeds))
        results = []
        for feed in feeds:
            read = self.sequences[feed.sequence]
            assert not (feed.prefix and read)
            read += zip(feed.ids, feed.positions, feed.blocks, strict=True)
            ends = range(len(read) - feed.num_logits + 1, len(read) + 1)
            results.append(np.stack([logits_after(read[:end]) for end in ends]))
        return results


class PaperModel:
    """A `PaperRunner` as a model: wrong in a share of its guesses, and unable to read an id."""

    def __init__(self, wrong: float = 0.0, positions: int = POSITIONS, unreadable: int = -1):
        self.config = SimpleNamespace(max_sequence_length=positions)
        self.wrong, self.unreadable, self.random = wrong, unreadable, Random(0)

    def make_runner(self) -> PaperRunner:
        self.runner = PaperRunner()
        read = self.runner.forward

        def forward(feeds: Sequence[Feed]) -> list[np.ndarray]:
            if any(self.unreadable in feed.ids for feed in feeds):
                raise IndexError("no such id")
            return [
                one[..., ::-1].copy() if self.random.random() < self.wrong else one
                for one in read(feeds)
            ]

        self.runner.forward = forward  # type: ignore[method-assign]
        return self.runner


class StopPair:
    """A stop string of two ids; an odd first one was only half of it, so that an id of its own takes its place."""

    def __init__(self, first: int, second: int):
        self.pair = [first, second]

    def cut(self, tokens: list[int]) -> Cut | None:
        if tokens[-2:] != self.pair:
            return None
        return Cut("cut", len(tokens) - 2, [5] if self.pair[0] % 2 else [])


class Raises:
    """A constraint that fails after some tokens."""

    def __init__(self, after: int):
        self.after = after

    def allowed(self, tokens):
        if len(tokens) >= self.after:
            raise ZeroDivisionError("the constraint is broken")


def make_prompt(rng: Random, blanks: int) -> Prompt:
    ids = [rng.randrange(4, VOCABULARY) for _ in range(rng.randint(blanks, 25))]
    masks = sorted(rng.sample(range(len(ids)), blanks))
    for place in masks:
        ids[place] = MASK
    return Prompt(np.array(ids, np.int64), [""] * (blanks + 1), np.array(masks))


def make_chooser(stop=None, forbidden=(PAD, SOP, MASK), **settings) -> TokenChooser:
    return TokenChooser(DecodingSettings(**settings), forbidden, [EOP], VOCABULARY, stop)


def make_request(rng: Random, failing: bool = False) -> Request:
    """Returns any request there may be; `failing` ones meet a constraint that raises, or leaves nothing."""
    blanks, samples = rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 2, 3])
    settings: dict = {"max_new_tokens": rng.choice([1, 3, 12])}
    settings["min_new_tokens"] = rng.randint(0, settings["max_new_tokens"])
    if rng.random() < 0.4:
        settings |= {"do_sample": True, "temperature": rng.choice([0.5, 2.0])}
    elif rng.random() < 0.6:
        settings["prompt_lookup_num_tokens"] = rng.randint(1, 6)
    if rng.random() < 0.2:
        settings["repetition_penalty"] = 1.5
    stop = StopPair(rng.randrange(4, VOCABULARY), rng.randrange(4, VOCABULARY))
    choices = Choices([[5, 6, 7], [5, 6, 8, 9], [10]], EOP)
    constraints: list = []
    if rng.random() < 0.4:
        constraints = [rng.choice([None, choices]) for _ in range(blanks)]
        settings["min_new_tokens"] = rng.randint(0, 1)
    if failing:
        constraints = [None] * blanks
        constraints[rng.randrange(blanks)] = rng.choice([Raises(0), Choices([[SOP]], EOP)])
    chooser = make_chooser(stop if rng.random() < 0.7 else None, **settings)
    seeds = [rng.randrange(1000) for _ in range(samples)]
    prompt, guidance = make_prompt(rng, blanks), None
    if rng.random() < 0.3:
        guidance = Guidance(prompt, make_prompt(rng, blanks), rng.choice([0.5, 1.5, 3.0]))
    return Request(prompt, chooser, constraints, seeds, guidance)


def write(request: Request, sample: int = 0) -> list[BlankTokens]:
    """Writes a sample of a request token by token, all that is read laid out anew for each of them."""
    chooser, guidance = request.chooser, request.guidance
    prompts = [request.prompt, *([guidance.against] if guidance else [])]
    generator = random_stream(request.seeds[sample])
    blanks: list[BlankTokens] = []
    for number in range(len(request.prompt.mask_indices)):
        blank = BlankTokens()
        blanks.append(blank)
        while len(blank.tokens) < min(chooser.settings.max_new_tokens, POSITIONS - 1):
            logits, *against = (_logits(prompt, blanks) for prompt in prompts)
            for other in against:
                logits = other + np.float32(guidance.scale) * (logits - other)
            limit = request.constraints[number] if request.constraints else None
            token, gain = chooser.choose(logits, blank, generator, limit)
            blank.log_probabilities.append(gain)
            if token == EOP:
                blank.finished = True
                break
            blank.tokens.append(token)
            if chooser.stop and (cut := chooser.stop.cut(blank.tokens)):
                blank.tokens = [*blank.tokens[: cut.kept], *cut.rest]
                blank.text, blank.finished = cut.text, True
                break
    return blanks


def _logits(prompt: Prompt, blanks: Sequence[BlankTokens]) -> np.ndarray:
    """Logits [V] after a prompt and the blanks so far, laid out anew."""
    pieces = [
        Piece(int(place), np.array(one.tokens, np.int64), scored=False)
        for place, one in zip(prompt.mask_indices, blanks, strict=False)
    ]
    example = lay_out(prompt.ids, pieces, SOP)
    read = zip(example.input_ids.tolist(), *example.position_ids.tolist(), strict=True)
    return logits_after(list(read))
