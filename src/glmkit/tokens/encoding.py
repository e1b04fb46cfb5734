"""The last step of a preparation task: cleaned documents -> a token store of the task, and its accounts.

A part is a folder `NNNNN` with a token store of all the task's documents, `digests.bin` (16 bytes a document,
see `glmkit.corpus.cleaning`), `characters.bin` (int64 a document) and `counts.json`. It is renamed into place
when whole, so that a killed task leaves nothing behind that could be taken for a part.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document as PipelineDocument
from datatrove.pipeline.base import PipelineStep

from glmkit.corpus.pipeline import Tally
from glmkit.corpus.steps.accounts import Accounts
from glmkit.tokens.batch_encoder import BatchEncoder
from glmkit.tokens.store import TokenStore, TokenStoreWriter

BATCH_DOCUMENTS = 1024
BATCH_CHARS = 2**20
DIGEST = np.dtype("V16")


class EncodeStep(PipelineStep):
    """Writes the part of the task whose number is the rank, and hands the documents on.

    Args:
        tokenizer: A `GLMTokenizer`, or what behaves like one: called with a list of texts, and with
            `special_ids`, `fingerprint()` and a length.
        folder: Where the parts go; `folder/progress` gets the number of source bytes consumed.
        tally: Shared with the steps before.
    """

    type, name = "tokenizer", "encode"

    def __init__(self, tokenizer: Any, folder: Path, tally: Tally):
        super().__init__()
        self.tokenizer, self.folder, self.tally = tokenizer, folder, tally

    def __deepcopy__(self, memo: dict[int, Any]) -> EncodeStep:
        """The engine copies the steps for each task: the tally, not the vocabulary."""
        memo[id(self.tokenizer)] = self.tokenizer
        copied = type(self).__new__(type(self))
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        return copied

    def run(
        self, data: Iterator[PipelineDocument], rank: int = 0, world_size: int = 1
    ) -> Iterator[PipelineDocument]:
        """Encodes in batches; yields each document when it is written."""
        target = self.folder / f"{rank:05d}"
        # The name keeps a task apart from one that outlives a killed parent; both write the same bytes.
        partial = target.with_name(f".{target.name}.{socket.gethostname()}.{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        progress = self.folder / "progress" / target.name
        progress.parent.mkdir(exist_ok=True)
        fingerprint, size = self.tokenizer.fingerprint(), len(self.tokenizer)
        encode = _encoder(self.tokenizer, fingerprint)
        with (
            TokenStoreWriter(partial / "store", fingerprint, size) as writer,
            (partial / "digests.bin").open("wb") as digests,
            (partial / "characters.bin").open("wb") as characters,
        ):
            for batch in batches(data):
                writer.add_many(*encode([document.text for document in batch]))
                digests.write(b"".join(document.metadata["digest"] for document in batch))
                lengths = np.array([len(document.text) for document in batch], "<i8")
                characters.write(lengths.tobytes())
                progress.write_text(str(self.tally.log.bytes_read))
                yield from batch
        counts = {
            "documents_read": self.tally.log.documents,
            "dropped": self.tally.log.dropped,
            "accounts": self.tally.accounts.to_json(),
        }
        (partial / "counts.json").write_text(json.dumps(counts), encoding="utf-8")
        try:
            partial.rename(target)
        except OSError:
            if not target.exists():
                raise
            shutil.rmtree(partial)


_encoders: dict[str, BatchEncoder] = {}
"""Of this process: the next task finds the segments of the last one known."""


def _encoder(tokenizer: Any, fingerprint: str) -> BatchEncoder:
    if fingerprint not in _encoders:
        _encoders.clear()
        _encoders[fingerprint] = BatchEncoder(tokenizer)
    return _encoders[fingerprint]


def batches(data: Iterable[PipelineDocument]) -> Iterator[list[PipelineDocument]]:
    """Yields lists of at most `BATCH_DOCUMENTS` documents or, but for the last of them, `BATCH_CHARS` characters."""
    batch: list[PipelineDocument] = []
    characters = 0
    for document in data:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class EncodedPart:
    """One finished part, open for reading.

    Attributes:
        digests: [documents] 16 bytes each.
        characters: [documents] int64.
        documents_read: Documents that the reader handed out.
        dropped: What the reader dropped, by reason.
        accounts: What became of the documents.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self.digests = _mapped(folder / "digests.bin", DIGEST)
        self.characters = _mapped(folder / "characters.bin", np.dtype("<i8"))
        counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
        self.documents_read: int = counts["documents_read"]
        self.dropped = Counter(counts["dropped"])
        self.accounts = Accounts.from_json(counts["accounts"])

    def chunks(self, documents: int = 16384) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Yields (documents, their ids [tokens], their lengths), a bounded number of documents at a time."""
        # Opened here, so that its memory maps are let go of with the part.
        store = TokenStore.open(self._folder / "store")
        offsets = store.offsets
        for start in range(0, len(store), documents):
            stop = min(start + documents, len(store))
            ids = store.tokens(int(offsets[start]), int(offsets[stop]))
            yield slice(start, stop), ids, np.diff(offsets[start : stop + 1])


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    return np.memmap(path, dtype, "r") if path.stat().st_size else np.empty(0, dtype)
