from __future__ import annotations

import argparse
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_samples import equal, weights
from safetensors.torch import save_file

from glmkit.checkpoint.configs import read_json
from glmkit.checkpoint.files import read_pickle, read_tensors
from glmkit.errors import CheckpointError


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mknod, (self.path,)


class Shell:
    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("attack", [Touch, Shell])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_executes_is_refused_and_not_executed(tmp_path, attack, zipped):
    victim = tmp_path / "executed"
    file = tmp_path / "pytorch_model.bin"
    contents = {"word_embeddings.weight": torch.zeros(1), "x": attack(victim)}
    torch.save(contents, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"refused.*(posix|nt)\.(mknod|system)"):
        read_tensors(file)
    assert not victim.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_plain_malicious_pickle_is_refused(tmp_path):
    victim = tmp_path / "executed"
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(pickle.dumps(Shell(victim)))
    with pytest.raises(CheckpointError, match="refused|damaged"):
        read_tensors(file)
    assert not victim.exists()


def test_namespace_cannot_smuggle_a_call(tmp_path):
    victim = tmp_path / "executed"
    file = tmp_path / "model.pt"
    torch.save({"args": argparse.Namespace(evil=Shell(victim))}, file)
    with pytest.raises(CheckpointError, match="refused"):
        read_pickle(file)
    assert not victim.exists()


def test_random_states_of_training_files_are_read(tmp_path):
    file = tmp_path / "model.pt"
    saved = {
        "random_rng_state": random.getstate(),
        "np_rng_state": np.random.RandomState(3).get_state(),
        "torch_rng_state": torch.get_rng_state(),
        "best": np.float64(1.5),
        "step": np.int64(7),
        "args": argparse.Namespace(num_attention_heads=4),
        "names": {"a", "b"},
    }
    torch.save(saved, file)
    read = read_pickle(file)
    np.testing.assert_array_equal(read["np_rng_state"][1], saved["np_rng_state"][1])
    assert read["random_rng_state"] == saved["random_rng_state"]
    assert (read["best"], read["step"], read["names"]) == (1.5, 7, {"a", "b"})
    assert read["args"].num_attention_heads == 4


def test_the_allow_list_does_not_outlive_a_read(tmp_path):
    file = tmp_path / "model.pt"
    torch.save({"x": np.zeros(2, dtype="u4")}, file)
    before = set(torch.serialization.get_safe_globals())
    read_pickle(file)
    assert set(torch.serialization.get_safe_globals()) == before


def test_reads_both_kinds_of_pickle_and_safetensors(tmp_path):
    state = weights(torch.float16)
    torch.save(state, tmp_path / "zip.bin")
    torch.save(state, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "m.safetensors")
    for name in ("zip.bin", "old.bin", "m.safetensors"):
        assert equal(read_tensors(tmp_path / name), state), name


def test_changing_read_tensors_leaves_the_file_alone(tmp_path):
    state = weights()
    torch.save(state, tmp_path / "m.bin")
    save_file(state, tmp_path / "m.safetensors")
    for name in ("m.bin", "m.safetensors"):
        read_tensors(tmp_path / name)["word_embeddings.weight"].zero_()
        assert equal(read_tensors(tmp_path / name), state), name


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 3, 300, -50])
def test_truncated_files_are_named(tmp_path, suffix, kept):
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".bin":
        torch.save(weights(), whole)
    else:
        save_file(weights(), whole)
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=f"cut{suffix}.*(empty|cut short|damaged)"):
        read_tensors(cut)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize(
    "contents", [b"<html>404</html>", b"\x00" * 100, b"PK\x03\x04 not a zip", b"{}", b"\x80\x02."]
)
def test_files_that_are_no_weights_are_named(tmp_path, suffix, contents):
    file = tmp_path / f"model{suffix}"
    file.write_bytes(contents)
    with pytest.raises(CheckpointError, match=f"model{suffix}"):
        read_tensors(file)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["zip.bin", "old.bin", "m.safetensors"])
def test_damaged_bytes_are_read_or_named(tmp_path, name):
    """Whatever is wrong with a file's bytes, the only error is a CheckpointError."""
    state = {"word_embeddings.weight": torch.zeros(4, 2), "n": torch.ones(1, dtype=torch.float16)}
    if name == "m.safetensors":
        save_file(state, tmp_path / name)
    else:
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=name == "zip.bin")
    whole = (tmp_path / name).read_bytes()
    draw = random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(min(len(damaged), 900))] = draw.randrange(256)
        (tmp_path / f"cut-{name}").write_bytes(damaged)
        try:
            read_tensors(tmp_path / f"cut-{name}")
        except CheckpointError:
            refused += 1
    assert refused > 10


def test_git_lfs_pointer_says_what_to_do(tmp_path):
    file = tmp_path / "pytorch_model.bin"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        read_tensors(file)


def test_missing_file_and_wrong_contents(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        read_tensors(tmp_path / "none.bin")
    torch.save([torch.zeros(1)], tmp_path / "list.bin")
    with pytest.raises(CheckpointError, match="holds a list, expected a dict of tensors"):
        read_tensors(tmp_path / "list.bin")
    torch.save({"step": 3}, tmp_path / "int.bin")
    with pytest.raises(CheckpointError, match="'step' is a int"):
        read_tensors(tmp_path / "int.bin")


def test_json_mistakes(tmp_path):
    with pytest.raises(CheckpointError, match="Cannot read"):
        read_json(tmp_path / "config.json")
    for text, message in (("{", "not valid JSON"), ("[1]", "expected a JSON object")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            read_json(tmp_path / "config.json")
