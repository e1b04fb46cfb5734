"""Filling, against blank-by-blank recomputation from scratch and against batches of one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from generation_samples import TEXTS, recompute

from glmkit.errors import GenerationError
from glmkit.generation.constraints import Choices
from glmkit.generation.infill import draw, fill, make_chooser, stream
from glmkit.generation.prompts import build_prompt
from glmkit.generation.settings import DecodingSettings


def test_fill_equals_recomputation(glm, monkeypatch):
    """The cache, the hand-over from blank to blank and the cut at max_new_tokens change nothing."""
    model, tokenizer = glm
    for end_bias in (0.0, 30.0):
        if end_bias:  # make the end marker likely, so that blanks end by themselves
            with torch.no_grad():
                weight = model.glm.word_embeddings.weight
                likely = model.glm.transformer.final_layernorm.bias
                monkeypatch.setattr(weight, "data", weight.data.clone())
                weight[tokenizer.eop_token_id] += end_bias * likely / likely.norm()
        settings = DecodingSettings(max_new_tokens=5)
        for text in TEXTS:
            expected = [
                tokenizer.decode(tokens, skip_special_tokens=True).strip()
                for tokens in recompute(model, tokenizer, text, settings)
            ]
            result = fill(model, tokenizer, [text], settings)[0]
            assert result.blanks == expected
        # the second round must really have ended blanks early
        assert any(result.finished) == bool(end_bias)


@pytest.mark.parametrize("sample", [False, True])
def test_batch_equals_one_by_one(glm, sample: bool):
    model, tokenizer = glm
    settings = DecodingSettings(max_new_tokens=7, do_sample=sample, seed=5 if sample else None)
    together = fill(model, tokenizer, TEXTS, settings, batch_size=5)
    for text, result in zip(TEXTS, together, strict=True):
        alone = fill(model, tokenizer, [text], settings)[0]
        assert alone.blanks == result.blanks
        assert alone.text == result.text
        np.testing.assert_allclose(alone.scores, result.scores, rtol=1e-4)


def test_one_beam_is_greedy_and_more_beams_score_no_worse(glm):
    model, tokenizer = glm
    greedy = fill(model, tokenizer, TEXTS[:2], DecodingSettings(max_new_tokens=4))
    beams = fill(
        model,
        tokenizer,
        TEXTS[:2],
        DecodingSettings(max_new_tokens=4, num_beams=4, num_return_sequences=3),
    )
    for one, four in zip(greedy, beams, strict=True):
        assert four.scores[0] >= one.scores[0] - 1e-3
        assert all(len(options) == 3 for options in four.alternatives)
        for blank, options in zip(four.blanks, four.alternatives, strict=True):
            assert options[0][0] == blank


def test_stream_joins_to_what_fill_gives(glm):
    model, tokenizer = glm
    settings = DecodingSettings(max_new_tokens=12)
    for text in (TEXTS[1], TEXTS[4], TEXTS[2]):
        joined = "".join(stream(model, tokenizer, text, settings))
        assert joined.strip() == fill(model, tokenizer, [text], settings)[0].blanks[0]


def test_padding_rows_and_special_tokens_are_never_written(glm):
    model, tokenizer = glm
    chooser = make_chooser(model, tokenizer, DecodingSettings())
    with torch.no_grad():  # rows above the vocabulary become the likeliest of all
        model.glm.word_embeddings.weight[len(tokenizer) :] *= 100
    texts = fill(model, tokenizer, TEXTS, DecodingSettings(max_new_tokens=8))
    assert all(len(result.blanks) >= 1 for result in texts)
    logits = np.random.default_rng(0).standard_normal(model.config.vocab_size, np.float32)
    logits[len(tokenizer) :] = 100
    logits[chooser.forbidden] = 50
    from glmkit.generation.decoding import BlankTokens

    token, _ = chooser.choose(logits, BlankTokens(tokens=[1]), None)
    assert token < len(tokenizer)
    assert token not in chooser.forbidden


def test_special_strings_in_a_text_are_plain_text(glm):
    """A user's text cannot end, restructure or lengthen the prompt by writing special tokens."""
    model, tokenizer = glm
    text = "hello <|endofpiece|> [CLS] <|startofpiece|> [MASK] x"
    prompt = build_prompt(tokenizer, text, 128)
    ids = tokenizer.special_ids
    assert (prompt.ids == ids.sop).sum() == 0
    assert (prompt.ids == ids.eop).sum() == 0
    assert len(prompt.mask_indices) == 1
    assert fill(model, tokenizer, [text], DecodingSettings(max_new_tokens=2))[0].text.startswith(
        "hello <|endofpiece|> [CLS] <|startofpiece|> "
    )


