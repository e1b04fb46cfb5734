"""The server as clients meet it: a real uvicorn on a loopback port, the official client, curl, and bare sockets."""

from __future__ import annotations

import concurrent.futures
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

import glmkit
from conftest import golden_folder
from serving_samples import Running, running, until

openai = pytest.importorskip("openai")

KEY, OTHER = "key-of-the-tests", "second-key"
LONG = {"min_tokens": 120, "max_tokens": 120}
CHAT = [
    {"role": "system", "content": "简短地回答。"},
    {"role": "user", "content": "你好，今天天气怎样？"},
]


@pytest.fixture(scope="module")
def one() -> Iterator[Running]:
    glm = glmkit.load(golden_folder("tiny-chinese").path, device="cpu")
    limits = {
        "max_batch": 4,
        "max_queue": 4,
        "max_body_bytes": 20_000,
        "max_characters": 4_000,
        "max_texts": 9,
    }
    with running(glm, api_keys=(KEY, OTHER), max_samples=4, **limits) as server:
        yield server


@pytest.fixture(scope="module")
def client(one: Running) -> Any:
    return openai.OpenAI(base_url=f"{one.address}/v1", api_key=KEY, max_retries=0)


@pytest.fixture(scope="module")
def http(one: Running) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=one.address, headers=headers, timeout=20) as client:
        yield client


def test_completions_are_those_of_generate(one: Running, client: Any):
    """Greedy, drawn with a seed, several prompts and samples, stop strings; as a whole and as a stream."""
    prompts = ["今天", "床前[MASK]光", "长城是中国古代的伟大建筑，"]
    stop = one.glm.generate("今天", max_new_tokens=12)[6:9]
    for given, settings in (
        ({"max_tokens": 12}, {"max_new_tokens": 12}),
        ({"max_tokens": 12, "stop": [stop]}, {"max_new_tokens": 12, "stop": [stop]}),
        ({"max_tokens": 9, "seed": 3, "temperature": 0.9, "top_p": 0.9}, {"max_new_tokens": 9, "seed": 3, "do_sample": True, "temperature": 0.9, "top_p": 0.9}),
        ({"max_tokens": 9, "temperature": 0}, {"max_new_tokens": 9}),
    ):  # fmt: skip
        expected = one.glm.generate(prompts, **settings)
        whole = client.completions.create(model="tiny", prompt=prompts, **given)
        assert [choice.text for choice in whole.choices] == expected
        streamed = ["", "", ""]
        reasons: dict[int, str] = {}
        for chunk in client.completions.create(model="tiny", prompt=prompts, stream=True, **given):
            for choice in chunk.choices:
                streamed[choice.index] += choice.text
                if choice.finish_reason:
                    reasons[choice.index] = choice.finish_reason
        assert streamed == expected
        assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
    drawn = client.completions.create(model="tiny", prompt="今天", n=3, seed=5, max_tokens=6)
    assert [choice.text for choice in drawn.choices] == [
        one.glm.generate("今天", max_new_tokens=6, do_sample=True, seed=5 + i) for i in range(3)
    ]
    echoed = client.completions.create(model="tiny", prompt=prompts[1], echo=True, max_tokens=4)
    assert echoed.choices[0].text == one.glm.fill(prompts[1], max_new_tokens=4).text


def test_usage_and_log_probabilities_are_the_true_ones(one: Running, client: Any):
    from glmkit.generation.prompts import build_prompt

    filled = one.glm.fill("今天", max_new_tokens=8)
    answer = client.completions.create(model="tiny", prompt="今天", max_tokens=8, logprobs=2)
    [choice] = answer.choices
    assert "".join(choice.logprobs.tokens) == choice.text == filled.blanks[0]
    assert sum(choice.logprobs.token_logprobs) == pytest.approx(filled.scores[0])
    for token, best in zip(
        choice.logprobs.token_logprobs, choice.logprobs.top_logprobs, strict=True
    ):
        assert max(best.values()) == pytest.approx(token, abs=1e-4)  # greedy
    prompt = build_prompt(one.glm.tokenizer, "今天", 128)
    assert answer.usage.prompt_tokens == len(prompt.ids)
    assert answer.usage.completion_tokens == 8
    chat: dict[str, Any] = {
        "model": "tiny",
        "messages": CHAT,
        "max_tokens": 8,
        "logprobs": True,
        "top_logprobs": 3,
    }
    whole = client.chat.completions.create(**chat).choices[0].logprobs.content
    chunks = [
        *client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **chat)
    ]
    streamed = [
        one
        for chunk in chunks
        for choice in chunk.choices
        if choice.logprobs
        for one in choice.logprobs.content
    ]
    assert [token.logprob for token in streamed] == [token.logprob for token in whole]
    assert all(len(token.top_logprobs) == 3 for token in whole)
    assert chunks[-1].usage.completion_tokens == 8
    assert not chunks[-1].choices


