"""A published or own model -> the same with more words: the body of `glmkit extend-vocabulary`.

In: a checkpoint with its tokenizer, and words or a corpus to find them in. Out: a glmkit folder from which
`glmkit prepare` and `glmkit pretrain` (`model.from`) go on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glmkit.checkpoint import new_folder, resolve
from glmkit.corpus.sources import read_documents
from glmkit.errors import ConfigError
from glmkit.model.modeling import GLMForConditionalGeneration
from glmkit.model.vocabulary import extend_embeddings
from glmkit.tokens.extend import add_words, find_words
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.training.building import padded_rows, special_fields, tokenizer_rows


@dataclass(frozen=True)
class ExtensionReport:
    """What `extend_vocabulary` did.

    Attributes:
        folder: The new model.
        words: That were added, in the order of their ids.
        known: Words that were one token already.
        tokens_before: Of the vocabulary.
        tokens_after: The same, with the words.
        rows: Of the embedding, padding included.
        saved_ratio: Share of the tokens that the corpus (its first thousand documents) now needs less, 0 without one.
    """

    folder: Path
    words: list[str] = field(repr=False)
    known: list[str] = field(repr=False)
    tokens_before: int
    tokens_after: int
    rows: int
    saved_ratio: float

    def __str__(self) -> str:
        examples = ", ".join(self.words[:8]) + (" …" if len(self.words) > 8 else "")
        saved = (
            f"; the corpus takes {self.saved_ratio:.1%} fewer tokens" if self.saved_ratio else ""
        )
        known = f"; {len(self.known)} were tokens already" if self.known else ""
        return (
            f"{self.folder}: {len(self.words)} words added ({examples}){known}; {self.tokens_after} tokens in "
            f"{self.rows} rows{saved}"
        )


def extend_vocabulary(
    source: str | Path,
    target: str | Path,
    *,
    words: Sequence[str] = (),
    corpus: Sequence[str | Path] = (),
    learn: int = 0,
    text_field: str | None = None,
    tokenizer: str | Path | None = None,
    overwrite: bool = False,
) -> ExtensionReport:
    """Writes a model with more words in its vocabulary; with text that has none of them it does what it did.

    Args:
        source: A folder or hub name in any known format.
        target: Folder to write, in glmkit's format.
        words: To add.
        corpus: Files in which further words are found.
        learn: How many words to find there.
        text_field: The field of a record that holds its text.
        tokenizer: Folder with the vocabulary, for training folders, which have none.
        overwrite: Whether a model at `target` may be replaced.

    Raises:
        ConfigError: No words asked for.
        TokenizerError: Words that cannot be added, or no tokenizer.
        CheckpointError: The source cannot be read, or the target is taken.
    """
    if not words and not (corpus and learn):
        raise ConfigError("name words to add, or a corpus and how many words to find in it")
    with new_folder(target, overwrite=overwrite) as temporary:
        folder = resolve(source)
        old = GLMTokenizer.from_pretrained(folder if tokenizer is None else tokenizer)
        wanted = list(dict.fromkeys(words))
        if learn:
            found = find_words(old, _texts(corpus, text_field), learn)
            wanted += [word for word in found if word not in set(wanted)]
        new, sources = add_words(old, wanted)
        model = GLMForConditionalGeneration.from_pretrained(folder)
        extend_embeddings(model, padded_rows(tokenizer_rows(new)), sources)
        for name, value in special_fields(new).items():
            setattr(model.config, name, value)
        added = [str(new.convert_ids_to_tokens(index)) for index in sources]
        report = ExtensionReport(
            folder=Path(target),
            words=added,
            known=[word for word in wanted if word not in set(added)],
            tokens_before=len(old),
            tokens_after=len(new),
            rows=model.config.vocab_size,
            saved_ratio=_saved(old, new, itertools.islice(_texts(corpus, text_field), 1000)),
        )
        model.save_pretrained(temporary)
        new.save_pretrained(temporary)
    return report


def _texts(corpus: Sequence[str | Path], text_field: str | None) -> Iterator[str]:
    for path in corpus:
        for document in read_documents(path, text_field=text_field):
            yield document.text


def _saved(old: GLMTokenizer, new: GLMTokenizer, texts: Iterable[str]) -> float:
    before = after = 0
    for text in texts:
        before += len(old(text)["input_ids"])
        after += len(new(text)["input_ids"])
    return 1 - after / before if before else 0.0
