"""Models that come with the package: name -> folder under `assets/`.

In: what a user gave as a model. Out: the folder, or None where it is no embedded name. Knows no format.
"""

from __future__ import annotations

import logging
from pathlib import Path

from glmkit.errors import CheckpointError

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "glm-mini"
"""What `glmkit.load()` and the commands use where no model is named."""

VISION_MODEL = "glm-mini-vision"
"""An adapter of it that sees pictures of coloured shapes."""

EMBEDDED = (DEFAULT_MODEL, VISION_MODEL)

ASSETS = Path(__file__).parent / "assets"


def embedded_folder(name: str | Path) -> Path | None:
    """Returns the folder of an embedded model, or None for anything else.

    A name means the same model in every working directory: a folder that happens to be called `glm-mini` is
    reached by a path (`./glm-mini`, or a `Path`), and a warning says so.

    Raises:
        CheckpointError: The name is an embedded one, but this installation lacks its files.
    """
    if isinstance(name, Path) or name not in EMBEDDED:
        return None
    folder = ASSETS / name
    if not is_here(name):
        raise CheckpointError(
            f"{name!r} is a model that comes with glmkit, but this installation lacks it: {folder} is missing or "
            "empty. Install a release, or train and ship it (recipes/glm-mini/train.sh, make ship-mini), or give a "
            "model's folder or hub name (--model; GLMKIT_MODEL for all commands)."
        )
    if Path(name).exists():
        logger.warning(
            "%r is a model that comes with glmkit; the folder of that name here is './%s'",
            name,
            name,
        )
    return folder


def is_here(name: str) -> bool:
    """Returns whether this installation has the files of an embedded model."""
    return (ASSETS / name / "config.json").is_file()