def test_prompt_ids_are_the_tokenizers_own(golden):
    """For texts without other special strings, part A is what the tokenizer itself encodes."""
    from glmkit import GLMTokenizer

    tokenizer = GLMTokenizer.from_pretrained(golden.path)
    for text in TEXTS[:2] + ["a [MASK] b", "今天 [MASK] 天气"]:
        text = text.replace("[MASK]", tokenizer.mask_token)
        assert build_prompt(tokenizer, text, 512).ids.tolist() == tokenizer(text)["input_ids"]


def test_the_space_before_a_blank_belongs_to_its_contents_in_a_trained_vocabulary():
    """Part A is what pretraining makes of the text with that word hidden."""
    from glmkit.tokens.train import train_tokenizer

    tokenizer = train_tokenizer(["return a new list of the local folder. " * 50], 400, "bpe")
    text = "return a new list of"
    ids = tokenizer(text)["input_ids"]
    hidden = tokenizer(" new", add_special_tokens=False)["input_ids"]
    at = next(i for i in range(len(ids)) if ids[i : i + len(hidden)] == hidden)
    expected = [*ids[:at], tokenizer.mask_token_id, *ids[at + len(hidden) :]]
    prompt = build_prompt(tokenizer, "return a [MASK] list of", 100)
    assert prompt.ids.tolist() == expected
    assert prompt.assemble([" new"]) == text
    lines = build_prompt(tokenizer, "title\n[gMASK]", 100).ids.tolist()
    assert lines[-3] == tokenizer("\n", add_special_tokens=False)["input_ids"][0]


def test_long_prompts_are_cut_on_the_left_or_refused(glm, caplog):
    model, tokenizer = glm
    limit = model.config.max_sequence_length
    prompt = build_prompt(tokenizer, "很长的文章。" * 200 + "结尾[MASK]", limit)
    assert len(prompt.ids) == limit
    assert len(prompt.mask_indices) == 1
    assert "cut on the left" in caplog.text
    assert len(fill(model, tokenizer, ["字" * 100_000], DecodingSettings(max_new_tokens=2))) == 1
    with pytest.raises(GenerationError, match="lose 1 of its blanks"):
        build_prompt(tokenizer, "开头[MASK]" + "很长的文章。" * 200, limit)


@pytest.mark.parametrize(
    "text", ["", " ", "\n", "\x00", "\ud800", "😀[MASK]", "[MASK]", "[MASK][MASK]"]
)
def test_odd_texts_are_filled(glm, text: str):
    model, tokenizer = glm
    result = fill(model, tokenizer, [text], DecodingSettings(max_new_tokens=2))[0]
    assert len(result.blanks) == max(1, text.count("[MASK]"))


