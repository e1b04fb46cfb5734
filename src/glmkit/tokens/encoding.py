"""The last step of a preparation task: cleaned documents -> a token store of the task, and its accounts.

A part is a folder `NNNNN` with a token store of all the task's documents, `digests.bin` (16 bytes a document,
see `glmkit.corpus.cleaning`), `characters.bin` (int64 a document) and `counts.json`. It is renamed into place
when whole, so that a killed task leaves nothing behind that could be taken for a part.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document as PipelineDocument
from datatrove.pipeline.base import PipelineStep

from glmkit.corpus.pipeline import Tally
from glmkit.tokens.store import TokenStore, TokenStoreWriter

BATCH_DOCUMENTS = 512
DIGEST = np.dtype("V16")


class EncodeStep(PipelineStep):
    """Writes the part of the task whose number is the rank; yields nothing.

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

    def run(
        self, data: Iterator[PipelineDocument], rank: int = 0, world_size: int = 1
    ) -> Iterator[PipelineDocument]:
        """Encodes in batches of `BATCH_DOCUMENTS`."""
        target = self.folder / f"{rank:05d}"
        if not target.exists():
            self._write(data, target)
        yield from ()

    def _write(self, data: Iterator[PipelineDocument], target: Path) -> None:
        # The process id keeps a task apart from one that outlives a killed parent; both write the same bytes.
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        progress = self.folder / "progress" / target.name
        progress.parent.mkdir(exist_ok=True)
        fingerprint, size = self.tokenizer.fingerprint(), len(self.tokenizer)
        with (
            TokenStoreWriter(partial / "store", fingerprint, size) as writer,
            (partial / "digests.bin").open("wb") as digests,
            (partial / "characters.bin").open("wb") as characters,
        ):
            while batch := list(islice(data, BATCH_DOCUMENTS)):
                writer.add_many(*encode(self.tokenizer, [document.text for document in batch]))
                digests.write(b"".join(document.metadata["digest"] for document in batch))
                lengths = np.array([len(document.text) for document in batch], "<i8")
                characters.write(lengths.tobytes())
                progress.write_text(str(self.tally.log.bytes_read))
        counts = {
            "documents_read": self.tally.log.documents,
            "characters_read": self.tally.chars_read,
            "dropped": self.tally.dropped,
        }
        (partial / "counts.json").write_text(json.dumps(counts), encoding="utf-8")
        try:
            partial.rename(target)
        except OSError:
            if not target.exists():
                raise
            shutil.rmtree(partial)


def encode(tokenizer: Any, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (ids [tokens], lengths [texts]), each text as [CLS] … <|endoftext|>.

    What looks like a special token in a corpus is text: it is spelled, not taken for the token.
    """
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    cls, eos = (tokenizer.special_ids.cls,), (tokenizer.special_ids.eos,)
    lengths = np.array([len(ids) + 2 for ids in encoded])
    stream = chain.from_iterable(chain(cls, ids, eos) for ids in encoded)
    return np.fromiter(stream, np.int64, int(lengths.sum())), lengths


class EncodedPart:
    """One finished part, open for reading.

    Attributes:
        store: Its documents' ids.
        digests: [documents] 16 bytes each.
        characters: [documents] int64.
        documents_read, characters_read, dropped: The accounts of the task.
    """

    def __init__(self, folder: Path):
        self.store = TokenStore.open(folder / "store")
        self.digests = np.fromfile(folder / "digests.bin", DIGEST)
        self.characters = np.fromfile(folder / "characters.bin", "<i8")
        counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
        self.documents_read: int = counts["documents_read"]
        self.characters_read: int = counts["characters_read"]
        self.dropped = Counter(counts["dropped"])

    def chunks(self, documents: int = 16384) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Yields (documents, their ids [tokens], their lengths), a bounded number of documents at a time."""
        offsets = self.store.offsets
        for start in range(0, len(self.store), documents):
            stop = min(start + documents, len(self.store))
            ids = self.store.tokens(int(offsets[start]), int(offsets[stop]))
            yield slice(start, stop), ids, np.diff(offsets[start : stop + 1])
