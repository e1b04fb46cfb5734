"""A request, and each sample of it while it is written: from logits to contents of blanks, and to what is read next.

In: a request, logits. Out: events, and inputs with their 2-D positions. A blank is conditioned on the ones before it; its
start marker is fed where the last one ended. Knows no other requests and no cache: where inputs go, the engine says.

Shapes: G guesses, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from glmkit.blanks.layout import Piece, lay_out
from glmkit.generation.constraints import Constraint, Room, within_room
from glmkit.generation.decoding import BlankTokens, TokenChooser, nothing_allowed, random_stream
from glmkit.generation.guidance import Guidance
from glmkit.generation.lookup import guess
from glmkit.generation.prompts import Prompt
from glmkit.generation.runner import Answer

Token = tuple[int, int, int]
"""An input: id, position, block position."""


@dataclass(frozen=True)
class Request:
    """What is to be written.

    Attributes:
        prompt: Part A, with at least one blank.
        chooser: How tokens are chosen.
        constraints: What each blank may contain (None is anything); empty where none is limited.
        seeds: The seed of each sample's random stream; None is the settings'. There are as many samples as seeds.
        guidance: What the text is led away from; such a sample takes the room of two.
    """

    prompt: Prompt
    chooser: TokenChooser
    constraints: Sequence[Constraint | None] = ()
    seeds: Sequence[int | None] = (None,)
    guidance: Guidance | None = None

    def longest(self, max_positions: int) -> int:
        """Returns the most tokens of a blank."""
        return self.chooser.settings.longest(max_positions)

    def within(self, max_positions: int) -> Request:
        """Returns the request with constraints that know how long a blank may become.

        Raises:
            GenerationError: One of them needs more.
        """
        room = Room(tokens=self.longest(max_positions))
        return replace(self, constraints=within_room(self.constraints, room))

    def tokens(self, max_positions: int) -> int:
        """Returns the most tokens of a sample in a cache: part A, each blank with its start marker, guesses from the text."""
        blanks = len(self.prompt.mask_indices) * (1 + self.longest(max_positions))
        own = len(self.prompt.ids) + blanks + self.chooser.settings.prompt_lookup_num_tokens
        return own if self.guidance is None else own + self.guidance.length(own)


@dataclass(eq=False)
class Ticket:
    """A request in the engine, and what has been written of it.

    Attributes:
        request: The request.
        samples: For each sample its blanks so far.
        done: Whether nothing more will be written: all is finished, it was cancelled, or there was an error.
        error: What ended it, or None.
    """

    request: Request
    samples: list[list[BlankTokens]]
    done: bool = False
    error: Exception | None = None


@dataclass(frozen=True)
class Event:
    """A token was written (`token`), or the blank ended or failed with `ticket.error` (`token` is None)."""

    ticket: Ticket
    sample: int
    blank: int
    token: int | None


@dataclass(eq=False)
class Slot:
    """One sample in the engine.

    Attributes:
        ticket: What it belongs to.
        sample: Its number there.
        sop: Id of the start marker.
        longest: Most tokens of a blank.
        sequence: Its handle in the runner; None until the request's first slot has read part A for all.
        read: Inputs that have been read and still count.
        pending: Inputs to be read: part A, tokens, start markers; empty in the end.
        prefix: Tokens of part A among them.
        guesses: Inputs read behind `pending` that may turn out wrong.
    """

    ticket: Ticket
    sample: int
    sop: int
    longest: int
    sequence: int | None = None
    read: list[Token] = field(default_factory=list)
    pending: list[Token] = field(default_factory=list)
    prefix: int = 0
    guesses: list[Token] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings, seed = self.request.chooser.settings, self.request.seeds[self.sample]
        self._generator: np.random.Generator | None = None
        if settings.do_sample:
            self._generator = random_stream(settings.seed if seed is None else seed)

    @property
    def request(self) -> Request:
        return self.ticket.request

    @property
    def blanks(self) -> list[BlankTokens]:
        return self.ticket.samples[self.sample]

    def begin(self) -> None:
        """Puts part A and the first start marker before what is to be read."""
        prompt = self.request.prompt
        first = Piece(int(prompt.mask_indices[0]), np.empty(0, np.int64), scored=False)
        example = lay_out(prompt.ids, [first], self.sop)
        columns = (example.input_ids.tolist(), *example.position_ids.tolist())
        self.pending, self.prefix = list(zip(*columns, strict=True)), example.prefix_length

    @property
    def written(self) -> int:
        """Tokens of the current blank."""
        return len(self.blanks[-1].tokens)

    @property
    def room(self) -> int:
        """Most guesses that can be of use: after them one token is written in any case."""
        return self.longest - self.written - 1

    @property
    def goes_on(self) -> bool | None:
        """Whether the token that is chosen next is read then, unless it ends the blank; None before a blank that is not the last."""
        if self.room > 0:
            return True
        return False if len(self.blanks) == len(self.request.prompt.mask_indices) else None

    def look_up(self) -> None:
        """Guesses from the text what comes after what is pending, where the settings want it."""
        if most := self.request.chooser.settings.prompt_lookup_num_tokens:
            blanks = [blank.tokens for blank in self.blanks]
            most = min(most, self.room)
            self.guess(guess(self.request.prompt, blanks, most, self.request.chooser.writable))

    def guess(self, tokens: Sequence[int]) -> None:
        """Adds tokens that may come next, after what is pending and guessed already."""
        _, position, block = [*self.pending, *self.guesses][-1]
        self.guesses += [
            (token, position, block + place) for place, token in enumerate(tokens, start=1)
        ]

    def inputs(self) -> list[Token]:
        """Returns what is read next: what is pending, and guesses of what comes after."""
        inputs = self.pending + self.guesses
        self.read += inputs
        return inputs

    def barred(self) -> list[np.ndarray] | None:
        """Returns what may not stand at each place that is asked for, or None where logits are needed to choose."""
        request, chooser = self.request, self.request.chooser
        if request.guidance is not None or any(one is not None for one in request.constraints):
            return None
        places = [chooser.barred(self.written + number) for number in range(1 + len(self.guesses))]
        return None if places[0] is None else places  # type: ignore[return-value]

    def take(self, logits: Answer, events: list[Event]) -> int:
        """Writes one token, and one more for each guess that was right; adds what happened to `events`.

        Args:
            logits: [1 + G, V], after the last pending input and after each guess; or what a runner chose there.
            events: Those of the step so far.

        Returns:
            How many of the last tokens read must be forgotten: wrong guesses, and what belongs to a stop string.

        Raises:
            Exception: What a constraint raises; a `GenerationError` where it leaves no token.
        """
        wrong, guesses = len(self.guesses), [*self.guesses, None]
        self.pending, self.prefix, self.guesses = [], 0, []
        for row, expected in zip(logits, guesses, strict=True):
            hidden = self._advance(row, events)
            if self.pending != [expected]:
                break
            self.pending, wrong = [], wrong - 1  # it has been read already
        forgotten = wrong + hidden
        del self.read[len(self.read) - forgotten :]
        return forgotten

    def _advance(self, logits: np.ndarray | tuple[int, float], events: list[Event]) -> int:
        """Adds a token to the current blank, or ends it and opens the next one; returns how much of it is not to be seen."""
        number, blank = len(self.blanks) - 1, self.blanks[-1]
        request, chooser, hidden = self.request, self.request.chooser, 0
        masks = request.prompt.mask_indices.tolist()
        constraint = request.constraints[number] if request.constraints else None
        if isinstance(logits, tuple):
            token, log_probability = logits
            if not math.isfinite(log_probability):
                raise nothing_allowed(constraint, len(blank.tokens), chooser.settings)
        else:
            token, log_probability = chooser.choose(logits, blank, self._generator, constraint)
        blank.log_probabilities.append(log_probability)
        blank.finished = not chooser.writable[token]
        going_on = False
        if not blank.finished:
            blank.tokens.append(token)
            if chooser.stop and (cut := chooser.stop.cut(blank.tokens)):
                hidden = len(blank.tokens) - 1 - cut.kept  # the last token has not been read
                blank.tokens[cut.kept :] = cut.rest
                blank.text, blank.finished = cut.text, True
                fed = enumerate(cut.rest, start=cut.kept + 2)
                self.pending = [(one, masks[number], block) for block, one in fed]
            else:
                self.pending = [(token, masks[number], len(blank.tokens) + 1)]
                going_on = len(blank.tokens) < self.longest
        written = None if blank.finished else token
        events.append(Event(self.ticket, self.sample, number, written))
        if not going_on:
            if number + 1 < len(masks):
                self.blanks.append(BlankTokens())
                self.pending.append((self.sop, masks[number + 1], 1))
            else:
                self.pending = []
        return hidden
