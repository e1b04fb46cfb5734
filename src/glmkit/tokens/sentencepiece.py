"""Reading a SentencePiece model into the Rust library, once.

In: a `.model` file (type BPE, as `cog-pretrain.model` of the published Chinese GLM). Out: a `tokenizers.Tokenizer`
with the same normalisation, the same ids and the same decoding, kept in a cache folder. It knows no GLM special token.

The packages `sentencepiece` and `protobuf` are needed for a file that is not in the cache yet.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from glmkit.errors import TokenizerError, missing_dependency

logger = logging.getLogger(__name__)

_CONVERTER = "1"
"""Part of the cache key; to be raised when the conversion changes."""
_BPE, _NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 2, 1, 2, 3, 4
"""Enum values of sentencepiece_model.proto: a model type, then piece types."""
_SPACE = "▁"
_EXTENDERS = r"\p{M}\u200C\u200D\u0E33\u0EB3\uFF9E\uFF9F"
"""Characters that form one grapheme with the one before: marks, joiners, two vowels, half-width voice marks."""


def cache_folder() -> Path:
    """Returns glmkit's cache folder: `$GLMKIT_CACHE`, else `glmkit` in the user's cache folder."""
    if folder := os.environ.get("GLMKIT_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "glmkit"


def load_sentencepiece(path: Path) -> Tokenizer:
    """Returns the Rust tokenizer for the SentencePiece model in `path`, from the cache if it is there.

    Raises:
        TokenizerError: The file is not a SentencePiece model of type BPE.
        MissingDependencyError: It is not in the cache, and `glmkit[sentencepiece]` is not installed.
    """
    content = path.read_bytes()
    key = hashlib.sha256(content).hexdigest()
    cached = cache_folder() / "sentencepiece" / f"{key}-{_CONVERTER}.json"
    if cached.is_file():
        try:
            return Tokenizer.from_file(str(cached))
        except Exception as error:  # the library raises bare Exceptions
            logger.warning(
                "Converting %s again: the cached %s is damaged (%s).", path, cached, error
            )
    tokenizer = convert(content, path)
    try:
        _write(cached, tokenizer.to_str())
    except OSError as error:
        logger.info("The converted %s is not kept: %s", path, error)
    return tokenizer


def convert(content: bytes, path: Path) -> Tokenizer:
    """Returns the Rust tokenizer for a serialised SentencePiece model; `path` is for messages.

    SentencePiece joins the adjacent pair whose union has the best score, leftmost first: a merge table with every
    split of every piece, best score first, does the same.
    """
    proto = _parse(content, path)
    if proto.trainer_spec.model_type != _BPE:
        raise TokenizerError(
            f"{path} is a SentencePiece model of type {proto.trainer_spec.model_type}; only type {_BPE} (BPE, "
            "as in the published Chinese GLM) can be read. Train a vocabulary with `glmkit train-tokenizer`."
        )
    normal = {piece.piece for piece in proto.pieces if piece.type == _NORMAL}
    merges = [
        (text[:cut], text[cut:])
        for text in (
            p.piece for p in sorted(proto.pieces, key=lambda p: -p.score) if p.type == _NORMAL
        )
        for cut in range(1, len(text))
        if text[:cut] in normal and text[cut:] in normal
    ]
    # Text never gives a control piece: no word has the space symbol at its end.
    vocab = {
        piece.piece + _SPACE if piece.type == _CONTROL else piece.piece: index
        for index, piece in enumerate(proto.pieces)
    }
    unknown = next(piece.piece for piece in proto.pieces if piece.type == _UNKNOWN)
    user_defined = [piece.piece for piece in proto.pieces if piece.type == _USER_DEFINED]
    # ignore_merges: a whole word that is a piece is taken as it is. This gives the user-defined pieces, which have
    # no merges; every other piece of this vocabulary is what its merges lead to.
    tokenizer = Tokenizer(
        BPE(vocab=vocab, merges=merges, unk_token=unknown, fuse_unk=True, ignore_merges=True)
    )
    tokenizer.normalizer = _normalizer(proto.normalizer_spec.precompiled_charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="never"),
            *(pre_tokenizers.Split(piece, "isolated") for piece in user_defined),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex(f"^</?s>{_SPACE}$"), ""),
            decoders.Replace(unknown, " ⁇ "),
            decoders.Fuse(),
            decoders.Replace(Regex(f"^{_SPACE}+"), ""),
            decoders.Replace(_SPACE, " "),
        ]
    )
    return tokenizer


def _normalizer(charsmap: bytes) -> normalizers.Normalizer:
    """Returns SentencePiece's normalisation: its character map, then single spaces, none at the ends, `▁`.

    The library's `Precompiled` looks the characters of a grapheme up together and drops the rest where only the first
    is in the map. So marks are composed first, and what is left of them is cut off with U+0001, which the map deletes. It panics where the first character is deleted; the space in front prevents that, and
    becomes the `▁` that starts every text.
    """
    return normalizers.Sequence(
        [
            normalizers.Prepend(" "),
            normalizers.NFC(),
            normalizers.Replace(Regex(f"(?=[{_EXTENDERS}])"), "\u0001"),
            normalizers.Precompiled(charsmap),
            normalizers.NFC(),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Replace(Regex(" $"), ""),
            normalizers.Replace(" ", _SPACE),
        ]
    )


def _parse(content: bytes, path: Path) -> Any:
    """Returns the model's protocol buffer message."""
    try:
        from google.protobuf.message import DecodeError
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        package = (
            "protobuf" if "google" in str(error) or "protobuf" in str(error) else "sentencepiece"
        )
        raise missing_dependency(package, f"Reading {path.name}", "sentencepiece") from error
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # generated
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise TokenizerError(
            f"{path} is not a SentencePiece model, or is truncated: {error}"
        ) from error
    if not any(piece.type == _UNKNOWN for piece in proto.pieces):
        raise TokenizerError(
            f"{path} is not a SentencePiece model: it has no piece for the unknown."
        )
    return proto


def _write(path: Path, text: str) -> None:
    """Writes `text` to `path` by way of a temporary name, so that no other process sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
