"""Whatever is given as a picture, sound or clip and is none: an error that says what, what is allowed and what to do, and at once."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from glmkit.errors import MediaError, UserError
from glmkit.multimodal.clips import read_clip
from glmkit.multimodal.images import MAX_PIXELS, read_image, squared
from glmkit.multimodal.media import as_medium, in_order
from glmkit.multimodal.messages import read_parts
from glmkit.multimodal.sounds import read_sound
from media_samples import (
    bomb,
    clip_bytes,
    clip_frames,
    image_bytes,
    media_glm,
    picture,
    tone,
    wav_bytes,
)

av = pytest.importorskip("av", reason="PyAV is not installed")

READ = {
    "image": read_image,
    "audio": lambda one: read_sound(one, 16_000),
    "video": lambda one: read_clip(one, 3),
}


def refused(kind: str, given, **options) -> str:
    """Returns the message of the error that reading raises."""
    with pytest.raises(MediaError) as found:
        READ[kind](as_medium(kind, given, **options))
    assert isinstance(found.value, UserError)
    text = str(found.value)
    assert kind in text  # says what it is about
    return text


FILES = {
    "PNG": ("image", image_bytes(picture(seed=1))),
    "JPEG": ("image", image_bytes(picture(seed=1), "JPEG")),
    "WebP": ("image", image_bytes(picture(seed=1), "WEBP")),
    "GIF": ("image", image_bytes(picture(seed=1), "GIF")),
    "TIFF": ("image", image_bytes(picture(seed=1), "TIFF", compression="tiff_lzw")),
    "WAV": ("audio", wav_bytes()),
    "MP4": ("video", clip_bytes()),
    "AVI": ("video", clip_bytes(kind="avi")),
}


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_read_or_refused_and_nothing_else(name: str):
    """Cut anywhere, bytes changed anywhere: no traceback of Pillow or PyAV, whatever they raise."""
    kind, file = FILES[name]
    rng = np.random.default_rng(0)
    damaged = [file[: int(len(file) * share)] for share in (0.02, 0.1, 0.3, 0.5, 0.8, 0.95)]
    for _ in range(25):
        changed = np.frombuffer(file, np.uint8).copy()
        head = rng.integers(2)  # half of them in the header
        places = rng.integers(0, min(200, len(file)) if head else len(file), rng.integers(1, 12))
        changed[places] = rng.integers(0, 256, len(places))
        damaged.append(changed.tobytes())
    messages = []
    for one in damaged:
        try:
            READ[kind](as_medium(kind, one))
        except MediaError as error:
            messages.append(str(error))
    assert len(messages) >= 2
    assert all(kind in one for one in messages)
    assert "file of 0 bytes" in refused(kind, b"")
    assert "is no image that is read here" in refused("image", b"no such thing" * 50)
    for other in ("audio", "video"):
        assert "cannot be decoded" in refused(other, b"no such thing" * 50)


def test_a_file_of_another_kind():
    image, sound, clip = image_bytes(), wav_bytes(), clip_bytes()
    for file in (sound, clip, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"):
        assert "PNG, JPEG" in refused("image", file)  # what is read; nothing that starts a program
    assert "is it a sound, and whole?" in refused("audio", image)
    assert "is it a clip, and whole?" in refused("video", image)
    assert "holds no sound: it has no audio stream, only video" in refused("audio", clip)
    assert "shows nothing: it has no video stream, only audio" in refused("video", sound)


def test_a_cover_is_no_clip():
    """The picture in a song's file is a stream of video to FFmpeg."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000)
        stream.layout = "mono"
        cover = container.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 32
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        frame = av.AudioFrame.from_ndarray((tone() * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = 16_000
        for one in (frame, None):
            container.mux(stream.encode(one))
        for one in (av.VideoFrame.from_ndarray(clip_frames(1)[0], "rgb24"), None):
            container.mux(cover.encode(one))
    with av.open(io.BytesIO(file.getvalue())) as container:
        kept = container.streams.video[0].disposition & av.stream.Disposition.attached_pic
    if kept:
        assert "shows nothing" in refused("video", file.getvalue())
    assert len(READ["audio"](as_medium("audio", file.getvalue()))) == pytest.approx(8000, abs=2)


def test_a_playlist_opens_no_other_file(tmp_path):
    """FFmpeg would follow it to files and addresses that the user who sent it may not read."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(wav_bytes())
    lists = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{secret}'\n",
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 96\na={secret}\n",
    ]
    for number, text in enumerate(lists):
        path = tmp_path / f"{number}.m3u8"
        path.write_text(text, encoding="utf-8")
        for given in (path, text.encode()):
            assert "cannot be decoded" in refused("audio", given)
            assert "cannot be decoded" in refused("video", given)


@pytest.mark.parametrize("size", [(10_000, 10_000), (14_000, 14_000)])
def test_100_million_pixels_are_refused_before_they_are_decoded(size):
    file = bomb(*size)
    assert len(file) < 500_000
    tracemalloc.start()
    text = refused("image", file)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5_000_000
    assert "64 million" in text
    assert "make it smaller" in text.lower()
    huge = np.broadcast_to(np.uint8(0), (*size, 3))
    assert "64 million" in refused("image", huge)
    assert "64 million" in refused("video", huge[None])


def test_a_long_strip_does_not_fill_the_memory_when_it_becomes_square():
    strip = Image.new("RGB", (MAX_PIXELS // 64, 4))
    assert squared(strip).size == (2048, 2048)
    assert squared(Image.new("RGB", (1, 5000))).size == (2048, 2048)


def test_sounds_that_are_none():
    assert "is 0.000 s long; a sound of at least 0.01 s" in refused("audio", wav_bytes(np.zeros(0)))
    assert "is 0.000 s long" in refused("audio", (np.zeros(0, np.float32), 16_000))
    broken = np.full(16_000, np.nan, np.float32)
    assert "not finite" in refused("audio", (broken, 16_000))
    assert "not finite" in refused("audio", (broken, 8000))
    file = wav_bytes(tone(rate=8000), 8000)
    # 3 in the place of 1: floats, of 32 bits.
    floats = file[:20] + struct.pack("<HHIIHH", 3, 1, 16_000, 64_000, 4, 32) + file[36:40]
    floats += struct.pack("<I", 4 * len(broken)) + broken.tobytes()
    assert "not finite" in refused("audio", floats)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((np.zeros((1000, 2)), 16_000), r"shape \[1000, 2\]"),
        ((np.zeros((2, 2, 100)), 16_000), "shape"),
        ((np.zeros((0, 100)), 16_000), "shape"),
        ((np.zeros(100, complex), 16_000), "complex128"),
        ((["a", "b"], 16_000), "type <U1"),
        ((np.zeros(100), 16_000.5), "16000.5 Hz; allowed are whole numbers from 1,000 to 768,000"),
        ((np.zeros(100), 0), "rate of 0 Hz"),
        ((np.zeros(100), -16_000), "rate of -16000"),
        ((np.zeros(100), float("nan")), "rate of nan"),
        ((np.zeros(100), float("inf")), "rate of inf"),
        ((np.zeros(100), "16000"), "a tuple is no audio"),
        (np.zeros(100), r"a ndarray is no audio; .* \(samples, rate\)"),
        (3, "a int is no audio"),
        (None, "a NoneType is no audio"),
    ],
)
def test_arrays_that_are_no_sounds(given, said: str):
    refused("audio", b"")
    with pytest.raises(MediaError, match=said):
        READ["audio"](as_medium("audio", given))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((8, 8, 3), np.float32), "float32; an array must be uint8"),
        (np.zeros((3, 8, 8), np.uint8), r"\[3, 8, 8\]"),
        (np.zeros(8, np.uint8), r"\[8\]"),
        (np.zeros((0, 8, 3), np.uint8), "8 x 0 pixels"),
        ("x" * 5000, "cannot be read"),
        ([1, 2], "a list is no image"),
    ],
)
def test_arrays_that_are_no_pictures(given, said: str):
    with pytest.raises(MediaError, match=said):
        READ["image"](as_medium("image", given))


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        (clip_frames(2), 0),
        (clip_frames(2), None),
        (clip_frames(2), float("nan")),
        (clip_frames(2), "8"),
        [picture(), picture(size=(9, 9))],
    ],
)
def test_arrays_that_are_no_clips(given):
    assert "video" in refused("video", given)


def test_places_where_there_is_no_file(tmp_path):
    assert "is no file, but a folder" in refused("image", tmp_path)
    text = refused("audio", "none.wav", base=tmp_path)
    assert "No such file or directory" in text
    assert str(tmp_path / "none.wav") in text  # where it was looked for
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "is no file" in refused("audio", pipe)  # opening it would wait for ever
    for empty in ("", "  ", "a\0b", "\ud800.png"):
        assert "name a file" in refused("image", empty)
    (tmp_path / "empty.png").touch()
    assert "0 bytes" in refused("image", tmp_path / "empty.png")
    if os.getuid():  # root may read everything
        (tmp_path / "closed.png").touch(0o000)
        refused("image", tmp_path / "closed.png")


def test_nothing_is_fetched_from_the_network():
    for address in (
        "http://a.b/c.png",
        "HTTPS://a.b/c.png",
        "s3://a/b",
        "ftp://a/b",
        "file:///etc",
    ):
        assert "from which glmkit fetches nothing; give a file" in refused("image", address)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("data:image/png,abc", "not base64"),
        ("data:,", "not base64"),
        ("data:image/png;base64,a$b", "base64 is damaged"),
        ("data:image/png;base64,abc", "base64 is damaged"),
        ("data:image/png;base64,", "0 bytes"),
        ("data:" + ";a=b" * 5000, "not base64"),
    ],
)
def test_damaged_data_urls(url: str, said: str):
    assert said in refused("image", url)


def test_records_without_anything():
    for record in ({}, {"bytes": None, "path": None}, {"array": [1.0]}, {"a": 1}):
        assert "needs 'bytes', 'path', or 'array' and 'sampling_rate'" in refused("audio", record)


def test_codecs_that_ffmpeg_does_not_know():
    file = wav_bytes()
    refused("audio", file[:20] + b"\x99\x99" + file[22:])
    clip = clip_bytes(kind="avi")
    assert "has a codec that FFmpeg does not decode" in refused("video", clip.replace(b"FMP4", b"xyzw"))  # fmt: skip


def test_a_sound_of_hours_is_refused_without_reading_it():
    silence = np.broadcast_to(np.float32(0), (16_000 * 3700,))
    assert "longer than 60 minutes; cut it" in refused("audio", (silence, 16_000))
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=1000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 3_700_000), np.int16), "s16", "mono")
        frame.sample_rate = 1000
        for one in (frame, None):
            container.mux(stream.encode(one))
    assert len(file.getvalue()) < 500_000
    assert "longer than 60 minutes; cut it" in refused("audio", file.getvalue())


def test_too_many_frames(monkeypatch):
    monkeypatch.setattr("glmkit.multimodal.clips.MAX_FRAMES", 5)
    assert "has 8 frames; allowed are 1 to 5. Cut it" in refused("video", clip_bytes())


def test_the_place_is_named():
    assert refused("image", b"x", where="a.jsonl:3").startswith("a.jsonl:3: the image of 1 bytes")
    assert refused("audio", "data:,", where="messages[1]").startswith("messages[1]: the audio is a")


# -- markers -------------------------------------------------------------------------------------------------------


def test_the_text_and_the_media_must_agree():
    image, sound = as_medium("image", image_bytes()), as_medium("audio", wav_bytes())
    assert in_order("a", [sound, image])[0] == "<|audio|><|image|>a"
    text, found = in_order("a<|image|>b<|audio|><|image|>", [sound, image, image])
    assert [one.kind for one in found] == ["image", "audio", "image"]
    for given in ([], [image], [image, sound, sound], [image, image, image, sound]):
        with pytest.raises(MediaError, match=r"names other media than were given: .*image"):
            in_order("a<|image|>b<|audio|><|image|>", given)
    glm = media_glm()
    with pytest.raises(MediaError, match=r"2 <\|image\|> and 1 image"):
        glm.fill("<|image|>，<|image|>[MASK]", images=image_bytes())
    with pytest.raises(MediaError, match=r"0 <\|image\|> and 1 image"):
        glm.fill("<|audio|>[MASK]", images=image_bytes(), audios=wav_bytes())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1], r'content\[0\] must be \{"type"'),
        ([{"text": "a"}], r"content\[0\] must be"),
        ([{"type": "picture", "picture": "a"}], "type 'picture'; there are text, image_url"),
        ([{"type": "image_url"}], "no field 'image_url'"),
        (
            [{"type": "text", "text": "a"}, {"type": "audio"}],
            r"content\[1\] is of the type 'audio'",
        ),
        (3, "content"),
        (None, "content"),
        ({"type": "text", "text": "a"}, "content"),
        ([{"type": "text"}], "text"),
        ([{"type": "text", "text": 5}], "text"),
    ],
)
def test_contents_that_are_none(content, said: str):
    with pytest.raises(MediaError, match=said):
        read_parts(content)


def test_a_marker_that_a_user_writes_is_plain_text():
    text, media = read_parts([{"type": "text", "text": "a <|image|>"}, {"type": "image", "image": b"x"}])  # fmt: skip
    assert text == "a < |image|><|image|>"
    assert media == [("image", b"x")]
    assert read_parts("<|video|>")[0] == "< |video|>"
