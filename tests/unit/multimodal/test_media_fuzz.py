"""Records, messages and texts with media that hypothesis makes up, right and wrong: each is read, or refused by an error of the UserError family.

`GLMKIT_FUZZ_CASES=1000 pytest tests/unit/multimodal/test_media_fuzz.py` tries so many of each kind.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from glmkit.errors import UserError
from glmkit.tasks.task import load_task
from glmkit.training.finetune_data import read_task
from glmkit.training.finetune_settings import TaskData
from glmkit.training.finetune_stream import make_batch
from media_samples import PHOTOS, media_glm, sources

pytest.importorskip("av")

FUZZ = settings(
    max_examples=int(os.environ.get("GLMKIT_FUZZ_CASES", "25")),
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
MARKERS = ["<|image|>", "<|audio|>", "<|video|>", "<image>", "[MASK]", "[gMASK]", "看", "是什么？", "a b", "\n", "天" * 200]  # fmt: skip

texts = some.lists(some.sampled_from(MARKERS), max_size=6).map("".join)
junk = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | texts,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.sampled_from(["bytes", "path", "url", "data", "array", "sampling_rate", "from", "value", "role", "content", "type", "text"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
media = some.sampled_from(sources())
given_media = some.none() | media | some.lists(media | junk, max_size=3) | junk


def part(kind: str) -> Any:
    value = media | some.fixed_dictionaries({"url": media}) | some.fixed_dictionaries({"data": media, "format": texts}) | junk  # fmt: skip
    return some.fixed_dictionaries({"type": some.just(kind)}, optional={kind: value})


parts = some.one_of(*map(part, ("text", "image_url", "input_audio", "video_url", "image", "video", "other")))  # fmt: skip
contents = texts | some.lists(parts | some.fixed_dictionaries({"type": some.just("text"), "text": texts}), max_size=3) | junk  # fmt: skip
messages = some.lists(some.fixed_dictionaries({"role": some.sampled_from(["user", "user", "assistant", "system", "other"]), "content": contents}), max_size=3)  # fmt: skip
turns = some.lists(some.fixed_dictionaries({"from": some.sampled_from(["human", "gpt", "x"]), "value": texts}), max_size=3)  # fmt: skip
records = some.fixed_dictionaries(
    {},
    optional={
        "image": given_media,
        "audio": given_media,
        "video": given_media,
        "question": texts | junk,
        "answer": texts | junk,
        "text": texts | junk,
        "caption": texts | junk,
        "turns": some.lists(texts, max_size=3) | junk,
        "conversations": turns | junk,
        "messages": messages | junk,
        "questions": some.lists(some.fixed_dictionaries({"question": texts, "answer": texts}), max_size=2) | junk,
        "images": junk,
        "annotations": junk,
        "videos": junk,
        "sentences": junk,
    },
)  # fmt: skip


@pytest.fixture(scope="module")
def glm():
    return media_glm()


@pytest.fixture(autouse=True)
def _nothing_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@FUZZ
@given(record=records)
def test_a_record_to_train_on_is_read_or_refused(glm, tmp_path_factory, record: dict[str, Any]):
    """As `glmkit finetune … multimodal` reads it: found, rendered, encoded, and its media prepared."""
    folder = tmp_path_factory.mktemp("fuzz", numbered=True)
    for name, one in (("train", record), ("valid", {"question": "好？", "answer": "很好"})):
        (folder / f"{name}.jsonl").write_text(json.dumps(one) + "\n", encoding="utf-8")
    data = TaskData(train=[str(folder / "train.jsonl")], valid=[str(folder / "valid.jsonl")])
    with contextlib.suppress(UserError):
        found = read_task("x", load_task("multimodal"), data, glm.tokenizer, 128, 0, glm.media.count_rows)  # fmt: skip
        for sample in found.train:
            batch = make_batch(sample.variants, glm.tokenizer.special_ids, head=False, media=[sample.media], prepare=glm.media.processor)  # fmt: skip
            assert (batch["inputs"]["labels"] >= 0).any()


@FUZZ
@given(text=texts, images=given_media, audios=given_media, videos=given_media)
def test_a_text_with_media_is_filled_or_refused(glm, text: str, images, audios, videos):
    with contextlib.suppress(UserError):
        found = glm.fill(text, images=images, audios=audios, videos=videos, max_new_tokens=1)
        assert isinstance(found.text, str)


@FUZZ
@given(said=messages)
def test_a_conversation_is_answered_or_refused(glm, said: list[Any]):
    with contextlib.suppress(UserError):
        assert isinstance(glm.chat(said, max_new_tokens=1), str)


@FUZZ
@given(record=some.fixed_dictionaries({"photo": given_media}, optional={"kind": junk, "other": junk}))  # fmt: skip
def test_a_record_is_classified_or_refused(glm, tmp_path: Path, record: dict[str, Any]):
    path = tmp_path / "photos.yaml"
    path.write_text(PHOTOS, encoding="utf-8")
    with contextlib.suppress(UserError):
        assert sum(glm.classify(record, path).probabilities.values()) == pytest.approx(1)
