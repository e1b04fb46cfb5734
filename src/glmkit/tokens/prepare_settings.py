"""A preparation as a recipe: what is read, what happens to each text, and on what machines."""

from __future__ import annotations

from dataclasses import dataclass, field

from glmkit.corpus.engine_settings import Engine
from glmkit.corpus.steps.settings import Steps


@dataclass
class PrepareData:
    """The `data` section.

    Attributes:
        sources: Files, folders, globs, URLs and datasets (`hf:…`); those on the command line come in their place.
        text_field: Field, fields or template of the records; None finds it.
        valid_ratio: Share of the documents for validation, in [0, 1).
        steps: What happens to each text.
    """

    sources: list[str] = field(default_factory=list)
    text_field: str | None = None
    valid_ratio: float = 0.01
    steps: Steps = field(default_factory=Steps)


@dataclass
class PrepareRecipe:
    """A recipe for `glmkit prepare`.

    Attributes:
        data: What is read and what happens to it: the outcome depends on this alone.
        engine: Where the work is done.
    """

    data: PrepareData = field(default_factory=PrepareData)
    engine: Engine = field(default_factory=Engine)
