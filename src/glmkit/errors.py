"""The errors that glmkit raises on purpose.

Every mistake that a user can mend is a `UserError`: it says what was given, what is allowed and what to
do. Anything else that escapes is a bug of glmkit.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

FRAMEWORKS = ("torch", "transformers")
"""What `pip install --no-deps glmkit` can leave out: the native decoder answers without."""


class UserError(ValueError):
    """A mistake in what was given to glmkit; the message says how to mend it.

    Attributes:
        chinese: The message in Chinese, where there is one; the command shows it where it speaks Chinese.
    """

    chinese: str | None = None


class ConfigError(UserError):
    """A recipe, setting or model configuration that contradicts itself or names an unknown key."""


class DataError(UserError):
    """A corpus, record or token store that cannot be used; names the file and, where known, the line."""


class MediaError(UserError):
    """An image, sound or clip that cannot be read, or does not belong where it was given."""


class MediaLimitError(MediaError):
    """Decoding some media would take more than is allowed."""


class TokenizerError(UserError):
    """A vocabulary that cannot be read, or a text that it cannot represent."""


class CheckpointError(UserError):
    """Weights that are missing, truncated, mis-shaped, of an unknown format, or unsafe to read."""


class GenerationError(UserError):
    """A prompt or generation setting that cannot be honoured."""


class MissingDependencyError(UserError, ImportError):
    """An optional dependency is not installed; the message has the install command."""


def missing_dependency(package: str, purpose: str, extra: str) -> MissingDependencyError:
    """Returns the error to raise where `package`, part of glmkit's `extra`, cannot be imported."""
    return MissingDependencyError(
        f"{purpose} needs the package {package!r}, which is not installed. "
        f'Install it with: pip install "glmkit[{extra}]"'
    )


@contextmanager
def needs_torch(purpose: str, chinese: str) -> Iterator[None]:
    """Where torch or transformers is not installed, says for what it is needed; the innermost of several says it.

    Args:
        purpose: What needs it: the subject of a sentence.
        chinese: The same in Chinese.

    Raises:
        MissingDependencyError: Something within has not found torch or transformers.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in FRAMEWORKS:
            raise
        missing = MissingDependencyError(
            f"{purpose} needs the package {package!r}, which is not installed. "
            "Install it with: pip install glmkit (which adds what --no-deps left out)"
        )
        missing.chinese = f"{chinese}需要 {package}，但未安装。请安装：pip install glmkit（会补上 --no-deps 略去的依赖）"
        raise missing from error


def require_torch(purpose: str, chinese: str) -> None:
    """Imports torch and transformers, which what follows needs.

    Raises:
        MissingDependencyError: One is not installed; `needs_torch` has the arguments.
    """
    with needs_torch(purpose, chinese):
        for package in FRAMEWORKS:
            importlib.import_module(package)


def closest(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that is nearest to `name`, if one is near."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?` for the known name nearest to `name`, or an empty string."""
    found = closest(name, known)
    return "" if found is None else f"; did you mean {found!r}?"
