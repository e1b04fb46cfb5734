from __future__ import annotations

import argparse
import json
import random

import numpy as np
import pytest
import torch
from checkpoint_samples import CONFIG, equal, weights

from glmkit.checkpoint import read_checkpoint, read_config, write_checkpoint
from glmkit.checkpoint.shards import split_state_dict
from glmkit.errors import CheckpointError


def save_training_folder(root, shards=1, tag="1000", latest=True, **extra):
    """Writes what the original's training code writes, random states included."""
    folder = root / tag
    folder.mkdir(parents=True, exist_ok=True)
    for rank, module in enumerate(split_state_dict(weights(torch.float16), shards)):
        contents = {
            "module": module,
            "optimizer": None,
            "mp_world_size": shards,
            "random_rng_state": random.getstate(),
            "np_rng_state": np.random.RandomState(0).get_state(),
            "torch_rng_state": torch.get_rng_state(),
            **extra,
        }
        torch.save(contents, folder / f"mp_rank_{rank:02d}_model_states.pt")
    if latest:
        (root / "latest_checkpointed_iteration.txt").write_text(f"{tag}\n")
    return root


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("latest", [True, False])
def test_root_iteration_and_file_give_the_same(tmp_path, shards, latest):
    root = save_training_folder(tmp_path, shards, latest=latest)
    for path in (root, root / "1000", root / "1000" / "mp_rank_00_model_states.pt"):
        checkpoint = read_checkpoint(path, num_attention_heads=2)
        assert equal(checkpoint.state_dict, weights(torch.float16))
        assert (checkpoint.format, checkpoint.source_dtype) == ("megatron", torch.float16)
        assert checkpoint.config["hidden_act"] == "gelu_new"
        assert checkpoint.config["num_layers"] == CONFIG["num_layers"]


def test_a_file_of_another_name(tmp_path):
    save_training_folder(tmp_path)
    (tmp_path / "1000" / "mp_rank_00_model_states.pt").rename(tmp_path / "glm.pt")
    checkpoint = read_checkpoint(tmp_path / "glm.pt", num_attention_heads=2)
    assert equal(checkpoint.state_dict, weights(torch.float16))


@pytest.mark.parametrize("kind", [dict, argparse.Namespace])
def test_stored_arguments_tell_the_heads(tmp_path, kind):
    save_training_folder(tmp_path, args=kind(num_attention_heads=2, attention_scale=2.0))
    config = read_config(tmp_path)
    assert (config["num_attention_heads"], config["attention_scale"]) == (2, 2.0)


def test_heads_must_be_given_for_an_unpublished_size(tmp_path):
    save_training_folder(tmp_path)
    with pytest.raises(CheckpointError, match="Pass num_attention_heads"):
        read_checkpoint(tmp_path)


def test_our_own_folders_record_the_configuration(tmp_path):
    root = write_checkpoint(tmp_path / "m", "megatron", CONFIG, weights(), shards=2)
    config = read_config(root)
    assert config == {**CONFIG, "dtype": "float32"}
    assert read_config(root, num_attention_heads=2) == config
    with pytest.raises(CheckpointError, match="num_attention_heads=8 was given"):
        read_config(root, num_attention_heads=8)


def test_missing_shards(tmp_path):
    folder = save_training_folder(tmp_path, 4) / "1000"
    (folder / "mp_rank_03_model_states.pt").unlink()
    with pytest.raises(CheckpointError, match=r"one of 4 model-parallel shards, but 3 file"):
        read_checkpoint(tmp_path, num_attention_heads=2)
    (folder / "mp_rank_01_model_states.pt").unlink()
    with pytest.raises(CheckpointError, match=r"lacks .* mp_rank_01_model_states.pt"):
        read_checkpoint(tmp_path, num_attention_heads=2)
    (folder / "mp_rank_00_model_states.pt").unlink()
    (folder / "mp_rank_02_model_states.pt").rename(folder / "other.pt")
    with pytest.raises(CheckpointError, match=r"names the iteration '1000'.*there: none"):
        read_checkpoint(tmp_path, num_attention_heads=2)


def test_an_iteration_without_weights(tmp_path):
    (tmp_path / "latest").write_text("1000")
    with pytest.raises(CheckpointError, match="there: none"):
        read_checkpoint(tmp_path)


def test_which_iteration(tmp_path):
    save_training_folder(tmp_path, tag="1000", latest=False)
    save_training_folder(tmp_path, tag="2000", latest=False)
    with pytest.raises(CheckpointError, match=r"several iterations \(1000, 2000\)"):
        read_checkpoint(tmp_path, num_attention_heads=2)
    (tmp_path / "latest").write_text("2000")
    assert read_checkpoint(tmp_path, num_attention_heads=2).config["num_layers"] == 2
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("1000")
    with pytest.raises(CheckpointError, match="latest says '2000'. Pass the folder"):
        read_checkpoint(tmp_path, num_attention_heads=2)


def test_files_of_something_else(tmp_path):
    torch.save({"model": {}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"no dict 'module' \(found: \['model'\]\)"):
        read_checkpoint(tmp_path / "a.pt")
    torch.save([1], tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="found: list"):
        read_checkpoint(tmp_path / "b.pt")
    torch.save({"module": {"step": 1}}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="'step' is a int"):
        read_checkpoint(tmp_path / "c.pt")


def test_damaged_shard_is_named(tmp_path):
    file = save_training_folder(tmp_path, 2) / "1000" / "mp_rank_01_model_states.pt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(
        CheckpointError, match=r"mp_rank_01_model_states.pt is cut short: 1,000 bytes"
    ):
        read_checkpoint(tmp_path, num_attention_heads=2)


def test_a_wrong_sidecar_is_named(tmp_path):
    write_checkpoint(tmp_path / "m", "megatron", CONFIG, weights(), iteration=5)
    (tmp_path / "m" / "5" / "glmkit_config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="bert"):
        read_checkpoint(tmp_path / "m")
