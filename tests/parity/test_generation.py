"""Every recorded `generate` call of the originals: tokenizer, input builder and model give the same ids."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import golden_folder
from glmkit.model import GLMForConditionalGeneration
from glmkit.tokens.tokenizer import GLMTokenizer


@pytest.fixture
def parts(golden):
    model = GLMForConditionalGeneration.from_pretrained(golden.path, dtype=torch.float32)
    return golden, model, GLMTokenizer.from_pretrained(golden.path)


def run(model, tokenizer, case, **kwargs):
    tokenizer.padding_side = case["padding_side"]
    prompts = tokenizer(case["texts"], return_tensors="pt", padding=True)
    inputs = tokenizer.build_inputs_for_generation(prompts, max_gen_length=case["max_gen_length"])
    assert inputs["input_ids"].shape[1] == case["input_length"]
    return model.generate(
        **inputs,
        max_new_tokens=case["max_new_tokens"],
        eos_token_id=case["eos_token_id"],
        pad_token_id=case["pad_token_id"],
        **{**case["kwargs"], **kwargs},
    )


def cases(golden, beams: bool):
    chosen = [
        case for case in golden.json["generation"] if ("num_beams" in case["kwargs"]) == beams
    ]
    assert len(chosen) >= 8
    return chosen


def test_greedy(parts):
    golden, model, tokenizer = parts
    for case in cases(golden, beams=False):
        output = run(model, tokenizer, case)
        assert output.tolist() == case["sequences"], case["key"]


def test_greedy_without_cache(parts):
    golden, model, tokenizer = parts
    case = next(c for c in cases(golden, beams=False) if c["key"] == "greedy_batch_left")
    assert run(model, tokenizer, case, use_cache=False).tolist() == case["sequences"]


def test_beams(parts):
    """Sequences and scores, the end token moved so that beams end early included."""
    golden, model, tokenizer = parts
    for case in cases(golden, beams=True):
        output = run(
            model,
            tokenizer,
            case,
            prompt_in_length_penalty=True,
            return_dict_in_generate=True,
            output_scores=True,
        )
        assert output.sequences.tolist() == case["sequences"], case["key"]
        np.testing.assert_allclose(output.sequences_scores, case["sequences_scores"], rtol=1e-5)


def test_beams_of_transformers_by_default(parts):
    """Where all beams run to the length limit, the division changes no order: transformers 5 agrees."""
    golden, model, tokenizer = parts
    for case in cases(golden, beams=True):
        if "override" not in case["key"]:
            assert run(model, tokenizer, case).tolist() == case["sequences"], case["key"]


def test_the_divisor_is_prompt_and_answer(parts):
    golden, model, tokenizer = parts
    case = next(case for case in cases(golden, beams=True) if case["key"] == "beam4_0")
    scores = [
        run(
            model,
            tokenizer,
            case,
            prompt_in_length_penalty=whole,
            return_dict_in_generate=True,
            output_scores=True,
        ).sequences_scores.item()
        for whole in (False, True)
    ]
    whole = len(case["sequences"][0])
    assert scores[0] * (whole - case["input_length"]) == pytest.approx(scores[1] * whole)


def test_token_scores(parts):
    """The best logit of each step is the recorded one."""
    golden, model, tokenizer = parts
    for case in cases(golden, beams=False)[:6]:
        output = run(model, tokenizer, case, return_dict_in_generate=True, output_logits=True)
        best = torch.stack([step.max(-1).values for step in output.logits], dim=1)
        np.testing.assert_allclose(best, case["top1_scores"], rtol=1e-4, atol=1e-4)


def test_beams_end_in_padding_where_its_id_is_zero():
    """transformers' beam search took pad id 0 (BERT) as unset and filled up with the end token."""
    golden = golden_folder("tiny-bert")
    case = next(c for c in cases(golden, beams=True) if c["key"] == "beam4_eos_override")
    model = GLMForConditionalGeneration.from_pretrained(golden.path, dtype=torch.float32)
    output = run(model, GLMTokenizer.from_pretrained(golden.path), case)
    after_end = [
        row[row.index(case["eos_token_id"]) + 1 :]
        for row in output[:, case["input_length"] :].tolist()
        if case["eos_token_id"] in row
    ]
    assert any(after_end)
    assert not any(token for rest in after_end for token in rest)
