"""What is written down about a model's weights: the same of the native decoder, which builds no torch model for it, and of torch."""

from __future__ import annotations

import pytest

import glmkit
from conftest import golden_folder
from glmkit.evaluation.provenance import facts_of
from glmkit.native.library import why_not
from glmkit.native.quantizing import quantize


@pytest.mark.skipif(why_not() is not None, reason="the native decoder is not here")
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_weights_are_the_same_on_the_native_decoder_and_on_torch(quantization, tmp_path):
    folder = golden_folder("tiny-chinese").path
    if quantization:
        folder = quantize(folder, tmp_path / "stored", quantization).target
    native, on_torch = (glmkit.load(folder, device="cpu", backend=one) for one in (None, "torch"))
    assert facts_of(native.model) == facts_of(on_torch.model)
    assert "torch_model" not in vars(native.model)
    other = glmkit.load(golden_folder("tiny-gpt2").path, device="cpu")
    assert (
        facts_of(other.model)["weights_fingerprint"]
        != facts_of(native.model)["weights_fingerprint"]
    )
