"""A GLM that reads media, as a model: what it computes, what learns, how it is written and read again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import glmkit
from glmkit.blanks.layout import Piece, collate, find_masks, lay_out
from glmkit.checkpoint.adapters import media_folder
from glmkit.errors import CheckpointError, ConfigError, MediaError
from glmkit.model import GLMForConditionalGeneration
from glmkit.model.adapters import add_lora, load_merged, save_adapter
from glmkit.multimodal.media import as_medium
from glmkit.multimodal.modeling import GLMForMultimodalGeneration, load_media
from glmkit.multimodal.processor import MediaProcessor, shift_rows
from glmkit.multimodal.reader import KEPT, MediaReader
from glmkit.native import library
from glmkit.native.quantizing import quantize
from glmkit.special_tokens import FIRST_MEDIA_ID
from glmkit.tokens.blanked import encode_pieces, split_at_blanks
from media_samples import (
    ROWS,
    clip_bytes,
    clip_frames,
    image_bytes,
    media_glm,
    picture,
    tiny_media,
    tone,
    wav_bytes,
    write_media_model,
)
from understanding_samples import random_glm

IMAGES = [image_bytes(picture(seed=seed)) for seed in range(3)]
SOUNDS = [wav_bytes(tone(hertz)) for hertz in (300, 900)]
CLIP = clip_bytes(clip_frames(6))

# Texts, their media, what is in the blank.
ASKED = [
    ("<|image|>，很快[MASK]。", [("image", IMAGES[0])], "好吃"),
    ("好<|audio|>吃，<|image|>[MASK]", [("audio", SOUNDS[0]), ("image", IMAGES[1])], "很快，好"),
    ("<|video|>，<|image|>和<|image|>：[MASK]！", [("video", CLIP), ("image", IMAGES[0]), ("image", IMAGES[2])], "太慢"),
    ("没有图，很快[MASK]", [], "味道"),
    ("量大[MASK]，<|audio|>", [("audio", SOUNDS[1])], "凉"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_media_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder):
    return GLMForMultimodalGeneration.from_pretrained(folder).eval()


def batch_of(model, asked) -> dict[str, torch.Tensor]:
    """Returns texts with media as a batch, laid out as everything is."""
    tokenizer = random_glm(128).tokenizer
    specials = tokenizer.special_ids
    processor = MediaProcessor.of(model.media)
    media = [[as_medium(kind, given) for kind, given in some] for _, some, _ in asked]
    prepared = processor([one for some in media for one in some])
    runs = iter(zip(prepared.first_rows, prepared.counts, strict=True))
    examples = []
    for (text, _, answer), some in zip(asked, media, strict=True):
        counts = [processor.count_rows(one) for one in some]
        body = encode_pieces(tokenizer, split_at_blanks(tokenizer, text), counts)
        ids = shift_rows(np.array([specials.cls, *body, specials.eos]), [next(runs) for _ in some])
        [mask] = find_masks(ids, specials.masks)
        contents = np.array(tokenizer(answer, add_special_tokens=False)["input_ids"])
        examples.append(lay_out(ids, [Piece(int(mask), contents, specials.eop)], specials.sop))
    batch = {name: torch.from_numpy(one) for name, one in collate(examples, specials.pad).items()}
    return {**batch, **prepared.tensors}


def run(model, asked) -> list[torch.Tensor]:
    """Returns the logits of each row, without padding."""
    batch = batch_of(model, asked)
    with torch.no_grad():
        logits = model(**batch).logits
    lengths = [int((row != -100).nonzero().max()) + 1 for row in batch["labels"]]
    return [row[:length] for row, length in zip(logits, lengths, strict=True)]


def parts(model) -> dict[str, torch.Tensor]:
    return {name: one.detach().clone() for name, one in model.named_parameters()}


# -- what it computes ----------------------------------------------------------------------------------------------


def test_a_batch_of_mixed_media_is_its_rows_one_by_one(model):
    together = run(model, ASKED)
    for asked, found in zip(ASKED, together, strict=True):
        [alone] = run(model, [asked])
        torch.testing.assert_close(found, alone, atol=2e-5, rtol=1e-4)


def test_rows_stand_in_part_a_like_words(model):
    """Positions count them one by one, all of part A sees them, and they see the text after them."""
    text, some, answer = ASKED[1]
    batch = batch_of(model, [ASKED[1]])
    ids = batch["input_ids"][0]
    rows = (ids >= FIRST_MEDIA_ID).nonzero()[:, 0]
    assert len(rows) == ROWS["audio"] + ROWS["image"]
    place, block = batch["position_ids"][0]
    assert torch.equal(place[rows], rows)
    assert not block[rows].any()
    assert int(batch["prefix_lengths"][0]) > int(rows.max())
    [before] = run(model, [(text, some, answer)])
    first = int(rows[0])
    # Another picture changes what is made of the text before it, and of the sound.
    [after] = run(model, [(text, [some[0], ("image", IMAGES[2])], answer)])
    assert (before[first - 1] - after[first - 1]).abs().max() > 1e-4
    assert (before[first] - after[first]).abs().max() > 1e-4
    # Another answer changes nothing in part A.
    [other] = run(model, [(text, some, "很快，慢")])
    prefix = int(batch["prefix_lengths"][0])
    torch.testing.assert_close(before[:prefix], other[:prefix])


def test_media_are_read_in_the_order_of_their_places(model):
    text, (clip, one, two), answer = ASKED[2]
    [found] = run(model, [(text, [clip, one, two], answer)])
    [swapped] = run(model, [(text, [clip, two, one], answer)])
    assert (found - swapped).abs().max() > 1e-3


def test_what_is_given_twice_is_encoded_once(model, monkeypatch):
    same = ("image", IMAGES[0])
    batch = batch_of(model, [("<|image|><|image|>[MASK]", [same, same], "好"), ASKED[0]])
    assert batch["images"].shape[0] == 1
    glm = media_glm()
    reader = MediaReader(glm.media.model)
    counted = []
    encode = reader._encode
    monkeypatch.setattr(reader, "_encode", lambda media: counted.append(len(media)) or encode(media))  # fmt: skip
    image, sound = as_medium("image", IMAGES[0]), as_medium("audio", SOUNDS[0])
    first = reader.rows([image, sound, as_medium("image", IMAGES[0])])
    again = reader.rows([as_medium("audio", SOUNDS[0]), image])
    assert counted == [2]
    assert torch.equal(first[1], again[0])
    assert torch.equal(first[0], first[2])
    # No more than some are kept, those that were asked for lately.
    many = [as_medium("image", picture((value, 0, 0))) for value in range(KEPT)]
    for one in many:
        reader.rows([image, one])
    counted.clear()
    reader.rows([image])
    assert not counted
    reader.rows([sound])
    assert counted == [1]


def test_a_file_that_changes_is_read_anew(tmp_path):
    reader = MediaReader(media_glm().media.model)
    path = tmp_path / "a.wav"
    counts = []
    for seconds in (0.5, 2.5):
        path.write_bytes(wav_bytes(tone(seconds=seconds)))
        medium = as_medium("audio", path)
        assert len(reader.rows([medium])[0]) == reader.count_rows(medium)
        counts.append(reader.count_rows(medium))
    assert counts == [2, 6]
    path.unlink()
    with pytest.raises(MediaError, match="cannot be read"):
        reader.rows([as_medium("audio", path)])


def test_a_kind_that_it_does_not_read():
    glm = random_glm(128)
    reader = MediaReader(tiny_media(glm.model, ["audio"]))
    with pytest.raises(MediaError, match="this model reads no image; it reads audio"):
        reader.rows([as_medium("image", IMAGES[0])])
    with pytest.raises(ConfigError, match="reads no image; it reads audio"):
        reader.model.rows("image")


def test_bfloat16(folder, model):
    half = GLMForMultimodalGeneration.from_pretrained(folder, dtype=torch.bfloat16).eval()
    assert {one.dtype for one in half.parameters()} == {torch.bfloat16}
    for one, other in zip(run(half, ASKED), run(model, ASKED), strict=True):
        assert one.dtype == torch.bfloat16
        cosine = torch.nn.functional.cosine_similarity(one.float(), other, dim=-1)
        assert cosine.min() > 0.99


# -- what learns ---------------------------------------------------------------------------------------------------


def test_gradients_reach_what_is_read_and_nothing_else():
    glm = random_glm(128).model
    media = tiny_media(glm, seed=3)
    model = GLMForMultimodalGeneration.of(glm, media)
    table = torch.randn(20, 32, requires_grad=True)
    batch = batch_of(model, [ASKED[0]])
    images = batch.pop("images")
    model(**batch, media_embeds=table).loss.backward()
    assert (table.grad[: ROWS["image"]].abs().amax(1) > 0).all()
    assert not table.grad[ROWS["image"] :].any()  # rows that nobody reads
    model.zero_grad()
    model(**batch, images=images).loss.backward()
    learning = {name for name, one in media.named_parameters() if one.grad is not None and one.grad.any()}  # fmt: skip
    for name in ("encoder.model", "projector.norm", "projector.up", "projector.out"):
        assert any(one.startswith(f"towers.image.{name}") for one in learning), name
    assert not any(one.startswith(("towers.audio", "towers.video")) for one in learning)
    assert model.glm.word_embeddings.weight.grad.any()
    glm.zero_grad()


def test_a_batch_without_media_has_a_gradient_of_zeros_where_nothing_else_learns():
    """The GLM frozen, a batch of texts alone: its loss had no gradient, and the step failed; with the GLM learning nothing is added."""
    glm = random_glm(128).model
    model = GLMForMultimodalGeneration.of(glm, tiny_media(glm, seed=3)).train()
    model.requires_grad_(False)
    model.media.train_parts(("projector",))
    batch = batch_of(model, [ASKED[3]])
    torch.manual_seed(0)
    loss = model(**batch).loss
    loss.backward()
    found = [one.grad for one in model.parameters() if one.grad is not None]
    assert len(found) == 1
    assert not found[0].any()
    model.eval()
    assert not model(**batch).loss.requires_grad
    glm.requires_grad_(True)
    model.train()
    model.zero_grad()
    torch.manual_seed(0)
    trained = model(**batch).loss
    trained.backward()
    assert float(trained.detach()) == pytest.approx(float(loss.detach()), abs=1e-6)
    assert all(one.grad is None for one in model.media.parameters())
    glm.zero_grad()
    glm.eval()  # others use it too


@pytest.mark.parametrize("trained", [(), ("projector",), ("encoder",), ("encoder", "projector")])
@pytest.mark.parametrize("language", ["all", "frozen", "lora"])
def test_freezing(folder, trained: tuple, language: str):
    if not trained and language == "frozen":
        pytest.skip("nothing would learn")
    model = GLMForMultimodalGeneration.from_pretrained(folder).train()
    model.requires_grad_(language == "all")
    wrapped = add_lora(model, rank=2) if language == "lora" else model
    model.media.train_parts(trained)
    before = parts(wrapped)
    batch = batch_of(model, ASKED)
    optimizer = torch.optim.SGD([one for one in wrapped.parameters() if one.requires_grad], 0.5)
    wrapped(**batch).loss.backward()
    optimizer.step()
    changed = {name for name, one in wrapped.named_parameters() if not torch.equal(one, before[name])}  # fmt: skip
    found = {
        "encoder": any(".encoder." in name and "towers" in name for name in changed),
        "projector": any(".projector." in name or ".times." in name for name in changed),
        "lora": any("lora_" in name for name in changed),
        "language": any("towers" not in name and "lora_" not in name for name in changed),
    }
    assert found == {
        "encoder": "encoder" in trained,
        "projector": "projector" in trained,
        "lora": language == "lora",
        "language": language == "all",
    }


# -- writing and reading -------------------------------------------------------------------------------------------


def same_weights(one, other) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def test_it_is_written_and_read_again(folder, model, tmp_path):
    model.save_pretrained(tmp_path / "again")
    again = GLMForMultimodalGeneration.from_pretrained(tmp_path / "again").eval()
    same_weights(model, again)
    for one, other in zip(run(model, ASKED), run(again, ASKED), strict=True):
        assert torch.equal(one, other)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"model.safetensors", "media/model.safetensors", "media/config.json"} <= files


def test_without_its_media_it_is_a_glm(folder, model):
    """Whatever reads GLMs reads the folder: the class, AutoConfig's model type, the native decoder."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["GLMForConditionalGeneration"]
    glm = GLMForConditionalGeneration.from_pretrained(folder)
    same_weights(glm.glm, model.glm)
    expected = [media_glm().generate(text, max_new_tokens=6) for text in ("好吃[MASK]", "很快[gMASK]")]  # fmt: skip
    for backend in ("torch", "native"):
        if backend == "native" and library.why_not() is not None:
            continue
        loaded = glmkit.load(folder, device="cpu", backend=backend)
        assert loaded.generate(["好吃[MASK]", "很快[gMASK]"], max_new_tokens=6) == expected
        assert loaded.media.kinds == ("image", "audio", "video")
        seen = loaded.generate("<|image|>好吃[MASK]", images=IMAGES[0], max_new_tokens=6)
        assert seen == media_glm().generate("<|image|>好吃[MASK]", images=IMAGES[0], max_new_tokens=6)  # fmt: skip


