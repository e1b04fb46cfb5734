from __future__ import annotations

import json

import pytest
import torch
from checkpoint_samples import CONFIG, equal, weights

from glmkit.checkpoint import new_folder, read_checkpoint, write_checkpoint
from glmkit.errors import CheckpointError

FORMATS = ["glmkit", "hub", "megatron"]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_written_is_read(tmp_path, format_, dtype):
    folder = write_checkpoint(tmp_path / "m", format_, CONFIG, weights(dtype))
    checkpoint = read_checkpoint(folder)
    assert equal(checkpoint.state_dict, weights(dtype))
    assert checkpoint.format == format_
    assert CONFIG.items() <= checkpoint.config.items()
    assert checkpoint.source_dtype is dtype


@pytest.mark.parametrize("format_", FORMATS)
def test_a_tanh_model_stays_one(tmp_path, format_):
    config = {**CONFIG, "hidden_act": "gelu_new"}
    write_checkpoint(tmp_path / "m", format_, config, weights())
    assert read_checkpoint(tmp_path / "m").config["hidden_act"] == "gelu_new"


def test_dtype_is_converted(tmp_path):
    write_checkpoint(tmp_path / "m", "glmkit", CONFIG, weights(), dtype=torch.float16)
    checkpoint = read_checkpoint(tmp_path / "m")
    assert equal(checkpoint.state_dict, weights(torch.float16))
    assert checkpoint.config["dtype"] == "float16"


@pytest.mark.parametrize(("format_", "stem"), [("glmkit", "model"), ("hub", "pytorch_model")])
def test_large_weights_are_cut_into_files(tmp_path, format_, stem):
    folder = write_checkpoint(tmp_path / "m", format_, CONFIG, weights(), max_shard_size=3000)
    files = [path.name for path in folder.glob(f"{stem}-0*")]
    assert len(files) > 2
    index = json.loads(next(folder.glob("*.index.json")).read_text())
    assert set(index["weight_map"].values()) == set(files)
    assert equal(read_checkpoint(folder).state_dict, weights())


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_training_folders_look_like_the_originals(tmp_path, shards):
    folder = write_checkpoint(
        tmp_path / "m", "megatron", CONFIG, weights(), shards=shards, iteration=70
    )
    assert (folder / "latest_checkpointed_iteration.txt").read_text().strip() == "70"
    assert (folder / "latest").read_text().strip() == "70"
    files = sorted((folder / "70").glob("mp_rank_*"))
    assert [file.name for file in files] == [
        f"mp_rank_{n:02d}_model_states.pt" for n in range(shards)
    ]
    contents = torch.load(files[0], weights_only=True)
    assert (contents["mp_world_size"], contents["iteration"]) == (shards, 70)
    assert contents["module"]["word_embeddings.weight"].shape == (48 // shards, 8)
    assert equal(read_checkpoint(folder).state_dict, weights())


def test_the_hub_format_is_the_originals(tmp_path):
    folder = write_checkpoint(tmp_path / "m", "hub", CONFIG, weights())
    raw = json.loads((folder / "config.json").read_text())
    assert raw["model_type"] == "glm"
    assert raw["torch_dtype"] == "float32"
    assert raw["auto_map"]["AutoModelForSeq2SeqLM"] == "modeling_glm.GLMForConditionalGeneration"
    assert raw["parallel_output"] is True
    assert "hidden_act" not in raw
    assert set(torch.load(folder / "pytorch_model.bin", weights_only=True)) == set(weights())


@pytest.mark.parametrize("format_", FORMATS)
def test_heads_survive(tmp_path, format_):
    state = {**weights(), "dense.weight": torch.ones(8, 8), "out_proj.bias": torch.zeros(3)}
    prefixed = {f"glm.{n}" if n in weights() else n: tensor for n, tensor in state.items()}
    folder = write_checkpoint(tmp_path / "m", format_, {**CONFIG, "num_labels": 3}, prefixed)
    checkpoint = read_checkpoint(folder)
    assert equal(checkpoint.state_dict, state)
    assert checkpoint.config["num_labels"] == 3
    if format_ == "hub":
        raw = json.loads((folder / "config.json").read_text())
        assert raw["architectures"] == ["GLMForSequenceClassification"]


def test_a_view_is_written_without_its_storage(tmp_path):
    state = weights()
    state["word_embeddings.weight"] = torch.zeros(100_000, 8)[:48]
    folder = write_checkpoint(tmp_path / "m", "hub", CONFIG, state)
    assert (folder / "pytorch_model.bin").stat().st_size < 100_000


@pytest.mark.parametrize(
    ("arguments", "config", "message"),
    [
        ({"format": "hubb"}, CONFIG, "Unknown format 'hubb'.*did you mean 'hub'"),
        ({"format": "hub", "shards": 2}, CONFIG, "shards=2 is for the format 'megatron'"),
        ({"format": "megatron", "shards": 7}, CONFIG, "cannot be cut into 7"),
        ({"format": "hub"}, {**CONFIG, "intermediate_size": 20}, "not 4 x hidden_size"),
        ({"format": "megatron"}, {"hidden_size": 8}, "lacks num_layers"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, arguments, config, message):
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(tmp_path / "m", config=config, state_dict=weights(), **arguments)
    assert list(tmp_path.iterdir()) == []


def test_weights_without_embeddings_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="not a GLM's"):
        write_checkpoint(tmp_path / "m", "hub", CONFIG, {"a": torch.zeros(1)})


def test_existing_folders_are_safe(tmp_path):
    target = tmp_path / "m"
    target.mkdir()
    write_checkpoint(target, "glmkit", CONFIG, weights())  # empty: allowed
    with pytest.raises(CheckpointError, match="not empty.*overwrite=True"):
        write_checkpoint(target, "hub", CONFIG, weights())
    write_checkpoint(target, "hub", CONFIG, weights(torch.float16), overwrite=True)
    assert read_checkpoint(target).format == "hub"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.tex").write_text("")
    with pytest.raises(CheckpointError, match="not replaced, because it is no checkpoint"):
        write_checkpoint(thesis, "hub", CONFIG, weights(), overwrite=True)
    with pytest.raises(CheckpointError, match="is a file"):
        write_checkpoint(thesis / "chapter.tex", "hub", CONFIG, weights(), overwrite=True)


def test_a_failure_leaves_the_old_folder(tmp_path):
    write_checkpoint(tmp_path / "m", "glmkit", CONFIG, weights())

    def fail_halfway():
        with new_folder(tmp_path / "m", overwrite=True) as temporary:
            (temporary / "config.json").write_text("")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fail_halfway()
    assert equal(read_checkpoint(tmp_path / "m").state_dict, weights())
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