def test_chat_is_glm_chat(one: Running, client: Any):
    expected = one.glm.chat(CHAT, max_new_tokens=20)
    whole = client.chat.completions.create(model="tiny", messages=CHAT, max_completion_tokens=20)
    assert whole.choices[0].message.content == expected
    parts: Any = [
        CHAT[0],
        {"role": "user", "content": [{"type": "text", "text": CHAT[1]["content"]}]},
    ]
    with client.chat.completions.stream(model="tiny", messages=parts, max_tokens=20) as stream:
        for _ in stream:
            pass
        assert stream.current_completion_snapshot.choices[0].message.content == expected
    drawn = client.chat.completions.create(
        model="tiny", messages=CHAT, temperature=0.7, seed=1, max_tokens=9
    )
    assert drawn.choices[0].message.content == one.glm.chat(
        CHAT, do_sample=True, temperature=0.7, seed=1, max_new_tokens=9
    )


def test_glms_own_endpoints_give_what_its_methods_give(
    one: Running, client: Any, http: httpx.Client
):
    texts = ["北京是[MASK]的首都，也是[MASK]。", "今天[sMASK]"]
    answer = http.post("/v1/fill", json={"texts": texts, "max_tokens": 5, "model": "tiny"}).json()
    for found, expected in zip(answer["data"], one.glm.fill(texts, max_new_tokens=5), strict=True):
        assert (found["text"], found["blanks"]) == (expected.text, expected.blanks)
        assert found["scores"] == pytest.approx(expected.scores)
        assert found["finished"] == expected.finished
    [best] = http.post("/v1/fill", json={"texts": texts[1], "max_tokens": 2, "n": 3}).json()["data"]
    expected = one.glm.fill(texts[1], max_new_tokens=2, n=3)
    assert [one["text"] for one in best["candidates"]] == [one.text for one in expected.candidates]
    asked = {"texts": ["球赛赢了", "股票跌了"], "labels": ["体育", "财经"]}
    labels = http.post("/v1/classify", json=asked).json()["data"]
    for found, right in zip(
        labels, one.glm.classify(asked["texts"], labels=asked["labels"]), strict=True
    ):
        assert found == {"label": right.label, "probabilities": pytest.approx(right.probabilities)}
    [scored] = http.post("/v1/score", json={"texts": "春眠不觉晓"}).json()["data"]
    assert scored["log_probability"] == pytest.approx(one.glm.score("春眠不觉晓").log_probability)
    vectors = client.embeddings.create(model="tiny", input=["春眠不觉晓", ""])  # base64 inside
    for embedding, vector in zip(vectors.data, one.glm.embed(["春眠不觉晓", ""]), strict=True):
        np.testing.assert_allclose(embedding.embedding, vector, atol=1e-5)
    assert [card.id for card in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
def test_curl_streams_and_sees_metrics(one: Running):
    def curl(path: str, *arguments: str) -> str:
        command = [
            "curl",
            "-sN",
            "--max-time",
            "20",
            "-H",
            f"Authorization: Bearer {OTHER}",
            *arguments,
            one.address + path,
        ]
        return subprocess.run(command, capture_output=True, check=True, timeout=30).stdout.decode()

    body = json.dumps({"model": "tiny", "prompt": "今天", "stream": True, "max_tokens": 5})
    out = curl("/v1/completions", "-i", "-H", "Content-Type: application/json", "-d", body)
    assert "content-type: text/event-stream" in out
    *events, last = [
        line.removeprefix("data: ") for line in out.splitlines() if line.startswith("data: ")
    ]
    assert last == "[DONE]"
    text = "".join(json.loads(event)["choices"][0]["text"] for event in events)
    assert text == one.glm.generate("今天", max_new_tokens=5)
    metrics = curl("/metrics")
    for name in (
        "queue_requests",
        "batch_size_bucket",
        "time_to_first_token_seconds_count",
        "tokens_total",
        "request_seconds_sum",
    ):
        assert f"glmkit_{name}" in metrics
    assert 'glmkit_requests_total{endpoint="/v1/completions",status="200"}' in metrics
    schema = json.loads(curl("/openapi.json"))
    assert {"/v1/chat/completions", "/v1/fill", "/v1/embeddings", "/healthz"} <= set(
        schema["paths"]
    )


BAD: list[tuple[str, int, dict[str, Any]]] = [
    ("unknown_parameter", 400, {"json": {"model": "tiny", "prompt": "a", "tools": []}}),
    ("invalid_value", 400, {"json": {"model": "tiny", "prompt": 3}}),
    ("invalid_value", 400, {"json": {"model": "tiny"}}),
    ("invalid_value", 400, {"json": {"model": "tiny", "prompt": []}}),
    ("invalid_value", 400, {"content": '{"model": "tiny", "prompt": "\\ud800"}'}),
    ("invalid_value", 400, {"content": '{"model": "tiny", "prompt": "a", "temperature": NaN}'}),
    ("invalid_value", 400, {"json": {"model": "tiny", "prompt": "a", "frequency_penalty": 1}}),
    ("invalid_value", 400, {"json": {"model": "tiny", "prompt": "a[MASK]b[MASK]"}}),
    ("invalid_value", 400, {"json": {"model": "tiny", "prompt": "a", "min_tokens": 9, "max_tokens": 3}}),
    ("n_too_large", 400, {"json": {"model": "tiny", "prompt": "a", "n": 5}}),
    ("max_tokens_too_large", 400, {"json": {"model": "tiny", "prompt": "a", "max_tokens": 128}}),
    ("context_length_exceeded", 400, {"json": {"model": "tiny", "prompt": "天气" * 200}}),
    ("context_length_exceeded", 400, {"json": {"model": "tiny", "prompt": "天气" * 200, "stream": True}}),
    ("too_many_characters", 400, {"json": {"model": "tiny", "prompt": "天" * 5000}}),
    ("too_many_texts", 400, {"json": {"model": "tiny", "prompt": ["a"] * 10}}),
    ("invalid_json", 400, {"content": '{"model": "tiny", "prompt":'}),
    ("invalid_json", 400, {"content": b"\xff\xfe"}),
    ("invalid_json", 400, {"content": "[" * 10_000}),
    ("invalid_type", 400, {"content": ""}),
    ("model_not_found", 404, {"json": {"model": "../../etc/passwd", "prompt": "a"}}),
    ("request_too_large", 413, {"content": b" " * 30_000}),
    ("request_too_large", 413, {"content": iter([b" " * 15_000] * 2)}),
    ("invalid_api_key", 401, {"json": {}, "headers": {"Authorization": f"Bearer {KEY}x"}}),
    ("invalid_api_key", 401, {"json": {}, "headers": {"Authorization": f"Basic {KEY}"}}),
    ("invalid_value", 400, {"json": {}, "headers": {"X-Request-Timeout": "soon"}}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "status", "request_"), BAD, ids=range(len(BAD)))
def test_every_mistake_has_the_same_shape(
    http: httpx.Client, code: str, status: int, request_: dict[str, Any]
):
    headers = {"Content-Type": "application/json", **request_.pop("headers", {})}
    answer = http.post("/v1/completions", headers=headers, **request_)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    for leak in ("Traceback", ".py", "site-packages", "golden"):
        assert leak not in answer.text


def test_a_request_that_would_take_all_memory_is_refused(http: httpx.Client):
    """Each blank may have as many tokens as the model has positions."""
    answer = http.post("/v1/fill", json={"texts": "[MASK]和" * 30, "max_tokens": 127})
    assert answer.status_code == 400, answer.text
    assert "more than max_tokens=1024" in answer.json()["error"]["message"]
    answer = http.post("/v1/fill", json={"texts": "天气" * 200 + "[MASK]", "n": 2})
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_other_paths_and_mistakes_in_what_the_pool_does(
    one: Running, http: httpx.Client, client: Any
):
    assert http.get("/v1/nothing").json()["error"]["code"] == "not_found"
    assert http.get("/v1/fill").json()["error"]["code"] == "method_not_allowed"
    for body, code in (
        ({"texts": "a", "task": "/etc/passwd"}, "task_not_found"),
        ({"texts": "a", "labels": ["x", "x"]}, "invalid_value"),
        ({"texts": "a", "labels": ["x", "y"], "task": "topics"}, "invalid_value"),
    ):
        answer = http.post("/v1/classify", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    with pytest.raises(openai.BadRequestError, match="where 'user' belongs"):
        client.chat.completions.create(
            model="tiny", messages=[{"role": "assistant", "content": "a"}]
        )
    with httpx.Client(base_url=one.address) as stranger:
        assert [stranger.get(path).status_code for path in ("/healthz", "/readyz", "/metrics")] == [
            200,
            200,
            401,
        ]


def test_many_clients_at_once_get_what_each_would_get_alone(one: Running, http: httpx.Client):
    """Mixed lengths and blanks, more of them than run together, with mistakes and floods of neighbours between them."""
    texts = [f"第{number}天，[MASK]和[MASK]" + "很好" * number for number in range(8)]
    limits = [3 + 5 * (number % 4) for number in range(8)]

    def ask(number: int) -> Any:
        http.post("/v1/fill", json={"texts": 3})
        body = {
            "texts": texts[number],
            "max_tokens": limits[number],
            "temperature": 1,
            "seed": number,
        }
        return http.post("/v1/fill", json=body)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(ask, range(8))]
    for number, answer in enumerate(answers):
        expected = one.glm.fill(
            texts[number], max_new_tokens=limits[number], do_sample=True, seed=number
        )
        assert answer.json()["data"][0]["text"] == expected.text, answer.text


def test_a_client_that_leaves_frees_its_place(
    one: Running, http: httpx.Client, caplog: pytest.LogCaptureFixture
):
    """Streaming, waiting for a whole answer, and still in the queue; a step takes 0.1 s, a text 120 of them."""
    asked = {"model": "tiny", "prompt": "今天", "n": 4, "temperature": 1, **LONG}
    with one.brake.at(0.1):
        with http.stream("POST", "/v1/completions", json={**asked, "stream": True}) as answer:
            next(answer.iter_lines())
            assert one.scheduler.texts == 4
            with pytest.raises(httpx.ReadTimeout):  # in the queue; the client gives up
                http.post("/v1/completions", json=asked, timeout=0.2)
            assert until(lambda: one.scheduler.texts == 4, 5.0)
        assert until(lambda: one.scheduler.texts == 0, 5.0)
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/completions", json=asked, timeout=0.2)
        assert until(lambda: one.scheduler.texts == 0, 5.0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_full_queue_and_a_deadline(one: Running, http: httpx.Client, client: Any):
    asked = {"model": "tiny", "prompt": "今天", "n": 4, "temperature": 1, **LONG}
    with one.brake.at(0.02), http.stream("POST", "/v1/completions", json={**asked, "stream": True}):
        # It waits for the one that runs, and its time is over before it has begun.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waits = pool.submit(
                http.post, "/v1/completions", json=asked, headers={"X-Request-Timeout": "0.6"}
            )
            assert until(lambda: one.scheduler.texts == 8)
            with pytest.raises(openai.RateLimitError) as full:
                client.completions.create(model="tiny", prompt="今天", max_tokens=3)
            assert full.value.code == "queue_full"
            assert int(full.value.response.headers["Retry-After"]) >= 1
            late = waits.result()
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert until(lambda: one.scheduler.texts == 0)
    with one.brake.at(0.02):  # over while it is written: the stream ends with an error
        chunks = client.completions.create(
            model="tiny",
            prompt="今天",
            stream=True,
            extra_body={"min_tokens": 120},
            max_tokens=120,
            extra_headers={"X-Request-Timeout": "0.4"},
        )
        with pytest.raises(openai.APIError, match="longer than it may"):
            list(chunks)
    assert until(lambda: one.scheduler.texts == 0)


def test_a_bug_is_reported_without_its_words_and_the_server_goes_on(
    one: Running, http: httpx.Client, caplog: pytest.LogCaptureFixture
):
    one.brake.error = RuntimeError("内部秘密 /secret/path")
    try:
        answer = http.post("/v1/completions", json={"model": "tiny", "prompt": "今天"})
    finally:
        one.brake.error = None
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
    assert "secret" not in answer.text + caplog.text
    assert "RuntimeError" in caplog.text
    good = http.post("/v1/completions", json={"model": "tiny", "prompt": "今天", "max_tokens": 3})
    assert good.json()["choices"][0]["text"] == one.glm.generate("今天", max_new_tokens=3)


def test_logs_have_no_text_and_no_key(http: httpx.Client, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG):
        for path in ("/v1/completions?q=秘密", "/v1/fill", "/v1/score"):
            http.post(path, json={"model": "tiny", "prompt": "秘密[MASK]", "texts": "秘密"})
        http.post("/v1/completions", json={"model": "tiny", "prompt": "秘密", "max_tokens": 3})
        http.post("/v1/completions", json={"model": "tiny", "prompt": "秘密" * 200})
        assert until(lambda: caplog.text.count(" s request ") >= 5)
    ours = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith("glmkit")
    )
    assert "POST /v1/completions 200" in ours
    assert "秘密" not in ours
    assert KEY not in ours