def test_a_quantized_folder_reads_media_too(folder, tmp_path):
    """The bug: `quantize` left the folder `media` behind, and the model was blind."""
    quantize(folder, tmp_path / "int8", "int8")
    glm = glmkit.load(tmp_path / "int8", device="cpu")
    assert glm.media.kinds == ("image", "audio", "video")
    asked = {"images": IMAGES[0], "audios": SOUNDS[0], "max_new_tokens": 3}
    assert glm.generate("好吃[MASK]", **asked)
    torch.testing.assert_close(
        glm.media.rows([as_medium("image", IMAGES[0])])[0],
        media_glm().media.rows([as_medium("image", IMAGES[0])])[0],
    )


def adapter(base: Path, target: Path, seed: int, media: bool = True) -> Path:
    """Writes a LoRA adapter with random weights, whose media were trained, or without any."""
    cls = GLMForMultimodalGeneration if media else GLMForConditionalGeneration
    model = cls.from_pretrained(base) if media else load_merged(cls, base)
    model.name_or_path = str(base)
    torch.manual_seed(seed)
    wrapped = add_lora(model, rank=2)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name or ("projector.out" in name and media):
            torch.nn.init.normal_(parameter, std=0.2)
    save_adapter(wrapped, target)
    random_glm(128).tokenizer.save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def adapters(folder, tmp_path_factory) -> dict[str, Path]:
    """An adapter with media, one on it with media, and one on it without."""
    pytest.importorskip("peft")
    place = tmp_path_factory.mktemp("adapters")
    one = adapter(folder, place / "one", 1)
    return {
        "one": one,
        "two": adapter(one, place / "two", 2),
        "text": adapter(one, place / "text", 3, media=False),
    }


