"""The scheduler on a real engine: what it writes is what the engine alone writes, and a job ends in the way that it should."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import glmkit
from conftest import golden_folder
from glmkit.errors import GenerationError
from glmkit.generation.engine import Engine
from glmkit.generation.infill import make_chooser, make_engine
from glmkit.generation.prompts import build_prompt
from glmkit.generation.request import Request
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.words import Include
from glmkit.serving.failures import Closing, DeadlineExceeded, QueueFull
from glmkit.serving.metrics import Metrics
from glmkit.serving.pool import Pool
from glmkit.serving.scheduler import Scheduler
from serving_samples import Brake, Braked, until


@pytest.fixture(scope="module")
def glm() -> glmkit.GLM:
    return glmkit.load(golden_folder("tiny-chinese").path, device="cpu")


@pytest.fixture
def brake() -> Brake:
    return Brake()


@pytest.fixture
def scheduler(glm: glmkit.GLM, brake: Brake) -> Iterator[Scheduler]:
    def engine() -> Engine:
        made = make_engine(glm.model, glm.tokenizer, max_batch=2)
        made._runner = Braked(made._runner, brake)
        return made

    made = Scheduler(engine, max_batch=2, max_queue=2, watcher=Metrics())
    yield made
    brake.seconds = 0
    made.close()
    assert not made._thread.is_alive()


def ask(
    glm: glmkit.GLM, text: str, *, samples: int = 1, constraints: Any = (), **settings: Any
) -> Request:
    chooser = make_chooser(glm.model, glm.tokenizer, DecodingSettings(**settings))
    prompt = build_prompt(glm.tokenizer, text, 128)
    return Request(prompt, chooser, constraints, seeds=list(range(samples)))


def soon() -> float:
    return time.monotonic() + 20


class Refusing:
    """A constraint that breaks after three tokens."""

    def __init__(self, error: Callable[[], Exception]):
        self.error = error

    def allowed(self, tokens: Any) -> None:
        if len(tokens) == 3:
            raise self.error()


def test_jobs_get_what_they_get_alone_and_a_neighbours_error_is_its_own(glm, scheduler: Scheduler):
    texts = ["北京是[MASK]的首都，也是[MASK]。", "今天"]
    expected = glm.fill(texts, max_new_tokens=7)

    async def both() -> Any:
        good = scheduler.submit(
            [ask(glm, text, max_new_tokens=7) for text in texts], soon(), live=True
        )
        bad = scheduler.submit(
            [ask(glm, "坏", constraints=[Refusing(lambda: KeyError("x"))])], soon()
        )
        updates = [update async for update in good.updates()]
        with pytest.raises(KeyError):
            await bad.written()
        return good, updates

    job, updates = asyncio.run(both())
    for samples, one in zip(job.samples, expected, strict=True):
        assert [glm.tokenizer.decode(blank.tokens).strip() for blank in samples[0]] == one.blanks
    last = {(update.request, update.blank): update.tokens for update in updates}
    assert last[0, 1].tokens == job.samples[0][0][1].tokens
    assert len(updates) == sum(
        max(1, len(blank.log_probabilities)) for [blanks] in job.samples for blank in blanks
    )
    assert scheduler.texts == 0
    assert scheduler.ready


def test_a_request_that_fails_ends_its_job_and_no_other(
    glm, scheduler: Scheduler, caplog: pytest.LogCaptureFixture
):
    """Its job's other request was written in the same step: the event had no job any more, and the engine was given up with all that ran."""

    async def both() -> Any:
        fails = ask(glm, "坏", constraints=[Refusing(lambda: KeyError("x"))])
        job = scheduler.submit([fails, ask(glm, "今天", max_new_tokens=9)], soon())
        with pytest.raises(KeyError):
            await job.written()

    asyncio.run(both())
    assert scheduler.texts == 0
    assert "a new engine" not in caplog.text


