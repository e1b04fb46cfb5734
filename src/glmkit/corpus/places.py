"""Where files are: paths of this machine and fsspec URLs, and what can go wrong with them in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from glmkit.corpus.compression import BROKEN
from glmkit.errors import DataError, MissingDependencyError, UserError, missing_dependency

_PROTOCOL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+(://|::)")


def is_url(source: str) -> bool:
    """Returns whether this is an fsspec URL, and not a path here."""
    return bool(_PROTOCOL.match(source)) and not Path(source).exists()


def file_system(url: str) -> tuple[Any, str]:
    """Returns (the fsspec file system, the path in it).

    Raises:
        MissingDependencyError: The package for that kind of URL is not installed.
        DataError: There is no such kind, or the store refuses.
    """
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        protocol = urlsplit(url).scheme
        if protocol in ("s3", "s3a"):
            raise missing_dependency("s3fs", f"Reading {url}", "s3") from error
        raise MissingDependencyError(f"Reading {url} needs a package: {error}.") from error
    except Exception as error:
        known = ", ".join(name for name in ("s3", "gs", "az", "https", "hf", "memory", "file"))
        raise DataError(
            f"{url} cannot be reached: {error} (such as {known}; see fsspec)."
        ) from error


def remote_info(url: str) -> dict[str, Any]:
    """Returns what the store says of a file: size, time of change, ETag …, by its own names."""
    system, path = file_system(url)
    with explained(url):
        return dict(system.info(path))


def path_of(url: str) -> PurePosixPath | Path:
    """Returns the path of a URL without host and query, or the path itself."""
    return PurePosixPath(urlsplit(url).path or urlsplit(url).netloc) if is_url(url) else Path(url)


@contextmanager
def explained(url: str, tester: str | None = None) -> Iterator[None]:
    """Turns what goes wrong with a file into a `DataError` that names it."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{url} does not exist. Check the spelling.") from error
    except PermissionError as error:
        raise DataError(f"{url} cannot be opened: permission denied ({error}).") from error
    except BROKEN as error:
        remedy = "Fetch it again" + (
            f", or test it with: {tester} {path_of(url).name}" if tester else "."
        )
        raise DataError(
            f"{url} is damaged, cut short or not what its suffix says ({error}). {remedy}"
        ) from error
    except Exception as error:
        if not is_url(url):
            raise
        raise DataError(
            f"{url} cannot be read: {type(error).__name__}: {error}. Check the address, the network and the "
            "credentials."
        ) from error
