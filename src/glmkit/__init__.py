"""glmkit: the home of GLM (General Language Model, autoregressive blank infilling).

The folders are the pipeline, in the order in which data flows:

    corpus      raw text -> documents
    tokens      documents -> ids, in memory-mapped stores
    blanks      ids -> blanks: part A, part B, 2-D positions, labels
    checkpoint  weights on disk, in every format of GLM
    model       batch -> logits, loss
    training    batches -> weights
    generation  text with blanks -> filled text
    evaluation  weights -> numbers
    explain     text and what was written -> why
    choosing    a task and a machine -> which model
    applications  chat, articles, poems, answers, summaries, labels
    cli         the command

Names below are imported when first used, so that `import glmkit` is quick and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from glmkit.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    GenerationError,
    MissingDependencyError,
    TokenizerError,
    UserError,
    needs_torch,
)

if TYPE_CHECKING:
    from glmkit.api import GLM, load
    from glmkit.applications.poetry.checking import check_poem
    from glmkit.choosing.ranking import Choice, choose
    from glmkit.explain.results import Explanation
    from glmkit.generation.results import (
        Answer,
        Candidate,
        Classification,
        Filled,
        Poem,
        Score,
        Span,
        Tagging,
    )
    from glmkit.model import (
        GLMConfig,
        GLMForConditionalGeneration,
        GLMForMultipleChoice,
        GLMForSequenceClassification,
        GLMForTokenClassification,
        GLMModel,
    )
    from glmkit.tokens.tokenizer import GLMTokenizer

__version__ = "0.1.0"

_LAZY = {
    "GLM": "glmkit.api",
    "load": "glmkit.api",
    "Answer": "glmkit.generation.results",
    "Classification": "glmkit.generation.results",
    "Candidate": "glmkit.generation.results",
    "Explanation": "glmkit.explain.results",
    "Filled": "glmkit.generation.results",
    "Score": "glmkit.generation.results",
    "Span": "glmkit.generation.results",
    "Tagging": "glmkit.generation.results",
    "GLMConfig": "glmkit.model",
    "GLMForConditionalGeneration": "glmkit.model",
    "GLMForMultipleChoice": "glmkit.model",
    "GLMForSequenceClassification": "glmkit.model",
    "GLMForTokenClassification": "glmkit.model",
    "GLMModel": "glmkit.model",
    "GLMTokenizer": "glmkit.tokens.tokenizer",
    "Poem": "glmkit.generation.results",
    "check_poem": "glmkit.applications.poetry.checking",
    "Choice": "glmkit.choosing.ranking",
    "choose": "glmkit.choosing.ranking",
}

__all__ = [
    "GLM",
    "Answer",
    "Candidate",
    "CheckpointError",
    "Choice",
    "Classification",
    "ConfigError",
    "DataError",
    "Explanation",
    "Filled",
    "GLMConfig",
    "GLMForConditionalGeneration",
    "GLMForMultipleChoice",
    "GLMForSequenceClassification",
    "GLMForTokenClassification",
    "GLMModel",
    "GLMTokenizer",
    "GenerationError",
    "MissingDependencyError",
    "Poem",
    "Score",
    "Span",
    "Tagging",
    "TokenizerError",
    "UserError",
    "__version__",
    "check_poem",
    "choose",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'glmkit' has no attribute {name!r}")
    with needs_torch(f"glmkit.{name}", f"glmkit.{name} "):
        value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
