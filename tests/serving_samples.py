"""A real server on a loopback port, with a brake on the real model, so that a request can take as long as a test needs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import glmkit
from glmkit.generation.torch_runner import TorchRunner
from glmkit.serving.app import make_server
from glmkit.serving.settings import ServingSettings


class Braked:
    """A runner that waits before it reads."""

    def __init__(self, runner: Any, brake: Brake):
        self._runner, self._brake = runner, brake

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def forward(self, feeds: Any) -> Any:
        time.sleep(self._brake.seconds)
        if self._brake.error is not None:
            raise self._brake.error
        return self._runner.forward(feeds)


@dataclass
class Brake:
    """What a pass takes besides its own time, and an error that it ends in."""

    seconds: float = 0.0
    error: Exception | None = None

    @contextlib.contextmanager
    def at(self, seconds: float) -> Iterator[None]:
        """Slows the model down for a while."""
        self.seconds = seconds
        try:
            yield
        finally:
            self.seconds = 0.0


@dataclass
class Running:
    """A server that runs.

    Attributes:
        glm: Its model, which writes the same without it.
        address: Where it is.
        brake: Slows it down.
        server: uvicorn's server.
        thread: In which it runs.
    """

    glm: glmkit.GLM
    brake: Brake
    server: Any
    address: str = ""
    thread: threading.Thread = field(default_factory=threading.Thread)

    @property
    def scheduler(self) -> Any:
        return self.server.config.app.state.server.scheduler

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()


@contextlib.contextmanager
def running(glm: glmkit.GLM, page: Any = None, **settings: Any) -> Iterator[Running]:
    """Serves a model on a free port, perhaps with a page for people."""
    brake, ready = Brake(), threading.Event()
    model = glm.model
    before = vars(model).get("make_runner")
    make = getattr(model, "make_runner", lambda: TorchRunner(model))
    model.make_runner = lambda: Braked(make(), brake)
    addresses: list[str] = []

    def announced(address: str) -> None:
        addresses.append(address)
        ready.set()

    chosen = ServingSettings(**{"name": "tiny", "port": 0, "grace": 5.0, **settings})
    one = Running(glm, brake, make_server(glm, chosen, announced, page))
    one.thread = threading.Thread(target=one.server.run, daemon=True)
    one.thread.start()
    try:
        assert ready.wait(60)
        one.address = addresses[0]
        yield one
    finally:
        brake.seconds = 0.0
        one.stop()
        del model.make_runner
        if before is not None:  # of a server around this one
            model.make_runner = before


def until(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Waits until something is true; returns whether it is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.005)
    return true()
