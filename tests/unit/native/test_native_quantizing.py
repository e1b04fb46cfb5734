"""A quantized folder: the same bits and configuration without torch as with it, what it changes, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from native_samples import random_model
from safetensors.torch import load_file, save_file

from conftest import golden_folder
from glmkit.checkpoint import write_files
from glmkit.checkpoint.configs import normalize_config
from glmkit.checkpoint.mapped import map_arrays, new_arrays
from glmkit.checkpoint.naming import plain_names
from glmkit.checkpoint.packing import FORMATS, pack, some_rows, unpack
from glmkit.checkpoint.quantized import FILE, QUANTIZATIONS, WORDS, NativeWeights, rows_of
from glmkit.errors import CheckpointError
from glmkit.model import GLMConfig
from glmkit.native import loading, logits, quantizing
from glmkit.native.model import unpacked
from glmkit.native.quantizing import quantize


def by_torch(source: Path, target: Path, quantization: str):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantizing, "plain_weights", lambda path: None)
        return quantize(source, target, quantization)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """One model in each layout that can be mapped."""
    home = tmp_path_factory.mktemp("sources")
    model = random_model(vocab_size=77, hidden_size=40, num_attention_heads=5, intermediate_size=72)
    model.save_pretrained(home / "float32")
    model.bfloat16().save_pretrained(home / "shards", max_shard_size="20KB")
    model = random_model(vocab_size=50048, hidden_size=16, num_layers=1, hidden_act="gelu").half()
    hub, state = home / "hub", plain_names(model.state_dict())
    hub.mkdir()
    write_files(hub, "hub", normalize_config(model.config.to_dict()), state)
    save_file({f"glm.{name}": one.clone() for name, one in state.items()}, hub / "model.safetensors")  # fmt: skip
    (hub / "pytorch_model.bin").unlink()
    for file in golden_folder("tiny-chinese").path.glob("cog-pretrain.*"):
        (hub / file.name).write_bytes(file.read_bytes())
    quantize(home / "float32", home / "int8", "int8")
    return home


@pytest.mark.parametrize("source", ["float32", "shards", "hub", "int8"])
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_without_torch_it_is_the_same_to_the_bit(sources, source, quantization, tmp_path):
    found = quantize(sources / source, tmp_path / "found", quantization)
    expected = by_torch(sources / source, tmp_path / "torch", quantization)
    assert (found.target_bytes, found.relative_change) == (expected.target_bytes, expected.relative_change)  # fmt: skip
    if source != "int8":  # torch has it unpacked
        assert found.source_bytes == expected.source_bytes
    arrays, wanted = (NativeWeights.load(tmp_path / name)._arrays() for name in ("found", "torch"))
    assert arrays.keys() == wanted.keys()
    for name, array in arrays.items():
        assert np.array_equal(array, wanted[name]), name
    told, wanted = (
        GLMConfig.from_pretrained(tmp_path / name).to_dict() for name in ("found", "torch")
    )
    ignored = {"_name_or_path", "dtype", "transformers_version"}
    assert {k: v for k, v in told.items() if k not in ignored} == {k: v for k, v in wanted.items() if k not in ignored}  # fmt: skip
    if source == "hub":
        assert (told["num_tokens"], told["eop_token_id"]) == (50010, 50007)
    assert {file.name for file in (tmp_path / "found").iterdir()} == {
        file.name for file in (tmp_path / "torch").iterdir()
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_act": "gelu"},
        {"hidden_act": "gelu_new", "num_tokens": 900},
        {"hidden_act": "relu", "block_position_encoding": False},
        {"max_sequence_length": 40, "vocab_size": 5000},
        {"max_sequence_length": 20},
    ],
)
def test_the_change_is_that_of_torchs_logits(fields):
    model = random_model(**fields)
    config = model.config
    weights = NativeWeights.of(config, model.state_dict(), "int4")
    ids = torch.from_numpy(
        np.random.default_rng(0).integers(
            config.num_tokens or config.vocab_size, size=(4, min(64, config.max_sequence_length))
        )
    )
    batch = {"input_ids": ids, "prefix_lengths": torch.full((4,), 32).clamp(max=ids.shape[1])}
    with torch.no_grad():
        expected, found = model(**batch).logits, unpacked(config, weights)(**batch).logits
    change = ((found - expected).square().mean().sqrt() / expected.std()).item()
    assert logits.relative_change(config, model.state_dict(), weights) == pytest.approx(change, rel=1e-4)  # fmt: skip
    same = NativeWeights.of(config, model.state_dict(), "float32")
    assert logits.relative_change(config, model.state_dict(), same) == 0


def test_the_error_function_is_torchs():
    values = torch.linspace(-6, 6, 10_001)
    assert np.abs(logits._erf(values.numpy()) - torch.erf(values).numpy()).max() < 5e-7


@pytest.mark.parametrize("format", FORMATS)
def test_some_rows_are_those_of_the_whole(format):
    packed = pack(np.random.default_rng(0).standard_normal((70, 100)).astype(np.float32), format)
    whole = unpack(packed)
    for first, last in ((0, 16), (16, 50), (48, 70), (64, 99), (0, 70)):
        assert np.array_equal(unpack(some_rows(packed, first, last)), whole[first:last])


def test_rows_of_any_weights():
    model = random_model()
    state = model.state_dict()
    for name in ("glm.word_embeddings.weight", "glm.transformer.final_layernorm.bias"):
        numbers = state[name].numpy()
        for weights in (state, {name: numbers}, NativeWeights.of(model.config, state, "float32")):
            assert np.array_equal(rows_of(weights, name), numbers)
            assert np.array_equal(rows_of(weights, name, 16, 33), numbers[16:33])


KILLED = """
import os, signal, sys
from glmkit.checkpoint import quantized
from glmkit.native.quantizing import quantize
pack, packed = quantized.pack, []
def cut(*given, **more):
    if len(packed) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    packed.append(pack(*given, **more))
    return packed[-1]
