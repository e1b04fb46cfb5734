from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_samples import CLS, EOP, EOS, GMASK, MASK, PAD, SOP, prompt, tiny_model
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from glmkit.errors import GenerationError

MODEL = tiny_model()
PROMPT = [CLS, 5, 17, MASK, 30, EOS]


def ids(output):
    return output[0].tolist()


def answer(row, pad=PAD):
    """The new tokens of a row, without padding at either end."""
    row = list(row)
    new = row[row.index(SOP) + 1 :]
    return new[: new.index(EOP) + 1] if EOP in new else new


# Prompts


def test_a_prompt_without_a_mask_gets_one():
    assert ids(MODEL.generate([CLS, 5, 17, EOS], max_new_tokens=1))[:-1] == [CLS, 5, 17, GMASK, EOS, SOP]  # fmt: skip
    assert ids(MODEL.generate([CLS, 5, 17], max_new_tokens=1))[:-1] == [CLS, 5, 17, GMASK, SOP]
    assert ids(MODEL.generate([EOS], max_new_tokens=1))[:-1] == [EOS, GMASK, SOP]


@pytest.mark.parametrize(
    "given_ids",
    [
        PROMPT,
        [*PROMPT, SOP],
        [PROMPT],
        tuple(PROMPT),
        [np.int64(token) for token in PROMPT],
        [torch.tensor(PROMPT)],
        torch.tensor(PROMPT),
        torch.tensor([PROMPT]),
        np.array(PROMPT),
    ],
)
def test_forms_of_a_prompt(given_ids):
    assert ids(MODEL.generate(given_ids, max_new_tokens=6)) == ids(
        MODEL.generate(PROMPT, max_new_tokens=6)
    )


def test_padding_in_a_tensor_is_told_by_the_mask():
    padded = torch.tensor([[PAD, PAD, *PROMPT], [CLS, 5, MASK, 3, 4, 5, 6, EOS]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1], [1] * 8])
    output = MODEL.generate(input_ids=padded, attention_mask=mask, max_new_tokens=6)
    assert answer(output[0].tolist()) == answer(ids(MODEL.generate(PROMPT, max_new_tokens=6)))


