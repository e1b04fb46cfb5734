"""The two input builders against every tensor that the original tokenizers built, element by element."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest
import torch

from glmkit.errors import GenerationError
from glmkit.tokens.tokenizer import GLMTokenizer


@lru_cache(maxsize=4)
def _tokenizer(path: Path) -> GLMTokenizer:
    return GLMTokenizer.from_pretrained(path)


def _encode(golden, texts, padding_side: str, **kwargs):
    tokenizer = _tokenizer(golden.path)
    tokenizer.padding_side = padding_side
    padding = not isinstance(texts, str)
    return tokenizer, tokenizer(texts, padding=padding, return_tensors="pt", **kwargs)


def _assert_same(tensor: torch.Tensor, recorded, name: str) -> None:
    assert isinstance(tensor, torch.Tensor), name
    assert tensor.dtype == torch.int64, name
    assert tuple(tensor.shape) == recorded.shape, name
    assert (tensor.numpy() == recorded).all(), name


def test_generation_inputs(golden):
    """Every recorded call: one text and batches, both padding sides, targets whole, cut and padded."""
    for call in golden.json["generation_inputs"]:
        tokenizer, encoded = _encode(
            golden, call["texts"], call["padding_side"], **call["tokenizer_kwargs"]
        )
        key = f"gen_inputs/{call['key']}"
        for name in ("input_ids", "attention_mask"):
            _assert_same(
                encoded[name], golden.npz[f"{key}/encoded/{name}"], f"{key}/encoded/{name}"
            )
        inputs = tokenizer.build_inputs_for_generation(encoded, **call["kwargs"])
        assert sorted(inputs) == sorted(call["outputs"]), key
        for name, tensor in inputs.items():
            _assert_same(tensor, golden.npz[f"{key}/{name}"], f"{key}/{name}")


def test_every_recorded_generation_input_is_compared(golden):
    """No array under gen_inputs/ belongs to a call that the test above does not make."""
    compared = {
        f"gen_inputs/{call['key']}/{name}"
        for call in golden.json["generation_inputs"]
        for name in (*call["outputs"], "encoded/input_ids", "encoded/attention_mask")
    }
    recorded = {name for name in golden.npz if name.startswith("gen_inputs/")}
    # The originals' Chinese token type ids are two shorter than the ids (golden/README.md, oddities).
    assert {name for name in recorded - compared if "token_type_ids" not in name} == set()
    assert compared <= recorded


def test_targets_may_be_ids(golden):
    """Targets given as ids, in lists, make the same tensors as their texts."""
    call = next(
        call for call in golden.json["generation_inputs"] if call["key"] == "batch_right_target"
    )
    tokenizer, encoded = _encode(golden, call["texts"], "right")
    ids = [
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in call["kwargs"]["targets"]
    ]
    inputs = tokenizer.build_inputs_for_generation(encoded, targets=ids, max_gen_length=16)
    for name, tensor in inputs.items():
        _assert_same(tensor, golden.npz[f"gen_inputs/batch_right_target/{name}"], name)


def test_no_mask_error(golden):
    """A prompt without a mask is refused with the original's kind of error and words."""
    kind, message = golden.json["generation_inputs_no_mask_error"]
    tokenizer, encoded = _encode(golden, "no blank here", "right")
    with pytest.raises(GenerationError, match=message) as caught:
        tokenizer.build_inputs_for_generation(encoded)
    assert kind in [parent.__name__ for parent in type(caught.value).__mro__]
    with pytest.raises(GenerationError, match=message):
        tokenizer.build_inputs_for_multiple_choice(encoded, [["a", "b"]])


def test_multiple_choice_inputs(golden):
    """Tensors, ids of the choices and the places whose logits predict them."""
    for case in golden.json["multiple_choice"]:
        key = f"multiple_choice/{case['key']}"
        tokenizer, encoded = _encode(golden, case["texts"], case["padding_side"])
        inputs = tokenizer.build_inputs_for_multiple_choice(encoded, case["choices"])
        expected = {"input_ids", "position_ids", "attention_mask", "choice_ids", "choice_indices"}
        assert set(inputs) == expected, key
        for name in ("input_ids", "position_ids", "attention_mask"):
            _assert_same(inputs[name], golden.npz[f"{key}/{name}"], f"{key}/{name}")
        for name in ("choice_ids", "choice_indices"):
            nested = [[choice.tolist() for choice in row] for row in inputs[name]]
            assert nested == case[name], f"{key}/{name}"
