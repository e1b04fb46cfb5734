from __future__ import annotations

import json

import pytest
import torch
from checkpoint_samples import CONFIG, equal, shapes, weights
from safetensors.torch import save_file

from glmkit.checkpoint import detect_format, read_checkpoint, read_config, write_checkpoint
from glmkit.errors import CheckpointError

HUB = {**CONFIG, "model_type": "glm"}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(HUB))
    return path


def save_shards(folder, suffix: str, weight_map: dict[str, str] | None = None) -> None:
    state, files = weights(), [f"model-0000{n}-of-00002{suffix}" for n in (1, 2)]
    placed = {name: files[number % 2] for number, name in enumerate(state)}
    for file in files:
        part = {name: state[name] for name in state if placed[name] == file}
        (save_file if suffix == ".safetensors" else torch.save)(part, folder / file)
    index = "model.safetensors" if suffix == ".safetensors" else "pytorch_model.bin"
    (folder / f"{index}.index.json").write_text(json.dumps({"weight_map": weight_map or placed}))


def test_every_kind_of_weights_file(folder):
    state = weights()
    save_shards(folder, ".bin")
    assert equal(read_checkpoint(folder).state_dict, state)
    save_shards(folder, ".safetensors")  # preferred to the pickles that are there too
    assert equal(read_checkpoint(folder).state_dict, state)
    for index in folder.glob("*.index.json"):
        index.unlink()
    torch.save(
        {f"glm.{name}": tensor for name, tensor in state.items()}, folder / "pytorch_model.bin"
    )
    assert equal(read_checkpoint(folder).state_dict, state)
    save_file(state, folder / "model.safetensors")
    checkpoint = read_checkpoint(str(folder))
    assert equal(checkpoint.state_dict, state)
    assert (checkpoint.format, checkpoint.config) == ("hub", CONFIG)
    assert (checkpoint.path, checkpoint.source_dtype) == (folder, torch.float32)


@pytest.mark.parametrize("format_", ["glmkit", "hub", "megatron"])
def test_tensors_go_where_they_are_told(tmp_path, format_):
    shards = 2 if format_ == "megatron" else 1
    write_checkpoint(tmp_path / "m", format_, CONFIG, weights(), shards=shards)
    read = read_checkpoint(tmp_path / "m", map_location="meta").state_dict
    assert all(tensor.is_meta for tensor in read.values())
    assert {name: tuple(tensor.shape) for name, tensor in read.items()} == shapes()


def test_a_missing_shard_is_named(folder):
    save_shards(folder, ".safetensors")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="missing: model-00002-of-00002.safetensors"):
        read_checkpoint(folder)


def test_an_index_that_does_not_match_its_files(folder):
    first, second = (f"model-0000{n}-of-00002.bin" for n in (1, 2))
    names = list(weights())
    lacking = {name: (first, second)[n % 2] for n, name in enumerate(names)}
    save_shards(folder, ".bin", {**lacking, "transformer.extra": second})
    with pytest.raises(CheckpointError, match="'transformer.extra' is in model-00002"):
        read_checkpoint(folder)
    del lacking[names[0]]
    save_shards(folder, ".bin", lacking)
    with pytest.raises(CheckpointError, match=f"has '{names[0]}', which pytorch_model.bin.index"):
        read_checkpoint(folder)
    save_shards(folder, ".bin", {"a": "../other.bin"})
    with pytest.raises(CheckpointError, match="no file of its own folder"):
        read_checkpoint(folder)
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no 'weight_map'"):
        read_checkpoint(folder)


def test_folders_without_weights(folder):
    with pytest.raises(CheckpointError, match="no weights.*model.safetensors"):
        read_checkpoint(folder)
    save_shards(folder, ".bin")
    (folder / "pytorch_model.bin.index.json").unlink()
    with pytest.raises(CheckpointError, match="2 shards .* but no index"):
        read_checkpoint(folder)


def test_two_candidates(folder):
    save_shards(folder, ".bin")
    torch.save(weights(), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="both pytorch_model.bin and pytorch_model.bin.index"):
        read_checkpoint(folder)


def test_weights_of_something_else(folder):
    torch.save({"encoder.weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="not a GLM's; found encoder.weight"):
        read_checkpoint(folder)


def test_formats_are_told_apart(folder, tmp_path):
    assert detect_format(folder) == "hub"
    for name in ("glmkit", "megatron"):
        write_checkpoint(tmp_path / name, name, CONFIG, weights())
        assert detect_format(tmp_path / name) == name
    with pytest.raises(CheckpointError, match="does not exist"):
        detect_format(tmp_path / "none")
    (tmp_path / "text").mkdir()
    with pytest.raises(CheckpointError, match="an empty folder"):
        detect_format(tmp_path / "text")
    (tmp_path / "text" / "notes.txt").write_text("")
    with pytest.raises(CheckpointError, match="notes.txt"):
        detect_format(tmp_path / "text")
    with pytest.raises(CheckpointError, match="a file"):
        detect_format(tmp_path / "text" / "notes.txt")


def test_heads_given_against_the_configuration(folder):
    assert read_config(folder, num_attention_heads=2) == CONFIG
    with pytest.raises(CheckpointError, match="num_attention_heads=4 was given.*says 2"):
        read_config(folder, num_attention_heads=4)
