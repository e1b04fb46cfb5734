"""What a preparation did, as numbers (`report.json`) and to read (`report.txt`, `report.html`)."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from glmkit.corpus.steps.accounts import StepCounts
from glmkit.errors import DataError
from glmkit.whole_files import write_text


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
        read_dropped: Reason -> records, pages or files that the reader did not take for documents.
        steps: Name of each step, in order -> its counts.
        languages: Language (with the language filter) or script -> documents that were long enough.
        lengths: `read` and `kept`: bin of the length in characters (see `accounts.length_bin`) -> documents.
        train: Size of the training split.
        valid: Size of the validation split.
        inputs: Sources with checksums, tokenizer and settings: what the outcome depends on.
        examples: Dropped texts, as in `dropped.jsonl`; not in `report.json`.
        seconds: Wall-clock time of this call; not saved.
        reused: The work had been done by an earlier call; not saved.
    """

    folder: Path
    documents_read: int
    characters_read: int
    read_dropped: dict[str, int]
    steps: dict[str, StepCounts]
    languages: dict[str, int]
    lengths: dict[str, dict[int, int]]
    train: SplitCounts
    valid: SplitCounts
    inputs: dict[str, Any] = field(repr=False)
    examples: list[dict[str, str]] = field(default_factory=list, repr=False)
    seconds: float = 0.0
    reused: bool = False

    @property
    def dropped(self) -> dict[str, int]:
        """Reason -> number of documents, records or pages, of the reader and of all steps."""
        total = Counter(self.read_dropped)
        for counts in self.steps.values():
            total += counts.dropped
        return dict(sorted(total.items()))

    def save(self) -> None:
        """Writes all forms of the report; last `report.json`, whose presence says that all is done."""
        from glmkit.tokens.prepare_figures import save_figures, save_page

        values = asdict(self)
        for name in ("folder", "examples", "seconds", "reused"):
            del values[name]
        if self.examples:
            lines = (json.dumps(one, ensure_ascii=False) for one in self.examples)
            write_text(self.folder / "dropped.jsonl", "\n".join(lines) + "\n")
        write_text(self.folder / "report.txt", self.table() + "\n")
        save_page(self, save_figures(self, self.folder / "figures"), self.folder / "report.html")
        write_text(
            self.folder / "report.json", json.dumps(values, indent=1, ensure_ascii=False) + "\n"
        )

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
            values["steps"] = {name: StepCounts(**one) for name, one in values["steps"].items()}
            values["lengths"] = {
                name: {int(one): count for one, count in counts.items()}
                for name, counts in values["lengths"].items()
            }
            return cls(folder=folder, **values)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder} holds no finished corpus ({error}). Make one with: glmkit prepare SOURCE -o {folder}"
            ) from error

    def tables(self) -> dict[str, list[tuple[str, ...]]]:
        """Returns title -> rows of text; the first row is the heading, the first column names the row."""
        stores: list[tuple[str, ...]] = [
            ("", "documents", "characters", "tokens", "chars/token", "longest")
        ]
        for name in ("train", "valid"):
            split: SplitCounts = getattr(self, name)
            numbers = (split.documents, split.characters, split.tokens)
            ratio = f"{split.characters_per_token:.2f}"
            stores.append((name, *(f"{one:,}" for one in numbers), ratio, f"{split.longest:,}"))
        stores.append(("read", f"{self.documents_read:,}", f"{self.characters_read:,}", "", "", ""))
        steps: list[tuple[str, ...]] = [
            ("", "documents in", "out", "characters in", "out", "texts changed")
        ]
        for name, one in self.steps.items():
            counts = (one.documents_in, one.documents_out, one.characters_in, one.characters_out)
            changed = f"{one.changed:,}" if one.changed else ""
            steps.append((name, *(f"{number:,}" for number in counts), changed))
        reasons: list[tuple[str, ...]] = [("", "step", "documents", "characters")]
        reasons += [(reason, "reading", f"{n:,}", "") for reason, n in self.read_dropped.items()]
        for name, one in self.steps.items():
            for reason, count in sorted(one.dropped.items(), key=lambda item: (-item[1], item[0])):
                reasons.append((reason, name, f"{count:,}", f"{one.dropped_characters[reason]:,}"))
        languages: list[tuple[str, ...]] = [
            ("", "documents"),
            *((name, f"{n:,}") for name, n in self.languages.items()),
        ]
        return {"stores": stores, "steps": steps, "dropped": reasons, "languages": languages}

    def table(self) -> str:
        """Returns the report as lines of text, for a terminal or a file."""
        return "\n\n".join(
            _aligned([(title, *rows[0][1:]), *rows[1:]])
            for title, rows in self.tables().items()
            if len(rows) > 1
        )

    def __str__(self) -> str:
        return self.table()


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
