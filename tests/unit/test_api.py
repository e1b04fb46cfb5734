"""glmkit.load and GLM: one text or a list, the same words as the parts below it."""

from __future__ import annotations

import math

import pytest
import torch

import glmkit
from conftest import golden_folder
from glmkit.errors import CheckpointError, ConfigError, DataError, GenerationError
from glmkit.runtime import choose_device, choose_dtype


@pytest.fixture(scope="module")
def loaded() -> glmkit.GLM:
    return glmkit.load(golden_folder("tiny-chinese").path, device="cpu")


def test_one_text_gives_one_result_and_a_list_a_list(loaded: glmkit.GLM):
    text = "北京是[MASK]的首都，[MASK]。"
    one, many = loaded.fill(text, max_new_tokens=3), loaded.fill([text, text], max_new_tokens=3)
    assert many[0].text == many[1].text == one.text == str(one)
    assert len(one.blanks) == len(one.scores) == 2
    assert loaded.generate(["今天", "明天"], max_new_tokens=3)[0] == loaded.generate(
        "今天", max_new_tokens=3
    )
    assert "".join(loaded.generate("今天", stream=True, max_new_tokens=3)).strip() == (
        loaded.generate("今天", max_new_tokens=3)
    )
    assert isinstance(loaded.score("今天"), glmkit.Score)
    assert [score.text for score in loaded.score(["今天", ""])] == ["今天", ""]
    assert loaded.fill([]) == []


def test_constraints_go_to_the_blanks_of_one_text_or_of_many(loaded: glmkit.GLM):
    from glmkit.generation.constraints import Choices

    cities, text = Choices.of_texts(loaded.tokenizer, ["北京", "上海"]), "[MASK]和[MASK]"
    one = loaded.fill(text, constraints=cities, max_new_tokens=9)
    assert set(one.blanks) <= {"北京", "上海"}
    many = loaded.fill([text, text], constraints=[[None, cities], None], max_new_tokens=9)
    assert many[0].blanks[1] in ("北京", "上海")
    assert many[1].blanks[1] not in ("北京", "上海")


def test_what_is_no_text_is_said_so(loaded: glmkit.GLM):
    """Each of these ended in a TypeError, or (a generator) in nothing at all."""
    for given in (None, 5, b"bytes"):
        for method in (loaded.fill, loaded.generate, loaded.score, loaded.embed, loaded.poem):
            with pytest.raises(DataError, match=f"not {type(given).__name__}"):
                method(given)
    for method in (loaded.score, loaded.perplexity, loaded.bits_per_character):
        with pytest.raises(DataError, match="must be a string, not NoneType"):
            method([None])
    texts = ["今天[MASK]。", "明天[MASK]。"]
    assert loaded.fill(iter(texts), max_new_tokens=2) == loaded.fill(texts, max_new_tokens=2)
    assert loaded.perplexity(iter(texts)) == loaded.perplexity(texts)


def test_a_batch_of_nothing_is_refused(loaded: glmkit.GLM):
    """Zero was a ValueError of range, and below it embeddings were zeros."""
    for size in (0, -1):
        with pytest.raises(ConfigError, match=f"batch_size={size} must be at least 1"):
            loaded.embed("今天", batch_size=size)
        with pytest.raises(ConfigError, match=f"batch_size={size} must be at least 1"):
            loaded.sentiment("今天", batch_size=size)


def test_perplexity_units_agree_with_each_other(loaded: glmkit.GLM):
    text = "春眠不觉晓，处处闻啼鸟。"
    score = loaded.score(text)
    assert loaded.perplexity(text) == pytest.approx(score.perplexity, rel=1e-6)
    per_character = math.exp(-score.log_probability / len(text))
    assert loaded.perplexity(text, unit="character") == pytest.approx(per_character, rel=1e-6)
    assert loaded.bits_per_character(text) == pytest.approx(math.log2(per_character), rel=1e-6)
    per_byte = math.exp(-score.log_probability / len(text.encode()))
    assert loaded.perplexity([text], unit="byte") == pytest.approx(per_byte, rel=1e-6)


def test_generate_refuses_what_it_cannot_mean(loaded: glmkit.GLM):
    with pytest.raises(GenerationError, match="several blanks; use fill"):
        loaded.generate("[MASK]和[MASK]")
    with pytest.raises(GenerationError, match="stream=True takes one text"):
        loaded.generate(["a", "b"], stream=True)
    with pytest.raises(GenerationError, match="stream=True takes one text, num_beams=1"):
        loaded.generate("a", stream=True, num_beams=2)


def test_training_folder_with_the_vocabulary_elsewhere():
    """A Megatron folder has weights alone; its heads and its vocabulary are named by the caller."""
    folder = golden_folder("tiny-megatron").path / "mp2"
    vocabulary = golden_folder("tiny-chinese").path
    glm = glmkit.load(folder, device="cpu", tokenizer=vocabulary, num_attention_heads=4)
    assert glm.model.config.hidden_act == "gelu_new"
    assert len(glm.fill("北京[MASK]，[MASK]", max_new_tokens=2).blanks) == 2
    out = glm.model.generate(glm.tokenizer.encode("北京"), max_new_tokens=2)
    assert out.shape[0] == 1


def test_what_is_not_there_is_named():
    with pytest.raises(CheckpointError, match="/no/such/model"):
        glmkit.load("/no/such/model")


def test_device_and_dtype_are_chosen_or_refused():
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == "cpu"
    assert choose_device() in {"cpu", "cuda", "mps"}
    with pytest.raises(ConfigError, match="'nonsense' cannot be used here"):
        choose_device("nonsense")
    assert choose_dtype(None, "cpu") == "float32"
    assert choose_dtype("bfloat16", "cpu") == "bfloat16"
    assert choose_dtype(torch.float16, "cpu") == "float16"
    for wrong in ("int3", "torch.float16", 16):
        with pytest.raises(ConfigError, match=f"dtype={wrong!r} is not one of"):
            choose_dtype(wrong, "cpu")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_fills(dtype: str):
    glm = glmkit.load(golden_folder("tiny-bert").path, device="cpu", dtype=dtype)
    assert len(glm.fill(["a [MASK] b", "[MASK]"], max_new_tokens=2)[0].blanks) == 1
