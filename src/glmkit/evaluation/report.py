"""`glmkit evaluate`: a model measured on files, as a table and as JSON that says what it was made of."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from glmkit.blanks.objectives import OBJECTIVES
from glmkit.corpus.sources import read_documents
from glmkit.errors import DataError
from glmkit.evaluation.perplexity import Totals, left_to_right, on_blanks
from glmkit.evaluation.provenance import versions
from glmkit.whole_files import write_text


@dataclass(frozen=True)
class EvaluationReport:
    """The outcome of `evaluate_files`.

    Attributes:
        model: What was measured.
        data: The files.
        documents: Documents read from them (empty ones left out).
        data_fingerprint: SHA-256 of the documents' texts.
        seed: Of the blanks.
        measures: "left to right", "blanks: token", "blanks: document" -> sums.
        seconds: Wall-clock time.
        versions: Of the software.
    """

    model: str
    data: list[str]
    documents: int
    data_fingerprint: str
    seed: int
    measures: dict[str, Totals]
    seconds: float
    versions: dict[str, str]

    def table(self) -> str:
        """Returns the report as lines of text."""
        width = max(map(len, self.measures))
        lines = [
            f"{self.model} on {self.documents:,} documents ({self.seconds:.0f} s)",
            f"{'':<{width}}  {'tokens':>9}  {'ppl/token':>10}  {'ppl/character':>13}  {'ppl/byte':>8}  bits/character",
        ]
        lines += [
            f"{name:<{width}}  {sums.tokens:>9,}  {sums.perplexity():>10.2f}  {sums.perplexity('character'):>13.3f}  "
            f"{sums.perplexity('byte'):>8.3f}  {sums.bits_per_character:>14.3f}"
            for name, sums in self.measures.items()
        ]
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Writes the report as JSON, sums and the perplexities that follow from them."""
        values: dict[str, Any] = asdict(self)
        for name, sums in self.measures.items():
            values["measures"][name] |= {
                "perplexity_per_token": sums.perplexity(),
                "perplexity_per_character": sums.perplexity("character"),
                "perplexity_per_byte": sums.perplexity("byte"),
                "bits_per_character": sums.bits_per_character,
            }
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def evaluate_files(
    glm: Any,
    data: Sequence[str | Path],
    *,
    name: str = "",
    text_field: str | None = None,
    max_documents: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
) -> EvaluationReport:
    """Measures a model's perplexity on files, left to right and on blanks.

    Args:
        glm: A loaded `glmkit.GLM`.
        data: Whatever `corpus.read_documents` reads.
        name: Of the model, for the report.
        text_field: Field or template of the records.
        max_documents: Read at most so many documents of each source.
        seed: Of the blanks.
        batch_size: Windows at a time.

    Raises:
        DataError: A file cannot be read, or holds no text.
    """
    texts = [
        document.text
        for source in data
        for document in islice(read_documents(source, text_field=text_field), max_documents)
        if document.text.strip()
    ]
    if not texts:
        raise DataError(f"no text in {', '.join(map(str, data))}")
    started, model, tokenizer = time.monotonic(), glm.model, glm.vocabulary
    measures = {"left to right": left_to_right(model, tokenizer, texts, batch_size=batch_size)}
    for objective in OBJECTIVES:
        measures[f"blanks: {objective}"] = on_blanks(
            model, tokenizer, texts, objective=objective, seed=seed, batch_size=batch_size
        )
    return EvaluationReport(
        model=name,
        data=[str(source) for source in data],
        documents=len(texts),
        data_fingerprint=hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest(),
        seed=seed,
        measures={name: sums for name, sums in measures.items() if sums.tokens and sums.characters},
        seconds=time.monotonic() - started,
        versions=versions(),
    )
