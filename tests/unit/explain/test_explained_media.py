"""Explanations of prompts with media: rows that are words count as the words do, and every row has a name."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from explain_samples import ANSWER, CAUSE, decided_glm
from glmkit.applications.classification import classify
from glmkit.applications.prompts import media_prompt
from glmkit.errors import GenerationError, MediaError
from glmkit.explain.explaining import Settings, explain, explain_label, explain_texts
from glmkit.explain.faithfulness import curves, order_of, question_of
from glmkit.explain.filling import Filling
from glmkit.explain.segments import segments
from glmkit.generation.prompts import Prompt
from glmkit.generation.settings import DecodingSettings
from glmkit.multimodal.building import build_media
from glmkit.multimodal.media import as_medium
from glmkit.multimodal.reader import MediaReader
from glmkit.tasks.task import Shorten, Task
from media_samples import ROWS, image_bytes, media_glm, prompt_of, wav_bytes, with_media
from understanding_samples import random_glm

pytest.importorskip("captum", reason="captum is not installed")


def rows_of(glm, text: str) -> torch.Tensor:
    """The embeddings of a text's tokens."""
    ids = glm.tokenizer(text, add_special_tokens=False)["input_ids"]
    return glm.model.glm.word_embeddings.weight.detach()[ids]


@pytest.fixture(scope="module")
def shots() -> tuple[Prompt, str]:
    """A prompt of three lines with media in two of them, and the text that it is, word for word."""
    glm = random_glm()
    parts = ["好吃", "太慢了", "味道足"]
    text = "，<|image|>，：好\n，<|audio|>，<|image|>，量[MASK]\n再：[MASK]。"
    plain = f"，{parts[0]}，：好\n，{parts[1]}，{parts[2]}，量[MASK]\n再：[MASK]。"
    prompt = with_media(glm, text, *(rows_of(glm, one) for one in parts))
    return prompt, plain