def test_adapters_and_adapters_of_adapters(folder, adapters, model):
    for name, path in adapters.items():
        assert not (path / "model.safetensors").exists()
        own = adapters["one"] if name == "text" else path
        assert media_folder(path) == own / "media"
        loaded = GLMForMultimodalGeneration.from_pretrained(path).eval()
        same_weights(loaded.media, load_media(own))
        assert (run(loaded, ASKED[:1])[0] - run(model, ASKED[:1])[0]).abs().max() > 1e-2
        glm = glmkit.load(path, device="cpu")
        asked = {"images": IMAGES[1], "max_new_tokens": 5}
        expected = glmkit.GLM(loaded, glm.tokenizer, media=MediaReader(loaded.media))
        assert glm.generate("好吃[MASK]", **asked) == expected.generate("好吃[MASK]", **asked)


def test_merged_it_is_one_model(adapters, tmp_path):
    from peft import PeftModel

    base = GLMForMultimodalGeneration.from_pretrained(adapters["one"])
    second = PeftModel.from_pretrained(base, adapters["two"])
    merged = second.merge_and_unload()
    merged.media = load_media(adapters["two"])
    merged.save_pretrained(tmp_path)
    same_weights(
        GLMForMultimodalGeneration.from_pretrained(tmp_path),
        GLMForMultimodalGeneration.from_pretrained(adapters["two"]),
    )