quantized.pack = cut
quantize(sys.argv[1], sys.argv[2], "int8", overwrite=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system kills otherwise")
def test_killed_in_between_the_old_folder_stays_whole(sources, tmp_path):
    quantize(sources / "float32", tmp_path / "old", "int4")
    before = {file.name: file.read_bytes() for file in (tmp_path / "old").iterdir()}
    for target in ("old", "new"):
        command = [sys.executable, "-c", KILLED, str(sources / "float32"), str(tmp_path / target)]
        done = subprocess.run(command, env=os.environ, check=False)
        assert done.returncode == -signal.SIGKILL
    assert {file.name: file.read_bytes() for file in (tmp_path / "old").iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_packed_weights_that_do_not_fit_are_refused(sources, tmp_path):
    quantize(sources / "float32", tmp_path / "q", "int8")
    config = json.loads((tmp_path / "q" / "config.json").read_text())
    (tmp_path / "q" / "config.json").write_text(json.dumps({**config, "num_layers": 3}))
    with pytest.raises(CheckpointError, match="not of one model"):
        quantize(tmp_path / "q", tmp_path / "again", "int4")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_weights_are_packed_from_their_file(sources, zipped, tmp_path, monkeypatch):
    """Without a model made of them, which would take several times the memory, and to the same bits."""
    folder, state = tmp_path / "pickled", load_file(sources / "hub" / "model.safetensors")
    shutil.copytree(sources / "hub", folder)
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    expected = quantize(sources / "hub", tmp_path / "expected", "int4")
    for module in (quantizing, loading):
        monkeypatch.setattr(module, "torch_model", None)
    found = quantize(folder, tmp_path / "found", "int4")
    assert (found.source_bytes, found.target_bytes) == (expected.source_bytes, expected.target_bytes)  # fmt: skip
    names = ("config.json", "quantized.safetensors")
    for name in names:
        assert (tmp_path / "found" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()  # fmt: skip
    model = loading.load_model(folder, device="cpu", dtype="float32", quantization="int4")
    wanted = NativeWeights.load(tmp_path / "expected")
    assert np.array_equal(model.weights.matrices[WORDS].data, wanted.matrices[WORDS].data)


def test_numbers_begin_at_a_cache_line(sources, tmp_path):
    quantize(sources / "float32", tmp_path / "q", "int4")
    weights = NativeWeights.load(tmp_path / "q")
    weights.save(tmp_path)
    for again in (weights, NativeWeights.load(tmp_path)):
        for one in again.matrices.values():
            assert one.data.ctypes.data % 64 == 0
    assert (tmp_path / "q" / FILE).read_bytes() == (tmp_path / FILE).read_bytes()


def test_a_full_disk_says_so(sources, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        quantize(sources / "float32", tmp_path / "q", "int8")
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_reserved_zeros_are_written(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    array = np.arange(2**19 + 3, dtype=np.float32)
    new_arrays(tmp_path / "x", {"a": ("float32", array.shape), "b": ("uint16", (3,))}, {"k": "v"})["a"][...] = array  # fmt: skip
    metadata, found = map_arrays(tmp_path / "x")
    assert metadata == {"k": "v"}
    assert np.array_equal(found["a"], array)
    assert not found["b"].any()
    assert torch.equal(load_file(tmp_path / "x")["a"], torch.from_numpy(array))
