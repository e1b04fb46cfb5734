"""A tiny GLM that reads media, small media made on the fly, and prompts in which rows of embeddings stand for tokens.

Where the rows are words' embeddings, what is read is the same, so all that is made of it must be, too.
"""

from __future__ import annotations

import base64
import io
import re
import struct
import wave
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import glmkit
from glmkit.blanks.layout import find_masks
from glmkit.generation.prompts import MediaRun, Prompt, build_prompt
from glmkit.multimodal.building import build_media
from glmkit.multimodal.configuration import MediumConfig
from glmkit.multimodal.modeling import GLMForMultimodalGeneration
from glmkit.multimodal.reader import MediaReader
from glmkit.special_tokens import FIRST_MEDIA_ID
from glmkit.tokens.blanked import encode_pieces, split_at_blanks
from understanding_samples import random_glm

PHOTOS = """name: photos
kind: classification
metric: accuracy
media: {photo: image}
fields: {photo: a picture, kind: the label}
label: kind
labels: {cat: {zh: 好}, dog: {zh: 快}}
patterns: {zh: ["{media}是[MASK]。"]}
"""
"""A classification whose records are pictures alone."""

PAIRS = (
    PHOTOS.replace("name: photos", "name: pairs")
    .replace("{photo: image}", "{photo: image, sound: audio}")
    .replace("fields: {", "fields: {said: a text, sound: a sound, ")
    .replace("{media}是", "{media}{said}是")
)
"""One whose records have a text and a sound, too."""


def prompt_of(glm, text: str) -> Prompt:
    """Returns the prompt of a text without media."""
    return build_prompt(glm.tokenizer, text, glm.model.config.max_sequence_length)


def as_media(glm, text: str | Prompt, seed: int = 0, share: float = 0.5) -> Prompt:
    """Returns a prompt in which some ids (no masks) are rows of a table that has their words' embeddings.

    The rows are in any order, and the table has one that nothing reads.
    """
    prompt = prompt_of(glm, text) if isinstance(text, str) else text
    rng = np.random.default_rng(seed)
    free = np.setdiff1d(np.arange(len(prompt.ids)), prompt.mask_indices)
    chosen = rng.permutation(free)[: max(1, round(share * len(free)))]
    words = glm.model.glm.word_embeddings.weight.detach()
    table = torch.cat(
        (torch.full_like(words[:1], 9.0), words[torch.from_numpy(prompt.ids[chosen])])
    )
    ids = prompt.ids.copy()
    ids[chosen] = FIRST_MEDIA_ID + 1 + np.arange(len(chosen))
    return replace(prompt, ids=ids, embeddings=table)


def with_media(glm, text: str, *tables: torch.Tensor) -> Prompt:
    """Returns the prompt of a text in which `<|image|>`, `<|audio|>` and `<|video|>` stand for tables of rows."""
    ids: list[int] = [glm.tokenizer.special_ids.cls]
    media, row, waiting = [], FIRST_MEDIA_ID, iter(tables)
    for piece in re.split(r"(<\|(?:image|audio|video)\|>)", text):
        if piece.startswith("<|"):
            count = len(next(waiting))
            media.append(MediaRun(piece[2:-2], len(ids), count))
            ids += range(row, row + count)
            row += count
        elif piece:
            ids += encode_pieces(glm.tokenizer, split_at_blanks(glm.tokenizer, piece))
    ids.append(glm.tokenizer.special_ids.eos)
    masks = find_masks(ids, glm.tokenizer.special_ids.masks)
    parts = split_at_blanks(glm.tokenizer, text)[::2]
    return Prompt(np.array(ids), parts, masks, torch.cat(tables), tuple(media))


# -- a tiny model that reads media, and small media --------------------------------------------------------------------

TINY: dict[str, dict] = {
    "image": {
        "encoder": {
            "model_type": "siglip_vision_model",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
        },
        "merge": 2,
    },
    "audio": {
        "encoder": {
            "model_type": "whisper",
            "d_model": 16,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "num_mel_bins": 16,
            "max_source_positions": 50,
        },
        "seconds": 1.0,
        "merge": 25,
    },
    "video": {"frames": 3, "merge": 4},
}
"""Kind -> fields of `MediumConfig`: an image is 4 rows, a second of sound 2, a clip 3."""

ROWS = {"image": 4, "audio": 2, "video": 3}


