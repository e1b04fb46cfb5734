"""Token ids on disk: written once, then read by any number of processes through memory maps.

In: the ids of documents, one after another. Out: the same ids by document or as one long stream. A store is
a folder: `tokens-00000.bin …` (ids, the smallest unsigned type that holds the vocabulary, little endian; no
document stands across two files), `offsets.bin` (int64, where each document begins in the stream, and the
end) and `store.json` (counts, checksums, the tokenizer's fingerprint). It is written under another name and
renamed when it is whole, so a folder that exists is a finished store. Knows no tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from glmkit.errors import DataError

FORMAT = "glmkit-token-store"
VERSION = 1
SHARD_TOKENS = 2**28
"""Tokens in one file before the next begins: 512 MiB of 16-bit ids."""

_OFFSET = np.dtype("<i8")


def dtype_for(vocab_size: int) -> np.dtype:
    """Returns the smallest unsigned integer type that holds the ids 0 … vocab_size - 1."""
    return np.min_scalar_type(max(vocab_size - 1, 1)).newbyteorder("<")


class TokenStoreWriter:
    """Writes a store; also a context manager, which throws the unfinished store away after an error.

    Args:
        folder: Where the finished store will be.
        tokenizer_fingerprint: Of the tokenizer that made the ids.
        vocab_size: All ids are below it.
        shard_tokens: Tokens in one file before the next begins.
        overwrite: Replace a store that is already there.

    Raises:
        DataError: `folder` exists and `overwrite` was not asked for.
    """

    def __init__(
        self,
        folder: str | Path,
        tokenizer_fingerprint: str,
        vocab_size: int,
        *,
        shard_tokens: int = SHARD_TOKENS,
        overwrite: bool = False,
    ):
        self.folder = Path(folder)
        if self.folder.exists() and not overwrite:
            raise DataError(
                f"{self.folder} already exists. Choose another folder, or ask to overwrite."
            )
        self.tokenizer_fingerprint = tokenizer_fingerprint
        self.vocab_size = vocab_size
        self.shard_tokens = shard_tokens
        self.dtype = dtype_for(vocab_size)
        self.num_documents = 0
        self.num_tokens = 0
        self._partial = self.folder.with_name(f".{self.folder.name}.partial")
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        self._shards: list[dict[str, Any]] = []
        self._tokens: _HashedFile | None = None
        self._offsets = _HashedFile(self._partial / "offsets.bin")
        self._offsets.write(np.zeros(1, dtype=_OFFSET))

    def add(self, ids: Any) -> None:
        """Appends one document: a sequence of token ids (list or integer array [tokens])."""
        ids = np.asarray(ids)
        self.add_many(ids, np.array([len(ids)]))

    def add_many(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        """Appends several documents at once.

        Args:
            ids: [tokens] integers, the documents' ids one after another.
            lengths: [documents] integers, in tokens; their sum is the length of `ids`.

        Raises:
            DataError: An id lies outside of the vocabulary.
        """
        assert lengths.sum() == len(ids), "lengths do not add up to the number of ids"
        if len(ids) and not (ids.min() >= 0 and ids.max() < self.vocab_size):
            raise DataError(
                f"{self.folder}: a token id lies outside of the vocabulary (found {ids.min()} … "
                f"{ids.max()}, allowed 0 … {self.vocab_size - 1}). The tokenizer and vocab_size disagree."
            )
        ends = np.cumsum(lengths)
        self._offsets.write((self.num_tokens + ends).astype(_OFFSET))
        start = done = 0
        while done < len(lengths):
            shard = self._shard()
            room = self.shard_tokens - shard["tokens"]
            fitting = int(np.searchsorted(ends, start + room, side="right"))
            upto = max(fitting, done + (shard["documents"] == 0))  # a new file takes any document
            if upto > done:
                stop = int(ends[upto - 1])
                assert self._tokens is not None
                self._tokens.write(ids[start:stop].astype(self.dtype))
                shard["documents"] += upto - done
                shard["tokens"] += stop - start
                start, done = stop, upto
            if done < len(lengths):
                self._close_shard()
        self.num_documents += len(lengths)
        self.num_tokens += len(ids)

    def close(self) -> None:
        """Makes the store appear, whole, under its name."""
        if not self._shards:
            self._shard()
        self._close_shard()
        header = {
            "format": FORMAT,
            "version": VERSION,
            "tokenizer_fingerprint": self.tokenizer_fingerprint,
            "vocab_size": self.vocab_size,
            "dtype": self.dtype.name,
            "documents": self.num_documents,
            "tokens": self.num_tokens,
            "shards": self._shards,
            "offsets": {"file": "offsets.bin", "sha256": self._offsets.close()},
        }
        with (self._partial / "store.json").open("w", encoding="utf-8") as file:
            json.dump(header, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self._partial.rename(self.folder)

    def discard(self) -> None:
        """Throws the unfinished store away."""
        self._offsets.close()
        if self._tokens is not None:
            self._tokens.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def __enter__(self) -> TokenStoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _shard(self) -> dict[str, Any]:
        if self._tokens is None:
            name = f"tokens-{len(self._shards):05d}.bin"
            self._tokens = _HashedFile(self._partial / name)
            self._shards.append({"file": name, "documents": 0, "tokens": 0})
        return self._shards[-1]

    def _close_shard(self) -> None:
        if self._tokens is not None:
            self._shards[-1]["sha256"] = self._tokens.close()
            self._tokens = None


class TokenStore:
    """A finished store; `open` it. Pickles as its folder's name and maps the files again where unpickled.

    Attributes:
        folder: Where it is.
        tokenizer_fingerprint: Of the tokenizer that made the ids.
        vocab_size: All ids are below it.
        offsets: [documents + 1] int64: document i is the tokens offsets[i] … offsets[i + 1] of the stream.
        num_tokens: Length of the stream.
    """

    def __init__(self, folder: Path, header: dict[str, Any]):
        self.folder = folder
        self.tokenizer_fingerprint: str = header["tokenizer_fingerprint"]
        self.vocab_size: int = header["vocab_size"]
        self.num_tokens: int = header["tokens"]
        dtype = np.dtype(header["dtype"]).newbyteorder("<")
        self.offsets = _map(folder / header["offsets"]["file"], _OFFSET, header["documents"] + 1)
        self._shards = [
            # Plain views: a slice of a memmap costs three times as much.
            np.asarray(_map(folder / one["file"], dtype, one["tokens"]))
            for one in header["shards"]
        ]
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])
        if self.offsets[-1] != self.num_tokens or self._starts[-1] != self.num_tokens:
            raise DataError(f"{folder}: the document index and the tokens disagree; {_AGAIN}.")

    @classmethod
    def open(
        cls,
        folder: str | Path,
        tokenizer_fingerprint: str | None = None,
        *,
        verify: bool = False,
    ) -> TokenStore:
        """Opens a store; the sizes of its files are always checked.

        Args:
            folder: What a `TokenStoreWriter` wrote.
            tokenizer_fingerprint: Of the tokenizer in use; None to skip the comparison.
            verify: Read every file and compare its checksum (seconds per GiB).

        Raises:
            DataError: Not a store, unfinished, made with another tokenizer, or a file is missing, cut short
                or changed; names the file.
        """
        folder = Path(folder)
        header = _read_header(folder)
        if tokenizer_fingerprint not in (None, header["tokenizer_fingerprint"]):
            raise DataError(
                f"{folder} was made with another tokenizer (its fingerprint is "
                f"{header['tokenizer_fingerprint'][:16]}…, this tokenizer's {str(tokenizer_fingerprint)[:16]}…). "
                "Use the tokenizer that was saved beside the store, or prepare the corpus again with this one."
            )
        if verify:
            for entry in (*header["shards"], header["offsets"]):
                _verify(folder / entry["file"], entry["sha256"])
        return cls(folder, header)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def document(self, index: int) -> np.ndarray:
        """Returns the ids of one document, [tokens] int64 (a copy)."""
        if not 0 <= index < len(self):
            raise IndexError(f"document {index} of {len(self)} in {self.folder}")
        return self.tokens(int(self.offsets[index]), int(self.offsets[index + 1]))

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Returns tokens `start` … `stop` - 1 of the stream of all documents, [stop - start] int64 (a copy)."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens {start} … {stop} of {self.num_tokens} in {self.folder}")
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        pieces = []
        for shard, begin in zip(self._shards[first:], self._starts[first:], strict=False):
            if begin >= stop:
                break
            pieces.append(shard[max(start - begin, 0) : stop - begin])
        whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces or [np.empty(0)])
        return whole.astype(np.int64)

    def __reduce__(self) -> tuple:
        return TokenStore.open, (self.folder,)

    def __repr__(self) -> str:
        return f"TokenStore({str(self.folder)!r}, {len(self)} documents, {self.num_tokens} tokens)"


_AGAIN = "copy the store again, or prepare the corpus again"


class _HashedFile:
    """A file that is written once, with the checksum of what went in."""

    def __init__(self, path: Path):
        self._file: BinaryIO = path.open("wb")
        self._sha256 = hashlib.sha256()

    def write(self, values: np.ndarray) -> None:
        data = values.tobytes()
        self._file.write(data)
        self._sha256.update(data)

    def close(self) -> str:
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        return self._sha256.hexdigest()


def _read_header(folder: Path) -> dict[str, Any]:
    path = folder / "store.json"
    if not path.is_file():
        unfinished = folder.with_name(f".{folder.name}.partial").exists()
        raise DataError(
            f"{folder} is no token store: {path.name} is not there"
            + (
                " (an unfinished one lies beside it: run the preparation again)."
                if unfinished
                else "."
            )
            + " Make one with: glmkit prepare SOURCE -o DIR --tokenizer T"
        )
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); {_AGAIN}.") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise DataError(f"{path} does not describe a token store; {_AGAIN}.")
    if header["version"] != VERSION:
        raise DataError(
            f"{path} has version {header['version']}, this glmkit reads {VERSION}. Update glmkit, or prepare "
            "the corpus again."
        )
    return header


def _map(path: Path, dtype: np.dtype, length: int) -> np.ndarray:
    expected = length * dtype.itemsize
    if not path.is_file():
        raise DataError(f"{path} is missing; {_AGAIN}.")
    if path.stat().st_size != expected:
        raise DataError(
            f"{path} has {path.stat().st_size} bytes, expected {expected}: it is cut short or was changed; {_AGAIN}."
        )
    if length == 0:
        return np.empty(0, dtype)
    return np.memmap(path, dtype, mode="r", shape=(length,))


def _verify(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise DataError(f"{path} is missing; {_AGAIN}.")
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise DataError(f"{path} was changed or damaged: its checksum differs; {_AGAIN}.")
