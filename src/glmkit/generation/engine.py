"""The engine: requests come and go at any time, and all that run are read on together, one pass a step.

In: requests (part A with blanks, how to choose, constraints, seeds). Out: events, token by token, and tickets that hold
what was written. Part A is read once for all samples of a request, then every blank is written on the same cache, so that
nothing is computed twice; a row that is done makes room for the next request at once. What a request gets depends on
nothing but itself: its tokens are those that it has alone, its draws come from its own seeds, its error ends nobody else.

One lock is held by `submit`, `cancel` and `step`: any thread may call any of them, and waits for the step that is running.
The engine knows no text, no tokenizer and no tensors of a model; how a blank is written is said in `request`,
how it is read in `runner`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from glmkit.errors import GenerationError
from glmkit.generation.assistant import Assistant
from glmkit.generation.decoding import BlankTokens
from glmkit.generation.guidance import GuidedRunner
from glmkit.generation.request import Event, Request, Slot, Ticket
from glmkit.generation.runner import Answer, Feed, Runner


class Engine:
    """Writes the blanks of many requests at once.

    Args:
        runner: The model; the engine alone uses it.
        sop: Id of the start marker.
        max_positions: The model's `max_sequence_length`.
        max_batch: Most samples that run at once.
        max_tokens: Most tokens that they may come to together, part A and all blanks at full length; None is no limit. A
            request waits until it surely fits: what runs is never thrown out again.
        assistant: A smaller model that guesses what comes next.

    Raises:
        GenerationError: A limit below 1.
    """

    def __init__(
        self,
        runner: Runner,
        sop: int,
        max_positions: int,
        *,
        max_batch: int = 8,
        max_tokens: int | None = None,
        assistant: Assistant | None = None,
    ):
        for name, value in (("max_batch", max_batch), ("max_tokens", max_tokens)):
            if value is not None and value < 1:
                raise GenerationError(f"{name}={value} must be at least 1")
        self._runner = GuidedRunner(runner)
        self._drafter = assistant.make_drafter() if assistant is not None else None
        self._sop, self._max_positions = sop, max_positions
        self._max_batch, self._max_tokens = max_batch, max_tokens
        self._waiting = deque[Ticket]()
        self._slots: list[Slot] = []
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether there is something to be written."""
        return bool(self._waiting or self._slots)

    @property
    def waiting(self) -> int:
        """How many requests wait for room."""
        return len(self._waiting)

    def submit(self, request: Request) -> Ticket:
        """Puts a request at the end of the line.

        Raises:
            GenerationError: It could never run, or a constraint needs more room than its blank has; the message says why.
        """
        self._check(request)
        request = request.within(self._max_positions)
        ticket = Ticket(request, [[BlankTokens()] for _ in request.seeds])
        with self._lock:
            self._waiting.append(ticket)
        return ticket

    def cancel(self, ticket: Ticket) -> bool:
        """Ends a request; its rows are free at once, what it has written stays in the ticket.

        Returns:
            Whether there was something to end.
        """
        with self._lock:
            ended = not ticket.done
            self._end(ticket)
            return ended

    def step(self) -> list[Event]:
        """Lets waiting requests in as far as there is room, and reads all that run once.

        Returns:
            What was written. What a request raised is in its ticket.
        """
        with self._lock:
            events: list[Event] = []
            self._admit(events)
            readers = [slot for slot in self._slots if slot.pending]
            self._guess(readers)
            feeds = [_feed(slot, self._runner.chooses) for slot in readers]
            forking = any(slot.sequence is None for slot in self._slots)
            for slot, read in zip(readers, self._read(feeds), strict=True):
                if isinstance(read, Exception):
                    self._fail(slot, read, events)
                    continue
                try:
                    for one in self._reading_with(slot, forking):
                        self._settle(one, one.take(read, events))
                except Exception as error:
                    self._fail(slot, error, events)
            return events

    def run(self) -> Iterator[Event]:
        """Yields the events of all steps until nothing is left to be written."""
        while self.busy:
            yield from self.step()

    def _check(self, request: Request) -> None:
        prompts = [request.prompt, *([request.guidance.against] if request.guidance else [])]
        length = max(len(prompt.ids) for prompt in prompts)
        blanks = len(request.prompt.mask_indices)
        settings, samples = request.chooser.settings, len(request.seeds)
        tokens, most = samples * self._tokens(request), self._max_tokens
        problems = [
            problem
            for problem, wrong in (
                ("its prompt has no blank; put a mask into it", blanks == 0),
                (f"its prompt has {length} tokens, the model reads {self._max_positions}; cut it on the left", length > self._max_positions + 1),
                (f"it has {blanks} blanks and {len(request.constraints)} constraints; give one (or None) for each blank, or none at all", len(request.constraints) not in (0, blanks)),
                (f"it wants {samples} samples; between 1 and max_batch={self._max_batch} can run at once", not 1 <= samples <= self._max_batch),
                (f"num_beams={settings.num_beams}; beams are searched by `infill.fill` alone", settings.num_beams > 1),
                (f"it may come to {tokens} tokens, more than max_tokens={most}; lower max_new_tokens={settings.max_new_tokens}, shorten the prompt, or raise max_tokens", most is not None and tokens > most),
            )
            if wrong
        ]  # fmt: skip
        if problems:
            raise GenerationError("this request can never run: " + "; ".join(problems))

    def _admit(self, events: list[Event]) -> None:
        """Lets requests in, in the order in which they came, up to the first that does not fit."""
        while self._waiting:
            request = self._waiting[0].request
            samples = len(request.seeds)
            running = [slot.request for slot in self._slots] + [request] * samples
            if len(running) > self._max_batch:
                return
            most = self._max_tokens
            if most is not None and sum(map(self._tokens, running)) > most:
                return
            ticket, longest = self._waiting.popleft(), request.longest(self._max_positions)
            slots = [Slot(ticket, sample, self._sop, longest) for sample in range(samples)]
            self._slots += slots
            try:
                slots[0].begin()
                slots[0].sequence = self._runner.open(request.guidance)
            except Exception as error:
                self._fail(slots[0], error, events)

    def _tokens(self, request: Request) -> int:
        """Returns the most tokens of a sample in the cache."""
        guessed = self._drafter.num_tokens if self._drafter is not None else 0
        return request.tokens(self._max_positions) + guessed * (
            1 if request.guidance is None else 2
        )

    def _guess(self, slots: list[Slot]) -> None:
        """Guesses what slots will write: from their texts, else with the assistant."""
        for slot in slots:
            slot.look_up()
        if self._drafter is not None:
            self._drafter.guess(slot for slot in slots if not slot.guesses)

    def _read(self, feeds: list[Feed]) -> list[Answer | Exception]:
        """Returns logits, or what was chosen, for each feed; what cannot be read together is read one by one, so that one fails alone."""
        try:
            return [*self._runner.forward(feeds)] if feeds else []
        except Exception as error:
            return [error] if len(feeds) == 1 else [self._read([feed])[0] for feed in feeds]

    def _reading_with(self, slot: Slot, forking: bool) -> Iterator[Slot]:
        """Yields a slot whose request still runs and, once it has read part A, those of the other samples."""
        slots = (
            self._slots if forking else []
        )  # with many at once, looking through all for each takes long
        others = [one for one in slots if one.ticket is slot.ticket and one.sequence is None]
        for one in others:
            assert slot.sequence is not None
            one.sequence = self._runner.fork(slot.sequence)
            one.read, one.guesses = list(slot.read), slot.guesses
            if self._drafter is not None:
                self._drafter.fork(slot, one)
        if not slot.ticket.done:
            yield from (slot, *others)

    def _settle(self, slot: Slot, forgotten: int) -> None:
        """Makes the runner forget what a slot must not see, or all if it is done."""
        assert slot.sequence is not None
        if not slot.pending:
            self._close(slot)
        elif forgotten:
            self._runner.truncate(slot.sequence, self._runner.length(slot.sequence) - forgotten)

    def _close(self, slot: Slot) -> None:
        """Frees a slot; a request without slots is done."""
        if slot.sequence is not None:
            self._runner.close(slot.sequence)
        if self._drafter is not None:
            self._drafter.close(slot)
        self._slots.remove(slot)
        slot.ticket.done = all(one.ticket is not slot.ticket for one in self._slots)

    def _end(self, ticket: Ticket) -> None:
        """Frees all that a request has."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        for slot in [one for one in self._slots if one.ticket is ticket]:
            self._close(slot)
        ticket.done = True

    def _fail(self, slot: Slot, error: Exception, events: list[Event]) -> None:
        """Ends a slot's request with an error, if it still runs."""
        if not slot.ticket.done:
            slot.ticket.error = error
            self._end(slot.ticket)
            events.append(Event(slot.ticket, slot.sample, len(slot.blanks) - 1, None))


def _feed(slot: Slot, chooses: bool) -> Feed:
    """Returns what a slot reads next, and, for a runner that can choose, what may not be chosen."""
    assert slot.sequence is not None
    barred = slot.barred() if chooses else None
    ids, positions, blocks = zip(*slot.inputs(), strict=True)
    media = slot.request.prompt.embeddings if slot.prefix else None
    wanted = 1 + len(slot.guesses)
    goes_on = slot.goes_on if barred and wanted == 1 else None
    return Feed(slot.sequence, ids, positions, blocks, slot.prefix, wanted, media, barred, goes_on)