def tiny_media(glm, kinds=("image", "audio", "video"), seed: int = 0, **fields):
    """Returns a new `GLMMediaModel` for a GLM: `TINY`, of some kinds, with some fields of theirs otherwise."""
    torch.manual_seed(seed)
    given = {kind: MediumConfig(**{**TINY[kind], **fields.get(kind, {})}) for kind in kinds}
    return build_media(given, kinds, glm)


def write_media_model(folder: Path, positions: int = 128) -> Path:
    """Writes a tiny GLM with random weights that reads images, sounds and clips, and its tokenizer."""
    glm = random_glm(positions)
    GLMForMultimodalGeneration.of(glm.model, tiny_media(glm.model)).save_pretrained(folder)
    glm.tokenizer.save_pretrained(folder)
    return folder


@cache
def media_glm(positions: int = 128) -> glmkit.GLM:
    """Returns a tiny GLM with random weights that reads images, sounds and clips; on torch."""
    glm = random_glm(positions)
    reader = MediaReader(tiny_media(glm.model))
    return glmkit.GLM(glm.model, glm.tokenizer, media=reader)


def picture(color=(200, 30, 30), size: tuple[int, int] = (24, 24), seed: int | None = None):
    """Returns an RGB `PIL.Image` of one colour; with a seed of random pixels."""
    if seed is None:
        return Image.new("RGB", size, color)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


def image_bytes(image=None, kind: str = "PNG", **options) -> bytes:
    """Returns a picture as a file."""
    file = io.BytesIO()
    (picture() if image is None else image).save(file, kind, **options)
    return file.getvalue()


def tone(hertz: float = 440.0, seconds: float = 0.5, rate: int = 16_000) -> np.ndarray:
    """Returns a sine of half of the full size, float32 [samples]."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32
    )


def wav_bytes(samples=None, rate: int = 16_000) -> bytes:
    """Returns samples [n] or [channels, n] in [-1, 1] as a WAV file of 16 bits."""
    channels = np.atleast_2d(tone() if samples is None else samples)
    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setnchannels(len(channels))
        target.setsampwidth(2)
        target.setframerate(rate)
        target.writeframes((channels.T * 32767).round().astype("<i2").tobytes())
    return file.getvalue()


def clip_frames(count: int = 8, size: int = 32) -> np.ndarray:
    """Returns frames that become brighter from one to the next, uint8 [count, size, size, 3]."""
    levels = np.linspace(0, 240, count).round().astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, size, size, 3)).copy()


def clip_bytes(frames=None, rate: int = 8, kind: str = "mp4", codec: str = "mpeg4") -> bytes:
    """Returns frames uint8 [n, height, width, 3] as a clip."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate)
        some = clip_frames() if frames is None else frames
        stream.height, stream.width = some.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for one in some:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(one, "rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def write_sound_and_clip(folder: Path) -> None:
    """Writes `a.wav`, of 1.4 seconds, and `a.mp4`, of five pictures."""
    (folder / "a.wav").write_bytes(wav_bytes(tone(500, 1.4)))
    (folder / "a.mp4").write_bytes(clip_bytes(clip_frames(5)))


def bomb(width: int, height: int) -> bytes:
    """Returns a small PNG of very many pixels, written without ever holding them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + -(-width // 8))) for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", rows + packer.flush()) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@cache
def sources() -> tuple[str, ...]:
    """Returns strings in the place of media: whole files, cut ones, ones of another kind or absurd size, and what is none at all."""
    files = [image_bytes(), image_bytes(picture(seed=1), "GIF"), wav_bytes(), clip_bytes()]
    absurd = wav_bytes(tone(seconds=0.1))[:40] + b"\xff\xff\xff\xff" + bytes(64)  # 37 hours
    whole = [*files, bomb(9_000, 9_000), absurd, b"GIF89a" + b"\xff" * 64, b""]
    cut = [one[: len(one) // 2] for one in files] + [one[:30] for one in files]
    packed = [base64.b64encode(one).decode() for one in (*whole, *cut)]
    url = "data:image/png;base64,"
    damaged = [url, url + "@@@", url + packed[0][:-3], url + packed[0] + "=", "data:image/png," + packed[0], "data:", "data:;;;,", "DATA:a/b;BASE64," + packed[2]]  # fmt: skip
    none = ["", " ", "\0", "no.png", "/dev/zero", "/", "~", "file:///no.png", "http://127.0.0.1:9/a.png", "x" * 5_000, "\ud800", "图.png"]  # fmt: skip
    return (*(f"data:a/b;base64,{one}" for one in packed), *packed, *damaged, *none)
