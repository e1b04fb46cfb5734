"""Replicas on a real local Ray: the same answers, and one of them killed under load."""

from __future__ import annotations

import concurrent.futures
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import glmkit
from conftest import golden_folder
from glmkit.errors import ConfigError
from glmkit.serving.replicas import Replicas
from serving_samples import until

psutil = pytest.importorskip("psutil")
openai = pytest.importorskip("openai")

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
replicas_of = pytest.importorskip("serve_load").replicas_of


def test_impossible_numbers_of_replicas():
    with pytest.raises(ConfigError, match="replicas=0 must be at least 1"):
        Replicas(0)
    with pytest.raises(ConfigError, match="max_replicas=2 must be at least 3"):
        Replicas(3, 2)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """A process of `glmkit serve --engine ray` with two replicas, and its address."""
    pytest.importorskip("ray.serve")
    folder = golden_folder("tiny-chinese").path
    log = tmp_path_factory.mktemp("ray") / "log"
    options = ["--name", "tiny", "--port", "0", "--engine", "ray", "--replicas", "2", "--grace", "10"]  # fmt: skip
    environment = {**os.environ, "GLMKIT_LANG": "en"}
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "glmkit", "serve", str(folder), *options], stdout=out, stderr=out, env=environment, start_new_session=True
        )  # fmt: skip
    try:
        found = lambda: re.findall(r"tiny at (http://\S+)/v1", log.read_text(encoding="utf-8"))
        assert until(lambda: bool(found()) or process.poll() is not None, 240)
        assert found(), log.read_text(encoding="utf-8")[-3000:]
        yield process, found()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) == 0, log.read_text(encoding="utf-8")[-3000:]
        finally:
            left = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []  # fmt: skip
            for one in [*left, process]:
                one.kill()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_replica_that_is_killed_loses_nothing_that_is_not_asked_again(served: Any):
    """120 requests, 8 at once; those in flight on the killed one are asked again by the client, as it does by itself."""
    process, address = served
    glm = glmkit.load(golden_folder("tiny-chinese").path, device="cpu")
    prompts = [f"第{number}天，" for number in range(20)]
    expected = glm.generate(prompts, max_new_tokens=40, min_new_tokens=40)
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=6)
    assert until(lambda: len(replicas_of(process)) == 2, 30)

    def ask(number: int) -> str:
        answer = client.completions.create(
            model="tiny", prompt=prompts[number % 20], max_tokens=40, extra_body={"min_tokens": 40}
        )
        return str(answer.choices[0].text)

    [first, second] = replicas_of(process)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, number) for number in range(120)]
        assert until(lambda: sum(map(concurrent.futures.Future.done, asked)) > 20, 60)
        first.send_signal(signal.SIGKILL)
        answers = [one.result() for one in asked]
    assert answers == expected * 6
    assert until(
        lambda: len([one for one in replicas_of(process) if one.pid != first.pid]) == 2, 120
    )
    assert second in replicas_of(process)
    pieces = client.completions.create(model="tiny", prompt="今天", max_tokens=9, stream=True)
    assert "".join(one.choices[0].text for one in pieces) == glm.generate("今天", max_new_tokens=9)
    with pytest.raises(openai.BadRequestError, match="unknown field"):
        client.completions.create(model="tiny", prompt="今天", extra_body={"nothing": 1})
