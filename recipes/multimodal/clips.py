"""Clips of moving shapes: what moves where and how fast (`sample`), its frames (`draw`), its MP4 (`mp4_bytes`).

In: a random generator. Out: a `Clip` that says the truth about it, and 12 frames of 64x64 pixels at 8 a second.
Colours, shapes and the held-out pairs of both are those of `scenes.py`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image
from scenes import HELD_OUT, PAIRS, PIXELS, Item, draw_background, paste, pick, tint

from glmkit.errors import missing_dependency

FRAMES = 12
FRAMES_PER_SECOND = 8

STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
DIRECTIONS = (*STEPS, "still", "back and forth")
SPEEDS = {"slow": (1.0, 1.4), "fast": (2.7, 3.3)}
"""Speeds in pixels a frame; what stays still has none, nor has what goes back and forth, at the fast one."""

DIAMETERS = (14.0, 20.0)
"""Diameters of the shapes in pixels."""


@dataclass(frozen=True)
class Mover:
    """A shape, drawn at its place in the first frame, and its way: centres [12, 2] in pixels."""

    item: Item
    direction: str
    speed: str | None
    way: np.ndarray

    def truth(self) -> dict[str, Any]:
        way = [[round(float(v), 2) for v in centre] for centre in self.way]
        names = {"colour": self.item.colour, "shape": self.item.shape}
        return names | {"direction": self.direction, "speed": self.speed, "way": way}


@dataclass(frozen=True)
class Clip:
    background: str
    movers: tuple[Mover, ...]

    def truth(self) -> dict[str, Any]:
        return {"background": self.background, "shapes": [mover.truth() for mover in self.movers]}


def sample(rng: np.random.Generator, held_out: bool = False) -> Clip:
    """Draws what moves; with `held_out` one shape is of a held-out pair. Two shapes differ in colour and in shape."""
    pairs = [pick(rng, sorted(HELD_OUT)) if held_out else pick(rng, PAIRS)]
    if rng.integers(2):
        others = [p for p in PAIRS if p[0] != pairs[0][0] and p[1] != pairs[0][1]]
        pairs.insert(int(rng.integers(2)), pick(rng, others))
    directions = [pick(rng, DIRECTIONS) for _ in pairs]
    while True:
        movers = tuple(_mover(rng, *pair, d) for pair, d in zip(pairs, directions, strict=True))
        if len(movers) == 1 or _stay_apart(*movers):
            return Clip(pick(rng, ("plain", "gradient", "noisy")), movers)


def _mover(rng: np.random.Generator, colour: str, shape: str, direction: str) -> Mover:
    diameter = float(rng.uniform(*DIAMETERS))
    speed = None
    frames = np.arange(FRAMES, dtype=float)
    step = np.zeros(2)
    if direction in STEPS:
        speed = pick(rng, tuple(SPEEDS))
        step = np.array(STEPS[direction]) * rng.uniform(*SPEEDS[speed])
    elif direction != "still":
        step = np.array(pick(rng, tuple(STEPS.values()))) * rng.uniform(*SPEEDS["fast"])
        half = (FRAMES - 1) / 2
        frames = half - np.abs(frames - half)  # out to the middle of the clip, then home
    moves = frames[:, None] * step
    reach = 0.58 * diameter + 1
    start = rng.uniform(reach - moves.min(axis=0), PIXELS - reach - moves.max(axis=0))
    way = start + moves
    angle = float(rng.uniform(-12, 12))
    item = Item(colour, shape, "", float(start[0]), float(start[1]), diameter, angle)
    return Mover(item, direction, speed, way)


def _stay_apart(one: Mover, other: Mover) -> bool:
    apart = np.linalg.norm(one.way - other.way, axis=1).min()
    return bool(apart >= 0.58 * (one.item.diameter + other.item.diameter) + 2)


def draw(clip: Clip, rng: np.random.Generator) -> list[Image.Image]:
    """Returns the frames; background and tints are drawn once and stay."""
    background = draw_background(clip.background, rng)
    tints = [tint(mover.item.colour, rng) for mover in clip.movers]
    frames = []
    for index in range(FRAMES):
        frame = background.copy()
        for mover, colour in zip(clip.movers, tints, strict=True):
            x, y = map(float, mover.way[index])
            paste(frame, replace(mover.item, x=x, y=y), colour)
        frames.append(frame)
    return frames


def mp4_bytes(frames: list[Image.Image]) -> bytes:
    """Returns an MP4 file, H.264 in 4:2:0, which FFmpeg and browsers decode; the same frames give the same bytes.

    Raises:
        MissingDependencyError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise missing_dependency("av", "Writing a clip", "multimodal") from error
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        # x264's tree of macroblocks weighs pictures as small as these otherwise from one run to the next.
        options = {"crf": "16", "preset": "veryfast", "threads": "1", "mbtree": "0"}
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.width = stream.height = PIXELS
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return buffer.getvalue()
