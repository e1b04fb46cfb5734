"""Images, sounds and clips over HTTP: a real server, the official client, a tiny model that reads all three."""

from __future__ import annotations

import base64
import concurrent.futures
import io
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

from glmkit.multimodal.media import Medium
from glmkit.serving.app import media_paths
from glmkit.tasks.task import load_task
from media_samples import (
    PAIRS,
    PHOTOS,
    clip_bytes,
    clip_frames,
    image_bytes,
    media_glm,
    picture,
    tone,
    wav_bytes,
)
from serving_samples import Running, running
from understanding_samples import random_glm

openai = pytest.importorskip("openai")

PICTURE, SOUND = image_bytes(), wav_bytes()


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


def url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{packed(data)}"


@pytest.fixture(scope="module")
def one() -> Iterator[Running]:
    pytest.importorskip("av")
    limits = {"max_body_bytes": 20_000, "max_characters": 4_000, "max_media_bytes": 100_000, "max_media_pixels": 60_000, "max_media_seconds": 2}  # fmt: skip
    with running(media_glm(), max_media=4, log_text=True, **limits) as server:
        yield server


@pytest.fixture(scope="module")
def http(one: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=one.address, timeout=30) as client:
        yield client


def test_the_official_client_sends_an_image_and_a_sound(
    one: Running, caplog: pytest.LogCaptureFixture
):
    """Whole and as a stream the reply is that of `glm.chat`; the log has sizes and no media."""
    client = openai.OpenAI(base_url=f"{one.address}/v1", api_key="none", max_retries=0)
    assert client.models.list().data[0].input_modalities == ["text", "image", "audio", "video"]
    parts = [
        {"type": "text", "text": "天气"},
        {"type": "image_url", "image_url": {"url": url(PICTURE), "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": packed(SOUND), "format": "wav"}},
        {"type": "text", "text": "是什么？"},
    ]
    messages: list[Any] = [{"role": "user", "content": parts}]
    asked: Any = {"model": "tiny", "messages": messages, "max_tokens": 8, "extra_body": {"min_tokens": 8}}  # fmt: skip
    expected = one.glm.chat(messages, max_new_tokens=8, min_new_tokens=8)
    with caplog.at_level(logging.INFO, "glmkit.serving"):
        whole = client.chat.completions.create(**asked)
    assert whole.choices[0].message.content == expected
    assert whole.usage.prompt_tokens > len(one.glm.tokenizer("天气是什么？")["input_ids"]) + 4
    assert "bytes" in caplog.text
    assert packed(SOUND)[:200] not in caplog.text
    streamed = client.chat.completions.create(stream=True, **asked)
    assert "".join(piece.choices[0].delta.content or "" for piece in streamed) == expected
    without = [{"role": "user", "content": "".join(part.get("text", "") for part in parts)}]
    assert one.glm.chat(without, max_new_tokens=8, min_new_tokens=8) != expected
    later = [*messages, {"role": "assistant", "content": "红"}, {"role": "user", "content": [
        {"type": "video_url", "video_url": url(clip_bytes(), "video/mp4")}, {"type": "text", "text": "呢？"}]}]  # fmt: skip
    again = client.chat.completions.create(**{**asked, "messages": later})
    assert again.choices[0].message.content == one.glm.chat(later, max_new_tokens=8, min_new_tokens=8)  # fmt: skip


def test_own_routes_give_what_the_methods_give(one: Running, http: httpx.Client):
    texts = ["你好[MASK]", "先<|video|>后<|image|>[MASK]"]
    images, videos = [PICTURE, image_bytes(picture((0, 0, 255)))], [None, clip_bytes()]
    sent = {"images": [url(images[0]), packed(images[1])], "videos": [None, [packed(clip_bytes())]]}
    glm, most = one.glm, {"max_new_tokens": 5}
    for n in (None, 2):
        body = {"texts": texts, "max_tokens": 5, "n": n, **sent}
        data = http.post("/v1/fill", json=body).json()["data"]
        found = glm.fill(texts, images=images, videos=videos, n=n, **most)
        assert [each["text"] for each in data] == [each.text for each in found]
        assert [each["scores"] for each in data] == [pytest.approx(each.scores) for each in found]
    body = {"model": "tiny", "prompt": "你好", "audios": packed(SOUND), "max_tokens": 5}
    answer = http.post("/v1/completions", json=body).json()
    assert answer["choices"][0]["text"] == glm.generate("你好", audios=SOUND, **most)
    pytest.importorskip("captum")
    body = {
        "texts": "你好[MASK]",
        "blanks": ["大"],
        "images": packed(PICTURE),
        "methods": ["ablation"],
    }
    evidence = http.post("/v1/explain", json=body).json()["data"][0]["evidence"][0]
    expected = glm.explain("你好[MASK]", blanks=["大"], images=PICTURE, methods=["ablation"])
    assert [unit["index"] for unit in evidence["units"] if unit["source"] == "image 1"] == [0, 1, 2, 3]  # fmt: skip
    values = expected.evidence[0].attributions["ablation"].values.tolist()
    assert evidence["attributions"]["ablation"]["values"] == pytest.approx(values)


