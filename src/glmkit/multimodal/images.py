"""An image -> RGB pixels, upright, on white, square.

In: a `Medium`. Out: a PIL image. Pillow is imported where it is used.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from glmkit.errors import MediaError, missing_dependency
from glmkit.multimodal.media import Medium

MAX_PIXELS = 64_000_000
"""An image of more is refused before it is decoded: a small file may hold a picture that fills the memory."""

BACKGROUND = (255, 255, 255)
"""What is seen through transparent pixels, and beside a picture that is not square."""


def read_image(medium: Medium) -> Any:
    """Returns a `PIL.Image` in RGB, turned as its EXIF orientation says; of an animation the first frame.

    Raises:
        MediaError: It is damaged, no image, empty, or of more than `MAX_PIXELS`.
        MissingDependencyError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise missing_dependency("pillow", "reading images", "multimodal") from error
    if not medium.is_file:
        return (
            _from_array(medium) if not hasattr(medium.source, "getbands") else _rgb(medium.source)
        )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", Image.DecompressionBombWarning
        )  # the limit below is stricter
        try:
            with medium.file() as file, Image.open(file) as image:
                check_pixels(medium, *image.size)
                image.load()
                return _rgb(ImageOps.exif_transpose(image))
        except UnidentifiedImageError as error:
            raise MediaError(f"{medium.name} is no image that Pillow can read (PNG, JPEG, WebP, GIF, BMP, TIFF …)") from error  # fmt: skip
        except Image.DecompressionBombError as error:
            raise MediaError(f"{medium.name} is refused: {error}") from error
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            if isinstance(error, MediaError):
                raise
            raise MediaError(f"{medium.name} is damaged: {error}") from error


def check_pixels(medium: Medium, width: int, height: int) -> None:
    """Refuses a picture of no or too many pixels.

    Raises:
        MediaError: Says the limit.
    """
    if not 0 < width * height <= MAX_PIXELS:
        raise MediaError(
            f"{medium.name} has {width} x {height} pixels; allowed are 1 to {MAX_PIXELS // 10**6} million. Make it smaller"
        )


def squared(image: Any) -> Any:
    """Returns a picture with bars beside it, so that scaling it to a square neither cuts nor distorts it."""
    from PIL import ImageOps

    side = max(image.size)
    return (
        image if image.size == (side, side) else ImageOps.pad(image, (side, side), color=BACKGROUND)
    )


def _rgb(image: Any) -> Any:
    from PIL import Image

    if image.mode.startswith(("I;16", "I", "F")):
        values = np.asarray(image, np.float64)
        top = 65535 if values.max(initial=0) > 255 else 255
        image = Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        image = Image.alpha_composite(canvas, image)
    return image.convert("RGB")


def _from_array(medium: Medium) -> Any:
    from PIL import Image

    array = np.asarray(medium.source)
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] not in (3, 4))
    ):
        raise MediaError(
            f"{medium.name} has the shape {list(array.shape)} and type {array.dtype}; an array must be uint8 [height, width], "
            "[height, width, 3] or [height, width, 4]"
        )
    check_pixels(medium, array.shape[1], array.shape[0])
    return _rgb(Image.fromarray(array))
