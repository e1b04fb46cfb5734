"""Records about images, sounds and clips in the formats in which they are published -> conversations.

In: one record of LLaVA, COCO captions, an AISHELL-like list of sounds and transcripts, MSR-VTT, a chat with parts, or our own. Out:
flat records with the medium's field and `turns`: what is asked, what is answered, in turn.

Sources of the formats: LLaVA (arXiv 2304.08485), COCO captions (arXiv 1504.00325), AISHELL (arXiv 1709.05522), MSR-VTT (CVPR 2016).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from glmkit.multimodal.messages import read_parts
from glmkit.special_tokens import MEDIA_MARKERS

MEDIA_FIELDS = ("image", "audio", "video")

_OLD_MARKERS = {"<image>": MEDIA_MARKERS["image"], "<audio>": MEDIA_MARKERS["audio"], "<video>": MEDIA_MARKERS["video"]}  # fmt: skip

ASKED = {
    "image": {"zh": "描述这张图片。", "en": "Describe the picture."},
    "audio": {"zh": "这段声音说了什么？", "en": "What is said?"},
    "video": {"zh": "描述这段视频。", "en": "Describe the clip."},
}
"""What is asked where a record has a caption or a transcript alone."""


def conversations(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields a conversation for each thing asked about the record's media; see the guide to multimodal models for the formats.

    Raises:
        KeyError, ValueError, TypeError: The record is in none of them.
    """
    if "annotations" in record and "images" in record:
        yield from _coco(record)
    elif "sentences" in record and "videos" in record:
        yield from _msrvtt(record)
    elif "questions" in record:
        for asked in record["questions"]:
            yield {**_kept(record, "questions"), **asked, "turns": [str(asked["question"]), str(asked["answer"])]}  # fmt: skip
    elif "conversations" in record:
        said = record["conversations"]
        _check_turns([_ROLES.get(one.get("from"), one.get("from")) for one in said])
        turns = [_modern(str(one["value"])) for one in said]
        yield {**_kept(record, "conversations"), "turns": turns}
    elif "messages" in record:
        yield _chat(record)
    elif "turns" in record:
        if not isinstance(record["turns"], list):
            raise ValueError(
                f"turns must be a list of texts, it is a {type(record['turns']).__name__}"
            )
        yield {**record, "turns": [_modern(str(one)) for one in record["turns"]]}
    elif "question" in record:
        yield {**record, "turns": [_modern(str(record["question"])), str(record["answer"])]}
    else:
        yield _captioned(record)


def _kept(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


def _modern(text: str) -> str:
    """Returns a text with glmkit's markers in the place of LLaVA's; a marker on a line of its own takes the line along."""
    for old, new in _OLD_MARKERS.items():
        text = text.replace(f"{old}\n", new).replace(f"\n{old}", new).replace(old, new)
    return text


def _captioned(record: Mapping[str, Any]) -> dict[str, Any]:
    """A medium with its caption or transcript; the language of what is asked is the caption's."""
    said = next((record[name] for name in _CAPTIONS if record.get(name)), None)
    kind = next((name for name in MEDIA_FIELDS if record.get(name)), None)
    if said is None or kind is None:
        raise ValueError(
            f"it needs {', '.join(MEDIA_FIELDS[:-1])} or {MEDIA_FIELDS[-1]}, and what is said of it: turns, question and answer, "
            f"{', '.join(_CAPTIONS)}, or as LLaVA, COCO or MSR-VTT have it"
        )
    said = str(said[0] if isinstance(said, list) else said)
    language = "zh" if any("\u4e00" <= letter <= "\u9fff" for letter in said) else "en"
    return {**record, "turns": [ASKED[kind][language], said]}


_CAPTIONS = ("caption", "text", "transcript", "sentence")

_ROLES = {"human": "user", "gpt": "assistant"}
"""LLaVA's names -> those of chat APIs."""


def _check_turns(roles: Sequence[Any]) -> None:
    """Refuses turns of which the first speaker would learn to answer."""
    for number, role in enumerate(roles):
        expected = ("user", "assistant")[number % 2]
        if role in ("user", "assistant") and role != expected:
            raise ValueError(f"turn {number} is of the {role}, where the {expected} should speak: they take turns")  # fmt: skip


def _coco(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    names = {one["id"]: one["file_name"] for one in record["images"]}
    for one in record["annotations"]:
        yield _captioned({"image": names[one["image_id"]], "caption": one["caption"].strip()})


def _msrvtt(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for one in record["sentences"]:
        yield _captioned({"video": f"{one['video_id']}.mp4", "caption": one["caption"].strip()})


def _chat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Messages whose content is a text or a list of parts, as chat APIs have them; a system message begins the first turn."""
    media: dict[str, list[Any]] = {}
    turns: list[str] = []
    messages = list(record["messages"])
    system = ""
    if messages and messages[0]["role"] == "system":
        system, given = read_parts(messages.pop(0)["content"], "messages[0].content")
        if given:
            raise ValueError("the system message has media; only what the user says may have any")
    _check_turns([message["role"] for message in messages])
    for message in messages:
        text, given = read_parts(message["content"])
        turns.append(f"{system}\n{text}" if system and not turns else text)
        for kind, value in given:
            media.setdefault(kind, []).append(value)
    return {**_kept(record, "messages"), **media, "turns": turns}
