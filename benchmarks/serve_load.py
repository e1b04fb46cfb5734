"""Load for a server of OpenAI's interface: processes that serve, requests at a time, and what the answers should be.

In: commands, texts. Out: `Served` (a server in a process of its own), `Timing` of streamed requests, and for a mixed load which answers
were wrong. `bench_serve.py` makes the report.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil

OPENINGS = (
    "春天来了，公园里", "这家饭店的服务", "昨天晚上的足球比赛", "他打开门，看见", "今年的冬天比去年", "学习一门外语，最重要的是",
    "The train was late, and", "She opened the letter and", "In the middle of the city", "The food was good, but",
)  # fmt: skip
TURNS = (
    "你好，今天天气怎么样？",
    "推荐一本书吧。",
    "What should I cook tonight?",
    "最近工作很忙，怎么放松？",
)
REGEX = "[0-9]{2,4}"
CHOICES = ["春天", "夏天", "秋天", "冬天"]


@dataclass
class Served:
    """A server that runs in a process of its own.

    Attributes:
        process: The process.
        address: Where it is, with `/v1`.
    """

    process: subprocess.Popen
    address: str

    def memory(self) -> float:
        """Returns what it holds of the memory, its children's included, in MiB."""
        main = psutil.Process(self.process.pid)
        processes = [main, *main.children(recursive=True)]
        return sum(one.memory_info().rss for one in processes) / 2**20

    def cpu(self) -> float:
        """Returns the seconds of a processor that it has used, its children's included."""
        main, seconds = psutil.Process(self.process.pid), 0.0
        for one in (main, *main.children(recursive=True)):
            with suppress(psutil.Error):
                times = one.cpu_times()
                seconds += times.user + times.system
        return seconds


@contextmanager
def serving(command: Sequence[str], ready: Callable[[str], str | None], threads: int) -> Iterator[Served]:  # fmt: skip
    """Runs a server until the block ends.

    Args:
        command: What starts it.
        ready: Is given what it has written so far; returns its address when it takes requests.
        threads: Of its model.

    Raises:
        RuntimeError: It ended instead; with the end of what it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        variables = {
            **os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "GLMKIT_LANG": "en",
        }  # fmt: skip
        with open(log, "w", encoding="utf-8") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=variables)
        try:
            address = None
            while address is None:
                if process.poll() is not None:
                    raise RuntimeError(f"{command[1:4]} ended: {log.read_text()[-500:]}")
                time.sleep(0.1)
                address = ready(log.read_text(encoding="utf-8"))
            yield Served(process, address)
        finally:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()


def glmkit_server(threads: int, *options: str) -> Any:
    """Returns `serving` of `glmkit serve` with the embedded model."""
    command = [sys.executable, "-m", "glmkit", "serve", "glm-mini", "--port", "0", *options]

    def ready(written: str) -> str | None:
        found = re.findall(r" at (http://\S+/v1), its", written)
        return found[0] if found else None

    return serving(command, ready, threads)


def replicas_of(process: Any) -> list[psutil.Process]:
    """Returns the processes of the replicas on Ray that a server's process (a `Popen`) has."""
    found = []
    for one in psutil.Process(process.pid).children(recursive=True):
        try:
            if one.cmdline()[0].startswith("ray::ServeReplica"):
                found.append(one)
        except (psutil.Error, IndexError):
            continue
    return found