def test_no_file_of_the_server_and_no_address_is_opened(
    one: Running, http: httpx.Client, tmp_path: Path
):
    """A picture lies there, and its path (also one that is base64 by chance) is refused."""
    paths = [tmp_path / name for name in ("picture.png", "abcd")]
    for path in paths:
        path.write_bytes(PICTURE)
    while len(str(paths[1])) % 4:
        paths[1] = paths[1].rename(f"{paths[1]}a")
    given = [
        *map(str, paths),
        paths[0].as_uri(),
        f"{one.address}/healthz",
        "http://127.0.0.1/a.png",
    ]
    for source in given:
        answers = [
            http.post("/v1/fill", json={"texts": "[MASK]", "images": source}),
            http.post("/v1/completions", json={"model": "tiny", "prompt": "a", "images": [source]}),
            http.post("/v1/explain", json={"texts": "[MASK]", "videos": source}),
        ]
        for kind in ("image_url", "audio_url", "video_url"):
            content = [{"type": kind, kind: {"url": source}}]
            body = {"model": "tiny", "messages": [{"role": "user", "content": content}]}
            answers.append(http.post("/v1/chat/completions", json=body))
        for answer in answers:
            assert answer.status_code == 400, answer.text
            message = answer.json()["error"]["message"]
            assert "opens no files" in message or "bytes is no" in message or "cannot be decoded" in message, message  # fmt: skip
    assert "opens no files" in http.post("/v1/fill", json={"texts": "a", "images": given[0]}).text


# -- tasks whose records have media ------------------------------------------------------------------------------------


