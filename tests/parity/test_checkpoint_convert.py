"""Converted folders give the logits that the original programs recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import golden_folder
from glmkit.checkpoint import read_checkpoint
from glmkit.model import GLMForConditionalGeneration
from glmkit.model.convert import convert


@pytest.mark.parametrize("ways", ["mp1", "mp2"])
@pytest.mark.parametrize("to", ["glmkit", "hub", "megatron"])
def test_a_training_folder_converted(tmp_path, ways, to):
    """The tanh logits of the training code survive conversion to every format."""
    golden = golden_folder("tiny-megatron")
    report = convert(
        golden.path / ways,
        tmp_path / "target",
        to,
        num_attention_heads=4,
        shards=2 if to == "megatron" else 1,
        dtype="float32",
        tokenizer=golden_folder("tiny-chinese").path,
    )
    assert report.max_abs_difference <= report.tolerance
    assert "cog-pretrain.model" in report.tokenizer_files
    if to == "hub":
        assert 1e-4 < report.original_code_difference < 5e-3
        assert len(report.warnings) == 1
    model = GLMForConditionalGeneration.from_pretrained(tmp_path / "target").eval()
    assert model.config.gmask_token_id == 50009
    for case in ("one", "batch"):
        assert_recorded_logits(model, golden.npz, case)


def assert_recorded_logits(model, arrays, case: str) -> None:
    """Within 1e-5 of the largest value, as shared/golden/README.md recommends."""
    ids, positions, mask = (
        torch.from_numpy(arrays[f"{case}/{name}"])
        for name in ("input_ids", "position_ids", "attention_mask")
    )
    with torch.inference_mode():
        logits = model(input_ids=ids, position_ids=positions, attention_mask=mask).logits
    recorded = arrays[f"{case}/logits_cols"]
    ours = logits[..., torch.from_numpy(arrays["cols"])].numpy()
    assert np.abs(ours - recorded).max() <= 1e-5 * np.abs(recorded).max()


def test_hub_folders_to_training_shards_and_back(golden, tmp_path):
    convert(golden.path, tmp_path / "shards", "megatron", shards=2)
    report = convert(tmp_path / "shards", tmp_path / "hub", "hub")
    assert report.warnings == ()
    source, back = read_checkpoint(golden.path), read_checkpoint(tmp_path / "hub")
    assert back.config.items() >= source.config.items()
    assert back.source_dtype is source.source_dtype
    assert all(torch.equal(back.state_dict[name], t) for name, t in source.state_dict.items())
