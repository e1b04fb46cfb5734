"""Pictures, sounds and clips in every form that users have them: upright, whole, at the right pitch and time."""

from __future__ import annotations

import base64
import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from glmkit.multimodal.clips import read_clip
from glmkit.multimodal.images import BACKGROUND, MAX_SIDE, read_image, squared
from glmkit.multimodal.media import Medium, as_medium
from glmkit.multimodal.sounds import read_sound
from media_samples import clip_bytes, clip_frames, image_bytes, picture, tone, wav_bytes

av = pytest.importorskip("av", reason="PyAV is not installed")


def pixels(given, **options) -> np.ndarray:
    """Returns what is read, uint8 [height, width, 3]."""
    return np.asarray(read_image(as_medium("image", given, **options)))


def sound(given, rate: int = 16_000) -> np.ndarray:
    return read_sound(as_medium("audio", given), rate)


def pitch(samples: np.ndarray, rate: int = 16_000) -> float:
    """Returns the loudest frequency, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * rate / len(samples))


def brightness(frames) -> list[int]:
    return [round(float(np.asarray(one).mean())) for one in frames]


# -- forms that all kinds share ------------------------------------------------------------------------------------


def test_one_picture_in_every_form_is_one_picture(tmp_path):
    image = picture(seed=1)
    file = image_bytes(image)
    path = tmp_path / "图 1.png"
    path.write_bytes(file)
    url = f"data:image/png;base64,{base64.b64encode(file).decode()}"
    forms = [
        path,
        str(path),
        file,
        bytearray(file),
        memoryview(file),
        url,
        url.replace("image/png", "image/png;charset=x"),
        {"bytes": file, "path": None},
        {"bytes": None, "path": str(path)},
        image,
        np.asarray(image),
        as_medium("image", file),
    ]
    for form in forms:
        np.testing.assert_array_equal(pixels(form), np.asarray(image))
    np.testing.assert_array_equal(pixels("图 1.png", base=tmp_path), np.asarray(image))
    np.testing.assert_array_equal(pixels(np.asarray(image)[:, :, 0]), pixels(image.split()[0]))


def test_media_that_are_equal_have_one_key(tmp_path):
    """Also arrays and pictures: by what they hold, not by where in the memory they lie."""
    samples = tone()
    for kind, some in (
        ("image", [picture(seed=1), picture(seed=1), picture(seed=2), picture(size=(24, 25))]),
        ("image", [clip_frames()[0], clip_frames()[0], clip_frames()[1], clip_frames()[0, :-1]]),
        ("audio", [(samples, 8000), (samples.copy(), 8000), (samples, 8001), (samples[1:], 8000)]),
        ("audio", [([0.1, 0.2], 8000), ([0.1, 0.2], 8000), ([0.2, 0.1], 8000), ([1, 2], 8000)]),
        ("video", [clip_frames(), clip_frames(), clip_frames(7), (clip_frames(), 3)]),
        ("image", [b"one", bytearray(b"one"), b"two", Path("one")]),
    ):
        keys = [as_medium(kind, one).key for one in some]
        assert keys[0] == keys[1], kind
        assert len({*keys}) == 3, kind
    path = tmp_path / "a.wav"
    versions = set()
    for seconds in (0.1, 0.2):
        path.write_bytes(wav_bytes(tone(seconds=seconds)))
        versions.add(as_medium("audio", path).version)
    assert len(versions) == 2


# -- pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_says_what_is_up(orientation: int):
    image = picture(seed=3, size=(8, 6))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pixels(image_bytes(image, exif=exif))
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(found, np.asarray(ImageOps.exif_transpose(image)))
    assert found.shape == ((6, 8, 3) if orientation < 5 else (8, 6, 3))
    if (
        orientation == 6
    ):  # turned by 90 degrees clockwise: the last row of what is stored is the first column
        np.testing.assert_array_equal(found[0, 0], np.asarray(picture(seed=3, size=(8, 6)))[-1, 0])
    np.testing.assert_array_equal(pixels(image), found)  # of a picture in the memory, too


def modes() -> dict[str, tuple[bytes, tuple[int, int, int]]]:
    """Files of one colour in many modes, and what is seen."""
    red = picture((250, 10, 10))
    clear = Image.new("RGBA", (24, 24), (0, 0, 0, 0))
    half = Image.new("RGBA", (24, 24), (255, 0, 0, 128))
    palette = red.quantize(4)
    see_through = Image.new("P", (24, 24), 0)
    see_through.putpalette([0, 0, 255, 255, 0, 0])
    deep = Image.fromarray(np.full((24, 24), 32768, np.uint16))
    dark = Image.fromarray(np.full((24, 24), 200, np.uint16))
    return {
        "transparent is white": (image_bytes(clear), (255, 255, 255)),
        "half transparent": (image_bytes(half), (255, 127, 127)),
        "palette": (image_bytes(palette), (250, 10, 10)),
        "palette with a transparent colour": (image_bytes(see_through, transparency=0), BACKGROUND),
        "grey": (image_bytes(Image.new("L", (24, 24), 77)), (77, 77, 77)),
        "grey with alpha": (image_bytes(Image.new("LA", (24, 24), (0, 0))), (255, 255, 255)),
        "black and white": (image_bytes(Image.new("1", (24, 24), 1)), (255, 255, 255)),
        "16 bits": (image_bytes(deep), (128, 128, 128)),
        "16 bits, dark": (image_bytes(dark), (1, 1, 1)),
        "floats": (image_bytes(Image.new("F", (24, 24), 0.5), "TIFF"), (128, 128, 128)),
        "CMYK": (image_bytes(Image.new("CMYK", (24, 24), (0, 255, 255, 0)), "JPEG", quality=100), (255, 0, 0)),
        "WebP": (image_bytes(red, "WEBP", lossless=True), (250, 10, 10)),
        "BMP": (image_bytes(red, "BMP"), (250, 10, 10)),
        "TIFF": (image_bytes(red, "TIFF"), (250, 10, 10)),
    }  # fmt: skip


@pytest.mark.parametrize("name", modes())
def test_colours(name: str):
    file, color = modes()[name]
    found = pixels(file)
    assert found.shape == (24, 24, 3)
    np.testing.assert_allclose(found[12, 12], color, atol=2)


def test_of_an_animation_the_first_frame():
    frames = [picture((250, 0, 0)), picture((0, 250, 0)), picture((0, 0, 250))]
    file = image_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(pixels(file)[5, 5], (250, 0, 0), atol=3)
    found, _ = read_clip(as_medium("video", file), 3)  # and as a clip all of them
    np.testing.assert_allclose([np.asarray(one)[5, 5] for one in found], np.eye(3) * 250, atol=8)


@pytest.mark.parametrize("size", [(30, 10), (10, 30), (7, 7), (9000, 3)])
def test_a_picture_becomes_square_and_nothing_is_cut(size):
    image = picture((0, 0, 0), size)
    found = np.asarray(squared(image))
    side = min(max(size), MAX_SIDE)
    assert found.shape == (side, side, 3)
    dark = (found < 128).all(-1)
    assert dark.sum() == pytest.approx(max(1, side * min(size) / max(size)) * side, rel=0.1)
    assert dark.any(0 if size[0] >= size[1] else 1).all()  # from one end to the other
    if min(size) != max(size):
        assert tuple(found[0, 0]) == tuple(found[-1, -1]) == BACKGROUND


# -- sounds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("as_file", [True, False])
def test_length_and_pitch_are_right_at_every_rate(rate: int, as_file: bool):
    samples = tone(440, 1.0, rate)
    found = sound(wav_bytes(samples, rate) if as_file else (samples, rate))
    assert len(found) == pytest.approx(16_000, abs=20)
    assert pitch(found) == pytest.approx(440, abs=1.5)
    assert np.abs(found).max() == pytest.approx(0.5, abs=0.03)
    expected = tone(440, 1.0)  # in time, too: no delay
    np.testing.assert_allclose(found[2000:14_000], expected[2000:14_000], atol=0.02)


def test_channels_become_one():
    left, right = tone(300), tone(1200)
    for given in (wav_bytes(np.stack([left, right])), (np.stack([left, right]), 16_000)):
        np.testing.assert_allclose(sound(given), (left + right) / 2, atol=1e-3)
    silent = sound(wav_bytes(np.stack([left, -left])))
    assert np.abs(silent).max() < 1e-3


@pytest.mark.parametrize("kind", ["int16", "int32", "uint8", "float64", "int8"])
def test_numbers_of_other_types(kind: str):
    samples = tone().astype(np.float64)
    if kind == "float64":
        given = samples
    else:
        limits = np.iinfo(kind)
        middle = 0 if kind.startswith("i") else 128
        given = (samples * limits.max / (2 if middle else 1) + middle).round().astype(kind)
    found = sound((given, 16_000))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, samples, atol=0.01)
    assert len(sound((given.tolist(), np.int64(16_000)))) == len(samples)
    np.testing.assert_array_equal(sound({"array": given, "sampling_rate": 16_000}), found)


def encoded(codec: str, kind: str, rate: int = 48_000, seconds: float = 1.0) -> bytes:
    """Returns a tone of 440 Hz, as FFmpeg writes it; skips where it cannot."""
    file = io.BytesIO()
    try:
        with av.open(file, "w", format=kind) as container:
            stream = container.add_stream(codec, rate=rate)
            stream.layout = "mono"
            samples = (tone(440, seconds, rate) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (av.error.FFmpegError, ValueError) as error:
        pytest.skip(f"FFmpeg here does not write {codec}: {error}")
    return file.getvalue()


@pytest.mark.parametrize(
    ("codec", "kind"),
    [("flac", "flac"), ("libmp3lame", "mp3"), ("libopus", "ogg"), ("libvorbis", "ogg"), ("aac", "mp4"), ("aac", "adts"), ("pcm_s16le", "matroska")],
)  # fmt: skip
def test_compressed_sounds(codec: str, kind: str):
    found = sound(encoded(codec, kind))
    assert len(found) == pytest.approx(16_000, abs=16_000 * 0.08)  # codecs write whole frames
    assert pitch(found[1000:15_000]) == pytest.approx(440, abs=2)


# -- clips ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 8, 20])
def test_frames_are_spread_over_the_clip(count: int):
    """A shorter clip shows some frames twice."""
    frames, times = read_clip(as_medium("video", clip_bytes(clip_frames(8), rate=4)), count)
    places = np.linspace(0, 7, count).round()
    assert len(frames) == count
    assert times.dtype == np.float32
    np.testing.assert_allclose(times, places / 4, atol=1e-4)
    expected = clip_frames(8)[places.astype(int), 0, 0, 0]
    np.testing.assert_allclose(brightness(frames), expected, atol=6)
    arrays, same = read_clip(as_medium("video", (clip_frames(8), 4)), count)
    np.testing.assert_allclose(same, times, atol=1e-4)
    assert brightness(arrays) == expected.tolist()


@pytest.mark.parametrize("kind", ["mp4", "matroska", "avi"])
def test_containers(kind: str):
    frames, _ = read_clip(as_medium("video", clip_bytes(kind=kind)), 3)
    np.testing.assert_allclose(brightness(frames), clip_frames(8)[[0, 4, 7], 0, 0, 0], atol=8)


def test_times_of_frames_that_come_at_any_time():
    file = io.BytesIO()
    shown = [0, 40, 1000, 1040, 3000]  # milliseconds
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time, one in zip(shown, clip_frames(5), strict=True):
            frame = av.VideoFrame.from_ndarray(one, "rgb24")
            frame.pts, frame.time_base = time + 500, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _, times = read_clip(as_medium("video", file.getvalue()), 5)
    np.testing.assert_allclose(times, np.array(shown) / 1000, atol=2e-3)


def turned(file: bytes, degrees: int) -> bytes:
    """Returns an MP4 whose header says that it is shown turned clockwise, as telephones write it."""
    matrices = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
    a, b, c, d = (value << 16 for value in matrices[degrees])
    numbers = [a, b, 0, c, d, 0, 0, 0, 1 << 30]
    matrix = b"".join(value.to_bytes(4, "big", signed=True) for value in numbers)
    start = file.index(b"tkhd") + 4 + 40  # version 0
    return file[:start] + matrix + file[start + 36 :]


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_clip_is_turned_as_its_header_says(degrees: int):
    frames = np.zeros((4, 32, 64, 3), np.uint8)
    frames[:, :16, :16] = 255  # the corner above on the left
    [frame, *_], _ = read_clip(as_medium("video", turned(clip_bytes(frames), degrees)), 2)
    found = np.asarray(frame)
    expected = np.rot90(frames[0], -degrees // 90)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 8


@pytest.mark.parametrize(("kind", "times"), [("mp4", 1), ("matroska", 2)])
def test_a_clip_whose_header_counts_its_frames_is_opened_once(kind: str, times: int, monkeypatch):
    """Where frames have to be counted the file is read to its end, and not every container can be wound back."""
    medium = as_medium("video", clip_bytes(kind=kind))
    given, opened = Medium.file, []

    def counted(one: Medium):
        opened.append(one)
        return given(one)

    monkeypatch.setattr(Medium, "file", counted)
    read_clip(medium, 3)
    assert opened == [medium] * times


def test_a_header_that_promises_more_frames_than_there_are():
    """A list of 8 frames, of which the file holds three: those are spread, not the first one shown again and again."""
    file = clip_bytes(clip_frames(8), kind="avi")
    start = file.index(b"strh") + 8 + 32  # number of frames in a stream's header
    promised = file[:start] + (80).to_bytes(4, "little") + file[start + 4 :]
    frames, times = read_clip(as_medium("video", promised), 3)
    np.testing.assert_allclose(brightness(frames), clip_frames(8)[[0, 4, 7], 0, 0, 0], atol=8)
    np.testing.assert_allclose(times, np.array([0, 4, 7]) / 8, atol=1e-3)
