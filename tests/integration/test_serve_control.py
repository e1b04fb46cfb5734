"""What an answer must be: `response_format` as OpenAI's client sends it, and the fields that the command and `glm.fill` have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import httpx2 as httpx
import pytest
from pydantic import BaseModel, ConfigDict, Field

import glmkit
from conftest import golden_folder
from glmkit.generation.constraints import Choices, Length
from serving_samples import Running, running

openai = pytest.importorskip("openai")
pytest.importorskip("llguidance")

SAID = [{"role": "user", "content": "今天天气怎样？"}]


class Weather(BaseModel):
    model_config = ConfigDict(extra="forbid")

    city: Literal["北京", "上海"]
    degrees: Literal[-1, 20]
    tags: Annotated[list[Literal["a", "b"]], Field(max_length=2)]


@pytest.fixture(scope="module")
def one() -> Iterator[Running]:
    glm = glmkit.load(golden_folder("tiny-chinese").path, device="cpu")
    with running(glm, max_batch=4) as server:
        yield server


@pytest.fixture(scope="module")
def client(one: Running) -> Any:
    return openai.OpenAI(base_url=f"{one.address}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def http(one: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=one.address, timeout=20) as client:
        yield client


def test_a_reply_is_parsed_into_a_class(one: Running, client: Any):
    """Drawn at a high temperature, so that nothing but the schema makes it so; the library writes the same."""
    from glmkit.generation.grammar import JsonSchema

    texts = set()
    for seed in range(4):
        reply = client.chat.completions.parse(
            model="tiny", messages=SAID, response_format=Weather, temperature=3, seed=seed, max_tokens=60
        )  # fmt: skip
        [choice] = reply.choices
        assert choice.finish_reason == "stop"
        assert isinstance(choice.message.parsed, Weather)
        texts.add(choice.message.content)
    assert len(texts) > 1
    limit = JsonSchema(one.glm.tokenizer, Weather.model_json_schema())
    assert choice.message.content == one.glm.chat(
        SAID, constraints=limit, do_sample=True, temperature=3.0, seed=3, max_new_tokens=60
    )


def test_json_objects_schemas_and_streams(client: Any):
    whole = client.completions.create(
        model="tiny", prompt="记录：", n=2, seed=1, max_tokens=80,
        extra_body={"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [{"a": 1}, [True]]}}}},
    )  # fmt: skip
    assert all(json.loads(one.text) in ({"a": 1}, [True]) for one in whole.choices)
    pieces = client.chat.completions.create(
        model="tiny", messages=SAID, stream=True, temperature=2, seed=5, max_tokens=96,
        response_format={"type": "json_object"},
    )  # fmt: skip
    text = "".join(one.choices[0].delta.content or "" for one in pieces)
    assert text.startswith("{")
    plain = {"model": "tiny", "messages": SAID, "max_tokens": 8}
    same = [client.chat.completions.create(response_format=one, **plain) for one in (openai.omit, {"type": "text"})]  # fmt: skip
    assert same[0].choices[0].message.content == same[1].choices[0].message.content


def test_the_fields_of_fill_are_those_of_the_library(one: Running, http: httpx.Client):
    text = "故宫建于[MASK]年，位于[MASK]。"
    tokenizer = one.glm.tokenizer
    drawn: dict[str, Any] = {"temperature": 2, "seed": 3, "max_tokens": 12}

    def blanks(**fields: Any) -> list[str]:
        answer = http.post("/v1/fill", json={"texts": [text], **drawn, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"][0]["blanks"]

    assert all(re.fullmatch("[0-9]{2,4}", one) for one in blanks(regex="[0-9]{2,4}"))
    assert set(blanks(choices=["北京", "上海"])) <= {"北京", "上海"}
    assert all("天" in one and len(one) <= 5 and "不" not in one for one in blanks(include=["天"], exclude=["不"], max_characters=5))  # fmt: skip
    assert all(re.fullmatch("[ab]+", one) for one in blanks(grammar="start: /[ab]/+"))
    year, place = blanks(constraints=[{"regex": "[0-9]{4}"}, None], min_characters=4)
    assert re.fullmatch("[0-9]{4}", year)
    assert len(place) >= 4
    # The library's words for the same give the same text.
    limits = [Choices.of_texts(tokenizer, ["北京", "上海"]), Length(tokenizer, 2, 3)]
    found = blanks(constraints=[{"choices": ["北京", "上海"]}, {"min_characters": 2, "max_characters": 3}])  # fmt: skip
    assert (
        found
        == one.glm.fill(
            text, constraints=limits, do_sample=True, temperature=2.0, seed=3, max_new_tokens=12
        ).blanks
    )
    [best] = http.post(
        "/v1/fill", json={"texts": text, "n": 4, "max_tokens": 4, "choices": ["北京", "上海"]}
    ).json()["data"]
    assert {tuple(one["blanks"]) for one in best["candidates"]} == {
        (a, b) for a in ("北京", "上海") for b in ("北京", "上海")
    }


BAD: list[tuple[str | None, str, dict[str, Any]]] = [
    ("response_format.type", "Input should be", {"response_format": {"type": "xml"}}),
    ("response_format.json_schema", "belongs to the type", {"response_format": {"type": "json_schema"}}),
    ("response_format.json_schema", "belongs to the type", {"response_format": {"type": "text", "json_schema": {"name": "x"}}}),
    ("response_format.json_schema.name", "pattern", {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}}),
    ("response_format", "cannot be used", {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no"}}}}),
    ("response_format", "cannot be used", {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}}),
    ("response_format", "x-guidance", {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"x-guidance": 3}}}}),
    ("response_format", "give one of them", {"response_format": {"type": "json_object"}, "json_schema": {}}),
    ("response_format", "json_schema", {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": False}}}),
    ("json_schema", "json_schema", {"json_schema": {"enum": ["\ud800"]}}),
    ("regex", "cannot be used", {"regex": "("}),
    ("regex", "matches no text", {"regex": "\U0001f600"}),
    ("grammar", "cannot be used", {"grammar": "start: nothing"}),
    ("choices", "at least 1", {"choices": []}),
    (None, "holds exclude", {"include": ["天气"], "exclude": ["天"]}),
    (None, "there is room for", {"include": ["天气很好"], "max_tokens": 1}),
    ("max_characters", "at least 1", {"max_characters": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("param", "message", "fields"), BAD, ids=range(len(BAD)))
def test_what_cannot_be_kept_is_the_clients_mistake(
    http: httpx.Client, param: str | None, message: str, fields: dict[str, Any]
):
    body = json.dumps({"model": "tiny", "prompt": "今天", **fields})
    answer = http.post(
        "/v1/completions", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param, answer.text
    assert message in answer.json()["error"]["message"]


def test_constraints_for_another_number_of_blanks(http: httpx.Client):
    body = {"texts": ["[MASK]和[MASK]", "[MASK]"], "constraints": [{"regex": "a"}, None]}
    answer = http.post("/v1/fill", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "constraints")
    assert "text 1 has 1 blanks" in answer.json()["error"]["message"]


def test_texts_are_led_away_as_by_the_library(one: Running, http: httpx.Client):
    texts, others = (
        ["北京是[MASK]，[MASK]。", "[MASK]很[MASK]"],
        ["[MASK]不是[MASK]", "x[MASK][MASK]"],
    )
    settings = {"temperature": 2, "seed": 3, "max_tokens": 6}
    led = {"negative_prompt": others, "guidance_scale": 3}
    answer = http.post("/v1/fill", json={"texts": texts, **settings, **led})
    assert answer.status_code == 200, answer.text
    drawing = {"do_sample": True, "temperature": 2.0, "seed": 3, "max_new_tokens": 6}
    expected = one.glm.fill(texts, negative_prompt=others, guidance_scale=3.0, **drawing)
    assert [found["text"] for found in answer.json()["data"]] == [found.text for found in expected]
    assert expected != one.glm.fill(texts, **drawing)
    best = http.post(
        "/v1/fill", json={"texts": texts, "n": 2, "max_tokens": 3, "negative_prompt": others[0]}
    )
    same = one.glm.fill(texts, n=2, max_new_tokens=3, negative_prompt=[others[0]] * 2)
    assert [found["text"] for found in best.json()["data"]] == [found.text for found in same]
    body = {"model": "tiny", "prompt": ["今天", "明天"], "max_tokens": 6, "negative_prompt": "昨天"}
    written = http.post("/v1/completions", json=body).json()
    alone = one.glm.generate(["今天", "明天"], negative_prompt=["昨天"] * 2, max_new_tokens=6)
    assert [choice["text"].strip() for choice in written["choices"]] == alone


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("the one against it 2", {"negative_prompt": "[MASK][MASK]"}),
        ("2 negative prompts", {"negative_prompt": ["a", "b"]}),
        ("give that prompt", {"guidance_scale": 2}),
        ("greater than 0", {"negative_prompt": "a", "guidance_scale": 0}),
        ("reads", {"negative_prompt": "长" * 3000}),
    ],
)
def test_what_cannot_lead_is_the_clients_mistake(http: httpx.Client, message: str, fields):
    answer = http.post("/v1/completions", json={"model": "tiny", "prompt": "今天", **fields})
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]["message"]
