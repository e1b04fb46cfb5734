"""`glm.fill`, `generate`, `chat`, streams and `explain` with images, sounds and clips, as a user calls them."""

from __future__ import annotations

import base64

import pytest
import torch

from glmkit.applications.dialogue import prepare
from glmkit.applications.prompts import media_prompt
from glmkit.errors import GenerationError, MediaError
from glmkit.generation.choices import score_choices
from glmkit.generation.settings import DecodingSettings
from glmkit.multimodal.media import as_medium
from glmkit.tasks.task import Task
from media_samples import ROWS, clip_bytes, image_bytes, media_glm, picture, tone, wav_bytes
from understanding_samples import random_glm

IMAGES = [image_bytes(picture(seed=seed)) for seed in range(3)]
SOUND, CLIP = wav_bytes(), clip_bytes()
SHORT = {"max_new_tokens": 5}


def url(file: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(file).decode()}"


def test_a_list_of_texts_is_its_texts_one_by_one():
    """Some with one picture, some with several things, some with none."""
    glm = media_glm()
    texts = ["好吃[MASK]，很快[MASK]。", "<|image|>，<|image|>：[MASK]", "很快[MASK]", "<|audio|>好[gMASK]"]  # fmt: skip
    images = [IMAGES[0], [IMAGES[1], IMAGES[2]], None, []]
    audios = [None, None, None, SOUND]
    videos = [CLIP, None, None, None]
    together = glm.fill(texts, images=images, audios=audios, videos=videos, batch_size=3, **SHORT)
    for text, image, sound, clip, found in zip(texts, images, audios, videos, together, strict=True):  # fmt: skip
        alone = glm.fill(text, images=image, audios=sound, videos=clip, **SHORT)
        assert (alone.text, alone.blanks) == (found.text, found.blanks)
        assert alone.scores == pytest.approx(found.scores, abs=1e-4)
    assert together[0].text.startswith("<|image|><|video|>好吃")
    assert together[2].text == random_glm(128).fill(texts[2], **SHORT).text
    assert glm.generate(texts[1:], images=images[1:], audios=audios[1:], **SHORT) == [
        one.blanks[0] for one in together[1:]
    ]


def test_what_is_seen_matters():
    glm = media_glm()
    scores = {glm.fill("好吃[MASK]", images=file, **SHORT).scores[0] for file in (*IMAGES, None)}
    assert len(scores) == 4
    assert glm.fill("好吃[MASK]", audios=SOUND, **SHORT) != glm.fill("好吃[MASK]", audios=(tone(90), 16_000), **SHORT)  # fmt: skip


def test_a_stream_is_what_generate_returns():
    glm = media_glm()
    for text in ("好吃<|image|>", "<|image|>很快[MASK]。"):
        pieces = list(glm.generate(text, images=IMAGES[0], stream=True, **SHORT))
        assert "".join(pieces).strip() == glm.generate(text, images=IMAGES[0], **SHORT).strip()