@pytest.fixture
def tasks(one: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The tasks of a model that was fine-tuned for two; where media are opened by a path, the server makes a mistake (500)."""
    found = {}
    for name, text in (("photos", PHOTOS), ("pairs", PAIRS)):
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
        found[name] = load_task(tmp_path / f"{name}.yaml")
    monkeypatch.setattr(one.glm, "tasks", found)
    opened = Medium.file

    def guarded(medium: Medium) -> Any:
        assert isinstance(medium.source, bytes), "a server opens no path"
        return opened(medium)

    monkeypatch.setattr(Medium, "file", guarded)
    return found


def test_records_with_media_have_the_labels_that_the_methods_give(
    one: Running, http: httpx.Client, tasks: Any, caplog: pytest.LogCaptureFixture
):
    """In a record, in a list, or beside a text; one or many; explained, too. The log has sizes and no media."""
    blue, glm = image_bytes(picture((0, 0, 255))), one.glm
    record = {"said": "味道", "photo": [PICTURE, blue], "sound": SOUND}
    sent = {"said": "味道", "photo": [url(PICTURE), packed(blue)], "sound": packed(SOUND)}
    expected = glm.classify(record, tasks["pairs"]).probabilities
    with caplog.at_level(logging.INFO, "glmkit.serving"):
        data = http.post("/v1/classify", json={"texts": sent, "task": "pairs"}).json()["data"]
    assert [each["probabilities"] for each in data] == [pytest.approx(expected, abs=1e-6)]
    assert "bytes" in caplog.text
    assert "味道" in caplog.text
    assert packed(SOUND)[:100] not in caplog.text
    assert packed(PICTURE)[:20] not in caplog.text
    beside = {"texts": ["味道"], "images": [[packed(PICTURE), packed(blue)]], "audios": [packed(SOUND)]}  # fmt: skip
    assert http.post("/v1/classify", json={**beside, "task": "pairs"}).json()["data"] == data
    several = [{"photo": packed(PICTURE)}, {"photo": url(blue)}]
    found = http.post("/v1/classify", json={"texts": several, "task": "photos"}).json()["data"]
    right = glm.classify([{"photo": PICTURE}, {"photo": blue}], tasks["photos"])
    for each, other in zip(found, right, strict=True):
        assert each["probabilities"] == pytest.approx(other.probabilities, abs=1e-6)
    assert found[0]["probabilities"] != found[1]["probabilities"]
    plain = {"texts": [{"text": "太慢了"}, "太慢了"], "task": "topics"}
    both = http.post("/v1/classify", json=plain).json()["data"]
    assert both[0] == both[1]
    pytest.importorskip("captum")
    for body in ({"texts": sent}, beside):
        asked = {**body, "task": "pairs", "methods": ["ablation"]}
        [explained] = http.post("/v1/explain", json=asked).json()["data"]
        assert explained["probabilities"] == pytest.approx(expected, abs=1e-5)
        sources = [unit["source"] for unit in explained["evidence"][0]["units"] if unit["index"] is not None]  # fmt: skip
        assert sources == ["image 1"] * 4 + ["image 2"] * 4 + ["audio 1"] * 2
        assert explained["text"] == "<|image|><|image|><|audio|>\n味道"


def test_no_path_comes_in_by_a_record(
    one: Running, http: httpx.Client, tasks: Any, tmp_path: Path, monkeypatch: Any
):
    """Whatever stands where a medium or a record belongs: a picture lies at each of these paths, and is not opened."""
    monkeypatch.chdir(tmp_path)
    for name in ("picture.png", "abcd"):  # the second is base64 by chance
        (tmp_path / name).write_bytes(PICTURE)
    here, address = str(tmp_path / "picture.png"), f"{one.address}/healthz"
    uri, unknown = (tmp_path / "picture.png").as_uri(), "neither a data: URL"
    bodies: list[tuple[str, Any]] = [
        *((unknown, {"photo": each}) for each in (here, uri, address, "picture.png", "~", ".", "\x00", "")),
        ("3 bytes is no image", {"photo": "abcd"}),
        (unknown, {"photo": [packed(PICTURE), here]}),
        ("not base64", {"photo": f"data:{here}"}),
        ("not base64", {"photo": f"DATA:image/png,{here}"}),
        ("is damaged", {"photo": f"data:image/png;base64,{here}"}),
        ("should be a valid", {"photo": {"path": here}}),
        ("should be a valid", {"photo": [{"bytes": None, "path": here}]}),
        ("should be a valid", {"photo": [[here]]}),
        ("should be a valid", {"photo": None}),
        ("has no field 'image'", {"image": here}),
        ("has no field 'media'", {"media": here, "photo": packed(PICTURE)}),
        ("takes records with photo", here),
        ("takes records with photo", ""),
    ]  # fmt: skip
    for route in ("classify", "explain"):
        for said, given in bodies:
            for texts in (given, [given]):
                answer = http.post(f"/v1/{route}", json={"texts": texts, "task": "photos"})
                assert answer.status_code == 400, (given, answer.text)
                message = answer.json()["error"]["message"]
                assert said in message, (given, message)
        for said, more in (
            ("neither a data: URL", {"images": here}),
            ("neither a data: URL", {"images": [here]}),
            ("give them once", {"images": packed(PICTURE), "texts": {"photo": packed(PICTURE)}}),
            ("there is no task", {"task": str(tmp_path / "photos.yaml")}),
            ("there is no task", {"task": "../photos"}),
        ):
            answer = http.post(f"/v1/{route}", json={"texts": "", "task": "photos", **more})
            assert answer.status_code == 400, (more, answer.text)
            assert said in answer.json()["error"]["message"]
    # A field of text is a text, a label is not looked at.
    body = {"texts": {"said": here, "kind": here, "photo": packed(PICTURE)}, "task": "pairs"}
    data = http.post("/v1/classify", json=body).json()["data"]
    right = one.glm.classify({"said": here, "photo": PICTURE}, tasks["pairs"])
    assert data[0]["probabilities"] == pytest.approx(right.probabilities, abs=1e-6)
    answer = http.post("/v1/explain", json={"texts": {"photo": packed(PICTURE)}})
    assert "a record is of a classification" in answer.json()["error"]["message"]


def test_records_are_within_the_servers_limits(http: httpx.Client, tasks: Any):
    image, wide = packed(PICTURE), packed(image_bytes(picture(size=(200, 200))))
    long = packed(wav_bytes(np.zeros(40_000, np.float32)))
    for status, said, record in (
        (400, "more than 4 images", {"photo": [image] * 5}),
        (400, "4001 characters", {"said": "天" * 4001, "photo": image}),
        (400, "4002 characters", {"said": ["天" * 2000, "天" * 2001], "photo": image}),
        (400, "names other media", {"said": "<|audio|>", "photo": image}),
        (400, "has no field 'sayd'; did you mean 'said'?", {"sayd": "a", "photo": image}),
        (413, "more than 100,000 bytes", {"photo": ["A" * 70_000, "A" * 70_000]}),
        (413, "60,000 pixels to decode", {"said": "", "photo": [wide, packed(image_bytes(picture(size=(150, 150))))]}),
        (413, "2 seconds of sound to decode", {"said": "", "sound": long}),
    ):  # fmt: skip
        answer = http.post("/v1/classify", json={"texts": [record], "task": "pairs"})
        assert answer.status_code == status, answer.text
        assert said in answer.json()["error"]["message"]
    body = {"texts": [{"photo": image}] * 65, "task": "photos"}
    assert "more than 4 images" in http.post("/v1/classify", json=body).text
    body = {"texts": [{"said": ""}] * 65, "task": "pairs"}
    assert "at most 64 at a time" in http.post("/v1/classify", json=body).text


def silence(seconds: float, rate: int) -> bytes:
    """Returns a small file (FLAC) of many samples."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=rate)
        stream.layout = "mono"
        samples = np.zeros((1, round(seconds * rate)), np.int16)
        frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        frame.sample_rate = rate
        for one in (frame, None):
            container.mux(stream.encode(one))
    return file.getvalue()


def test_what_a_request_has_decoded_is_limited(http: httpx.Client):
    """Small files hold much: each is within the limit alone, and together they are not; the next request begins anew."""
    sounds = [packed(wav_bytes(tone(hertz, 1.2))) for hertz in (300, 500)]
    images = [packed(image_bytes(picture((level, 0, 0), (150, 150)))) for level in (7, 8, 9)]
    fast = packed(silence(1.0, 384_000))  # four times as many samples as a usual second
    long = packed(clip_bytes(clip_frames(70)))
    short = packed(clip_bytes(clip_frames(30)))

    def post(**media: Any) -> httpx.Response:
        return http.post("/v1/fill", json={"texts": "天[MASK]", "max_tokens": 2, **media})

    for field, many, what in (("audios", sounds, "2 seconds of sound"), ("audios", [fast], "2 seconds of sound"), ("images", images, "60,000 pixels"), ("videos", [long], "60,000 pixels"), ("videos", [short, packed(clip_bytes(clip_frames(31)))], "60,000 pixels")):  # fmt: skip
        answer = post(**{field: many})
        assert answer.status_code == 413, answer.text
        error = answer.json()["error"]
        assert error["code"] == "media_too_large"
        assert f"more than {what} to decode" in error["message"]
        assert f"{field}[{len(many) - 1}]" in error["message"] or len(many) > 1
        parts = [{"type": f"{field[:-1]}_url", f"{field[:-1]}_url": url(base64.b64decode(each))} for each in many]  # fmt: skip
        body = {"model": "tiny", "messages": [{"role": "user", "content": parts}], "max_tokens": 2}
        assert http.post("/v1/chat/completions", json=body).status_code == 413
    for media in ({"audios": sounds[0]}, {"images": images[:2]}, {"videos": short}):
        assert post(**media).status_code == 200, media


def test_paths_that_take_media_are_those_whose_schemas_do(one: Running, http: httpx.Client):
    named = {f"/v1/{name}" for name in ("chat/completions", "completions", "fill", "classify", "explain")}  # fmt: skip
    assert media_paths(one.server.config.app) == named
    texts = http.get("/openapi.json").json()["components"]["schemas"]["ClassifyRequest"]["properties"]["texts"]  # fmt: skip
    assert {one.get("type") for one in texts["anyOf"]} == {"string", "object", "array"}
    large = {"texts": "[MASK]", "images": "A" * 60_000}
    for path in ("classify", "score"):
        answer = http.post(f"/v1/{path}", json=large)
        assert answer.status_code == (413 if path == "score" else 400), answer.text


BAD: list[tuple[str, int, dict[str, Any]]] = [
    ("is no image", 400, {"images": packed(SOUND)}),
    ("cannot be decoded", 400, {"audios": packed(PICTURE[:60])}),
    ("base64 is damaged", 400, {"images": "data:image/png;base64,@@@"}),
    ("not base64", 400, {"images": "data:image/png,abc"}),
    ("at least 1 character", 400, {"images": ""}),
    ("'a'", 400, {"images": [packed(PICTURE), "a"]}),
    ("valid string", 400, {"images": [[3]]}),
    ("more than 4 images", 400, {"images": [packed(PICTURE)] * 5}),
    ("for 1 of 2 texts", 400, {"texts": ["a", "b"], "images": [packed(PICTURE)]}),
    ("names other media", 400, {"texts": "<|image|><|image|>", "images": packed(PICTURE)}),
    ("the model reads 128", 400, {"texts": "天" * 130, "images": packed(PICTURE)}),
    ("has no field for image", 400, {"images": packed(PICTURE), "labels": ["a", "b"]}),
    ("more than 100,000 bytes", 413, {"images": "A" * 140_000}),
    ("larger than", 413, {"images": "A" * 400_000}),
    ("beside its images", 413, {"texts": "天" * 8_000, "images": packed(PICTURE)}),
]


@pytest.mark.parametrize(("words", "status", "fields"), BAD, ids=range(len(BAD)))
def test_mistakes_are_the_clients(http: httpx.Client, words: str, status: int, fields: Any):
    path = "/v1/explain" if "labels" in fields else "/v1/fill"
    answer = http.post(path, json={"texts": "你好[MASK]", **fields})
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]