def free_port() -> int:
    """Returns a port that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Timing:
    """How long streamed requests took.

    Attributes:
        seconds: From the first request to the last answer.
        tokens: That were written.
        first: Of each request the seconds to its first text.
        whole: Of each request the seconds to its end.
        cpu: Seconds of a processor that the server used.
    """

    seconds: float = 0.0
    tokens: int = 0
    cpu: float = 0.0
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)


async def stream_all(
    address: str, bodies: Sequence[dict[str, Any]], at_once: int, tokens: int
) -> Timing:
    """Streams completions, so many at once, and takes their times."""
    timing, places = Timing(), asyncio.Semaphore(at_once)
    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(base_url=address, timeout=300, limits=limits) as client:

        async def one(body: dict[str, Any]) -> None:
            async with places:
                began, first = time.perf_counter(), None
                async with client.stream("POST", "completions", json=body) as answer:
                    answer.raise_for_status()
                    async for line in answer.aiter_lines():
                        if first is None and _text(line):
                            first = time.perf_counter() - began
                timing.whole.append(time.perf_counter() - began)
                timing.first.append(timing.whole[-1] if first is None else first)
                timing.tokens += tokens

        began = time.perf_counter()
        await asyncio.gather(*map(one, bodies))
        timing.seconds = time.perf_counter() - began
    return timing


def _text(line: str) -> str:
    """Returns the text of an event."""
    if not line.startswith("data: {"):
        return ""
    choices = json.loads(line.removeprefix("data: "))["choices"]
    return choices[0].get("text") or "" if choices else ""


Mixed = tuple[str, str, dict[str, Any], Callable[[Any], Any]]
"""What kind, path, body, and what the library answers to the same."""


def mixed_request(number: int) -> Mixed:
    """Returns a good request; its kind and length depend on the number."""
    opening = OPENINGS[number // 6 % len(OPENINGS)]
    length = (4, 12, 24, 48)[number // 7 % 4]
    drawn = {"temperature": 0.9, "seed": number % 50}
    drawing = {"do_sample": True, **drawn, "max_new_tokens": length}
    kinds: list[Mixed] = [
        ("completion", "completions", {"prompt": opening, "max_tokens": length}, lambda glm: glm.generate(opening, max_new_tokens=length)),
        ("drawn completion", "completions", {"prompt": opening, "max_tokens": length, **drawn}, lambda glm: glm.generate(opening, **drawing)),
        ("stream", "completions", {"prompt": opening, "max_tokens": length, "stream": True}, lambda glm: glm.generate(opening, max_new_tokens=length)),
        ("chat", "chat/completions", {"messages": [{"role": "user", "content": TURNS[number // 6 % 4]}], "max_tokens": length}, lambda glm: glm.chat(TURNS[number // 6 % 4], max_new_tokens=length)),
        ("blanks", "fill", {"texts": f"{opening}[MASK]，所以[MASK]。", "max_tokens": length, **drawn}, lambda glm: glm.fill(f"{opening}[MASK]，所以[MASK]。", **drawing).text),
        ("expression", "completions", {"prompt": f"{opening}[MASK]年", "regex": REGEX, "max_tokens": 8, **drawn}, lambda glm: glm.generate(f"{opening}[MASK]年", constraints=_regex(glm), **{**drawing, "max_new_tokens": 8})),
        ("labels", "classify", {"texts": opening, "labels": CHOICES}, lambda glm: glm.classify(opening, labels=CHOICES).label),
    ]  # fmt: skip
    kind, path, body, expected = kinds[number % len(kinds)]
    return kind, path, {"model": "glm-mini", **body}, expected


def _regex(glm: Any) -> Any:
    from glmkit.generation.grammar import Regex

    return Regex(glm.tokenizer, REGEX)


BAD: dict[str, tuple[bytes, int]] = {
    "malformed": (b'{"model": "glm-mini", "prompt": ', 400),
    "unknown field": (b'{"model": "glm-mini", "prompt": "a", "nothing": 1}', 400),
    "too long": (json.dumps({"model": "glm-mini", "prompt": "天气" * 2000}).encode(), 400),
    "oversize": (b'{"model": "glm-mini", "prompt": "' + b"a" * (1 << 20) + b'"}', 413),
}


@dataclass
class Answers:
    """What came of a mixed load.

    Attributes:
        right: Kind -> good requests answered as the library answers.
        refused: Kind -> bad requests refused as they should be.
        left: Streams that the client gave up after their first text.
        wrong: What was not as it should be.
    """

    right: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    left: int = 0
    wrong: list[str] = field(default_factory=list)


class Load:
    """Mixed requests, of every ten seven good, two bad and one whose client leaves; answers are compared with the library's.

    Args:
        glm: The same model.
        different: How many good requests there are before they come again.
    """

    def __init__(self, glm: Any, different: int):
        self._glm, self._different = glm, different
        self._expected: dict[int, Any] = {}

    def prepare(self) -> None:
        """Lets the library answer all good requests."""
        for number in range(self._different):
            self._expected[number] = mixed_request(number)[3](self._glm)

    async def send(self, client: httpx.AsyncClient, number: int, answers: Answers) -> None:
        """Sends one request and notes what came of it."""
        place = number % 10
        try:
            if place in (3, 8):
                await self._bad(client, list(BAD)[number // 5 % len(BAD)], answers)
            elif place == 6:
                await self._leave(client, answers)
            else:
                await self._good(client, number, answers)
        except httpx.HTTPError as error:
            answers.wrong.append(f"request {number}: {error!r}")

    async def _good(self, client: httpx.AsyncClient, number: int, answers: Answers) -> None:
        number %= self._different
        kind, path, body, _ = mixed_request(number)
        answer = await client.post(path, json=body)
        expected = self._expected[number]
        if answer.status_code != 200 or (found := _content(kind, answer)) != expected:
            got = answer.text[:200] if answer.status_code != 200 else found
            answers.wrong.append(f"{kind} {number}: {got!r} and not {expected!r}")
        else:
            answers.right[kind] += 1

    async def _bad(self, client: httpx.AsyncClient, kind: str, answers: Answers) -> None:
        content, status = BAD[kind]
        headers = {"Content-Type": "application/json"}
        answer = await client.post("completions", content=content, headers=headers)
        if answer.status_code != status or "error" not in answer.json():
            answers.wrong.append(f"{kind}: {answer.status_code} {answer.text[:200]}")
        else:
            answers.refused[kind] += 1

    async def _leave(self, client: httpx.AsyncClient, answers: Answers) -> None:
        body = {"model": "glm-mini", "prompt": "长城", "max_tokens": 200, "min_tokens": 200}
        async with client.stream("POST", "completions", json={**body, "stream": True}) as answer:
            async for line in answer.aiter_lines():
                if _text(line):
                    break
        answers.left += 1


def _content(kind: str, answer: httpx.Response) -> Any:
    """Returns what a good answer says."""
    if kind == "stream":
        return "".join(map(_text, answer.text.splitlines()))
    found = answer.json()
    if kind == "labels":
        return found["data"][0]["label"]
    if kind == "blanks":
        return found["data"][0]["text"]
    [choice] = found["choices"]
    return choice["message"]["content"] if kind == "chat" else choice["text"]
