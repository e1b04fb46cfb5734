"""Encoders of transformers: every architecture as its real class with small random weights, from a checkpoint as it is published."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from glmkit.errors import ConfigError
from glmkit.multimodal.building import build_media
from glmkit.multimodal.configuration import MediumConfig
from glmkit.multimodal.encoders import ENCODERS, Architecture, picture_side
from glmkit.multimodal.media import as_medium
from glmkit.multimodal.modeling import load_media
from glmkit.multimodal.processor import MediaProcessor
from media_samples import TINY, media_glm, picture, tiny_media, tone, wav_bytes
from understanding_samples import random_glm

VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}  # fmt: skip
TEXT = {**VISION, "vocab_size": 40, "max_position_embeddings": 8}
CONVOLUTIONS = {
    "conv_dim": (8, 8),
    "conv_stride": (10, 8),
    "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_length": 2,
}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 3,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_mel_bins": 80,
    "max_source_positions": 50,
    "max_target_positions": 8,
    "vocab_size": 60,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1),
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
MEAN = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.9, 0.8, 0.7]}


def published(name: str, folder: Path) -> tuple[Path, str]:
    """Writes a checkpoint as its authors publish it, with its own preprocessor; returns it and the `model_type` that is read."""
    torch.manual_seed(1)
    if name in ("clip", "siglip"):  # of pictures and texts
        prefix = {"clip": "CLIP", "siglip": "Siglip"}[name]
        vision = {**VISION, "image_size": 32, "patch_size": 8}
        config = getattr(transformers, f"{prefix}Config")(text_config=TEXT, vision_config=vision, projection_dim=16)  # fmt: skip
        model = getattr(transformers, f"{prefix}Model")(config)
        read = f"{name}_vision_model"
        settings = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        if name == "siglip":
            settings = {"size": {"height": 32, "width": 32}}
    else:
        read = name
        kept = ENCODERS[name]
        if name == "whisper":
            values, settings = WHISPER, {"feature_size": 80, "chunk_length": 1}
        elif kept.makes_map:
            values = {
                "hidden_sizes": [8, 16],
                "depths": [1, 1],
                "num_stages": 2,
                "embedding_size": 8,
            }
            settings = {"size": {"shortest_edge": 32}, "do_center_crop": False}
        elif kept.kind == "audio":
            values, settings = {**VISION, **CONVOLUTIONS}, {"do_normalize": True}
        else:
            values = {**VISION, "image_size": 64, "patch_size": 8}
            if "dino" not in name:
                values["image_size"] = 32
            settings = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
            settings |= {"do_center_crop": True} if "dino" in name else {"size": {"height": 32, "width": 32}}  # fmt: skip
        model = getattr(transformers, kept.model)(getattr(transformers, kept.config)(**values))
    tool = getattr(transformers, ENCODERS[read].processor)
    tool(**settings, **(MEAN if ENCODERS[read].kind == "image" else {})).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder, read


@pytest.mark.parametrize("name", [*ENCODERS, "clip", "siglip"])
def test_a_published_checkpoint_is_the_encoder(name: str, tmp_path):
    folder, read = published(name, tmp_path)
    kept = ENCODERS[read]
    kind = kept.kind
    glm = random_glm().model
    given = {kind: MediumConfig(encoder=str(folder), seconds=1.0, merge=3)}
    media = build_media(given, {kind}, glm).eval()
    assert media.config.of(kind).values["model_type"] == read
    # The weights are the checkpoint's, all of them.
    whole = getattr(transformers, kept.model).from_pretrained(folder).eval()
    source = whole if kept.part is None else kept.part(whole)
    expected = source.state_dict()
    own = media.towers[kind].encoder
    for key, value in own.model.state_dict().items():
        assert torch.equal(value, expected[key]), key
    # Its preprocessor is its own, but for what would cut the picture.
    processor = MediaProcessor.of(media)
    tool = processor.tools[kind]
    if kind == "image":
        assert list(tool.image_mean) == MEAN["image_mean"]
        grid = (4, 4)
        medium = as_medium("image", picture(seed=4, size=(50, 20)))
        prepared = processor([medium]).tensors["images"]
        assert prepared.shape == (1, 3, 32, 32)
        left = (1 - np.array(MEAN["image_mean"])) / MEAN["image_std"]
        np.testing.assert_allclose(prepared[0, :, 0, 16], left, atol=0.02)  # the white bar
        features = source(prepared).last_hidden_state
        features = features.flatten(2).mT if kept.makes_map else features[:, -16:]
    else:
        grid = (50, 1) if read == "whisper" else (200, 1)
        medium = as_medium("audio", wav_bytes(tone(seconds=1.6)))
        prepared = processor([medium]).tensors["audios"]
        assert len(prepared) == 2
        features = source(prepared).last_hidden_state
    assert own.grid == grid
    with torch.no_grad():
        torch.testing.assert_close(own(prepared), features, atol=1e-5, rtol=1e-4)
        # 3 does not divide the grid: it is filled up.
        rows = (-(-grid[0] // 3)) * (-(-grid[1] // 3))
        assert media.rows(kind) == rows
        table = media(**{f"{kind}s": prepared})
    assert table.shape == (rows * len(prepared), 32)
    assert table.isfinite().all()
    assert processor.count_rows(medium) == len(table)
    # It is written and read again, the preprocessor with it, and needs the checkpoint no more.
    media.save_pretrained(tmp_path / "model" / "media")
    for file in folder.glob("*.safetensors"):
        file.unlink()
    again = load_media(tmp_path / "model")
    assert again is not None
    assert json.loads(again.config.to_json_string())["media"] == json.loads(media.config.to_json_string())["media"]  # fmt: skip
    with torch.no_grad():
        found = again(**MediaProcessor.of(again)([medium]).tensors)
    assert torch.equal(found, table)


@pytest.mark.parametrize("name", ["clip_vision_model", "dinov2", "whisper", "wav2vec2"])
def test_the_layer_before_the_last(name: str, tmp_path):
    """As LLaVA reads CLIP: without what the last layer makes of it."""
    folder, _ = published(name, tmp_path)
    kept = ENCODERS[name]
    given = {kept.kind: MediumConfig(encoder=str(folder), seconds=1.0, layer=-2)}
    media = build_media(given, {kept.kind}, random_glm().model).eval()
    own = media.towers[kept.kind].encoder
    values = torch.randn(1, 3, 32, 32) if kept.kind == "image" else torch.randn(1, 80, 100)
    if name == "wav2vec2":
        values = torch.randn(1, 16_000)
    with torch.no_grad():
        before = own(values)
        last = own.model.layers[-1] if name == "whisper" else None
        hidden = own.model(values, output_hidden_states=True).hidden_states
        torch.testing.assert_close(before, hidden[-2][:, -before.shape[1] :])
        assert before.shape[1] == own.grid[0] * own.grid[1]
        if last is not None:
            for parameter in last.parameters():
                parameter.zero_()
            assert torch.equal(own(values), before)
    with pytest.raises(ConfigError, match="the encoder has 3 layers"):
        build_media({kept.kind: MediumConfig(encoder=str(folder), seconds=1.0, layer=-4)}, [], random_glm().model)  # fmt: skip


def test_a_resampler_has_as_many_rows_as_queries():
    glm = random_glm().model
    fields = {kind: {"projector": "resampler", "queries": 3} for kind in TINY}
    media = tiny_media(glm, **fields).eval()
    assert [media.rows(kind) for kind in TINY] == [3, 3, 9]
    found = MediaProcessor.of(media)([as_medium("image", picture(seed=1))])
    with torch.no_grad():
        table = media(**found.tensors)
    assert table.shape == (3, 32)
    assert (table.std(0) > 1e-3).any()  # the queries ask for different things


@pytest.mark.parametrize("projector", ["mlp", "resampler"])
def test_new_rows_are_as_large_as_words(projector: str):
    """So that the GLM neither overlooks them nor sees nothing else."""
    glm = random_glm().model
    words = glm.glm.word_embeddings.weight.std()
    media = tiny_media(glm, **{kind: {"projector": projector} for kind in TINY}).eval()
    some = [
        as_medium("image", picture(seed=1)),
        as_medium("audio", wav_bytes()),
        as_medium("video", (np.random.default_rng(0).integers(0, 255, (4, 9, 9, 3)).astype(np.uint8), 2)),
    ]  # fmt: skip
    prepared = MediaProcessor.of(media)(some)
    with torch.no_grad():
        table = media(**prepared.tensors)
    for first, count in zip(prepared.first_rows, prepared.counts, strict=True):
        assert 0.4 < float(table[first : first + count].std() / words.detach()) < 2.5


def test_a_merge_larger_than_the_grid_makes_one_row():
    glm = random_glm().model
    media = tiny_media(glm, ["image", "audio"], image={"merge": 100}, audio={"merge": 100})
    assert [media.rows(kind) for kind in media.config.kinds] == [1, 1]


def test_windows_of_a_sound():
    """The end of a codec's last frame is no window of its own; any other rest is."""
    processor = media_glm().media.processor
    for seconds, windows in (
        (0.02, 1),
        (0.5, 1),
        (1.0, 1),
        (1.09, 1),
        (1.2, 2),
        (2.0, 2),
        (2.5, 3),
    ):
        medium = as_medium("audio", wav_bytes(tone(seconds=seconds, rate=44_100), 44_100))
        assert processor.count_rows(medium) == 2 * windows, seconds
        assert len(processor([medium]).tensors["audios"]) == windows


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("image", {"encoder": {"model_type": "vgg"}}, r"no encoder of the model_type 'vgg' for image\. There are clip_vision"),
        ("image", {"encoder": {"model_type": "dinov3"}}, "did you mean 'dinov2'"),
        ("audio", {"encoder": {"model_type": "dinov2"}}, r"for audio\. There are whisper"),
        ("image", {"encoder": {}}, "must be the configuration of a transformers encoder with its model_type"),
        ("image", {"encoder": {**TINY["image"]["encoder"], "hidden_size": 15}}, "media.image.encoder"),
        ("image", {"encoder": "no/such-model"}, "'no/such-model' cannot be read"),
        ("audio", {"seconds": 2.0}, "reads 1.0 s at a time"),
        ("audio", {"encoder": {"model_type": "wav2vec2", **VISION}, "seconds": 0.001}, "makes no features"),
        ("image", {"encoder": {**TINY["image"]["encoder"], "image_size": 3}}, "makes no features"),
        ("image", {"preprocessor": {"size": {"height": 8, "width": 8}}}, "makes pictures of 8 x 8 pixels, the encoder siglip_vision_model reads 16 x 16"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(kind: str, fields: dict, said: str):
    with pytest.raises(ConfigError, match=said):
        tiny_media(random_glm().model, [kind], **{kind: fields})


@pytest.mark.parametrize(
    "fields",
    [{"merge": 0}, {"queries": 0}, {"frames": 0}, {"projector": "linear"}, {"layer": 0}, {"seconds": 0}],
)  # fmt: skip
def test_numbers_that_cannot_be(fields: dict):
    [name] = fields
    with pytest.raises(ConfigError, match=name):
        MediumConfig(encoder={}, **fields)


def test_a_checkpoint_that_is_no_encoder(tmp_path):
    transformers.BertConfig(hidden_size=8).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no encoder of the model_type 'bert' for image"):
        tiny_media(random_glm().model, ["image"], image={"encoder": str(tmp_path)})
    folder, _ = published("clip", tmp_path / "clip")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    few = {name: one for name, one in weights.items() if "layers.1." not in name}
    safetensors.torch.save_file(few, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="lacks 16 weights of CLIPVisionModel"):
        tiny_media(random_glm().model, ["image"], image={"encoder": str(folder)})
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        tiny_media(random_glm().model, ["image"], image={"encoder": str(folder)})


def test_dinov2_reads_what_its_preprocessor_makes():
    """The published ones were trained at 518 pixels and are given 224."""
    values = {"model_type": "dinov2", "image_size": 518, "patch_size": 14}
    cut = {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 256}}  # fmt: skip
    assert picture_side(values, cut) == 224
    assert picture_side(values, {**cut, "do_center_crop": False}) == 256
    assert picture_side(values, {}) == 518


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (Architecture("image", "ViTConfg", "ViTModel", "ViTImageProcessorPil"), "the class 'ViTConfg'.*did you mean 'ViTConfig'"),
        (Architecture("image", "ViTConfig", "ViTModl", "ViTImageProcessorPil"), "the class 'ViTModl'.*did you mean 'ViTModel'"),
        (Architecture("image", "ViTConfig", "ViTModel", "ViTImageProcessorPil", makes_map=True), "ViTConfig has no hidden_sizes.*as a map"),
        (Architecture("image", "RegNetConfig", "RegNetModel", "BitImageProcessorPil"), "RegNetConfig has no hidden_size, num_hidden_layers, patch_size.*as patches"),
    ],
)  # fmt: skip
def test_a_line_of_the_table_that_is_wrong_says_how(monkeypatch, kept: Architecture, said: str):
    monkeypatch.setitem(ENCODERS, "mine", kept)
    with pytest.raises(ConfigError, match=said):
        build_media({"image": MediumConfig(encoder={"model_type": "mine"})}, [], random_glm().model)


def test_an_encoder_that_merges_patches_is_refused(monkeypatch):
    """Swin makes a quarter of the features after each stage; the grid of its patches would be read out of nothing."""
    kept = Architecture("image", "SwinConfig", "SwinModel", "ViTImageProcessorPil")
    monkeypatch.setitem(ENCODERS, "swin", kept)
    values = {"model_type": "swin", "image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}  # fmt: skip
    media = build_media({"image": MediumConfig(encoder=values)}, ["image"], random_glm().model)
    with pytest.raises(ConfigError, match="swin makes 16 features of one, not 8 x 8"):
        media.towers["image"].encoder(torch.zeros(1, 3, 32, 32))