def test_chat():
    """Parts as chat APIs have them; earlier pictures count, and a marker that a user writes is plain text."""
    glm = media_glm()
    parts = [
        {"type": "image_url", "image_url": {"url": url(IMAGES[0], "image/png")}},
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(SOUND).decode(), "format": "wav"}},
        {"type": "text", "text": "很快？"},
    ]  # fmt: skip
    first = glm.chat([{"role": "user", "content": parts}], **SHORT)
    later = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": first or "好"},
        {"role": "user", "content": "味道？"},
    ]
    other = [
        {**later[0], "content": [{"type": "image", "image": IMAGES[1]}, *parts[1:]]},
        *later[1:],
    ]
    replies = glm.chat([later, other, "味道？"], **SHORT)
    assert replies[0] == glm.chat(later, **SHORT)
    assert replies[2] == random_glm(128).chat("味道？", **SHORT)
    assert "".join(glm.chat(later, stream=True, **SHORT)).strip() == replies[0]
    marked = "<|image|>味道？"
    assert glm.chat(marked, **SHORT) == glm.chat("< |image|>味道？", **SHORT)
    for wrong, said in (
        ([{"role": "system", "content": parts[:1]}, later[0]], "only what the user says"),
        ([{"role": "user", "content": 3}], "must be a string or a list of parts"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b"}}]}], r"messages\[0\].content"),
        ([{"role": "user", "content": parts[:1] * 40}], "give fewer media"),
    ):  # fmt: skip
        with pytest.raises((GenerationError, MediaError), match=said):
            glm.chat(wrong, **SHORT)


def test_old_turns_go_with_their_pictures():
    """What does not fit any more is left out, its pictures with it; those that are left are read where they belong."""
    glm = media_glm()
    picture_then = {"role": "user", "content": [{"type": "image", "image": IMAGES[0]}, {"type": "text", "text": "味道足，" * 30}]}  # fmt: skip
    rest = [
        {"role": "user", "content": [{"type": "image", "image": IMAGES[1]}, {"type": "text", "text": "很快？"}]}
    ]  # fmt: skip
    messages = [picture_then, {"role": "assistant", "content": "好"}, *rest]
    [prompt], _ = prepare(glm.model, glm.tokenizer, [messages], DecodingSettings(**SHORT), None, glm.media)  # fmt: skip
    assert torch.equal(prompt.embeddings, glm.media.rows([as_medium("image", IMAGES[1])])[0])
    [run] = prompt.media
    assert (run.kind, run.length) == ("image", ROWS["image"])
    assert glm.chat(messages, **SHORT)


def test_explain():
    pytest.importorskip("captum")
    glm = media_glm()
    found = glm.explain("好吃<|image|>[MASK]", images=IMAGES[0], blanks=["很快"], methods=["ablation"])  # fmt: skip
    [evidence] = found.evidence
    assert len(evidence.media("ablation")["image 1"]) == ROWS["image"]
    several = glm.explain(["好吃[MASK]", "很快[MASK]"], images=[IMAGES[0], None], blanks=[["快"], ["慢"]], methods=["ablation"])  # fmt: skip
    assert [len(one.evidence[0].media("ablation")) for one in several] == [1, 0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"texts": ["a", "b"], "images": IMAGES[0]}, "give a list with one"),
        ({"texts": ["a", "b"], "images": [IMAGES[0]]}, "images for 1 of 2 texts"),
        ({"texts": ["a[MASK]"], "images": [3]}, "a int is no image"),
        ({"texts": "a" * 9, "images": IMAGES * 30}, r"the model reads 128. Shorten the text, or give fewer media"),
        ({"texts": "a", "audios": (tone(seconds=70), 16_000)}, "give fewer media"),
        ({"texts": "a", "videos": IMAGES[0]}, "the video of"),
        ({"texts": "a", "images": "http://a.b/c.png"}, "fetches nothing"),
        ({"texts": "<|image|><|image|>", "images": IMAGES[0]}, "names other media"),
    ],
)  # fmt: skip
def test_what_does_not_fit(arguments: dict, said: str):
    for ask in (media_glm().fill, media_glm().generate):
        with pytest.raises((MediaError, GenerationError), match=said):
            ask(**arguments, **SHORT)


def test_a_model_that_reads_none():
    glm = random_glm(128)
    for ask in (glm.fill, glm.generate, glm.explain):
        with pytest.raises(MediaError, match="was given to a model that reads no media; train one"):
            ask("a[MASK]", images=IMAGES[0])
    with pytest.raises(MediaError, match="reads no media"):
        glm.chat([{"role": "user", "content": [{"type": "image", "image": IMAGES[0]}]}])
    assert glm.fill("<|image|>[MASK]", **SHORT).text.startswith("<|image|>")  # a text like others


def test_pictures_are_classified():
    """By the words of labels in the blank: each record's score is that of its prompt with the picture's rows."""
    glm = media_glm()
    task = Task(
        name="colour",
        kind="classification",
        metric="accuracy",
        fields={"image": "a picture", "label": "its colour"},
        media={"image": "image"},
        label="label",
        labels={"good": {"zh": "好", "en": "good"}, "bad": {"zh": "差", "en": "bad"}},
        patterns={"zh": ["{media}颜色很[MASK]。"]},
    )
    records = [{"image": file} for file in IMAGES]
    found = glm.classify(records, task)
    assert len({one.probabilities["good"] for one in found}) == 3  # each picture has its own
    for record, one in zip(records, found, strict=True):
        alone = glm.classify(record, task)
        assert alone.probabilities == pytest.approx(one.probabilities, abs=1e-5)
    prompt = media_prompt(glm.tokenizer, "颜色很[MASK]。", [as_medium("image", IMAGES[0])], glm.media, 128)  # fmt: skip
    scores = score_choices(glm.model, glm.tokenizer, [prompt], [["好", "差"]])[0]
    assert glm.label_scores(records[0], task)[0] == pytest.approx(scores, abs=1e-5)
    assert glm.classify([""] * 3, task, images=IMAGES) == found
    windows = glm.classify(records, task, long_texts="windows")
    assert [one.label for one in windows] == [one.label for one in found]
    assert glm.classify(records, task, contextual=True)[0].probabilities != found[0].probabilities
    with pytest.raises(MediaError, match="a model that reads no media"):
        random_glm(128).classify(records, task)