def test_an_adapter_quantized_keeps_the_media_of_its_base(adapters, tmp_path):
    quantize(adapters["text"], tmp_path / "int8", "int8")
    same_weights(load_media(tmp_path / "int8"), load_media(adapters["one"]))


def test_adapters_side_by_side_have_their_own_media(folder, adapters):
    """The bug: what was loaded while another adapter worked took that one's media for the base's."""
    glm = glmkit.load(folder, device="cpu")
    base = glm.media
    glm.load_adapter(adapters["one"], "one")
    glm.set_adapter("one")
    own = glm.media
    assert own is not base
    text = adapter(folder, adapters["one"].parent / "plain", 4, media=False)
    glm.load_adapter(text, "plain")
    glm.set_adapter("plain")
    assert glm.media is base
    glm.set_adapter("one")
    assert glm.media is own
    expected = glmkit.load(adapters["one"], device="cpu", backend="torch")
    asked = {"images": IMAGES[1], "max_new_tokens": 5}
    assert glm.generate("好吃[MASK]", **asked) == expected.generate("好吃[MASK]", **asked)
    glm.set_adapter(None)
    assert glm.media is base


def test_folders_that_cannot_be_read(folder, tmp_path):
    plain = tmp_path / "plain"
    GLMForConditionalGeneration.from_pretrained(folder).save_pretrained(plain)
    with pytest.raises(
        CheckpointError, match="reads no media: it has no folder 'media'. Train one"
    ):
        GLMForMultimodalGeneration.from_pretrained(plain)
    broken = write_media_model(tmp_path / "broken")
    (broken / "media" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"media cannot be read"):
        GLMForMultimodalGeneration.from_pretrained(broken)
    glm = glmkit.load(broken, device="cpu")  # who asks about texts alone is served
    assert glm.generate("好吃[MASK]", max_new_tokens=2)
    with pytest.raises(CheckpointError, match=r"media cannot be read"):
        glm.generate("好吃[MASK]", images=IMAGES[0])
    weights = safetensors.torch.load_file(folder / "media" / "model.safetensors")
    weights.pop("towers.image.projector.out.bias")
    safetensors.torch.save_file(weights, broken / "media" / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"lacks 1 weights .* towers.image.projector.out.bias"
    ):
        GLMForMultimodalGeneration.from_pretrained(broken)
    (broken / "media" / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"media cannot be read"):
        glmkit.load(broken, device="cpu")
    narrow = tiny_media(media_glm().model)
    narrow.config.hidden_size = 8
    with pytest.raises(ConfigError, match="rows are 8 wide, the GLM's embeddings 32"):
        GLMForMultimodalGeneration.of(media_glm().model, narrow)