def test_a_constraint_knows_how_long_a_blank_may_become(glm, scheduler: Scheduler):
    """Only `fill` told it: from a server a blank was cut off before the word that it must hold, or began it too late."""
    word = Include(glm.tokenizer, "天气很好")

    async def both() -> Any:
        asked = ask(glm, "今天", constraints=[word], max_new_tokens=3)
        [[[blank]]] = await scheduler.submit([asked], soon()).written()
        with pytest.raises(GenerationError, match="there is room for 1"):
            await scheduler.submit(
                [ask(glm, "今天", constraints=[word], max_new_tokens=1)], soon()
            ).written()
        return blank

    blank = asyncio.run(both())
    assert "天气很好" in glm.tokenizer.decode(blank.tokens)


def test_a_full_queue_a_deadline_and_leaving(glm, scheduler: Scheduler, brake: Brake):
    brake.seconds = 0.01
    long = {"max_new_tokens": 120, "min_new_tokens": 120}

    async def crowd() -> None:
        with pytest.raises(GenerationError, match="asks for 5 texts, 4 are all"):
            scheduler.submit([ask(glm, "a")] * 5, soon())
        runs = scheduler.submit(
            [ask(glm, "今天", samples=2, **long)], time.monotonic() + 0.2, live=True
        )
        waits = scheduler.submit([ask(glm, "明天", samples=2, **long)], soon())
        with pytest.raises(QueueFull) as full:
            scheduler.submit([ask(glm, "后天")], soon())
        assert full.value.retry_after > 0
        leaving = asyncio.create_task(waits.written())
        await asyncio.sleep(0.05)
        leaving.cancel()
        with pytest.raises(DeadlineExceeded):
            async for _ in runs.updates():
                pass
        assert 0 < len(runs.samples[0][0][0].tokens) < 120

    asyncio.run(crowd())
    assert until(lambda: scheduler.texts == 0, 1)


def test_after_a_bug_a_new_engine_takes_over(
    glm, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
):
    """An error in `step` itself ends those that are there, and nobody after them."""
    step, broken = Engine.step, [True]

    def once(engine: Engine) -> Any:
        if broken.pop() if broken else False:
            raise MemoryError("no room")
        return step(engine)

    monkeypatch.setattr(Engine, "step", once)

    async def before_and_after() -> Any:
        with pytest.raises(MemoryError):
            await scheduler.submit([ask(glm, "今天")], soon()).written()
        return await scheduler.submit([ask(glm, "今天", max_new_tokens=3)], soon()).written()

    [[[blank]]] = asyncio.run(before_and_after())
    assert glm.tokenizer.decode(blank.tokens).strip() == glm.generate("今天", max_new_tokens=3)
    assert scheduler.texts == 0


def test_closing_lets_go_on_for_a_while_and_then_ends(glm, scheduler: Scheduler, brake: Brake):
    brake.seconds = 0.02

    async def close() -> None:
        short = scheduler.submit([ask(glm, "今天", max_new_tokens=5, min_new_tokens=5)], soon())
        long = scheduler.submit([ask(glm, "今天", max_new_tokens=120, min_new_tokens=120)], soon())
        closing = asyncio.create_task(asyncio.to_thread(scheduler.close, 0.5))
        [[[blank]]] = await short.written()
        assert len(blank.tokens) == 5
        with pytest.raises(Closing):
            scheduler.submit([ask(glm, "明天")], soon())
        assert not scheduler.ready
        with pytest.raises(Closing):
            await long.written()
        await closing

    asyncio.run(close())


def test_the_pool_is_bounded_and_tells_the_time():
    pool = Pool(1, 1, "test")

    async def crowd() -> None:
        first = asyncio.create_task(pool.run(lambda: time.sleep(0.3), time.monotonic() + 0.05))
        second = asyncio.create_task(pool.run(lambda: "done", soon()))
        await asyncio.sleep(0.01)
        with pytest.raises(QueueFull):
            await pool.run(lambda: None, soon())
        with pytest.raises(DeadlineExceeded):
            await first
        assert await second == "done"
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda: 1 // 0, soon())
        pool.close()
        with pytest.raises(Closing):
            await pool.run(lambda: None, soon())

    asyncio.run(crowd())
