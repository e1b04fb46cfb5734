"""Pictures of coloured shapes: what is in one (`sample`), its pixels (`draw`).

In: a random generator. Out: a `Scene` that says the truth about the picture, and 64x64 RGB pixels of it.
Some pairs of colour and shape are held out: they occur only where they are asked for, here and in `clips.py`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageDraw

PIXELS = 64
SUPERSAMPLING = 4

COLOURS = {
    "red": (215, 35, 40),
    "orange": (250, 140, 20),
    "yellow": (245, 225, 50),
    "green": (30, 150, 60),
    "blue": (45, 85, 225),
    "purple": (140, 50, 190),
    "white": (246, 246, 246),
    "black": (14, 14, 14),
    "pink": (255, 150, 200),
    "brown": (115, 62, 20),
    "cyan": (30, 205, 215),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
DIAMETERS = {"small": (12.0, 15.0), "big": (20.0, 24.0)}
"""Sizes and the ranges of their diameters, in pixels."""

HELD_OUT = frozenset(
    {
        ("red", "star"),
        ("orange", "circle"),
        ("yellow", "cross"),
        ("green", "triangle"),
        ("blue", "ring"),
        ("purple", "square"),
    }
)
"""Pairs (colour, shape), one of six of each of six colours, that training never shows.

Of the other five colours training shows every shape: where each colour lacked one, models learnt that as a rule.
"""

PAIRS = tuple((c, s) for c in COLOURS for s in SHAPES if (c, s) not in HELD_OUT)

GROUPED = 0.4
"""Share of pictures in which some shapes have a colour or a shape in common, so that counting them is a question."""

NUMBER_WHERE_NOT_GROUPED = (0.225, 0.191667, 0.141667, 0.041667)
"""Odds of 1 to 4 shapes that make 1 to 4 equally frequent over all pictures, the grouped among them."""

Option = TypeVar("Option")
Pair = tuple[str, str]


@dataclass(frozen=True)
class Item:
    """A shape in a picture: its centre and diameter in pixels, its angle in degrees."""

    colour: str
    shape: str
    size: str
    x: float
    y: float
    diameter: float
    angle: float

    @property
    def pair(self) -> Pair:
        return self.colour, self.shape

    def truth(self) -> dict[str, Any]:
        return {k: round(v, 2) if isinstance(v, float) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Scene:
    background: str
    items: tuple[Item, ...]

    def truth(self) -> dict[str, Any]:
        return {"background": self.background, "shapes": [item.truth() for item in self.items]}


def pick(rng: np.random.Generator, options: list[Option] | tuple[Option, ...]) -> Option:
    return options[int(rng.integers(len(options)))]


# -- what is in a picture


def sample(rng: np.random.Generator, held_out: bool = False) -> Scene:
    """Draws what is in a picture; with `held_out` one shape at least is of a held-out pair."""
    first = pick(rng, sorted(HELD_OUT)) if held_out else pick(rng, PAIRS)
    if rng.random() < GROUPED:
        pairs = _grouped(rng, first)
    else:
        odds = np.array(NUMBER_WHERE_NOT_GROUPED)
        number = 1 + int(rng.choice(4, p=odds / odds.sum()))
        pairs = _different(rng, first, number)
    rng.shuffle(pairs)
    sizes = [pick(rng, tuple(DIAMETERS)) for _ in pairs]
    diameters, centres = place(rng, sizes)
    return Scene(
        background=pick(rng, ("plain", "gradient", "noisy")),
        items=tuple(
            Item(colour, shape, size, float(x), float(y), float(d), float(rng.uniform(-12, 12)))
            for (colour, shape), size, d, (x, y) in zip(
                pairs, sizes, diameters, centres, strict=True
            )
        ),
    )


def _grouped(rng: np.random.Generator, first: Pair) -> list[Pair]:
    """Returns 1 to 4 pairs that share the first's colour or shape, and others that do not, 4 at most together."""
    part = int(rng.integers(2))
    alike = [pair for pair in PAIRS if pair[part] == first[part]]
    other = [pair for pair in PAIRS if pair[part] != first[part]]
    number = 1 + int(rng.integers(4))
    pairs = [first, *(pick(rng, alike) for _ in range(number - 1))]
    return pairs + [pick(rng, other) for _ in range(int(rng.integers(5 - number)))]


def _different(rng: np.random.Generator, first: Pair, number: int) -> list[Pair]:
    """Returns pairs that mostly share neither colour nor shape."""
    pairs = [first]
    while len(pairs) < number:
        pair = pick(rng, PAIRS)
        alike = any(pair[0] == other[0] or pair[1] == other[1] for other in pairs)
        if not alike or rng.random() < 0.1:
            pairs.append(pair)
    return pairs