@pytest.mark.parametrize(("kept_bytes", "read_again"), [(2**30, 0), (1, 4)])
def test_what_is_kept_is_read_once_and_is_the_same(model, kept_bytes, read_again, monkeypatch):
    """Of what does not fit, each is read again."""
    media = [as_medium("image", picture(seed=seed)) for seed in range(2)]
    media += [as_medium("audio", (tone(500), 16_000)), as_medium("video", clip_frames())]
    expected = MediaProcessor.of(model.media)(media)
    processor = MediaProcessor.of(model.media, kept_bytes)
    processor(media)
    read, made = [], processor._made
    monkeypatch.setattr(
        processor, "_made", lambda kind, some: read.extend(some) or made(kind, some)
    )
    found = processor([*media, media[0]])
    assert len(read) == read_again
    assert found.first_rows == [*expected.first_rows, expected.first_rows[0]]
    for name, one in expected.tensors.items():
        assert torch.equal(found.tensors[name], one)


def test_a_file_that_has_changed_is_read_anew(model, tmp_path):
    path = tmp_path / "one.png"
    processor, seen = MediaProcessor.of(model.media, 2**30), []
    for seed in range(2):
        path.write_bytes(image_bytes(picture(seed=seed)))
        seen.append(processor([as_medium("image", path)]).tensors["images"])
    assert not torch.equal(*seen)
