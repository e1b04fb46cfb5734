"""The GLMs there are to choose from: the published ones and the embedded one.

One table; nothing is downloaded. Source: the list of models in the README of github.com/THUDM/GLM (names, languages, corpora,
objectives) and the paper (arXiv 2103.10360); sizes are `Architecture`'s presets.
"""

from __future__ import annotations

from dataclasses import dataclass

from glmkit.checkpoint.architecture import Architecture
from glmkit.embedded import ASSETS, DEFAULT_MODEL, is_here

MINI = (5, 288, 6, 320, 10240)
"""Layers, hidden size, heads, positions, vocabulary of `recipes/glm-mini/pretrain.yaml`; where the embedded model is
installed, its own configuration counts."""


@dataclass(frozen=True)
class Candidate:
    """A model to choose.

    Attributes:
        name: In tables.
        source: What `glmkit.load` takes: an embedded name, a hub name, or the folder of an archive once it is unpacked.
        preset: In `PRESETS`; "" for the embedded model.
        languages: Of its corpus, the main one first.
        corpus: What it has read.
        objectives: Of its pretraining: token ([MASK]), sentence ([sMASK]), document ([gMASK]).
        learnt: Needs (`tasks.NEEDS`) that were part of its pretraining, in its first language.
        archive: The file in the list of THUDM/GLM, where there is no hub repository.
        stored: Number type of its weights: those of the published ones are float16.
    """

    name: str
    source: str
    preset: str
    languages: tuple[str, ...]
    corpus: str
    objectives: tuple[str, ...]
    learnt: tuple[str, ...] = ()
    archive: str = ""
    stored: str = "float16"

    @property
    def config(self) -> Architecture:
        """Its sizes."""
        if self.preset:
            return Architecture.preset(self.preset)
        if is_here(self.source):
            return Architecture.from_folder(ASSETS / self.source)
        layers, hidden, heads, positions, vocabulary = MINI
        return Architecture(
            num_layers=layers,
            hidden_size=hidden,
            num_attention_heads=heads,
            max_sequence_length=positions,
            vocab_size=vocabulary,
            attention_dropout_prob=0.0,
            output_dropout_prob=0.0,
            embedding_dropout_prob=0.0,
        )


ALL = ("token", "sentence", "document")
BOOKS = "Wikipedia, BookCorpus"

CANDIDATES: tuple[Candidate, ...] = (
    Candidate(DEFAULT_MODEL, DEFAULT_MODEL, "", ("zh", "en"), "Chinese poems, Wikipedia, labelled tasks", ALL,
              ("sentiment", "topics", "answer", "summarize", "chat", "article", "poem"), stored="int8"),
    Candidate("base", "glm-base-blank", "base", ("en",), BOOKS, ("token",), archive="glm-base-blank.tar.bz2"),
    Candidate("large", "glm-large-blank", "large", ("en",), BOOKS, ("token",), archive="glm-large-blank.tar.bz2"),
    Candidate("large-generation", "glm-large-generation", "large", ("en",), BOOKS, ("token", "document"),
              archive="glm-large-generation.tar.bz2"),
    Candidate("roberta-large", "THUDM/glm-roberta-large", "roberta-large", ("en",), "RoBERTa's", ("token",)),
    Candidate("515m", "glm-1.5-generation", "515m", ("en",), BOOKS, ("token", "document"),
              archive="glm-1.5-generation.tar.bz2"),
    Candidate("2b", "THUDM/glm-2b", "2b", ("en",), "the Pile", ALL),
    Candidate("10b", "THUDM/glm-10b", "10b", ("en",), "the Pile", ALL),
    Candidate("large-chinese", "THUDM/glm-large-chinese", "large-chinese", ("zh",), "WuDaoCorpora", ALL),
    Candidate("10b-chinese", "THUDM/glm-10b-chinese", "10b-chinese", ("zh",), "WuDaoCorpora", ALL),
)  # fmt: skip