def test_what_the_prompts_become():
    prepared = MODEL.prepare_prompts([PROMPT, [CLS, MASK, EOS]])
    assert prepared["input_ids"].tolist() == [[*PROMPT, SOP], [PAD] * 3 + [CLS, MASK, EOS, SOP]]
    assert prepared["position_ids"][1].tolist() == [[0, 0, 0, 0, 1, 2, 1], [0, 0, 0, 0, 0, 0, 1]]
    assert prepared["prefix_lengths"].tolist() == [6, 6]
    assert prepared["attention_mask"].sum(1).tolist() == [7, 4]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({}, "given no prompt"),
        ({"inputs": []}, "a prompt is empty"),
        ({"inputs": [[CLS, MASK], []]}, "a prompt is empty"),
        ({"inputs": "text"}, "not str; encode the text first"),
        ({"inputs": 5}, "not int"),
        ({"inputs": [1] * 70}, "has 71 tokens, but the model has 65 positions"),
        ({"inputs_embeds": torch.zeros(1, 3, 32)}, "needs position_ids"),
        ({"inputs": PROMPT, "prompt_lookup_num_tokens": 2}, "prompt_lookup_num_tokens"),
        ({"inputs": PROMPT, "assistant_model": MODEL}, "cannot generate with assistant_model"),
        ({"inputs": PROMPT, "prefill_chunk_size": 2}, "cannot generate with prefill_chunk_size"),
        ({"inputs": PROMPT, "guidance_scale": 1.5}, "cannot generate with guidance_scale"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(GenerationError, match=message):
        MODEL.generate(**call)


def test_a_model_that_does_not_know_the_special_tokens():
    model = tiny_model(sop_token_id=None)
    with pytest.raises(GenerationError, match=r"tokenizer.build_inputs_for_generation"):
        model.generate(PROMPT)


# Where answers end


def test_a_blank_ends_at_its_own_marker():
    """The default generation configuration said end of text, which ends no blank."""
    assert MODEL.generation_config.eos_token_id == EOP
    first = answer(ids(MODEL.generate(PROMPT, max_new_tokens=8)))
    config = GenerationConfig(max_new_tokens=8, eos_token_id=first[3])
    expected = first[: first.index(first[3]) + 1]
    assert answer(ids(MODEL.generate(PROMPT, generation_config=config))) == expected
    processors = LogitsProcessorList([Force(EOP)])
    config = GenerationConfig(max_new_tokens=8)
    output = MODEL.generate(PROMPT, generation_config=config, logits_processor=processors)
    assert ids(output)[-2:] == [SOP, EOP]


def test_the_table_of_block_positions_ends_a_blank(caplog):
    output = MODEL.generate(PROMPT, max_new_tokens=100, suppress_tokens=[EOP])
    assert len(answer(ids(output))) == MODEL.config.max_sequence_length
    assert "the model has 64 block positions" in caplog.text


@pytest.mark.parametrize("beams", [1, 2])
def test_prompt_and_blank_may_be_longer_together_than_a_table_of_positions(beams, caplog):
    logging.getLogger("transformers").addHandler(caplog.handler)
    try:
        ids = prompt(np.random.default_rng(0), 60)
        output = tiny_model().generate([ids], max_new_tokens=30, min_new_tokens=30, num_beams=beams)
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert output.shape[1] > 64
    assert "exceeded" not in caplog.text


def test_a_long_prompt_still_gets_the_default_20_tokens():
    output = MODEL.generate(
        prompt(np.random.default_rng(0), 62), suppress_tokens=[EOP], do_sample=False
    )
    assert len(answer(ids(output))) == 20


# One layout, any batch


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), lengths=st.lists(st.integers(3, 30), min_size=2, max_size=4))
def test_a_batch_answers_as_its_prompts_one_by_one(seed, lengths):
    rng = np.random.default_rng(seed)
    prompts = [prompt(rng, length, rng.choice([MASK, GMASK])) for length in lengths]
    together = MODEL.generate(prompts, max_new_tokens=10)
    for row, single in zip(together.tolist(), prompts, strict=True):
        assert answer(row) == answer(ids(MODEL.generate(single, max_new_tokens=10)))


@pytest.mark.parametrize(
    "options",
    [
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"cache_implementation": "dynamic"},
        {"num_beams": 1, "prompt_in_length_penalty": False},
    ],
)
def test_every_cache_gives_the_same_tokens(options):
    prompts = [PROMPT, [CLS, 3, 4, 5, 6, MASK, 8, 9, EOS]]
    expected = MODEL.generate(prompts, max_new_tokens=12)
    assert torch.equal(MODEL.generate(prompts, max_new_tokens=12, **options), expected)


@pytest.mark.parametrize(
    "implementation", ["eager", pytest.param("flex_attention", marks=pytest.mark.slow)]
)
def test_every_attention_gives_the_same_tokens(implementation):
    prompts = [PROMPT, [CLS, 3, 4, 5, 6, MASK, 8, 9, EOS]]
    other = tiny_model(implementation=implementation)
    expected = MODEL.generate(prompts, max_new_tokens=6)
    assert torch.equal(other.generate(prompts, max_new_tokens=6), expected)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"cache_implementation": "static"}])
def test_part_a_is_never_computed_again(options):
    """The stack sees the prompt once, then one token a step and beam."""
    seen = []
    handle = MODEL.glm.transformer.layers[0].register_forward_hook(
        lambda module, args, output: seen.append(tuple(args[0].shape[:2]))
    )
    try:
        MODEL.generate(PROMPT, max_new_tokens=7, suppress_tokens=[EOP], **options)
    finally:
        handle.remove()
    beams = options.get("num_beams", 1)
    assert seen[0][1] == len(PROMPT) + 1
    assert seen[1:] == [(beams, 1)] * 6


# transformers' own ways to generate


