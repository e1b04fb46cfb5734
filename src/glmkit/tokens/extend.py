"""Adding words to a vocabulary: each becomes one token, and text without them gets the ids that it had.

In: a `GLMTokenizer` of any kind and words, or texts to find them in. Out: a larger `GLMTokenizer`, and for each new id
the old ids of its word. Knows no model.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from glmkit.errors import TokenizerError
from glmkit.special_tokens import DBLOCK
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.tokens.train import fewest_tokens, sample_texts, train_tokenizer

logger = logging.getLogger(__name__)

LONGEST_WORD = 32
"""In characters."""

_SPACE = "▁"
_WHOLE_WORDS = ("gpt2", "roberta", "bert")
"""Kinds whose texts separate words by spaces: there a word is not found inside a longer one."""
_CHARACTERS_PER_PIECE = 20
"""A small corpus gives fewer pieces, or else whole sentences would become pieces."""
_LEARN_FROM = 4_000_000
"""Characters of text in which words are looked for."""


def add_words(
    tokenizer: GLMTokenizer, words: Iterable[str]
) -> tuple[GLMTokenizer, dict[int, list[int]]]:
    """Returns the vocabulary with more words; the given tokenizer stays as it is.

    The words get the ids behind all others, those of the special tokens included. Words that are one token already are
    left out. In a text a word is found wherever its characters stand, except in the English vocabularies, where it must
    be a word of its own; a space before it stays a token of its own.

    Args:
        tokenizer: Of any kind.
        words: Without space or control characters, at most 32 characters each.

    Returns:
        The tokenizer, and for each new id the ids that its word had before, in order.

    Raises:
        TokenizerError: Words that cannot be added, all in one message.
    """
    wanted = list(words)
    _check(wanted)
    wanted = list(dict.fromkeys(_normalized(tokenizer, word) for word in wanted))
    _check(wanted)  # BERT's normaliser puts spaces around Chinese characters
    before = {word: word_ids(tokenizer, word) for word in wanted}
    wanted = [word for word in wanted if len(before[word]) > 1]
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    known = [token["content"] for token in state["added_tokens"] if not token["special"]]
    if tokenizer.kind == "chinese":
        _no_space_before(state, [*known, *wanted])
    backend = Tokenizer.from_str(json.dumps(state))
    block = tokenizer.special_ids.block
    if block is not None and backend.token_to_id(DBLOCK) is None:
        # The published vocabularies leave this id free for pretraining; no word may take it.
        backend.add_special_tokens([AddedToken(DBLOCK, normalized=False, special=True)])
        if backend.token_to_id(DBLOCK) != block:
            raise TokenizerError(
                f"the vocabulary of {tokenizer.name_or_path} lacks special tokens: its next id is "
                f"{backend.token_to_id(DBLOCK)}, where {block} was expected"
            )
    backend.add_tokens(
        [
            AddedToken(
                word,
                single_word=tokenizer.kind in _WHOLE_WORDS and word.isascii(),
                normalized=True,
                special=False,
            )
            for word in wanted
        ]
    )
    extended = GLMTokenizer(tokenizer_object=backend, **_settings(tokenizer))
    ids: dict[str, int] = backend.get_vocab()
    return extended, {ids[word]: before[word] for word in wanted}


def word_ids(tokenizer: GLMTokenizer, word: str) -> list[int]:
    """Returns the ids of a word inside a text, without the space symbol that the start of a text has."""
    backend = tokenizer.backend_tokenizer
    known = backend.token_to_id(word)
    if known is not None:
        return [known]
    parts = backend.pre_tokenizer.pre_tokenize_str(_normalized(tokenizer, word))
    return [token.id for part, _ in parts for token in backend.model.tokenize(part)]


def find_words(
    tokenizer: GLMTokenizer, texts: Iterable[str], count: int, *, min_frequency: int = 5
) -> list[str]:
    """Returns the words of a corpus that are worth a token, the most useful first.

    A BPE vocabulary is learned from the corpus; of its pieces that are made of letters, those are taken that save most
    tokens: their frequency, times the tokens that each takes now, less one. On a million characters of Chinese questions
    and of Wikipedia, BPE found words as good as Unigram did, in a fifth to a twentieth of the time.

    Args:
        tokenizer: That shall get the words.
        texts: The corpus; an even sample of it is enough.
        count: Words to return at most.
        min_frequency: Rarer words are not worth a token.

    Raises:
        DataError: The corpus has no text.
    """
    sample = sample_texts(texts, _LEARN_FROM)
    characters = sum(map(len, sample))
    pieces = min(2 * count + 6000, characters // _CHARACTERS_PER_PIECE)
    alphabet = len(set().union(*sample))
    learned = train_tokenizer(sample, fewest_tokens("bpe") + alphabet + pieces, "bpe")
    counts: Counter[str] = Counter()
    for text in sample:
        found = learned.tokenize(text, split_special_tokens=True)
        counts.update(piece.strip() for piece in found)
    saved = {
        piece: frequency * (len(word_ids(tokenizer, piece)) - 1)
        for piece, frequency in counts.items()
        if frequency >= min_frequency and 2 <= len(piece) <= LONGEST_WORD and piece.isalpha()
    }
    useful = sorted((piece for piece in saved if saved[piece] > 0), key=lambda p: (-saved[p], p))
    return useful[:count]


def read_words(path: str | Path) -> list[str]:
    """Returns the words of a UTF-8 file, one a line; empty lines do not count.

    Raises:
        TokenizerError: The file cannot be read or has no word.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"the words in {path} cannot be read: {error}") from error
    words = [line.strip() for line in lines if line.strip()]
    if not words:
        raise TokenizerError(f"{path} has no words; write one on each line")
    return words


def _check(words: Sequence[str]) -> None:
    wrong = [
        word
        for word in words
        if not word
        or len(word) > LONGEST_WORD
        or any(c.isspace() or unicodedata.category(c).startswith("C") for c in word)
    ]
    if wrong:
        shown = ", ".join(repr(word[:40]) for word in wrong[:10])
        raise TokenizerError(
            f"{len(wrong)} words cannot be added: {shown}{' …' if len(wrong) > 10 else ''}. A word has 1 to "
            f"{LONGEST_WORD} characters, no space and no control character among them."
        )


def _normalized(tokenizer: GLMTokenizer, word: str) -> str:
    """Returns a word as it stands in a normalised text, so that two spellings of one word are one."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return word if normalizer is None else normalizer.normalize_str(word).removeprefix(_SPACE)


def _no_space_before(state: dict[str, Any], words: Sequence[str]) -> None:
    """Lets the Chinese vocabulary's normaliser put its space symbol before every text but the words themselves.

    The library normalises a word before it looks for it; with the symbol in front, it would find the word only behind
    a space. A text that is nothing but a word loses the symbol, which says nothing.
    """
    alternatives = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    steps = state["normalizer"]["normalizers"]
    if steps[-1]["type"] == "Replace" and steps[-1]["content"] == "":
        steps.pop()  # an earlier extension's
    # \A and \z, not ^ and $: these match at every line.
    pattern = {"Regex": rf"\A{_SPACE}(?=(?:{alternatives})\z)"}
    steps.append({"type": "Replace", "pattern": pattern, "content": ""})


def _settings(tokenizer: GLMTokenizer) -> dict[str, Any]:
    left_out = ("tokenizer_object", "tokenizer_file", "vocab_file", "added_tokens_decoder")
    return {n: value for n, value in tokenizer.init_kwargs.items() if n not in left_out}
