"""The four published vocabularies: from a folder with the original files to a Rust tokenizer and its settings.

In: a folder in the hub's format and its kind (`special_tokens.published_kind`). Out: a `tokenizers.Tokenizer` with all
special tokens in place, and the keyword arguments that `GLMTokenizer` takes beside it. Ids, whitespace around special
tokens and decoding are those of the original Python tokenizers (GLMChineseTokenizer, GLMGPT2Tokenizer,
GLMBertTokenizer, GLMRobertaTokenizer).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece

from glmkit.errors import TokenizerError, UserError
from glmkit.special_tokens import CLS, EOP, EOS, GMASK, MASK, SEP, SMASK, SOP
from glmkit.tokens.sentencepiece import load_sentencepiece

VOCABULARY_FILES = {
    "chinese": ("cog-pretrain.model",),
    "gpt2": ("vocab.json", "merges.txt"),
    "bert": ("vocab.txt",),
    "roberta": ("vocab.json", "merges.txt"),
}
"""The files that hold each published vocabulary."""

ADDED = {
    "chinese": (EOS, SEP, CLS, MASK, "[UNK]", "[UNUSED1]", SOP, EOP, SMASK, GMASK),
    "gpt2": (SOP, EOP, CLS, MASK, SEP, "[UNK]", GMASK, SMASK),
    "bert": (SOP, EOP),
    "roberta": (SOP, EOP),
}
"""Tokens behind the vocabulary file's own, in the order of their ids (`added_tokens.json` of the originals)."""

SPECIAL: dict[str, dict[str, Any]] = {
    "chinese": {"cls_token": CLS, "eos_token": EOS, "pad_token": EOS, "mask_token": MASK, "unk_token": "<unk>"},
    "gpt2": {"cls_token": CLS, "eos_token": EOS, "pad_token": EOS, "mask_token": MASK, "unk_token": EOS},
    "bert": {"cls_token": CLS, "sep_token": SEP, "pad_token": "[PAD]", "mask_token": MASK, "unk_token": "[UNK]"},
    "roberta": {
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
        "unk_token": "<unk>",
    },
}  # fmt: skip
"""What plays each part. Only these and the block and mask tokens are dropped by `skip_special_tokens`."""

_NOT_STRIPPED = {("gpt2", EOS): ("left", "right"), ("roberta", "<mask>"): ("right",)}
"""Sides of a special token on which the whitespace of a text is kept."""


def build_published(folder: Path, kind: str) -> tuple[Tokenizer, dict[str, Any]]:
    """Returns the Rust tokenizer of `folder` and keyword arguments for `GLMTokenizer`.

    Args:
        folder: Has the vocabulary files of `kind`; `added_tokens.json` and `tokenizer_config.json` are read if there.
        kind: "chinese", "gpt2", "bert" or "roberta".

    Raises:
        TokenizerError: A vocabulary file is missing or cannot be read, or added tokens have impossible ids.
    """
    for name in VOCABULARY_FILES[kind]:
        if not (folder / name).is_file():
            raise TokenizerError(
                f"{folder} has no {name}, which holds the vocabulary of the {kind} tokenizer; "
                "copy it from the published model."
            )
    settings = read_json(folder / "tokenizer_config.json")
    try:
        tokenizer = _BUILDERS[kind](folder, settings)
    except UserError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        files = " and ".join(VOCABULARY_FILES[kind])
        raise TokenizerError(f"{files} in {folder} cannot be read: {error}") from error
    names = _added_names(folder, kind, tokenizer.get_vocab_size())
    _add_tokens(tokenizer, kind, names)
    tokenizer.post_processor = _wrap(tokenizer, kind)
    special = SPECIAL[kind]
    extra = [
        name for name in names if name in (SOP, EOP, SMASK, GMASK) and name not in special.values()
    ]
    return tokenizer, {
        **special,
        "extra_special_tokens": extra,
        "kind": kind,
        "clean_up_tokenization_spaces": True,
    }


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object in `path`, empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{path} holds a {type(content).__name__}, not a JSON object.")
    return content


def _chinese(folder: Path, settings: dict[str, Any]) -> Tokenizer:
    return load_sentencepiece(folder / "cog-pretrain.model")


def _byte_bpe(folder: Path, settings: dict[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer(BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    add_prefix_space = bool(settings.get("add_prefix_space", False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _bert(folder: Path, settings: dict[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer(WordPiece.from_file(str(folder / "vocab.txt"), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=bool(settings.get("do_lower_case", True)),
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=settings.get("strip_accents"),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return tokenizer


_BUILDERS = {"chinese": _chinese, "gpt2": _byte_bpe, "bert": _bert, "roberta": _byte_bpe}


def _added_names(folder: Path, kind: str, base_size: int) -> list[str]:
    """Returns the tokens behind the `base_size` of the vocabulary file, in the order of their ids."""
    listed = read_json(folder / "added_tokens.json") or {
        name: base_size + i for i, name in enumerate(ADDED[kind])
    }
    behind = sorted((index, name) for name, index in listed.items() if index >= base_size)
    for position, (index, name) in enumerate(behind):
        if index != base_size + position:
            raise TokenizerError(
                f"{folder / 'added_tokens.json'} gives {name!r} the id {index}; ids behind the vocabulary "
                f"({base_size} tokens) must follow one another, so {base_size + position} was expected."
            )
    return [name for _, name in behind]


def _add_tokens(tokenizer: Tokenizer, kind: str, names: list[str]) -> None:
    """Adds all tokens that are recognised in text before anything else.

    The originals strip the whitespace on both sides of a token, with two exceptions (`_NOT_STRIPPED`).
    All are special to the Rust library, so that `split_special_tokens` makes plain text of every one of them.
    """
    own = [name for name in dict.fromkeys(SPECIAL[kind].values()) if name not in names]
    tokens = [
        AddedToken(
            name,
            lstrip="left" not in _NOT_STRIPPED.get((kind, name), ()),
            rstrip="right" not in _NOT_STRIPPED.get((kind, name), ()),
            normalized=False,
            special=True,
        )
        for name in own + names
    ]
    tokenizer.add_special_tokens(tokens)


def _wrap(tokenizer: Tokenizer, kind: str) -> processors.TemplateProcessing:
    """Returns what puts the special tokens around a text, or around two."""
    cls = SPECIAL[kind]["cls_token"]
    end = SPECIAL[kind].get("sep_token") or SPECIAL[kind]["eos_token"]
    between = f"{end} {end}" if kind == "roberta" else end
    return processors.TemplateProcessing(
        single=f"{cls} $A {end}",
        pair=f"{cls} $A {between} $B {end}",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (cls, end)],
    )