def place(rng: np.random.Generator, sizes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns diameters [n] and centres [n, 2] in pixels, at which shapes do not touch each other or the border."""
    while True:
        diameters = np.array([rng.uniform(*DIAMETERS[size]) for size in sizes])
        reach = 0.58 * diameters + 1  # a turned square reaches farther than its radius
        tries = rng.uniform(reach, PIXELS - reach, (256, 2, len(sizes))).swapaxes(1, 2)
        apart = np.linalg.norm(tries[:, :, None] - tries[:, None], axis=-1)
        free = (apart >= reach[:, None] + reach) | np.eye(len(sizes), dtype=bool)
        good = np.flatnonzero(free.all(axis=(1, 2)))
        if len(good):
            return diameters, tries[good[0]]


# -- its pixels


def draw(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Returns the picture of a scene; the shades of its background and the tints of its colours are drawn."""
    image = draw_background(scene.background, rng)
    for item in scene.items:
        paste(image, item, tint(item.colour, rng))
    return image


def tint(colour: str, rng: np.random.Generator) -> tuple[int, int, int]:
    """Returns a shade of a colour, each channel at most 9 away from its name's."""
    red, green, blue = (np.array(COLOURS[colour]) + rng.integers(-9, 10, 3)).clip(0, 255)
    return int(red), int(green), int(blue)


def draw_background(kind: str, rng: np.random.Generator) -> Image.Image:
    """Returns a background, greyish and far from every colour of a shape: plain, gradient or noisy."""
    pixels = np.broadcast_to(_shade(rng), (PIXELS, PIXELS, 3))
    if kind == "gradient":
        angle = rng.uniform(0, 2 * math.pi)
        y, x = np.mgrid[0:PIXELS, 0:PIXELS] / (PIXELS - 1) - 0.5
        along = ((x * math.cos(angle) + y * math.sin(angle)) / math.sqrt(2) + 0.5)[..., None]
        pixels = pixels * along + _shade(rng) * (1 - along)
    if kind == "noisy":
        pixels = pixels + rng.normal(0, rng.uniform(4, 12), (PIXELS, PIXELS, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _shade(rng: np.random.Generator) -> np.ndarray:
    palette = np.array(list(COLOURS.values()))
    while True:
        shade = rng.uniform(90, 170) + rng.uniform(-18, 18, 3)
        if np.linalg.norm(palette - shade, axis=1).min() > 85:
            return shade


def paste(image: Image.Image, item: Item, colour: tuple[int, int, int]) -> None:
    """Draws a shape into a picture, anti-aliased: its mask is drawn four times as large and reduced."""
    side = math.ceil(1.25 * item.diameter) + 3
    left, top = math.floor(item.x - side / 2), math.floor(item.y - side / 2)
    mask = Image.new("L", (side * SUPERSAMPLING, side * SUPERSAMPLING))
    centre = np.array([item.x - left, item.y - top]) * SUPERSAMPLING
    _draw_mask(ImageDraw.Draw(mask), item, centre, item.diameter / 2 * SUPERSAMPLING)
    image.paste(colour, (left, top), mask.reduce(SUPERSAMPLING))


def _draw_mask(mask: ImageDraw.ImageDraw, item: Item, centre: np.ndarray, radius: float) -> None:
    if item.shape in ("circle", "ring"):
        mask.ellipse([*(centre - radius), *(centre + radius)], fill=255)
        if item.shape == "ring":
            mask.ellipse([*(centre - radius * 0.55), *(centre + radius * 0.55)], fill=0)
        return
    turn = math.radians(item.angle)
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    corners = centre + radius * np.array(OUTLINES[item.shape]) @ rotation
    mask.polygon([(float(x), float(y)) for x, y in corners], fill=255)


def _star(points: int = 5, inner: float = 0.48) -> list[tuple[float, float]]:
    turns = [math.pi * i / points for i in range(2 * points)]
    radii = [1.1, 1.1 * inner] * points
    return [(r * math.sin(t), -r * math.cos(t)) for r, t in zip(radii, turns, strict=True)]


OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)],
    "triangle": [(0, -1.12), (0.97, 0.6), (-0.97, 0.6)],
    "star": _star(),
    "cross": [
        (-0.34, -1), (0.34, -1), (0.34, -0.34), (1, -0.34), (1, 0.34), (0.34, 0.34),
        (0.34, 1), (-0.34, 1), (-0.34, 0.34), (-1, 0.34), (-1, -0.34), (-0.34, -0.34),
    ],
}  # fmt: skip
"""Corners of the shapes around (0, 0), y downwards, in radii."""
