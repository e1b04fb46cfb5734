"""Explanations of prompts with media: rows that are words count as the words do, and every row has a name."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from explain_samples import ANSWER, CAUSE, decided_glm
from glmkit.applications.prompts import media_prompt
from glmkit.errors import GenerationError
from glmkit.explain.explaining import Settings, explain, explain_texts
from glmkit.explain.faithfulness import curves, order_of, question_of
from glmkit.explain.filling import Filling
from glmkit.explain.segments import segments
from glmkit.generation.prompts import Prompt
from glmkit.generation.settings import DecodingSettings
from glmkit.multimodal.building import build_media
from glmkit.multimodal.media import as_medium
from glmkit.multimodal.reader import MediaReader
from media_samples import prompt_of, with_media
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
