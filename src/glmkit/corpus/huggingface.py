"""Datasets of the Hugging Face Hub, by name, streamed: `hf:owner/name?config=zh&split=train&revision=main`.

The name may also be a folder of this machine in the layout of a Hub dataset. Only `split` has a default:
`train`. A part is a range of the dataset's own shards (its files).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from glmkit.corpus.files import SourceFile
from glmkit.corpus.rows import Part, Row
from glmkit.errors import DataError, UserError, missing_dependency, nearest

PREFIX = "hf:"
_SETTINGS = ("config", "split", "revision")


@dataclass(frozen=True)
class HubDataset(SourceFile):
    """One split of a dataset; stands where a file could."""

    @property
    def name(self) -> str:
        """The dataset's name, with what else was asked for."""
        return self.url.removeprefix(PREFIX)

    @property
    def compression(self) -> str:
        """Never any that would matter here."""
        return ""

    def size(self) -> int:
        """Returns the bytes of the data files of the split, as stored; 0 where that is not known."""
        return sum(SourceFile(url, "").size() for url, _ in _data_files(self.url))

    def fingerprint(self) -> str:
        """Returns a digest of the addresses, commits and times of change of the data files."""
        files = _data_files(self.url) or [("", _builder(self.url).hash)]
        return f"files={hashlib.sha256(repr(files).encode()).hexdigest()}"

    def num_shards(self) -> int:
        """Returns into how many parts it can be divided."""
        return int(_stream(self.url).num_shards)

    def rows(self, part: Part) -> Iterator[Row]:
        """Yields the rows of the k-th of n ranges of shards.

        Raises:
            DataError: There is no such dataset, configuration or split, or it cannot be fetched.
            MissingDependencyError: The extra `glmkit[datasets]` is not installed.
        """
        with _explained(self.url):
            stream, prefix = _stream(self.url), ""
            if part[1] > 1:
                stream, prefix = stream.shard(part[1], part[0], contiguous=True), f"{part[0]}-"
            for number, record in enumerate(stream, 1):
                key = f"{prefix}{number}"
                yield Row(key, f"{self.url}, row {key}", record)


def hub_dataset(url: str) -> HubDataset:
    """Returns the dataset that `hf:…` names.

    Raises:
        DataError: Something is asked for that is none of config, split and revision.
    """
    _parse(url)
    return HubDataset(url, "hub")


def _parse(url: str) -> tuple[str, dict[str, str]]:
    name, _, query = url.removeprefix(PREFIX).partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    for wrong in [key for key in settings if key not in _SETTINGS]:
        raise DataError(
            f"{url}: unknown setting {wrong!r}{nearest(wrong, _SETTINGS) or '.'} "
            "Write hf:OWNER/NAME?config=…&split=…&revision=…"
        )
    if not name:
        raise DataError(f"{url}: the dataset's name is missing. Write hf:OWNER/NAME")
    return name, settings


@functools.lru_cache(maxsize=64)
def _builder(url: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise missing_dependency("datasets", f"Reading {url}", "datasets") from error
    name, settings = _parse(url)
    with _explained(url):
        return datasets.load_dataset_builder(
            name, settings.get("config"), revision=settings.get("revision")
        )


def _stream(url: str) -> Any:
    builder, (_, settings) = _builder(url), _parse(url)
    with _explained(url):
        stream = builder.as_streaming_dataset(split=settings.get("split", "train"))
        return stream.decode(False)  # pictures and sounds stay as they are


def _data_files(url: str) -> list[tuple[str, Any]]:
    """(address, commit or time of change) of each data file of the split."""
    files = (_builder(url).config.data_files or {}).get(_parse(url)[1].get("split", "train"))
    if files is None:
        return []
    return list(zip(files, files.origin_metadata, strict=True))


@contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{url} cannot be read: {reason}. Check the name, config, split and revision, and the network "
            "(HF_TOKEN for private datasets, HF_HUB_OFFLINE must not be set)."
        ) from error
