"""The three algorithms behind `train`: from texts to a Rust tokenizer, without GLM's special tokens.

In: a sample of texts and the number of tokens to learn. Out: a `tokenizers.Tokenizer` whose ids are the unknown
token, bytes, then learned tokens, and whose decoder gives every text back. The same sample gives the same tokenizer,
although the library's own trainers depend on the order of hash maps.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer, UnigramTrainer

WORDS = (
    r"\n"
    r"|\p{Han}{1,32}"
    r"| ?[\p{L}\p{M}&&[^\p{Han}]]{1,32}"
    r"|\p{N}"
    r"| ?([^\s\p{L}\p{M}\p{N}])\1{0,15}"
    r"|[^\S\n]{1,32}(?!\S)|[^\S\n]"
)
"""Regular expression (Oniguruma) of a word. Lengths are bounded so that no text takes quadratic time."""

UNK = "[UNK]"
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
"""Names of the tokens that stand for one byte each."""
_CONTINUED = "＃＃"
"""WordPiece's mark of a word's later pieces: no byte's character, so that a piece of text never looks like it."""
_COVERAGE = 0.9995
"""Share of the characters of the corpus that shall be tokens, as in SentencePiece."""
_ALPHABET_RATIO = 0.6
"""Largest share of the learned tokens that may be single characters; measured best on Chinese at 8,000 tokens."""


def fixed_tokens(kind: str) -> int:
    """Returns how many tokens of a vocabulary of this kind are not learned: the unknown token and the bytes."""
    return 1 + len(BYTES) * (2 if kind == "wordpiece" else 1)


def learn(sample: list[str], learned: int, kind: str, progress: bool = False) -> Tokenizer:
    """Returns the tokenizer with at most `learned` tokens beside the fixed ones.

    Args:
        sample: Texts without surrogates, at least one of them not blank.
        learned: Tokens to learn.
        kind: "unigram", "bpe" or "wordpiece".
        progress: Show the library's progress bars on a terminal.
    """
    alphabet = _alphabet(sample, int(learned * _ALPHABET_RATIO))
    rare = re.compile(f"[^{re.escape(''.join(alphabet))}]+")
    lines = ["\n", *(rare.sub("\n", text) for text in sample)]
    trained = _train(lines, alphabet, learned, kind, progress)
    if kind == "wordpiece":
        return _wordpiece(trained, lines, learned)
    return _with_bytes(trained, kind)


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


def _train(
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
    tokens = [UNK, *BYTES, *sorted(state["vocab"], key=state["vocab"].__getitem__)]
    return models.BPE(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[(left, right) for left, right in state["merges"]],
        unk_token=UNK,
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
    # no word of a text looks like one of the fixed tokens, whatever their score
    fixed = [(token, round(lowest, 6)) for token in (UNK, *BYTES)]
    return models.Unigram(vocab=[*fixed, *ordered], unk_id=0, byte_fallback=True)


def _wordpiece(trained: Tokenizer, lines: list[str], learned: int) -> Tokenizer:
    """Returns the WordPiece tokenizer over UTF-8 bytes whose pieces are the most useful ones of a BPE tokenizer.

    The library's WordPiece trainer depends on the order of a hash map, and WordPiece has no bytes to fall back to.
    So the text is written in ByteLevel's characters for bytes; a piece that continues a word is another token than
    the same piece at its start, and those of both kinds that save most tokens are taken.
    """
    counts: Counter[tuple[bool, str]] = Counter()
    for start in range(0, len(lines), 10_000):
        for encoding in trained.encode_batch(lines[start : start + 10_000]):
            words = encoding.word_ids
            continues = (a == b for a, b in zip(words, [None, *words], strict=False))
            counts.update(zip(continues, encoding.tokens, strict=True))
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys([UNK, *alphabet, *(_CONTINUED + character for character in alphabet)])
    size = len(tokens) + learned
    # a piece saves the tokens of its characters, a character those of its bytes
    saved = {
        piece: count * (len(piece[1] if len(piece[1]) > 1 else piece[1].encode()) - 1)
        for piece, count in counts.items()
    }
    for continued, token in sorted(saved, key=lambda piece: (-saved[piece], piece)):
        [(text, _)] = to_bytes.pre_tokenize_str(token)
        tokens[_CONTINUED + text if continued else text] = None
        if len(tokens) == size:
            break
    tokenizer = Tokenizer(
        models.WordPiece(
            vocab={token: index for index, token in enumerate(tokens)},
            unk_token=UNK,
            continuing_subword_prefix=_CONTINUED,
            max_input_chars_per_word=256,  # a word has at most 33 characters, of at most 4 bytes
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([trained.pre_tokenizer, to_bytes])
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_CONTINUED, ""), decoders.ByteLevel()])
    return tokenizer
