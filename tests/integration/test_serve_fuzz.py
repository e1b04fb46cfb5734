"""Requests that schemathesis makes of the server's own OpenAPI schema, right and wrong ones: none ends in a 5xx, and every answer is as
the schema says.

`GLMKIT_FUZZ_CASES=1000 pytest -m '' tests/integration/test_serve_fuzz.py` makes so many of each kind for each endpoint.
"""

from __future__ import annotations

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
from glmkit.tasks.task import load_task
from media_samples import PAIRS, PHOTOS, sources, tiny_media
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
FIELDS = {
    "photos": ("photo",),
    "pairs": ("said", "photo", "sound"),
    "sentiment": ("text",),
    "no such task": ("text", "photo"),
}
"""Task -> fields of its records."""
WORDS = ("看", "<|image|>", "<|audio|>", "<|video|>", "[MASK]", "好", "a b")
QUICK = ("/v1/chat/completions", "/v1/fill", "/v1/score")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    glm = glmkit.load(golden_folder("tiny-chinese").path, device="cpu")
    for name, text in (("photos", PHOTOS), ("pairs", PAIRS)):
        path = tmp_path_factory.mktemp("tasks") / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        glm.tasks[name] = load_task(path)
    glm.media = MediaReader(tiny_media(as_torch(glm.model)))
    limits: dict[str, Any] = {
        "max_new_tokens": 8,
        "max_texts": 4,
        "max_explained": 2,
        "max_media_pixels": 20_000_000,
    }
    with running(glm, timeout=30.0, **limits) as server:
        yield server


@pytest.fixture(scope="module")
def api(one: Running) -> Any:
    return schemathesis.openapi.from_url(f"{one.address}/openapi.json")


def plausible(path: str, body: Any) -> Any:
    """Gives most bodies the model's name, without which all end as early as that, and files, whole or not, in the place of media."""
    if not isinstance(body, dict):
        return body
    if isinstance(body.get("model"), str) and random.random() < 0.9:
        body = {**body, "model": "tiny"}
    if path in ("/v1/classify", "/v1/explain") and random.random() < 0.4:
        body = with_records(body)
    elif (
        isinstance(body.get("texts"), str) and random.random() < 0.5
    ):  # as many places as media, or not
        body = {**body, "texts": "".join(random.choices(WORDS, k=4))}
    return with_files(body)


def with_records(body: dict[str, Any]) -> dict[str, Any]:
    """Returns a request about one or two records of a task, some of them with a field too much or too few, or of another form."""
    task, fields = random.choice([*FIELDS.items()])

    def value(field: str) -> Any:
        words = "".join(random.choices(WORDS, k=3))
        source = words if field in ("said", "text") else random.choice(sources())
        return random.choice(
            (source, source, source, [source], [source, words], None, 3, {"bytes": source})
        )

    texts = [
        {
            one: value(one)
            for one in (*fields, "more")
            if random.random() < (0.05 if one == "more" else 0.9)
        }
        for _ in range(random.randint(1, 2))
    ]
    kept = {name: given for name, given in body.items() if name in ("model", "methods", "language")}
    return {**kept, "task": task, "texts": random.choice((texts, texts[0]))}


def with_files(value: Any, name: str = "") -> Any:
    """Returns JSON in which most strings that stand for media are files of some kind, many of them damaged."""
    if isinstance(value, dict):
        return {key: with_files(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [with_files(one, name) for one in value]
    if name not in MEDIA or not isinstance(value, str) or random.random() < 0.2:
        return value
    return random.choice(sources())


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
        case.body = plausible(path, case.body)
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
