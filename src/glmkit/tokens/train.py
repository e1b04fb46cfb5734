"""Training a vocabulary: texts in, a `GLMTokenizer` that loses no text out.

In: an iterable of texts, or files that `corpus` can read. Out: a tokenizer of kind "glmkit" with GLM's special tokens
behind the learned ones, and a report (characters per token, share of byte tokens). Every Unicode text without lone
surrogates comes back from its ids exactly, spaces and newlines included.

Text is first split into words (`WORDS`): a newline, a run of Chinese characters, a run of other letters with the
space before it, one digit, one punctuation mark (or the same one repeated), a run of blanks. Tokens never cross
words, so newlines and sentence ends are tokens of their own, as the sentence objective needs.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, UnigramTrainer

from glmkit.corpus.sources import read_documents
from glmkit.errors import DataError, TokenizerError, nearest
from glmkit.special_tokens import CLS, DBLOCK, EOP, EOS, GMASK, MASK, SEP, SMASK, SOP
from glmkit.tokens.tokenizer import GLMTokenizer, well_formed

logger = logging.getLogger(__name__)

Kind = Literal["unigram", "bpe", "wordpiece"]

WORDS = (
    r"\n"
    r"|\p{Han}{1,32}"
    r"| ?[\p{L}\p{M}&&[^\p{Han}]]{1,32}"
    r"|\p{N}"
    r"| ?([^\s\p{L}\p{M}\p{N}])\1{0,15}"
    r"|[^\S\n]{1,32}(?!\S)|[^\S\n]"
)
"""Regular expression (Oniguruma) of a word. Lengths are bounded so that no text takes quadratic time."""

MAX_CHARACTERS = {"unigram": 4_000_000, "bpe": 16_000_000, "wordpiece": 8_000_000}
"""Characters of the corpus that each algorithm learns from by default; on two cores about a minute at most."""

_UNK = "[UNK]"
_SPECIAL = (CLS, SEP, EOS, MASK, SMASK, GMASK, SOP, EOP, DBLOCK)
_BYTES = [f"<0x{value:02X}>" for value in range(256)]
_CONTINUED = "＃＃"
"""WordPiece's mark of a word's later pieces: no byte's character, so that a piece of text never looks like it."""
_COVERAGE = 0.9995
"""Share of the characters of the corpus that shall be tokens, as in SentencePiece."""
_ALPHABET_RATIO = 0.6
"""Largest share of the learned tokens that may be single characters; measured best on Chinese at 8,000 tokens."""
_FEWEST_LEARNED = 16


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
    sample = _sample(texts, max_characters or MAX_CHARACTERS[kind])
    learned = vocab_size - _fixed_tokens(kind)
    alphabet = _alphabet(sample, int(learned * _ALPHABET_RATIO))
    rare = re.compile(f"[^{re.escape(''.join(alphabet))}]+")
    lines = ["\n", *(rare.sub("\n", text) for text in sample)]
    trained = _learn(lines, alphabet, learned, kind, progress)
    if kind == "wordpiece":
        backend = _wordpiece(trained, lines, learned)
    else:
        backend = _with_bytes(trained, kind)
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
        if token in _BYTES or "\ufffd" in backend.decoder.decode([token])
    }
    documents = characters = tokens = byte_tokens = 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        documents += 1
        characters += len(text)
        tokens += len(ids)
        byte_tokens += sum(index in byte_ids for index in ids)
    return TokenizerReport(len(tokenizer), documents, characters, tokens, byte_tokens)


def _fixed_tokens(kind: str) -> int:
    """Returns the number of tokens that are not learned: special ones and bytes."""
    return 1 + len(_SPECIAL) + len(_BYTES) * (2 if kind == "wordpiece" else 1)


def _check(vocab_size: int, kind: str) -> None:
    if kind not in (kinds := get_args(Kind)):
        raise TokenizerError(
            f"There is no kind {kind!r} of vocabulary{nearest(kind, kinds)}; choose from {', '.join(kinds)}."
        )
    if vocab_size < (fewest := _fixed_tokens(kind) + _FEWEST_LEARNED):
        raise TokenizerError(
            f"vocab_size={vocab_size} is too small: a {kind} vocabulary needs at least {fewest}, of which "
            f"{_fixed_tokens(kind)} are special tokens and bytes. For Chinese 8000 is a sensible start."
        )


def _sample(texts: Iterable[str], max_characters: int) -> list[str]:
    """Returns every n-th text, with the smallest power of two n for which they have at most `max_characters`."""
    kept: list[str] = []
    stride, characters = 1, 0
    for index, text in enumerate(texts):
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


