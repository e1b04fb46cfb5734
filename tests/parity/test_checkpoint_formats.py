"""The recorded folders of the original implementations are read and written bit for bit.

The hashes were computed from the original training code's weights after its own merge; see
shared/golden/README.md, "tiny-megatron".
"""

from __future__ import annotations

import hashlib

import pytest
import torch

from conftest import golden_folder
from glmkit.checkpoint import read_checkpoint, write_checkpoint
from glmkit.checkpoint.files import read_pickle
from glmkit.errors import CheckpointError


def fingerprints(state: dict[str, torch.Tensor]) -> dict[str, tuple[list[int], str]]:
    return {
        name: (
            list(tensor.shape),
            hashlib.sha256(tensor.float().contiguous().numpy().astype("<f4").tobytes()).hexdigest(),
        )
        for name, tensor in state.items()
    }


def expected() -> dict[str, tuple[list[int], str]]:
    recorded = golden_folder("tiny-megatron").json["expected_converted_state"]
    return {name: (entry["shape"], entry["sha256_fp32_le"]) for name, entry in recorded.items()}


@pytest.mark.parametrize("ways", ["mp1", "mp2"])
@pytest.mark.parametrize("at", [".", "1000", "1000/mp_rank_00_model_states.pt"])
def test_training_folders_merge_to_the_recorded_weights(ways, at):
    path = golden_folder("tiny-megatron").path / ways / at
    checkpoint = read_checkpoint(path, num_attention_heads=4)
    assert fingerprints(checkpoint.state_dict) == expected()
    assert checkpoint.source_dtype is torch.float16
    config = checkpoint.config
    assert (config["vocab_size"], config["hidden_size"], config["num_layers"]) == (50048, 64, 3)
    assert (config["max_sequence_length"], config["hidden_act"]) == (128, "gelu_new")


def test_the_heads_of_the_tiny_training_folder_must_be_given():
    with pytest.raises(CheckpointError, match="hidden size 64 is not a published one"):
        read_checkpoint(golden_folder("tiny-megatron").path / "mp1")


def test_the_hub_folder_has_the_same_weights():
    checkpoint = read_checkpoint(golden_folder("tiny-chinese").path)
    assert fingerprints(checkpoint.state_dict) == expected()


def test_splitting_in_two_gives_the_originals_shards(tmp_path):
    """Written shards equal those of the original's two processes, tensor by tensor."""
    root = golden_folder("tiny-megatron").path
    whole = read_checkpoint(root / "mp1", num_attention_heads=4)
    write_checkpoint(
        tmp_path / "mp2", "megatron", whole.config, whole.state_dict, shards=2, iteration=1000
    )
    for rank in range(2):
        name = f"1000/mp_rank_{rank:02d}_model_states.pt"
        ours = torch.load(tmp_path / "mp2" / name, weights_only=True)["module"]
        original = read_pickle(root / "mp2" / name)["module"]
        assert list(ours) == list(original)
        assert all(torch.equal(ours[key], original[key]) for key in original)


def test_hub_folders_say_what_they_are(golden):
    checkpoint = read_checkpoint(golden.path)
    assert checkpoint.format == "hub"
    assert checkpoint.config["hidden_act"] == "gelu"
    assert checkpoint.config["attention_scale"] == (8.0 if golden.path.name == "tiny-gpt2" else 1.0)
    assert not any(name.startswith("glm.") for name in checkpoint.state_dict)


@pytest.mark.parametrize("format_", ["glmkit", "hub", "megatron"])
def test_round_trips_are_exact(golden, tmp_path, format_):
    source = read_checkpoint(golden.path)
    copy = read_checkpoint(
        write_checkpoint(tmp_path / "m", format_, source.config, source.state_dict)
    )
    assert fingerprints(copy.state_dict) == fingerprints(source.state_dict)
    assert source.config.items() <= copy.config.items()
    assert copy.source_dtype is source.source_dtype
