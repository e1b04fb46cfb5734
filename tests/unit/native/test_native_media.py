"""Rows of embeddings in the native decoder: as the torch model reads them, and as words where they are words' embeddings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from native_samples import as_understood, feed, native, random_model, reference, sample
from test_native_runner import close

from glmkit.checkpoint.packing import unpack
from glmkit.checkpoint.quantized import WORDS, NativeWeights
from glmkit.errors import GenerationError
from glmkit.generation.choices import score_choices
from glmkit.generation.infill import fill
from glmkit.generation.settings import DecodingSettings
from glmkit.native import library, runner
from glmkit.native.library import NativeError
from glmkit.native.model import NativeModel
from glmkit.special_tokens import FIRST_MEDIA_ID
from media_samples import as_media, prompt_of
from understanding_samples import random_glm

if (reason := library.why_not()) is not None:
    pytest.skip(reason, allow_module_level=True)

QUANTIZATIONS = ("float32", "bfloat16", "int8", "int4")


def with_rows(tokens, places, first: int = 0):
    """Tokens whose ids at some places are rows of a table, from a row on."""
    ids = tokens[0].clone()
    ids[places] = FIRST_MEDIA_ID + first + torch.arange(len(places))
    return ids, *tokens[1:]


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize(("hidden", "threads"), [(64, 1), (72, 3)])
def test_random_rows_are_read_as_torch_reads_them(quantization: str, hidden: int, threads: int):
    """Sequences with tables of their own, with the same one and with none, in one call."""
    model = random_model(hidden_size=hidden, num_attention_heads=4)
    torch.manual_seed(5)
    one, other = torch.randn(9, hidden) * 0.3, torch.randn(4, hidden) * 0.3
    texts = [
        (with_rows(sample(model, 20, 4, 1), torch.tensor([3, 4, 5, 6, 12])), one),
        (with_rows(sample(model, 33, 4, 2), torch.arange(29, 33)), other),
        (sample(model, 11, 4, 3), None),
        (with_rows(sample(model, 8, 4, 4), torch.arange(8), 1), one),
    ]
    reads = native(model, quantization, threads)
    feeds = [
        feed(reads.open(), tokens, 0, len(tokens[0]), len(tokens[0]) - 4, media=table)
        for tokens, table in texts
    ]
    for logits, (tokens, table) in zip(reads.forward(feeds), texts, strict=True):
        understood = as_understood(model, quantization)
        assert close(logits, reference(understood, tokens, len(tokens[0]) - 4, table), quantization)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_rows_that_are_words_give_the_bits_that_words_give(quantization: str):
    model = random_model()
    words = torch.from_numpy(unpack(NativeWeights.of(model.config, model.state_dict(), quantization).matrices[WORDS]))  # fmt: skip
    tokens, places = sample(model, 30, 5), torch.tensor([0, 7, 8, 9, 29])
    table = words[tokens[0][places]].double()  # any floating numbers
    reads = native(model, quantization)
    both = [
        reads.forward([feed(reads.open(), given, 0, 35, 30, media=some)])[0]
        for given, some in ((tokens, None), (with_rows(tokens, places), table.T.contiguous().T))
    ]
    assert np.array_equal(*both)


def test_a_batch_as_models_are_called():
    """Padding on either side, one table for all rows, float32 as the torch model has it."""
    model = random_model()
    decoder = NativeModel(model.config, NativeWeights.of(model.config, model.state_dict(), "float32"))  # fmt: skip
    table = torch.randn(6, 64) * 0.3
    ids = torch.randint(1000, (2, 12))
    ids[0, 2:5], ids[1, 1:7] = FIRST_MEDIA_ID + torch.arange(3), FIRST_MEDIA_ID + torch.arange(6)
    batch = {
        "input_ids": ids,
        "position_ids": torch.stack((torch.arange(12), torch.zeros(12, dtype=torch.long))).expand(2, 2, 12),
        "attention_mask": torch.tensor([[0, 0, *[1] * 10], [1] * 12]),
        "prefix_lengths": torch.tensor([12, 9]),
    }  # fmt: skip
    with torch.no_grad():
        found, expected = (one(**batch, media_embeds=table).logits for one in (decoder, model))
        assert "torch_model" not in vars(decoder)
        real = batch["attention_mask"] > 0
        assert close(found[real].numpy(), expected[real].numpy(), "float32")
        arrays = {name: tensor.numpy() for name, tensor in batch.items()}
        assert np.array_equal(decoder(**arrays, media_embeds=table).logits, found.numpy())
        with pytest.raises(GenerationError, match="row 5 .* there are 5;"):
            decoder(**batch, media_embeds=table[:5])
        with pytest.raises(GenerationError, match="there are 0;"):
            decoder(**batch)


@pytest.mark.parametrize("quantization", ["float32", "bfloat16", "int8"])
def test_filling_and_choosing(quantization: str):
    glm = random_glm()
    weights = NativeWeights.of(glm.model.config, glm.model.state_dict(), quantization)
    model = NativeModel(glm.model.config, weights)
    words = torch.from_numpy(unpack(weights.matrices[WORDS]))
    texts = ["好吃，[MASK]足，量[MASK]。", "The room was [MASK].", "送餐太慢了，[MASK]"]
    media = [prompt_of(glm, text) for text in texts]
    for place in (0, 2):
        plain, media[place] = media[place], as_media(glm, texts[place], place)
        chosen = media[place].ids - FIRST_MEDIA_ID
        table = torch.zeros_like(media[place].embeddings)
        table[chosen[chosen >= 0]] = words[torch.from_numpy(plain.ids[chosen >= 0])]
        media[place] = replace(media[place], embeddings=table)
    for options in (
        {},
        {"do_sample": True, "seed": 1},
        {"num_beams": 2},
        {"prompt_lookup_num_tokens": 3},
    ):
        settings = DecodingSettings(max_new_tokens=5, **options)
        found, expected = (
            fill(model, glm.tokenizer, prompts, settings) for prompts in (media, texts)
        )
        assert found == expected
    best = [fill(model, glm.tokenizer, prompts, DecodingSettings(max_new_tokens=3), n=2) for prompts in (media, texts)]  # fmt: skip
    assert best[0] == best[1]
    led = [
        fill(model, glm.tokenizer, prompts[1:2], DecodingSettings(max_new_tokens=5, guidance_scale=2.0), negative_prompts=prompts[2:])
        for prompts in (media, texts)
    ]  # fmt: skip
    assert led[0] == led[1]
    scores = [score_choices(model, glm.tokenizer, prompts[1:], ["好", "clean"]) for prompts in (media, texts)]  # fmt: skip
    np.testing.assert_array_equal(*scores)


def test_rows_that_are_missing_are_never_read(monkeypatch):
    model = random_model()
    reads = native(model, "float32")
    sequence = reads.open()
    tokens = with_rows(sample(model, 9, 1), torch.arange(3))
    table = torch.zeros(2, 64)
    for given, message in ((table, "row 2 .* there are 2;"), (None, "row 2 .* there are 0;")):
        with pytest.raises(GenerationError, match=message):
            reads.forward([feed(sequence, tokens, 0, 10, 9, media=given)])
    with pytest.raises(GenerationError, match=r"\[rows, 64\]"):
        reads.forward([feed(sequence, tokens, 0, 10, 9, media=torch.zeros(3, 63))])
    monkeypatch.setattr(runner, "check_media", lambda *_: None)  # the library looks for itself
    for given, message in ((table, "row 2 .* there are 2"), (None, "row 0 .* there are 0")):
        with pytest.raises(NativeError, match=message):
            reads.forward([feed(sequence, tokens, 0, 10, 9, media=given)])
    assert reads.length(sequence) == 0


def test_a_library_of_another_version_is_not_used(monkeypatch):
    interface = library._find().glmkit_interface()
    monkeypatch.setattr(library, "INTERFACE", 99)
    assert f"another version of glmkit (interface {interface}, not 99); reinstall" in library._find.__wrapped__()  # fmt: skip