def _alphabet(sample: list[str], largest: int) -> list[str]:
    """Returns the most frequent characters: enough for `_COVERAGE` of the text, at most `largest`.

    A newline is always one; NUL, which separates words inside the Unigram trainer, never.
    """
    counts: Counter[str] = Counter()
    for text in sample:
        counts.update(text)
    for separate in "\n\0":
        counts.pop(separate, None)
    wanted = _COVERAGE * counts.total()
    chosen, covered = ["\n"], 0
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if len(chosen) >= largest or covered >= wanted:
            break
        chosen.append(character)
        covered += count
    return chosen


def _learn(
    lines: list[str], alphabet: list[str], learned: int, kind: str, progress: bool
) -> Tokenizer:
    """Returns what the library's trainer makes of `lines`, which have no character but those of `alphabet`."""
    tokenizer = Tokenizer(models.Unigram() if kind == "unigram" else models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "isolated")
    trainer = (
        UnigramTrainer(vocab_size=learned, special_tokens=[], show_progress=progress)
        if kind == "unigram"
        else BpeTrainer(
            vocab_size=learned, special_tokens=[], initial_alphabet=alphabet, show_progress=progress
        )
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def _with_bytes(trained: Tokenizer, kind: str) -> Tokenizer:
    """Returns the Unigram or BPE tokenizer with all other characters written as their bytes."""
    state = json.loads(trained.to_str())["model"]
    tokenizer = Tokenizer(_unigram(state["vocab"]) if kind == "unigram" else _bpe(state))
    tokenizer.pre_tokenizer = trained.pre_tokenizer
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _bpe(state: dict[str, Any]) -> models.BPE:
    tokens = [_UNK, *_BYTES, *sorted(state["vocab"], key=state["vocab"].__getitem__)]
    return models.BPE(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[(left, right) for left, right in state["merges"]],
        unk_token=_UNK,
        byte_fallback=True,
    )


def _unigram(pieces: list[tuple[str, float]]) -> models.Unigram:
    """Returns the model with scores that do not depend on the run.

    The library sums in no fixed order, and gives characters that it had pruned, in no fixed order either, the lowest
    score plus multiples of 0.0001: the former are rounded, the latter all get the lowest score.
    """
    lowest = min(score for _, score in pieces)
    pruned = lowest + 0.0001 * sum(len(piece) == 1 for piece, _ in pieces)
    scores = {
        piece: round(lowest if len(piece) == 1 and score < pruned else score, 6)
        for piece, score in pieces
    }
    ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    fixed = [
        (token, round(lowest, 6)) for token in (_UNK, *_BYTES)
    ]  # no word of text looks like one of them
    return models.Unigram(vocab=[*fixed, *ordered], unk_id=0, byte_fallback=True)


def _wordpiece(trained: Tokenizer, lines: list[str], learned: int) -> Tokenizer:
    """Returns the WordPiece tokenizer over UTF-8 bytes whose pieces are the most frequent ones of a BPE tokenizer.

    The library's WordPiece trainer depends on the order of a hash map, and WordPiece has no bytes to fall back to.
    So the text is written in ByteLevel's characters for bytes; a piece that continues a word is another token than
    the same piece at its start, and the more frequent of both kinds are taken.
    """
    counts: Counter[tuple[bool, str]] = Counter()
    for start in range(0, len(lines), 10_000):
        for encoding in trained.encode_batch(lines[start : start + 10_000]):
            words = encoding.word_ids
            continues = (a == b for a, b in zip(words, [None, *words], strict=False))
            counts.update(zip(continues, encoding.tokens, strict=True))
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys([_UNK, *alphabet, *(_CONTINUED + character for character in alphabet)])
    size = len(tokens) + learned
    for (continued, token), _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        [(text, _)] = to_bytes.pre_tokenize_str(token)
        tokens[_CONTINUED + text if continued else text] = None
        if len(tokens) == size:
            break
    tokenizer = Tokenizer(
        models.WordPiece(
            vocab={token: index for index, token in enumerate(tokens)},
            unk_token=_UNK,
            continuing_subword_prefix=_CONTINUED,
            max_input_chars_per_word=256,  # a word has at most 33 characters, of at most 4 bytes
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([trained.pre_tokenizer, to_bytes])
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_CONTINUED, ""), decoders.ByteLevel()])
    return tokenizer


def _finish(backend: Tokenizer) -> GLMTokenizer:
    """Returns the tokenizer with GLM's special tokens behind the learned ones."""
    backend.add_special_tokens(
        [AddedToken(name, normalized=False, special=True) for name in (_UNK, *_SPECIAL)]
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
        unk_token=_UNK,
        extra_special_tokens=[SMASK, GMASK, SOP, EOP, DBLOCK],
        clean_up_tokenization_spaces=False,
    )
