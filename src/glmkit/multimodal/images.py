"""An image -> RGB pixels, upright, on white, square.

In: a `Medium`. Out: a PIL image. Pillow is imported where it is used.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from glmkit.errors import MediaError, missing_dependency
from glmkit.multimodal.media import Medium

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")
"""What is read. Pillow knows more, some of them by starting other programs."""

MAX_PIXELS = 64_000_000
"""An image of more is refused before it is decoded: a small file may hold a picture that fills the memory."""

MAX_SIDE = 2048
"""A picture is made no wider or higher than that before it is made square: a strip of a million pixels would fill the memory."""

BACKGROUND = (255, 255, 255)
"""What is seen through transparent pixels, and beside a picture that is not square."""


def read_image(medium: Medium) -> Any:
    """Returns a `PIL.Image` in RGB, turned as its EXIF orientation says; of an animation the first frame.

    Raises:
        MediaError: It is damaged, no image, empty, or of more than `MAX_PIXELS`.
        MissingDependencyError: Pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise missing_dependency("pillow", "reading images", "multimodal") from error
    if not medium.is_file and not hasattr(medium.source, "getbands"):
        return _from_array(medium)
    with warnings.catch_warnings():
        # The limit here is stricter than Pillow's, and of damage the error speaks.
        warnings.simplefilter("ignore")
        try:
            if not medium.is_file:
                return _upright(medium, medium.source)
            Image.init()
            known = [name for name in FORMATS if name in Image.OPEN]
            with medium.file() as file, Image.open(file, formats=known) as image:
                return _upright(medium, image)
        except MediaError:
            raise
        except UnidentifiedImageError as error:
            raise MediaError(
                f"{medium.name} is no image that is read here ({', '.join(known)}), or its beginning is damaged; convert it to PNG or "
                "JPEG"
            ) from error
        except Image.DecompressionBombError as error:
            raise MediaError(
                f"{medium.name} has more pixels than allowed ({MAX_PIXELS // 10**6} million); make it smaller"
            ) from error
        except Exception as error:  # a damaged file makes Pillow's readers raise anything
            raise MediaError(
                f"{medium.name} is damaged ({str(error) or type(error).__name__}); save or download it again"
            ) from error


def check_pixels(medium: Medium, width: int, height: int) -> None:
    """Refuses a picture of no or too many pixels.

    Raises:
        MediaError: Says the limit.
    """
    if not 0 < width * height <= MAX_PIXELS:
        raise MediaError(
            f"{medium.name} has {width} x {height} pixels; allowed are 1 to {MAX_PIXELS // 10**6} million. "
            + ("Make it smaller" if width * height else "It shows nothing")
        )


def squared(image: Any) -> Any:
    """Returns a picture with bars beside it, so that scaling it to a square neither cuts nor distorts it."""
    from PIL import ImageOps

    side = max(image.size)
    if image.size == (side, side):
        return image
    if side > MAX_SIDE:
        image = image.copy()
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        side = max(image.size)
    return ImageOps.pad(image, (side, side), color=BACKGROUND)


def _upright(medium: Medium, image: Any) -> Any:
    from PIL import ImageOps

    check_pixels(medium, *image.size)
    medium.decoded(pixels=image.size[0] * image.size[1])
    image.load()
    return _rgb(ImageOps.exif_transpose(image))


def _rgb(image: Any) -> Any:
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, np.float64))
        highest = values.max(initial=0)
        # Of 16 bits; wider numbers say themselves how far they go.
        top = 65535 if image.mode.startswith("I;16") or highest > 255 else 255 if highest > 1 else 1
        image = Image.fromarray((values / top * 255).clip(0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
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
