"""The page over HTTP: who may see it, what is answered and what not, and that a page that is closed stops its work."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest

import glmkit
from serving_samples import Running, running, until

pytest.importorskip("gradio")
pytest.importorskip("fastapi")

KEY = "key-of-the-page"
TEXT = "床前[MASK]光"


@pytest.fixture(scope="module")
def one() -> Iterator[Running]:
    from glmkit.playground.mounting import mount

    glm = glmkit.load(device="cpu")
    with running(glm, name="mini", page=mount, api_keys=(KEY,), requests_per_minute=600) as server:
        yield server


@pytest.fixture
def http(one: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=one.address, timeout=60) as client:
        yield client


@pytest.fixture
def person(http: httpx.Client) -> httpx.Client:
    """A browser that has logged in."""
    assert http.post("/login", data={"key": KEY}).status_code == 303
    return http


def listener(client: httpx.Client, place: str, event: str = "click") -> dict[str, Any]:
    """Returns the listener of a component's event, by the component's id on the page."""
    config = client.get("/zh/config").json()
    [number] = [one["id"] for one in config["components"] if one["props"].get("elem_id") == place]
    [found] = [one for one in config["dependencies"] if [number, event] in one["targets"]]
    return found


def values_of(client: httpx.Client, found: dict[str, Any], **given: Any) -> list[Any]:
    """Returns a listener's inputs: what is given by their ids on the page, else what they say at first."""
    config = client.get("/zh/config").json()
    known = {one["id"]: one["props"] for one in config["components"]}
    names = [known[number].get("elem_id") for number in found["inputs"]]
    assert set(given) <= {name.replace("-", "_") for name in names}
    first = (known[number].get("value") for number in found["inputs"])
    return [
        given.get(name.replace("-", "_"), value) for name, value in zip(names, first, strict=True)
    ]


def join(client: httpx.Client, place: str, session: str, **given: Any) -> httpx.Response:
    """Presses a button."""
    found = listener(client, place)
    body = {"data": values_of(client, found, **given), "fn_index": found["id"], "session_hash": session}  # fmt: skip
    return client.post("/zh/gradio_api/queue/join", json=body)


def outputs(client: httpx.Client, session: str) -> list[Any]:
    """Returns what a button's listener gave last."""
    with client.stream("GET", "/zh/gradio_api/queue/data", params={"session_hash": session}) as got:
        for line in got.iter_lines():
            if line.startswith("data: "):
                message = json.loads(line.removeprefix("data: "))
                if message["msg"] == "process_completed":
                    assert message["success"], message
                    return message["output"]["data"]
    raise AssertionError("no answer")


def test_without_a_key_there_is_a_form_and_nothing_else(one: Running, http: httpx.Client):
    for path in ("/", "/zh/", "/en/", "/zh/config", "/zh/assets/x.js"):
        answer = http.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login"), path
    assert http.post("/zh/gradio_api/queue/join", json={}).status_code == 401
    form = http.get("/login", headers={"Accept-Language": "zh-CN,zh;q=0.9"})
    assert "API 密钥" in form.text
    assert "API key" in http.get("/login").text
    wrong = http.post("/login", data={"key": "guess"}, headers={"Accept-Language": "zh"})
    assert (wrong.status_code, "密钥不正确" in wrong.text) == (401, True)
    assert not http.cookies


def test_a_login_opens_the_page_alone_and_ends(one: Running, person: httpx.Client):
    cookie = person.post("/login", data={"key": KEY}).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert KEY not in cookie
    for language, place in (("zh-CN", "/zh/"), ("en-GB", "/en/"), ("fr", "/en/")):
        answer = person.get("/", headers={"Accept-Language": language})
        assert (answer.status_code, answer.headers["location"]) == (307, place)
    assert person.get("/zh/config").status_code == 200
    assert person.get("/v1/models").status_code == 401  # programs send their key
    good = person.cookies["glmkit_login"]
    for wrong in (good[:-1], good.replace("0.", "1.", 1), "", "0.9999999999.", "x.y.z"):
        answer = httpx.get(f"{one.address}/zh/config", headers={"Cookie": f"glmkit_login={wrong}"})
        assert answer.status_code == 303, wrong
    assert person.post("/logout").headers["location"] == "/login"
    assert person.get("/zh/config").status_code == 303


