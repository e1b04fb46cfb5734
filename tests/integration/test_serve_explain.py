"""`/v1/explain`: the data of `glm.explain`, beside the engine, and no longer than somebody waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2 as httpx
import pytest

import glmkit
from conftest import golden_folder
from glmkit.native.model import as_torch
from serving_samples import Running, running, until

pytest.importorskip("captum")

TEXT = "北京是[MASK]的首都，也是[MASK]。"


@pytest.fixture(scope="module")
def one() -> Iterator[Running]:
    glm = glmkit.load(golden_folder("tiny-chinese").path, device="cpu")
    with running(glm, max_explained=3, max_queue=2) as server:
        yield server


@pytest.fixture(scope="module")
def http(one: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=one.address, timeout=20) as client:
        yield client


def test_it_is_what_the_library_says(one: Running, http: httpx.Client):
    asked: dict[str, Any] = {"methods": ["ablation", "attention_rollout"], "top_k": 3}
    body = {"texts": TEXT, "blanks": ["中国", "大城市"], "attention": True, **asked}
    answer = http.post("/v1/explain", json=body).json()
    expected = one.glm.explain(TEXT, blanks=["中国", "大城市"], **asked)
    [found] = answer["data"]
    for ours, theirs in zip(found["evidence"], expected.evidence, strict=True):
        assert ours["content"] == theirs.content
        assert [unit["text"] for unit in ours["units"]] == [unit.text for unit in theirs.units]
        for method, attribution in theirs.attributions.items():
            assert ours["attributions"][method]["values"] == pytest.approx(
                attribution.values.tolist(), abs=1e-5
            )
        assert len(ours["steps"][0]["alternatives"]) == 3
    assert len(found["attention"][0]["weights"]) == one.glm.model.config.num_layers
    assert found["evidence"][0]["attributions"]["attention_rollout"]["gap"] is None
    assert found["facts"]["model"] == answer["model"] == "tiny"
    written = http.post("/v1/explain", json={"texts": ["今天", "明天"], "max_tokens": 2, **asked})
    assert [one["filled"] for one in written.json()["data"]] == [
        one.glm.fill(text, max_new_tokens=2).text for text in ("今天", "明天")
    ]
    label = http.post("/v1/explain", json={"texts": "好吃", "task": "sentiment", **asked}).json()
    [found] = label["data"]
    assert found["kind"] == "label"
    assert found["probabilities"] == pytest.approx(one.glm.sentiment("好吃").probabilities)
    assert "attention" not in found


BAD: list[tuple[str, dict[str, Any]]] = [
    ("too_many_explained", {"texts": "[MASK]" * 4}),
    ("too_many_explained", {"texts": ["好"] * 4, "task": "sentiment"}),
    ("too_many_characters", {"texts": "好" * 201, "attention": True}),
    ("context_length_exceeded", {"texts": "天气" * 300 + "[MASK]"}),
    ("max_tokens_too_large", {"texts": TEXT, "max_tokens": 1000}),
    ("task_not_found", {"texts": TEXT, "task": "../x"}),
    ("invalid_value", {"texts": TEXT, "blanks": ["a"]}),
    ("invalid_value", {"texts": [TEXT], "blanks": ["a"]}),
    ("invalid_value", {"texts": TEXT, "blanks": [["a", "b"]]}),
    ("invalid_value", {"texts": TEXT, "methods": ["magic"]}),
    ("invalid_value", {"texts": "好", "label": "positive"}),
    ("invalid_value", {"texts": "好", "task": "sentiment", "label": "great"}),
    ("invalid_value", {"texts": "好", "task": "sentiment", "blanks": ["a"]}),
    ("invalid_value", {"texts": "好", "task": "summary"}),
]


@pytest.mark.parametrize(("code", "body"), BAD, ids=range(len(BAD)))
def test_mistakes(http: httpx.Client, code: str, body: dict[str, Any]):
    answer = http.post("/v1/explain", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), answer.text


def test_it_holds_up_nobody_and_ends_when_nobody_waits(one: Running, http: httpx.Client):
    """Passes of 0.2 s each: others are answered meanwhile, and after its deadline, or without its client, no more are made."""
    passes: list[float] = []
    pause = 0.0

    def slowly(*_: Any) -> None:
        if threading.current_thread().name.startswith("glmkit-explain"):
            passes.append(time.monotonic())
            time.sleep(pause)

    def count(ask: Callable[[], Any]) -> int:
        before = len(passes)
        ask()
        assert until(lambda: explainer._calls == 0)
        return len(passes) - before

    explainer = one.server.config.app.state.server.explainer
    handle = as_torch(one.glm.model).glm.register_forward_pre_hook(slowly)
    method = "integrated_gradients"
    body = {
        "texts": "今天天气很好，" * 8 + "[MASK]和[MASK]",
        "blanks": ["好", "坏"],
        "methods": [method] * 3,
    }
    ask = lambda **how: http.post("/v1/explain", json=body, **how)
    try:
        whole = count(lambda: ask().raise_for_status())
        pause = 0.2
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(ask, headers={"X-Request-Timeout": "0.5"})
            assert until(lambda: explainer._calls == 1)
            answer = http.post("/v1/fill", json={"texts": "今天[MASK]", "max_tokens": 3})
            assert answer.status_code == 200
            assert explainer._calls == 1
            answer = late.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert until(lambda: explainer._calls == 0)
        left = count(lambda: pytest.raises(httpx.ReadTimeout, ask, timeout=0.3))
    finally:
        handle.remove()
    assert 0 < left < whole / 2, (left, whole)
    assert len(passes) - whole - left < whole / 2