def test_a_slow_or_broken_sender_holds_up_nobody(one: Running, http: httpx.Client):
    host, port = one.address.removeprefix("http://").split(":")
    head = f"POST /v1/fill HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=5) as half:
        half.sendall((head + "X-Request-Timeout: 0.3\r\nContent-Length: 100\r\n\r\n{").encode())
        body = {"texts": "今天[MASK]", "max_tokens": 2}
        assert http.post("/v1/fill", json=body).status_code == 200
        assert b"504" in half.recv(4096).split(b"\r\n")[0]
    with socket.create_connection((host, int(port)), timeout=5) as rubbish:
        rubbish.sendall(b"\x00\xff not http\r\n\r\n")
        assert b"400" in rubbish.recv(4096).split(b"\r\n")[0]
    assert http.get("/readyz").status_code == 200


def test_without_keys_other_names_are_refused_and_the_rate_is_limited_and_running_requests_are_finished(
    one: Running, caplog: pytest.LogCaptureFixture
):
    """A server of its own: the shared one has keys, and must not be stopped."""
    caplog.set_level(logging.INFO, "glmkit.serving")
    settings = {
        "requests_per_minute": 2,
        "log_text": True,
        "cors_origins": ("https://page.example",),
    }
    with running(one.glm, **settings) as other, httpx.Client(base_url=other.address) as http:
        wrong = http.get("/v1/models", headers={"Host": "evil.example"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (403, "wrong_host")
        preflight = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
        assert (
            http.options("/v1/fill", headers=preflight).headers["access-control-allow-origin"]
            == "https://page.example"
        )
        assert http.get("/v1/models", headers={"Host": "localhost:1"}).status_code == 200
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            other.brake.seconds = 0.005
            body = {"model": "tiny", "prompt": "今天", **LONG}
            answer = pool.submit(http.post, "/v1/completions", json=body, timeout=20)
            assert until(lambda: other.scheduler.texts == 1)
            limited = http.get("/v1/models")
            assert (limited.status_code, limited.json()["error"]["code"]) == (
                429,
                "rate_limit_exceeded",
            )
            assert int(limited.headers["Retry-After"]) <= 30
            other.stop()
            text = answer.result().json()["choices"][0]["text"]
        assert text == one.glm.generate("今天", max_new_tokens=120, min_new_tokens=120)
        assert text in caplog.text  # log_text
        with pytest.raises(httpx.ConnectError):
            http.get("/healthz")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_command_serves_and_finishes_what_runs_when_it_is_told_to_stop(tmp_path: Path):
    """A process of its own, told by SIGTERM in the middle of a stream."""
    folder = golden_folder("tiny-chinese").path
    command = [
        sys.executable,
        "-m",
        "glmkit",
        "serve",
        str(folder),
        "--name",
        "tiny",
        "--port",
        "0",
        "--max-queue",
        "400",
    ]
    environment = {**os.environ, "GLMKIT_LANG": "en", "GLMKIT_API_KEYS": KEY}
    with open(tmp_path / "log", "w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log, env=environment)
        try:
            written = lambda: (tmp_path / "log").read_text(encoding="utf-8")
            assert until(lambda: "/v1, its playground" in written(), 90)
            address = re.findall(r"tiny at (http://127.0.0.1:\d+)/v1", written())[0]
            client = openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0)
            chunks = client.completions.create(
                model="tiny",
                prompt=["今天"] * 40,
                stream=True,
                max_tokens=120,
                extra_body={"min_tokens": 120},
            )
            texts: dict[int, str] = {}
            for number, chunk in enumerate(chunks):
                if number == 0:
                    process.send_signal(signal.SIGTERM)
                texts[chunk.choices[0].index] = (
                    texts.get(chunk.choices[0].index, "") + chunk.choices[0].text
                )
            assert len(texts) == 40
            assert len(set(texts.values())) == 1
            assert process.wait(20) == -signal.SIGTERM
        finally:
            process.kill()
        assert KEY not in written()
        assert "Traceback" not in written()