def test_parts_are_checked_one_by_one(http: httpx.Client):
    def refused(role: str, *parts: Any) -> str:
        messages = [{"role": role, "content": list(parts)}, {"role": "user", "content": "a"}]
        answer = http.post("/v1/chat/completions", json={"model": "tiny", "messages": messages})
        assert answer.status_code == 400
        return str(answer.json()["error"]["message"])

    image = {"type": "image_url", "image_url": {"url": url(PICTURE)}}
    assert "only what the user says may have any" in refused("system", image)
    assert "'text', 'image_url', 'input_audio'" in refused("user", {"type": "image"})
    wrong = {"type": "image_url", "image_url": {"url": 3}}
    assert "messages.0.content.1.image_url.url" in refused("user", image, wrong)


def test_texts_do_not_wait_for_media(
    one: Running, http: httpx.Client, tasks: Any, monkeypatch: Any
):
    go, inside, rows = threading.Event(), threading.Event(), one.glm.media.rows

    def slow(media: Any) -> Any:
        inside.set()
        assert go.wait(20)
        return rows(media)

    monkeypatch.setattr(one.glm.media, "rows", slow)
    filled = {"texts": "你好[MASK]", "max_tokens": 4}
    told = {"texts": "你好", "labels": ["好", "快"]}
    photo = {"texts": {"photo": packed(PICTURE)}, "task": "photos"}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(http.post, "/v1/fill", json={**filled, "images": packed(PICTURE)}),
            pool.submit(http.post, "/v1/classify", json=photo),
        ]
        try:
            assert inside.wait(20)
            assert http.post("/v1/fill", json=filled).status_code == 200
            assert http.post("/v1/classify", json=told).status_code == 200
            assert not any(each.done() for each in waiting)
        finally:
            go.set()
        assert [each.result().status_code for each in waiting] == [200, 200]


def test_a_model_that_reads_none_says_so():
    with running(random_glm(), max_body_bytes=20_000) as server:
        client = httpx.Client(base_url=server.address)
        assert client.get("/v1/models").json()["data"][0]["input_modalities"] == ["text"]
        answer = client.post("/v1/fill", json={"texts": "[MASK]", "images": packed(PICTURE)})
        assert answer.status_code == 400
        assert "a model that reads no media" in answer.json()["error"]["message"]
        large = client.post("/v1/fill", json={"texts": "[MASK]", "images": "A" * 30_000})
        assert large.status_code == 413  # nothing is larger than texts are