def test_sampling_with_a_seed():
    def sample(seed):
        torch.manual_seed(seed)
        return MODEL.generate(
            [PROMPT, PROMPT], do_sample=True, num_return_sequences=3, max_new_tokens=8, top_k=40
        )

    assert sample(1).shape == (6, len(PROMPT) + 1 + 8)
    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))
    assert len({tuple(row) for row in sample(1).tolist()}) > 1


@pytest.mark.parametrize("whole", [True, False])
def test_beams(whole):
    options = {"num_beams": 4, "max_new_tokens": 8, "return_dict_in_generate": True}
    beams = MODEL.generate(
        [PROMPT, [CLS, 8, MASK, EOS]],
        num_return_sequences=2,
        output_scores=True,
        prompt_in_length_penalty=whole,
        **options,
    )
    assert beams.sequences.shape[0] == beams.sequences_scores.shape[0] == 4
    for pair in beams.sequences_scores.view(2, 2):
        assert pair[0] >= pair[1]
    alone = MODEL.generate([CLS, 8, MASK, EOS], prompt_in_length_penalty=whole, **options)
    assert answer(alone.sequences[0].tolist()) == answer(beams.sequences[2].tolist())


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_beams_that_divide_by_the_prompt_leave_the_model_as_it_was(early_stopping):
    before = dict(vars(MODEL))
    MODEL.generate(
        PROMPT,
        num_beams=3,
        max_new_tokens=5,
        early_stopping=early_stopping,
        prompt_in_length_penalty=True,
        eos_token_id=list(range(20)),
    )
    assert dict(vars(MODEL)) == before


class Force(LogitsProcessor):
    def __init__(self, token):
        self.token = token

    def __call__(self, input_ids, scores):
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.token] = 0
        return forced


def test_logits_processors():
    output = MODEL.generate(
        PROMPT, max_new_tokens=4, logits_processor=LogitsProcessorList([Force(7)])
    )
    assert answer(ids(output)) == [7, 7, 7, 7]


class StopAt(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return torch.tensor([row.shape[0] >= len(PROMPT) + 4 for row in input_ids])


def test_stopping_criteria():
    output = MODEL.generate(
        PROMPT, max_new_tokens=9, stopping_criteria=StoppingCriteriaList([StopAt()])
    )
    assert len(answer(ids(output))) == 3


class Collect(BaseStreamer):
    def __init__(self):
        self.tokens, self.ended = [], False

    def put(self, value):
        self.tokens += value.flatten().tolist()

    def end(self):
        self.ended = True


def test_streamers():
    streamer = Collect()
    output = MODEL.generate(PROMPT, max_new_tokens=6, streamer=streamer)
    assert streamer.tokens == ids(output)
    assert streamer.ended


def test_attention_maps_and_hidden_states_of_each_step():
    model = tiny_model(implementation="eager")
    output = model.generate(
        PROMPT,
        max_new_tokens=3,
        suppress_tokens=[EOP],
        output_attentions=True,
        output_hidden_states=True,
        return_dict_in_generate=True,
    )
    prompt_length = len(PROMPT) + 1
    assert [step[0].shape[2:] for step in output.attentions] == [
        (prompt_length, prompt_length),
        (1, prompt_length + 1),
        (1, prompt_length + 2),
    ]
    assert len(output.hidden_states[0]) == model.config.num_layers + 1


def test_a_mask_shorter_than_the_answer_is_continued():
    """The input builder makes a mask for `max_gen_length` tokens; more may be asked for."""
    prepared = MODEL.prepare_prompts(PROMPT)
    length = len(PROMPT) + 1
    mask = torch.ones(1, 1, length, length, dtype=torch.long)
    mask[..., :-1, -1] = 0
    output = MODEL.generate(
        input_ids=prepared["input_ids"],
        position_ids=prepared["position_ids"],
        generation_attention_mask=mask,
        max_new_tokens=9,
    )
    assert torch.equal(output, MODEL.generate(PROMPT, max_new_tokens=9))
