"""Training a vocabulary: texts in, a `GLMTokenizer` that loses no text out.

In: an iterable of texts, or files that `corpus` can read. Out: a tokenizer of kind "glmkit" with GLM's special tokens
behind the learned ones, and a report (characters per token, share of byte tokens). Every Unicode text without lone
surrogates comes back from its ids exactly, spaces and newlines included.

Text is first split into words (`vocabulary.WORDS`): a newline, a run of Chinese characters, a run of other letters
with the space before it, one digit, one punctuation mark (or the same one repeated), a run of blanks. Tokens never cross
words, so newlines and sentence ends are tokens of their own, as the sentence objective needs.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tokenizers import AddedToken, Tokenizer, processors

from glmkit.corpus.sources import read_documents
from glmkit.errors import DataError, TokenizerError, nearest
from glmkit.special_tokens import CLS, DBLOCK, EOP, EOS, GMASK, MASK, SEP, SMASK, SOP
from glmkit.tokens.base import well_formed
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.tokens.vocabulary import BYTES, UNK, fixed_tokens, learn

logger = logging.getLogger(__name__)

Kind = Literal["unigram", "bpe", "wordpiece"]

MAX_CHARACTERS = {"unigram": 4_000_000, "bpe": 16_000_000, "wordpiece": 8_000_000}
"""Characters of the corpus that each algorithm learns from by default; on two cores about a minute at most."""

_SPECIAL = (CLS, SEP, EOS, MASK, SMASK, GMASK, SOP, EOP, DBLOCK)
_FEWEST_LEARNED = 16
_PIECE = 10_000
"""Characters of a text that are sampled together."""


@dataclass(frozen=True)
class TokenizerReport:
    """How well a vocabulary fits a text.

    Attributes:
        vocab_size: Tokens of the vocabulary, the special ones included.
        documents: Texts that were encoded.
        characters: Their Unicode characters.
        tokens: Their tokens, without special tokens around each text.
        byte_tokens: Those of the tokens that are bytes or other parts of characters.
    """

    vocab_size: int
    documents: int
    characters: int
    tokens: int
    byte_tokens: int

    @property
    def characters_per_token(self) -> float:
        return self.characters / max(1, self.tokens)

    @property
    def byte_token_ratio(self) -> float:
        return self.byte_tokens / max(1, self.tokens)

    def __str__(self) -> str:
        return (
            f"{self.vocab_size} tokens; on {self.documents} texts {self.characters_per_token:.3f} characters per token, "
            f"{self.byte_token_ratio:.2%} byte tokens"
        )


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    kind: Kind = "unigram",
    *,
    max_characters: int | None = None,
    progress: bool = False,
) -> GLMTokenizer:
    """Learns a vocabulary; the same texts always give the same one.

    The characters that cover 99.95 % of the text (at most 60 % of the learned tokens) become tokens, all others are
    written as their UTF-8 bytes; no token is a part of a character, unless a byte.

    Args:
        texts: The corpus. Lone surrogates count as U+FFFD.
        vocab_size: Tokens in all: special ones (10), bytes (256; WordPiece 512) and learned ones. A small corpus may
            give fewer.
        kind: "unigram", "bpe" or "wordpiece".
        max_characters: Learn from evenly spread texts of at most so many characters (default `MAX_CHARACTERS`).
        progress: Show the library's progress bars on a terminal.

    Raises:
        TokenizerError: An unknown kind, or a `vocab_size` without room for learned tokens.
        DataError: The corpus has no text.
    """
    _check(vocab_size, kind)
    sample = sample_texts(texts, max_characters or MAX_CHARACTERS[kind])
    learned = vocab_size - fixed_tokens(kind) - len(_SPECIAL)
    backend = learn(sample, learned, kind, progress)
    if (found := backend.get_vocab_size() + len(_SPECIAL)) < vocab_size:
        logger.warning("The corpus gives only %d tokens, not %d.", found, vocab_size)
    return _finish(backend)


def train_from_files(
    paths: Sequence[str | Path],
    out_dir: str | Path,
    vocab_size: int,
    kind: Kind = "unigram",
    *,
    text_field: str | None = None,
    max_characters: int | None = None,
    progress: bool = False,
) -> TokenizerReport:
    """Learns a vocabulary from files and saves it; the body of `glmkit train-tokenizer`.

    Args:
        paths: Whatever `corpus.sources.read_documents` reads.
        out_dir: Gets `tokenizer.json` and `tokenizer_config.json`.
        vocab_size: As in `train_tokenizer`; so are `kind`, `max_characters`, `progress`.
        kind: The algorithm.
        text_field: The field of a record that holds its text.
        max_characters: Characters to learn from.
        progress: Show progress bars on a terminal.

    Returns:
        The report on the first thousand documents.
    """
    _check(vocab_size, kind)  # before the corpus is read

    def texts() -> Iterator[str]:
        for path in paths:
            for document in read_documents(path, text_field=text_field):
                yield document.text

    tokenizer = train_tokenizer(
        texts(), vocab_size, kind, max_characters=max_characters, progress=progress
    )
    tokenizer.save_pretrained(out_dir)
    return measure(tokenizer, itertools.islice(texts(), 1000))


def measure(tokenizer: GLMTokenizer, texts: Iterable[str]) -> TokenizerReport:
    """Returns how well the vocabulary fits `texts`."""
    backend = tokenizer.backend_tokenizer
    byte_ids = {
        index
        for token, index in backend.get_vocab(with_added_tokens=False).items()
        if token in BYTES or "\ufffd" in backend.decoder.decode([token])
    }
    documents = characters = tokens = byte_tokens = 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        documents += 1
        characters += len(text)
        tokens += len(ids)
        byte_tokens += sum(index in byte_ids for index in ids)
    return TokenizerReport(len(tokenizer), documents, characters, tokens, byte_tokens)


def fewest_tokens(kind: str) -> int:
    """Returns the smallest vocabulary of a kind: special tokens, bytes and a few learned ones."""
    return fixed_tokens(kind) + len(_SPECIAL) + _FEWEST_LEARNED


def _check(vocab_size: int, kind: str) -> None:
    if kind not in (kinds := get_args(Kind)):
        raise TokenizerError(
            f"There is no kind {kind!r} of vocabulary{nearest(kind, kinds) or '.'} Choose from {', '.join(kinds)}."
        )
    if vocab_size < (fewest := fewest_tokens(kind)):
        raise TokenizerError(
            f"vocab_size={vocab_size} is too small: a {kind} vocabulary needs at least {fewest}, of which "
            f"{fixed_tokens(kind) + len(_SPECIAL)} are special tokens and bytes. For Chinese 8000 is a sensible start."
        )


def sample_texts(texts: Iterable[str], max_characters: int) -> list[str]:
    """Returns every n-th text, with the smallest power of two n for which they have at most `max_characters`.

    A long text counts as several, so that one file without divisions is sampled too.
    """
    kept: list[str] = []
    stride, characters = 1, 0
    pieces = (text[i : i + _PIECE] for text in texts for i in range(0, len(text), _PIECE))
    for index, text in enumerate(pieces):
        if index % stride:
            continue
        kept.append(text)
        characters += len(text)
        while characters > max_characters and len(kept) > 1:
            kept, stride = kept[::2], stride * 2
            characters = sum(map(len, kept))
    if not any(text.strip() for text in kept):
        raise DataError("The corpus has no text to learn a vocabulary from.")
    if stride > 1:
        logger.info("Learning from one text in %d, %d characters.", stride, characters)
    return [well_formed(text) for text in kept]


def _finish(backend: Tokenizer) -> GLMTokenizer:
    """Returns the tokenizer with GLM's special tokens behind the learned ones."""
    backend.add_special_tokens(
        [AddedToken(name, normalized=False, special=True) for name in (UNK, *_SPECIAL)]
    )
    backend.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {EOS}",
        pair=f"{CLS} $A {EOS} $B {EOS}",
        special_tokens=[(name, backend.token_to_id(name)) for name in (CLS, EOS)],
    )
    return GLMTokenizer(
        tokenizer_object=backend,
        kind="glmkit",
        cls_token=CLS,
        sep_token=SEP,
        eos_token=EOS,
        pad_token=EOS,
        mask_token=MASK,
        unk_token=UNK,
        extra_special_tokens=[SMASK, GMASK, SOP, EOP, DBLOCK],
        clean_up_tokenization_spaces=False,
    )
