"""The scheduler: one thread that owns an engine and steps it while there is work; requests come from an event loop and go back to it.

In: `generation` requests, several at a time as one `Job`. Out: updates, while they are written or at the end, in the event loop that
submitted them. What a job gets depends on nothing but itself (the engine sees to that). It knows no HTTP and no text.

The engine's lock is held through a step, so nobody but this thread calls the engine: `submit` and `cancel` leave a note, which is
read between two steps, and return at once. A job ends in one of five ways: written, an error of its own, its deadline, cancelled
(its rows are free at the next step), or the scheduler's end. An error that is nobody's own (a bug) ends all jobs that are there,
and a new engine takes the next ones.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from glmkit.errors import GenerationError
from glmkit.generation.decoding import BlankTokens
from glmkit.generation.engine import Engine
from glmkit.generation.request import Event, Request, Ticket
from glmkit.serving.failures import Closing, DeadlineExceeded, QueueFull, described

logger = logging.getLogger(__name__)

LONGEST_WAIT = 60.0
"""Most seconds after which a client is told to ask again."""


class Watcher(Protocol):
    """What is told how the work goes (`metrics.Metrics`)."""

    def stepped(self, batch: int, seconds: float, waiting: int) -> None:
        """A step read so many texts; so many requests wait."""

    def idle(self) -> None:
        """Nothing is to be done."""

    def started(self, queued: float, first_token: float) -> None:
        """A job has its first token."""

    def ended(self, prompt_tokens: int, tokens: int, seconds: float) -> None:
        """A job ran for so long."""


@dataclass(frozen=True)
class Update:
    """What a blank contains now.

    Attributes:
        request: Which request of the job.
        sample: Which sample of it.
        blank: Which blank of the sample.
        tokens: Its contents, a copy.
    """

    request: int
    sample: int
    blank: int
    tokens: BlankTokens


@dataclass(eq=False)
class Job:
    """Requests that were submitted together.

    Attributes:
        requests: The requests.
        live: Whether updates are wanted while they are written.
        deadline: When it must be done (`time.monotonic`).
        tickets: Those of the engine, once it has them.
    """

    requests: Sequence[Request]
    live: bool
    deadline: float
    scheduler: Scheduler
    loop: asyncio.AbstractEventLoop
    tickets: list[Ticket] = field(default_factory=list)
    submitted: float = field(default_factory=time.monotonic)
    began: float | None = None
    over: bool = False

    def __post_init__(self) -> None:
        self._updates: asyncio.Queue[list[Update] | BaseException | None] = asyncio.Queue()

    @property
    def texts(self) -> int:
        """How many texts are to be written."""
        return sum(len(request.seeds) for request in self.requests)

    @property
    def samples(self) -> list[list[list[BlankTokens]]]:
        """For each request, for each sample, its blanks; to be read when the job is done."""
        return [ticket.samples for ticket in self.tickets]

    async def updates(self) -> AsyncIterator[Update]:
        """Yields what is written until the job is done; without `live` nothing. Whoever stops reading cancels the job.

        Raises:
            DeadlineExceeded: It took too long.
            Closing: The scheduler was closed.
            Exception: What a request raised.
        """
        try:
            while True:
                news = await self._updates.get()
                if news is None:
                    return
                if isinstance(news, BaseException):
                    raise news
                for update in news:
                    yield update
        finally:
            self.cancel()

    async def written(self) -> list[list[list[BlankTokens]]]:
        """Waits until all is written; returns `samples`. Whoever stops waiting cancels the job."""
        async for _ in self.updates():
            pass
        return self.samples

    def cancel(self) -> None:
        """Ends the job, if it is not over; its rows are free at the next step."""
        if not self.over:
            self.scheduler._note(cancelled=self)

    def _tell(self, news: list[Update] | BaseException | None) -> None:
        """Passes something to the event loop, from any thread."""
        try:
            self.loop.call_soon_threadsafe(self._updates.put_nowait, news)
        except RuntimeError:  # the loop has ended, and with it whoever waited
            logger.debug("an update came after the end of its event loop")


class Scheduler:
    """Owns an engine.

    Args:
        make_engine: Makes it; called again after an error that is nobody's own.
        max_batch: The engine's.
        max_queue: Most texts that wait beside `max_batch` that run.
        watcher: Is told how the work goes, from the scheduler's thread.
    """

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        *,
        max_batch: int,
        max_queue: int,
        watcher: Watcher | None = None,
    ):
        self._make_engine, self._engine = make_engine, make_engine()
        self._room, self._max_batch, self._watcher = max_batch + max_queue, max_batch, watcher
        self._changed = threading.Condition()
        self._texts, self._mean_seconds = 0, 1.0
        self._arrived: list[Job] = []
        self._cancelled: list[Job] = []
        self._closing = self._stopped = False
        self._jobs: dict[Ticket, tuple[Job, int]] = {}
        self._thread = threading.Thread(target=self._run, name="glmkit-scheduler", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether it takes work on."""
        return self._thread.is_alive() and not self._closing

    @property
    def texts(self) -> int:
        """How many texts run or wait."""
        return self._texts

    def submit(self, requests: Sequence[Request], deadline: float, *, live: bool = False) -> Job:
        """Takes requests on, all or none; called from an event loop, returns at once.

        Args:
            requests: What is to be written.
            deadline: When all must be done (`time.monotonic`).
            live: Whether updates are wanted while they are written.

        Raises:
            GenerationError: More texts than ever run and wait together.
            QueueFull: Too much is waiting.
            Closing: Nothing is taken on any more.
        """
        job = Job(requests, live, deadline, self, asyncio.get_running_loop())
        if job.texts > self._room:
            raise GenerationError(
                f"the request asks for {job.texts} texts, {self._room} are all that run and wait here together; ask for fewer"
            )
        with self._changed:
            if self._closing:
                raise Closing
            if self._texts + job.texts > self._room:
                turns = self._texts / self._max_batch
                raise QueueFull(min(LONGEST_WAIT, self._mean_seconds * turns))
            self._texts += job.texts
            self._arrived.append(job)
            self._changed.notify()
        return job

    def close(self, grace: float = 0.0) -> None:
        """Takes nothing on any more; lets what is there go on for `grace` seconds, ends the rest, and the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(grace)
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _note(self, cancelled: Job) -> None:
        with self._changed:
            self._cancelled.append(cancelled)
            self._changed.notify()

    def _run(self) -> None:
        while self._wait():
            try:
                self._step()
            except Exception as error:
                logger.error("a new engine takes over: %s", described(error))
                self._engine = self._make_engine()
                for job in self._running():
                    self._end(job, error)
        for job in self._running():
            self._end(job, Closing())

    def _wait(self) -> bool:
        """Waits for work and takes the notes; returns False where there will be none."""
        with self._changed:
            while not (self._arrived or self._cancelled or self._jobs or self._closing):
                if self._watcher:
                    self._watcher.idle()
                self._changed.wait()
            arrived, cancelled = self._arrived, self._cancelled
            self._arrived, self._cancelled = [], []
        for job in arrived:
            self._admit(job)
        for job in cancelled:
            self._end(job)
        return not self._stopped and bool(self._jobs or not self._closing)

    def _admit(self, job: Job) -> None:
        try:
            for number, request in enumerate(job.requests):
                ticket = self._engine.submit(request)
                job.tickets.append(ticket)
                self._jobs[ticket] = job, number
        except Exception as error:
            self._end(job, error)

    def _step(self) -> None:
        began = time.monotonic()
        for job in self._running():
            if began >= job.deadline:
                self._end(job, DeadlineExceeded())
        events = self._engine.step()
        ended = time.monotonic()
        updates: dict[Job, list[Update]] = {}
        for event in events:
            if (
                event.ticket not in self._jobs
            ):  # of a job that another of its requests has ended just now
                continue
            job, number = self._jobs[event.ticket]
            if event.ticket.error is not None:
                self._end(job, event.ticket.error)
            elif not job.over:
                if job.began is None:
                    job.began = began
                    if self._watcher:
                        self._watcher.started(began - job.submitted, ended - job.submitted)
                updates.setdefault(job, [])
                if job.live:
                    updates[job].append(_update(event, number))
        if self._watcher:
            batch = len({(event.ticket, event.sample) for event in events})
            self._watcher.stepped(batch, ended - began, self._engine.waiting)
        for job, news in updates.items():
            if not job.over and news:
                job._tell(news)
            if not job.over and all(ticket.done for ticket in job.tickets):
                self._end(job)

    def _running(self) -> list[Job]:
        return list(dict.fromkeys(job for job, _ in self._jobs.values()))

    def _end(self, job: Job, error: BaseException | None = None) -> None:
        """Frees all that a job has, and tells it that it is over."""
        if job.over:
            return
        job.over = True
        for ticket in job.tickets:
            self._jobs.pop(ticket, None)
            self._engine.cancel(ticket)
        now = time.monotonic()
        with self._changed:
            self._texts -= job.texts
        if job.began is not None:
            self._mean_seconds += 0.1 * (now - job.began - self._mean_seconds)
            if self._watcher:
                read = sum(len(ticket.request.prompt.ids) for ticket in job.tickets)
                written = sum(map(num_written, job.tickets))
                self._watcher.ended(read, written, now - job.began)
        job._tell(error)


def num_written(ticket: Ticket) -> int:
    """Returns how many tokens were written, end markers and what a stop string took back included."""
    return sum(len(blank.log_probabilities) for blanks in ticket.samples for blank in blanks)


def _update(event: Event, number: int) -> Update:
    blank = event.ticket.samples[event.sample][event.blank]
    copy = BlankTokens(
        list(blank.tokens),
        list(blank.log_probabilities),
        blank.finished,
        blank.text,
        list(blank.likeliest),
    )
    return Update(number, event.sample, event.blank, copy)