def test_only_strings_are_texts(glm):
    with pytest.raises(GenerationError, match="must be a string, not int"):
        fill(*glm, [3], DecodingSettings())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0 must be at least 1"),
        ({"temperature": 0.7}, "need do_sample=True"),
        ({"do_sample": True, "num_beams": 2}, "cannot be combined"),
        ({"num_return_sequences": 2}, "between 1 and num_beams"),
        ({"max_tokens": 3}, "unknown decoding setting 'max_tokens'.*max_new_tokens"),
        ({"do_sample": True, "top_p": 0.0, "temperature": -1}, "temperature=-1.*top_p=0.0"),
        ({"do_sample": True, "temperature": 1e-40}, "temperature=1e-40 must be 1e-6 or more"),
        (
            {"do_sample": True, "temperature": float("inf")},
            "temperature=inf must be a finite number",
        ),
        (
            {"max_new_tokens": "3", "do_sample": 1},
            "max_new_tokens='3' must be a whole number; do_sample=1 must be",
        ),
        ({"max_new_tokens": 1.5}, "max_new_tokens=1.5 must be a whole number"),
        ({"seed": 2**64}, "seed=18446744073709551616 must be from"),
    ],
)
def test_bad_settings_are_named(arguments: dict, message: str):
    with pytest.raises(GenerationError, match=message):
        DecodingSettings.from_arguments(**arguments)


def test_sampling_settings_narrow_the_choice(glm):
    model, tokenizer = glm
    text = [TEXTS[1]]
    greedy = fill(model, tokenizer, text, DecodingSettings(max_new_tokens=6))[0].blanks
    narrow = DecodingSettings(max_new_tokens=6, do_sample=True, top_k=1, seed=1)
    assert fill(model, tokenizer, text, narrow)[0].blanks == greedy
    hot = [
        fill(model, tokenizer, text, DecodingSettings(max_new_tokens=6, do_sample=True, temperature=5.0, seed=seed))
        for seed in range(4)
    ]  # fmt: skip
    assert len({result[0].blanks[0] for result in hot}) > 1
    unique = DecodingSettings(max_new_tokens=12, no_repeat_ngram_size=1)
    written = fill(model, tokenizer, text, unique)[0]
    tokens = tokenizer(written.blanks[0], add_special_tokens=False)["input_ids"]
    assert len(tokens) >= 1


def test_beams_may_repeat_what_the_prompt_says(glm):
    """Beams looked for repetitions in part A too, so that no answer or summary could quote its text."""
    model, tokenizer = glm
    settings = DecodingSettings(num_beams=2, no_repeat_ngram_size=1, repetition_penalty=1.5)
    only = Choices.of_texts(tokenizer, ["凯旋门"])
    text = "凯旋门凯旋门[MASK]"
    plain = fill(model, tokenizer, [text], DecodingSettings(num_beams=2), constraints=[only])
    [found] = fill(model, tokenizer, [text], settings, constraints=[only])
    assert found.blanks == plain[0].blanks == ["凯旋门"]


def test_beams_read_only_what_is_new(glm):
    """A model saved by a trainer said `use_cache: false`: each token of each beam read the whole text again."""
    model, tokenizer = glm
    model.config.use_cache = model.generation_config.use_cache = False
    lengths = []
    hook = model.glm.word_embeddings.register_forward_hook(
        lambda module, inputs, output: lengths.append(output.shape[1])
    )
    fill(model, tokenizer, TEXTS[:1], DecodingSettings(max_new_tokens=3, num_beams=2))
    hook.remove()
    assert lengths[0] > 1
    assert set(lengths[1:3]) == {1}


def test_draws_are_those_of_their_seeds(glm):
    """With the settings' seed equal texts are filled alike; each draw is what its seed gives alone, also in small batches."""
    model, tokenizer = glm
    settings = DecodingSettings(max_new_tokens=6, do_sample=True, temperature=2.0, seed=3)
    texts = ["北京是[MASK]", "[MASK]在哪里，[MASK]？"]
    alike = fill(model, tokenizer, [*texts, *texts], settings)
    assert alike[:2] == alike[2:]
    for batch_size in (2, 8):
        drawn = draw(model, tokenizer, texts, settings, [[1, 2, 3], [None]], batch_size=batch_size)
        assert list(map(len, drawn)) == [3, 1]
        assert len({result.blanks[0] for result in drawn[0]}) > 1
        assert drawn[0][2].blanks == alike[0].blanks
        assert drawn[1][0].blanks == alike[1].blanks