def test_rows_that_are_words_count_as_the_words(shots):
    """All methods, the lens, the alternatives and what an example with a picture adds."""
    glm = random_glm()
    prompt, plain = shots
    settings = Settings(unit="token", top_k=3)
    found, expected = (
        explain(glm.model, glm.tokenizer, one, blanks=["大", "好"], settings=settings)
        for one in (prompt, plain)
    )
    assert len(prompt.ids) == len(prompt_of(glm, plain).ids)
    for one, other in zip(found.evidence, expected.evidence, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert len(one.units) == len(other.units)
        for method, values in one.attributions.items():
            np.testing.assert_allclose(values.values, other.attributions[method].values, atol=2e-4)
            assert np.abs(values.values).max() > 1e-3
        for step, same in zip(one.steps, other.steps, strict=True):
            assert step.token == same.token
            assert step.probability == pytest.approx(same.probability, abs=1e-5)
        np.testing.assert_allclose(one.lens.probabilities, other.lens.probabilities, atol=1e-5)
        [example], [same] = one.examples, other.examples
        assert example.text == "，<|image|>，：好"
        assert example.contribution == pytest.approx(same.contribution, abs=1e-5)
    np.testing.assert_allclose(found.attention[0].weights, expected.attention[0].weights, atol=1e-5)


def test_every_row_has_a_name_and_its_values_are_at_hand(shots):
    glm = random_glm()
    prompt, _ = shots
    found = explain(glm.model, glm.tokenizer, prompt, blanks=["大", "好"])
    assert found.text == "，<|image|>，：好\n，<|audio|>，<|image|>，量[MASK]\n再：[MASK]。"
    assert found.filled == found.text.replace("[MASK]", "大", 1).replace("[MASK]", "好", 1)
    one = found.evidence[1]
    sizes = {run: len(one.media("ablation")[run]) for run in ("image 1", "audio 1", "image 2")}
    assert sum(sizes.values()) == len(prompt.embeddings)
    assert list(one.media("ablation")) == list(sizes)  # in the order of the text
    for unit in one.units:
        if unit.index is not None:
            assert unit.text == f"{unit.source} [{unit.index}]"
            marker = f"<|{unit.source.split()[0]}|>"
            assert found.text[unit.start : unit.end] == marker
    data = json.loads(json.dumps(found.to_dict()))
    some = [one for one in data["evidence"][0]["units"] if one["source"] == "image 2"]
    assert [one["index"] for one in some] == list(range(sizes["image 2"]))
    [attention] = found.attention
    places = [n for n, token in enumerate(attention.tokens) if token.startswith("image 2")]
    assert places == list(range(prompt.media[2].start, prompt.media[2].start + sizes["image 2"]))
    assert f"image 2, all {sizes['image 2']} rows: " in str(found)
    shown = "".join(one.text for one in segments(found, one))
    assert shown.replace("□", "") == found.filled
    assert shown.count("□") == len(prompt.embeddings)


def test_the_patch_that_decides_is_found():
    glm = decided_glm()
    table = torch.randn(6, glm.model.config.hidden_size) * 0.3
    table[:, 0] = 0
    table[4] = rows_of(glm, CAUSE)[0]
    prompt = with_media(glm, "看<|video|><|image|>，菜都凉了：[MASK]。", table[:1], table)
    found = explain(glm.model, glm.tokenizer, prompt, blanks=[ANSWER]).evidence[0]
    for method in ("integrated_gradients", "ablation"):
        (first, value), (_, second), *_ = found.top(method)
        assert (first.source, first.index) == ("image 1", 4)
        assert value > 10 * abs(second)
        assert int(found.media(method)["image 1"].argmax()) == 4
    assert list(found.media("attention_rollout")) == ["video 1", "image 1"]


def test_what_goes_and_what_is_masked_can_be_rows(shots):
    """Curves of a prompt with media are those of its words."""
    glm = random_glm()
    prompt, plain = shots
    results = []
    for one, other in ((prompt, prompt), (plain, None)):
        explained = explain(glm.model, glm.tokenizer, one, blanks=["大", "好"], settings=Settings("ablation", unit="token"))  # fmt: skip
        question = question_of(glm.model, glm.tokenizer, explained, number=1, prompt=other)
        order = order_of(explained.evidence[1].attributions["ablation"].values)
        for how in ({"removal": "drop"}, {"removal": "mask", "mask": 5}):
            results.append(curves(glm.model, question, [order], **how)[0])
    for one, other in zip(results[:2], results[2:], strict=True):
        np.testing.assert_allclose(one.deletion, other.deletion, atol=1e-4)
        np.testing.assert_allclose(one.insertion, other.insertion, atol=1e-4)


def test_a_prompt_is_explained_as_its_text_and_the_model_may_fill_it(shots):
    glm = random_glm()
    text = "The room was [MASK] and the staff [MASK]."
    settings = Settings("ablation", attention=False)
    some = {"settings": settings, "decoding": DecodingSettings(max_new_tokens=3)}
    texts = explain_texts(glm.model, glm.tokenizer, [text, prompt_of(glm, text), shots[0]], **some)
    assert texts[0].to_dict() == texts[1].to_dict()
    with torch.inference_mode():  # as a server's encoder makes them
        table = shots[0].embeddings.clone()
    again = explain(glm.model, glm.tokenizer, replace(shots[0], embeddings=table), **some)
    assert again.to_dict() == texts[2].to_dict()
    assert [one.content for one in again.evidence] != ["", ""]


def test_prompts_that_cannot_be_explained(shots):
    glm = random_glm()
    prompt, _ = shots
    others = (
        replace(prompt, parts=["", "", ""]),
        replace(prompt, media=()),
        replace(prompt, media=prompt.media[1:]),
        replace(prompt, parts=[one.replace("<|audio|>", "") for one in prompt.parts]),
    )
    for other in others:
        with pytest.raises(GenerationError, match="not those of its text and media"):
            explain(glm.model, glm.tokenizer, other, blanks=["大", "好"])
    narrow = replace(prompt, embeddings=prompt.embeddings[:, :-1])
    with pytest.raises(GenerationError, match=r"\[rows, 32\]"):
        explain(glm.model, glm.tokenizer, narrow, blanks=["大", "好"])


def test_an_example_that_cuts_a_marker_takes_its_medium_with_it(shots):
    glm = random_glm()
    filling = Filling.of(glm.model, glm.tokenizer, shots[0], ["大", "好"])
    place = filling.text.index("<|audio|>")
    rows = filling.without((place, place + 4))
    whole, _ = filling.rows("token")
    assert (rows.ids >= 1 << 24).sum() == (whole.ids >= 1 << 24).sum() - shots[0].media[1].length


def test_the_rows_of_a_real_encoder():
    """What `applications.prompts` encodes is what is explained, spaces around markers and pictures side by side too."""
    images = pytest.importorskip("PIL.Image")
    glm = random_glm(300)
    torch.manual_seed(0)
    reader = MediaReader(build_media({}, ("image",), glm.model))
    picture = images.fromarray(np.random.default_rng(0).integers(0, 255, (80, 60, 3), np.uint8))
    media = [as_medium("image", one) for one in (picture, picture.rotate(90))]
    text = "What is <|image|> and <|image|>? [MASK] 再看。"
    prompt = media_prompt(glm.tokenizer, text, media, reader, 300)
    found = explain(glm.model, glm.tokenizer, prompt, blanks=["room"], settings=Settings("ablation"))  # fmt: skip
    assert found.text == text
    values = found.evidence[0].media("ablation")
    assert {name: len(one) for name, one in values.items()} == {"image 1": 16, "image 2": 16}
    assert not np.allclose(values["image 1"], values["image 2"])


@pytest.mark.parametrize("suffix", [".html", ".svg"])
def test_pages_and_pictures_show_rows(shots, suffix, tmp_path):
    glm = random_glm()
    found = explain(glm.model, glm.tokenizer, shots[0], blanks=["大", "好"], settings=Settings("ablation"))  # fmt: skip
    path = found.save(tmp_path / f"evidence{suffix}")
    assert path.stat().st_size > 10_000
    if suffix == ".html":
        assert "image 2 [0]" in path.read_text(encoding="utf-8")


# -- labels ------------------------------------------------------------------------------------------------------------

LABELS = {"good": {"zh": "好"}, "bad": {"zh": "太慢"}}


def task_of(fields: str, patterns: list[str], media: dict[str, str] | None = None, **more) -> Task:
    """Returns a classification of some fields, some of which hold media."""
    named = {name: name for name in (*fields.split(), "label")}
    return Task("t", "classification", "accuracy", named, {"zh": patterns}, "label", LABELS, media=media or {}, **more)  # fmt: skip


class Words:
    """Reads files of text: their rows are the words' embeddings."""

    def __init__(self, glm):
        self.glm = glm

    def count_rows(self, medium) -> int:
        return len(self.rows([medium])[0])

    def rows(self, media) -> list[torch.Tensor]:
        return [rows_of(self.glm, one.source.decode()) for one in media]


def test_a_record_whose_media_are_words_is_explained_as_the_words():
    """In every pattern, wherever the markers stand: at {media}, in a text, in the pattern; also where the text is shortened."""
    glm = random_glm()
    media = {"photo": "image", "sound": "audio"}
    patterns = ["{media}，{text}很[MASK]。", "很[MASK]，{media}，{text}"]
    shorten = {"shorten": Shorten("text"), "max_length": 24}
    record = {"photo": "好吃".encode(), "sound": "味道足".encode()}
    cases = [
        (task_of("text photo sound", patterns, media), record | {"text": "太慢了"},
         task_of("text", ["好吃味道足，{text}很[MASK]。", "很[MASK]，好吃味道足，{text}"]), "太慢了"),
        (task_of("text photo sound", patterns, media), record | {"text": "太<|audio|>慢<|image|>了"},
         task_of("text", ["，{text}很[MASK]。", "很[MASK]，，{text}"]), "太味道足慢好吃了"),
        (task_of("text photo", ["看<|image|>，{text}很[MASK]。"], {"photo": "image"}), {"photo": record["photo"], "text": "快"},
         task_of("text", ["看好吃，{text}很[MASK]。"]), "快"),
    ]  # fmt: skip
    settings = Settings("ablation", unit="token")
    for task, given, plain, text in cases:
        found = explain_label(glm.model, glm.tokenizer, given, task, settings=settings, reader=Words(glm))  # fmt: skip
        same = explain_label(glm.model, glm.tokenizer, text, plain, settings=settings)
        [one], [other] = found.evidence, same.evidence
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert found.probabilities == pytest.approx(same.probabilities, abs=1e-6)
        asked = classify(glm.model, glm.tokenizer, [given], task, reader=Words(glm))[0]
        assert found.probabilities == pytest.approx(asked.probabilities, abs=1e-5)
        for ours, theirs in zip(found.attention, same.attention, strict=True):
            np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-5)
        values = one.attributions["ablation"].values
        if "<|" in given["text"]:  # every row is a word of the text, in another order
            expected = other.attributions["ablation"].values
            np.testing.assert_allclose(sorted(values), sorted(expected), atol=2e-4)
        shown = "".join(part.text for part in segments(found, one))
        assert shown.replace("□", "") == found.text
        numbers = [part.unit for part in segments(found, one) if part.unit is not None]
        assert sorted(numbers) == list(range(len(one.units)))
        for unit in (unit for unit in one.units if unit.index is not None):
            text = found.facts["fields"][found.facts["media"][unit.source]]
            assert text[unit.start : unit.end] == f"<|{unit.source.split()[0]}|>"
        question = question_of(glm.model, glm.tokenizer, found, task, record=given, reader=Words(glm))  # fmt: skip
        plain_question = question_of(glm.model, glm.tokenizer, same, plain)
        whole = [curves(glm.model, one, [np.arange(one.evidence.size)])[0].deletion[0] for one in (question, plain_question)]  # fmt: skip
        assert whole[0] == pytest.approx(whole[1], abs=1e-5)
    short = task_of("text photo sound", patterns, media, **shorten)
    found = explain_label(glm.model, glm.tokenizer, record | {"text": "很快" * 60}, short, settings=settings, reader=Words(glm))  # fmt: skip
    assert {unit.source for unit in found.evidence[0].units} == {"text", "image 1", "audio 1"}


