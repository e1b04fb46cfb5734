"""What a preparation did, as numbers (`report.json`) and as a table to read (`report.txt`)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from glmkit.errors import DataError


@dataclass
class SplitCounts:
    """Size of one split; `tokens` include [CLS] and <|endoftext|>, `longest` is in tokens."""

    documents: int = 0
    characters: int = 0
    tokens: int = 0
    longest: int = 0

    def add(self, lengths: np.ndarray, characters: np.ndarray) -> None:
        """Counts documents: their lengths in tokens, and in characters (both [documents])."""
        self.documents += len(lengths)
        self.characters += int(characters.sum())
        self.tokens += int(lengths.sum())
        self.longest = max(self.longest, int(lengths.max(initial=0)))

    @property
    def characters_per_token(self) -> float:
        """Without the two tokens that wrap each document; 0 for an empty split."""
        tokens = self.tokens - 2 * self.documents
        return self.characters / tokens if tokens else 0.0


@dataclass(frozen=True)
class PrepareReport:
    """The outcome of `prepare`.

    Attributes:
        folder: Holds `train/`, `valid/` and `tokenizer/`.
        documents_read: Documents before cleaning.
        characters_read: Characters before cleaning.
        dropped: Reason -> number of documents, records or pages.
        train: Size of the training split.
        valid: Size of the validation split.
        inputs: Sources with checksums, tokenizer and settings: what the outcome depends on.
        seconds: Wall-clock time of this call; not saved.
        reused: The work had been done by an earlier call; not saved.
    """

    folder: Path
    documents_read: int
    characters_read: int
    dropped: dict[str, int]
    train: SplitCounts
    valid: SplitCounts
    inputs: dict[str, Any] = field(repr=False)
    seconds: float = 0.0
    reused: bool = False

    def save(self) -> None:
        """Writes `report.txt`, then `report.json`, whose presence says that all is done."""
        values = asdict(self)
        for name in ("folder", "seconds", "reused"):
            del values[name]
        _write(self.folder / "report.txt", self.table() + "\n")
        _write(self.folder / "report.json", json.dumps(values, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> PrepareReport:
        """Reads the report of a prepared corpus.

        Raises:
            DataError: `folder` is not one, or its report is damaged.
        """
        folder = Path(folder)
        try:
            values = json.loads((folder / "report.json").read_text(encoding="utf-8"))
            for name in ("train", "valid"):
                values[name] = SplitCounts(**values[name])
            return cls(folder=folder, **values)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder} holds no finished corpus ({error}). Make one with: glmkit prepare SOURCE -o {folder}"
            ) from error

    def table(self) -> str:
        """Returns the report as lines of text, for a terminal or a file."""
        rows = [("", "documents", "characters", "tokens", "chars/token", "longest")]
        for name in ("train", "valid"):
            split: SplitCounts = getattr(self, name)
            rows.append(
                (
                    name,
                    f"{split.documents:,}",
                    f"{split.characters:,}",
                    f"{split.tokens:,}",
                    f"{split.characters_per_token:.2f}",
                    f"{split.longest:,}",
                )
            )
        rows.append(("read", f"{self.documents_read:,}", f"{self.characters_read:,}", "", "", ""))
        rows += [
            (f"dropped: {reason}", f"{count:,}", "", "", "", "")
            for reason, count in self.dropped.items()
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if index else cell.ljust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )

    def __str__(self) -> str:
        return self.table()


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(path)