def test_the_page_tells_browsers_to_ask_nobody_else(person: httpx.Client):
    answer = person.get("/zh/")
    assert '<html\n\tlang="zh-CN"' in answer.text
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "githubusercontent" not in answer.text
    assert "twitter" not in answer.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/zh/gradio_api/upload"),
        ("GET", "/zh/gradio_api/file=/etc/hostname"),
        ("GET", "/zh/gradio_api/proxy=http://example.com"),
        ("POST", "/zh/gradio_api/run/predict"),
        ("POST", "/zh/gradio_api/call/fill"),
        ("POST", "/zh/gradio_api/vibe-edit"),
        ("GET", "/zh/monitoring"),
        ("GET", "/zh/assets/..%2f..%2fpage.py"),
        ("GET", "/zh/gradio_api/info"),
        ("DELETE", "/zh/"),
        ("GET", "/v1/nothing"),
    ],
)
def test_what_the_page_does_not_use_is_not_there(one: Running, person: httpx.Client, method: str, path: str):  # fmt: skip
    headers = {"Authorization": f"Bearer {KEY}"} if path.startswith("/v1") else {}
    answer = person.request(method, path, headers=headers)
    assert answer.status_code in (404, 405), answer.text
    assert "code" in answer.json()["error"]


def test_another_sites_page_may_not_press_its_buttons(one: Running, person: httpx.Client):
    for origin, status in (("http://elsewhere.example", 403), (one.address, 422)):
        answer = person.post("/zh/gradio_api/queue/join", headers={"Origin": origin}, json={})
        assert answer.status_code == status, answer.text


def test_a_page_writes_what_the_library_writes(one: Running, person: httpx.Client):
    assert join(person, "fill-run", "s1", fill_text=TEXT).status_code == 200
    shown = outputs(person, "s1")[0]
    assert f">{one.glm.fill(TEXT, max_new_tokens=16).blanks[0]}</button>" in shown


def test_mistakes_are_told_in_place_in_the_pages_language(person: httpx.Client):
    for number, (given, told) in enumerate(
        [
            ({"fill_text": "  "}, "请先写一段文本"),
            ({"fill_text": TEXT, "fill_top_p": "2"}, "top_p：2 太大，最多为 1"),
            ({"fill_text": TEXT, "fill_max_tokens": "many"}, "max_tokens：many 必须是整数"),
            ({"fill_text": TEXT, "fill_max_tokens": "9999"}, "max_tokens=9999 超过了上限 319"),
            ({"fill_text": "长" * 2000 + "[MASK]"}, "模型最多读 320 个"),
            ({"fill_text": "长" * 200_000}, "上限为 100000"),
        ]
    ):
        assert join(person, "fill-run", f"m{number}", **given).status_code == 200
        shown = outputs(person, f"m{number}")[0]
        assert 'role="alert"' in shown
        assert told in shown


BUTTONS = ("fill", "poem", "article", "chat", "sentiment", "topics", "summary", "answer", "explain", "compare")  # fmt: skip


def test_buttons_that_are_pressed_first_of_all_are_answered_kindly(person: httpx.Client):
    """No field was touched; what browsers then send is null for some."""
    for name in BUTTONS:
        assert join(person, f"{name}-run", f"first-{name}").status_code == 200
        shown = str(outputs(person, f"first-{name}"))
        assert "请求编号" not in shown, name
        assert ("请先" in shown) is (name != "poem"), name


def test_a_page_that_is_closed_frees_its_rows(one: Running, person: httpx.Client):
    """While it is open the stream of its session is read; the API goes on beside it."""
    session = "closing"
    ended = threading.Event()

    def page_open() -> None:
        path = f"/zh/gradio_api/heartbeat/{session}"
        with (
            contextlib.suppress(httpx.HTTPError),
            httpx.stream(
                "GET", one.address + path, cookies=dict(person.cookies), timeout=60
            ) as got,
        ):
            for _ in got.iter_raw():
                if ended.wait(30):
                    return

    page = threading.Thread(target=page_open)
    page.start()
    with one.brake.at(0.1):
        given = {"fill_text": "今天[gMASK]", "fill_max_tokens": "300", "fill_min_characters": "250"}  # fmt: skip
        assert join(person, "fill-run", session, **given).status_code == 200
        assert until(lambda: one.scheduler.texts == 1)
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = person.post("/v1/fill", json={"texts": TEXT, "max_tokens": 2}, headers=headers)
        assert answer.status_code == 200
        assert one.scheduler.texts == 1
        ended.set()
        page.join(10)
        assert until(lambda: one.scheduler.texts == 0)


def test_a_server_that_stops_does_not_wait_for_open_pages():
    from glmkit.playground.mounting import mount

    with (
        running(glmkit.load(device="cpu"), page=mount, grace=30.0) as server,
        httpx.Client(base_url=server.address, timeout=60) as client,
    ):
        assert client.get("/en/config").status_code == 200
        with client.stream("GET", "/en/gradio_api/heartbeat/open") as got:
            next(got.iter_raw())
            began = time.monotonic()
            server.server.should_exit = True
            server.thread.join(20)
            assert not server.thread.is_alive()
            assert time.monotonic() - began < 15  # and not the 30 s of grace
