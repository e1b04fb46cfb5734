"""Requests that schemathesis makes of the server's own OpenAPI schema, right and wrong ones: none ends in a 5xx, and every answer is as
the schema says.

`GLMKIT_FUZZ_CASES=1000 pytest -m '' tests/integration/test_serve_fuzz.py` makes so many of each kind for each endpoint.
"""

from __future__ import annotations

import base64
import logging
import os
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import glmkit
from conftest import golden_folder
from glmkit.multimodal.reader import MediaReader
from glmkit.native.model import as_torch
from media_samples import clip_bytes, image_bytes, tiny_media, wav_bytes
from serving_samples import Running, running

pytest.importorskip("av")
schemathesis = pytest.importorskip("schemathesis")
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings  # noqa: E402
from schemathesis.core.failures import FailureGroup  # noqa: E402
from schemathesis.specs.openapi import checks  # noqa: E402

CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
CASES = int(os.environ.get("GLMKIT_FUZZ_CASES", "0"))
PATHS = (
    "/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/fill", "/v1/classify", "/v1/score", "/v1/explain",
    "/v1/models", "/v1/models/{name}", "/healthz", "/readyz", "/metrics",
)  # fmt: skip
MEDIA = ("images", "audios", "videos", "url", "image_url", "audio_url", "video_url", "data")
FILES = (image_bytes(), wav_bytes(), clip_bytes())
QUICK = ("/v1/chat/completions", "/v1/fill", "/v1/score")


@pytest.fixture(scope="module")
def one() -> Iterator[Running]:
    glm = glmkit.load(golden_folder("tiny-chinese").path, device="cpu")
    glm.media = MediaReader(tiny_media(as_torch(glm.model)))
    limits: dict[str, Any] = {"max_new_tokens": 8, "max_texts": 4, "max_explained": 2}
    with running(glm, timeout=30.0, **limits) as server:
        yield server


@pytest.fixture(scope="module")
def api(one: Running) -> Any:
    return schemathesis.openapi.from_url(f"{one.address}/openapi.json")


def plausible(body: Any) -> Any:
    """Gives most bodies the model's name, without which all end as early as that, and files, whole or not, in the place of media."""
    if not isinstance(body, dict):
        return body
    if isinstance(body.get("model"), str) and random.random() < 0.9:
        body = {**body, "model": "tiny"}
    return with_files(body)


def with_files(value: Any, name: str = "") -> Any:
    """Returns JSON in which most strings that stand for media are files of some kind, some of them cut."""
    if isinstance(value, dict):
        return {key: with_files(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [with_files(one, name) for one in value]
    if name not in MEDIA or not isinstance(value, str) or random.random() < 0.2:
        return value
    data = random.choice(FILES)
    data = data[: random.choice((len(data), len(data), len(data) // 2))]
    head = random.choice(("", "data:a/b;base64,"))
    return head + base64.b64encode(data).decode()


def fuzz(api: Any, path: str, method: str, mode: Any, cases: int) -> Counter[int]:
    """Sends cases to one endpoint; returns how often each status came."""
    statuses: Counter[int] = Counter()
    problems: list[str] = []

    @seed(1)
    @settings(
        max_examples=cases,
        phases=[Phase.generate],  # what is found is looked at, not made smaller
        deadline=None,
        database=None,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        case.body = plausible(case.body)
        answer = case.call(timeout=60)
        statuses[answer.status_code] += 1
        try:
            case.validate_response(answer, checks=CHECKS)
        except (Exception, FailureGroup) as error:
            problems.append(f"{answer.status_code} {answer.text[:300]} for {case.body!r:.500}: {error!s:.500}")  # fmt: skip

    random.seed(1)
    send()
    assert not problems, f"{len(problems)} problems; the first: {problems[0]}"
    return statuses


def test_each_endpoint_is_here(api: Any):
    assert set(PATHS) == set(api)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "path", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in PATHS]
)
def test_no_case_ends_in_a_bug(api: Any, path: str, caplog: pytest.LogCaptureFixture):
    method = "POST" if path in PATHS[:7] else "GET"
    for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
        if method == "POST" or (mode == schemathesis.GenerationMode.POSITIVE):
            statuses = fuzz(api, path, method, mode, CASES or 15)
            logging.getLogger(__name__).warning("%s %s %s", path, mode.name, dict(statuses))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