def test_the_row_that_decides_a_label_is_found():
    glm = decided_glm()
    task = task_of("photo", ["{media}菜都凉了：[MASK]。"], {"photo": "image"})
    record = {"photo": [f"凉{CAUSE}了".encode(), "了了了".encode()]}
    found = explain_label(glm.model, glm.tokenizer, record, task, label="good", reader=Words(glm))
    assert found.evidence[0].content == ANSWER
    assert list(found.facts["media"]) == ["image 1", "image 2"]
    for method in ("integrated_gradients", "ablation"):
        [(first, value), *others] = found.evidence[0].top(method)
        assert (first.source, first.index) == ("image 1", 1)
        assert value > 5 * max(abs(other) for _, other in others)
    assert "image 1, all 3 rows" in str(found)


def test_a_label_of_pictures_and_sounds_by_the_public_method(tmp_path):
    """Media in the record, or beside a text: the same; what does not belong there is said."""
    glm = media_glm()
    task = task_of("photo sound text", ["{media}{text}很[MASK]。"], {"photo": "image", "sound": "audio"})  # fmt: skip
    record = {"photo": image_bytes(), "sound": wav_bytes(), "text": "味道"}
    options = {"task": task, "methods": ["ablation"], "attention": False}
    found = glm.explain(record, **options)
    assert found.probabilities == pytest.approx(glm.classify(record, task).probabilities, abs=1e-5)
    sizes = {name: len(values) for name, values in found.evidence[0].media("ablation").items()}
    assert sizes == {"image 1": ROWS["image"], "audio 1": ROWS["audio"]}
    beside = glm.explain("味道", images=image_bytes(), audios=[wav_bytes()], **options)
    assert beside.to_dict() == found.to_dict()
    [again, bare] = glm.explain(["味道", record], images=[image_bytes(), None], audios=[wav_bytes(), None], **options)  # fmt: skip
    assert again.to_dict() == bare.to_dict() == found.to_dict()
    assert "audio 1 [0]" in found.save(tmp_path / "a.html").read_text(encoding="utf-8")
    for given, beside, said in (
        ("味道", {"videos": image_bytes()}, "has no field for video; its fields of media are photo, sound"),
        (record | {"photo": "nothing.png"}, {}, "nothing.png' cannot be read"),
        (record | {"photo": [image_bytes()] * 40}, {}, "has more than the 128 tokens"),
    ):  # fmt: skip
        with pytest.raises((MediaError, GenerationError), match=said):
            glm.explain(given, **beside, **options)
    with pytest.raises(MediaError, match="no field for image; its fields of media are none"):
        glm.explain("味道", images=image_bytes(), labels=["好", "差"])
    with pytest.raises(MediaError, match="a model that reads no media"):
        random_glm(128).explain(record, **options)
