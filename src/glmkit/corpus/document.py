"""The noun that flows through the corpus pipeline, and the account of what reading it cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Document:
    """One text: an article, a poem, a file.

    Field names are those of datatrove's own Document, so a step can turn one into the other.

    Attributes:
        text: The text itself.
        id: Unique within its source: file name and line, page or piece number.
        metadata: What else the record held (title, author …); never tokenised.
    """

    text: str
    id: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class ReadLog:
    """What a reader has done so far; pass one to `read_documents` and look at it at any time.

    Attributes:
        documents: Documents handed out.
        dropped: Reason -> how many records, pages or files were read and not handed out.
        bytes_read: Bytes of the source files consumed (compressed bytes where they are compressed).
    """

    documents: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    bytes_read: int = 0

    def __str__(self) -> str:
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.dropped.most_common())
        return f"{self.documents} documents" + (f"; dropped: {dropped}" if dropped else "")
