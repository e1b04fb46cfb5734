"""`GLMTokenizer`: text to ids and back, for the four published vocabularies and glmkit's own.

In: text, or a folder or hub name to load from. Out: `input_ids` and `attention_mask` (lists, or int64 tensors), text
again from ids, and the special tokens' ids. It knows nothing about models; the two-dimensional positions of GLM's
inputs are made by `blanks`, behind `GLMInputsMixin`.

The work is done by the Rust library `tokenizers`; no code from a hub is ever run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers.pre_tokenizers import ByteLevel
from transformers import BatchEncoding, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import REGISTERED_TOKENIZER_CLASSES

from glmkit.blanks.spans import ends_sentence
from glmkit.embedded import embedded_folder
from glmkit.errors import CheckpointError, TokenizerError
from glmkit.special_tokens import (
    DBLOCK,
    EOP,
    GMASK,
    PUBLISHED,
    SMASK,
    SOP,
    SpecialTokenIds,
    published_kind,
)
from glmkit.tokens.inputs import GLMInputsMixin
from glmkit.tokens.published import VOCABULARY_FILES, build_published, read_json

_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "adapter_config.json",
    *sorted({name for names in VOCABULARY_FILES.values() for name in names}),
)
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only", "force_download")
_SURROGATE = re.compile("[\ud800-\udfff]")


class GLMTokenizer(GLMInputsMixin, PreTrainedTokenizerFast):
    """Text to ids and back; load it with `from_pretrained`, make a new one with `tokens.train`.

    Calls, `encode`, `decode`, padding, truncation (on the left, keeping the special tokens) and saving are those of
    transformers. The strings of special tokens in a text (`[MASK]`, `<|endoftext|>` …) are tokens; with
    `split_special_tokens=True`, given to a call or to `from_pretrained`, they are plain text.
    Lone surrogates, which no encoding of text can hold, count as U+FFFD.
    """

    vocab_files_names = {"tokenizer_file": "tokenizer.json"}
    model_input_names = ["input_ids", "attention_mask"]
    truncation_side = "left"
    padding_side = "right"
    _tokenizer: Any  # the Rust tokenizer; transformers declares it optional
    _words_of_size: tuple[int, dict[int, str]] | None = None

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the hub's options are among **kwargs
        cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any
    ) -> GLMTokenizer:
        """Loads the tokenizer of a folder or of a model on the hub; its kind is seen from the files. An adapter without one has its base's.

        Args:
            pretrained_model_name_or_path: A folder, "glm-mini", or a hub name such as "THUDM/glm-large-chinese".
            *args: For transformers.
            **kwargs: Settings that replace the saved ones (`padding_side`, `truncation_side`, `model_max_length` …),
                and for a hub name `revision`, `cache_dir`, `token`, `local_files_only`, `force_download`.

        Raises:
            TokenizerError: No such folder, no vocabulary in it, a damaged one, or the hub cannot be reached.
            MissingDependencyError: A SentencePiece vocabulary without `glmkit[sentencepiece]`.
        """
        hub_options = {name: kwargs.pop(name) for name in _HUB_OPTIONS if name in kwargs}
        kwargs.pop("trust_remote_code", None)
        folder = _find_folder(pretrained_model_name_or_path, hub_options)
        kind = _published_kind(folder)
        if kind is not None:
            backend, settings = build_published(folder, kind)
            settings["name_or_path"] = str(pretrained_model_name_or_path)
            return cls(tokenizer_object=backend, **{**settings, **kwargs})
        if not (folder / "tokenizer.json").is_file():
            if (base := _base_of(folder)) is not None:
                return cls.from_pretrained(base, *args, **kwargs, **hub_options)
            raise TokenizerError(
                f"{folder} has no vocabulary: tokenizer.json (glmkit's own), cog-pretrain.model (Chinese), "
                "vocab.json and merges.txt (GPT-2 or RoBERTa) or vocab.txt (BERT) was expected."
            )
        try:
            tokenizer = super().from_pretrained(str(folder), *args, **kwargs)
        except Exception as error:  # the libraries raise bare Exceptions
            raise TokenizerError(f"The tokenizer in {folder} cannot be read: {error}") from error
        tokenizer.special_ids  # noqa: B018 - complains about a vocabulary without GLM's tokens
        return tokenizer

    @property
    def kind(self) -> str:
        """Which vocabulary this is: "chinese", "gpt2", "bert", "roberta", or "glmkit" for a trained one."""
        return self.init_kwargs.get("kind", "glmkit")

    @property
    def sop_token_id(self) -> int:
        """Id of `<|startofpiece|>`, which starts a blank's contents."""
        return self._required_id(SOP)

    @property
    def eop_token_id(self) -> int:
        """Id of `<|endofpiece|>`, which ends a blank's contents."""
        return self._required_id(EOP)

    @property
    def smask_token_id(self) -> int:
        """Id of `[sMASK]`, or of the only mask of BERT's and RoBERTa's vocabularies."""
        return self._tokenizer.token_to_id(SMASK) or self.mask_token_id

    @property
    def gmask_token_id(self) -> int:
        """Id of `[gMASK]`, or of the only mask of BERT's and RoBERTa's vocabularies."""
        return self._tokenizer.token_to_id(GMASK) or self.mask_token_id

    @property
    def mask_token_ids(self) -> list[int]:
        """The distinct ids of the masks, in the order [MASK], [sMASK], [gMASK]."""
        return list(self.special_ids.masks)

    @property
    def special_ids(self) -> SpecialTokenIds:
        """Ids of all special tokens; `block` also where the published vocabulary has no text for it.

        Raises:
            TokenizerError: The vocabulary lacks a token that GLM cannot do without.
        """
        # Asked for with every text: looked up anew only when tokens were added or named.
        state = self._tokenizer.get_vocab_size(), *self._special_tokens_map.values()
        known = self.__dict__.get("_known_special_ids")
        if known is None or known[0] != state:
            known = state, self._find_special_ids()
            self.__dict__["_known_special_ids"] = known
        return known[1]

    def _find_special_ids(self) -> SpecialTokenIds:
        ids = {
            "cls": self.cls_token_id,
            "eos": self.sep_token_id if self.eos_token_id is None else self.eos_token_id,
            "pad": self.pad_token_id,
            "mask": self.mask_token_id,
        }
        if lacking := [name for name, index in ids.items() if index is None]:
            raise TokenizerError(
                f"The vocabulary of {self.name_or_path or 'this tokenizer'} has no {' / '.join(lacking)} token, so it "
                "is not one for GLM. Train one with `glmkit train-tokenizer`."
            )
        block = self._tokenizer.token_to_id(DBLOCK)
        if block is None and self.kind in PUBLISHED:
            block = PUBLISHED[self.kind].block
        return SpecialTokenIds(
            **ids,
            sop=self.sop_token_id,
            eop=self.eop_token_id,
            smask=self.smask_token_id,
            gmask=self.gmask_token_id,
            block=block,
        )

    def sentence_ends(self) -> np.ndarray:
        """Returns bool [vocabulary]: which tokens end a sentence, as the sentence objective needs."""
        pieces = self.backend_tokenizer.decode_batch(
            [[index] for index in range(len(self))], skip_special_tokens=True
        )
        return ends_sentence(pieces)

    def fingerprint(self) -> str:
        """Returns a SHA-256 (hex) of all that decides ids; the same after saving and loading. Takes about 0.1 s."""
        state = json.loads(self._tokenizer.to_str())
        for unrelated in ("truncation", "padding", "decoder", "version"):
            state.pop(unrelated)
        text = json.dumps(state, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _required_id(self, token: str) -> int:
        index = self._tokenizer.token_to_id(token)
        if index is None:
            raise TokenizerError(
                f"The vocabulary of {self.name_or_path or 'this tokenizer'} has no {token}, so it is not one for "
                "GLM. Train one with `glmkit train-tokenizer`."
            )
        return index

    def _encode_plus(  # type: ignore[override]  # passed on, whatever they are
        self, text: Any, text_pair: Any = None, **kwargs: Any
    ) -> BatchEncoding:
        return super()._encode_plus(well_formed(text), well_formed(text_pair), **kwargs)

    def _save_pretrained(self, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        # The padding and truncation of the last call would come back as settings of the loaded tokenizer.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        return super()._save_pretrained(*args, **kwargs)

    @property
    def textless_ids(self) -> frozenset[int]:
        """Ids that stand for no text: special and added tokens."""
        return frozenset({*self.all_special_ids, *self.added_tokens_decoder})

    def _decode(
        self,
        token_ids: int | list[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool | None = None,
        **kwargs: Any,
    ) -> str:
        """Decodes as the original tokenizers did: a space on both sides of each added token.

        A trained vocabulary has no such spaces, so that no text is changed. Ids without a token (the padding rows of
        a model's vocabulary) are left out.
        """
        ids = [token_ids] if isinstance(token_ids, int) else list(map(int, token_ids))
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        if spaces_between_special_tokens is None:
            spaces_between_special_tokens = self.kind != "glmkit"
        separator = " " if spaces_between_special_tokens else ""
        text = separator.join(self._pieces([i for i in ids if i not in skipped]))
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        return self.clean_up_tokenization(text) if clean_up_tokenization_spaces else text

    def _pieces(self, ids: list[int]) -> Iterator[str]:
        """Yields the text of each run of ordinary tokens and each special token by itself.

        Added words (`tokens.extend`) are ordinary: no space comes between them and the text around them.
        """
        first_added, words = self.vocab_size, self._added_words()
        for added, run in groupby(ids, lambda index: index >= first_added and index not in words):
            tokens = [words.get(i) or self._tokenizer.id_to_token(i) for i in run]
            tokens = [token for token in tokens if token is not None]
            if added:
                yield from tokens
            elif tokens:
                yield self._tokenizer.decoder.decode(tokens)

    def _added_words(self) -> dict[int, str]:
        """Returns the added tokens that are not special, by id, as the vocabulary's decoder needs them."""
        size = len(self)
        if self._words_of_size is None or self._words_of_size[0] != size:
            decoder = self._tokenizer.get_added_tokens_decoder() if size > self.vocab_size else {}
            words = {index: one.content for index, one in decoder.items() if not one.special}
            if self.kind in ("gpt2", "roberta"):
                words = {index: _in_bytes(word) for index, word in words.items()}
            self._words_of_size = size, words
        return self._words_of_size[1]


def _in_bytes(word: str) -> str:
    """Returns a word in the characters that stand for bytes in GPT-2's vocabulary."""
    [(text, _)] = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(word)
    return text


def well_formed(text: Any) -> Any:
    """Returns `text` (a string or nested lists of them) with surrogate pairs joined and lone ones replaced."""
    if isinstance(text, str):
        if not text.isascii() and _SURROGATE.search(text):
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text
    if isinstance(text, list | tuple):
        return type(text)(map(well_formed, text))
    return text


def _find_folder(name: str | Path, hub_options: dict[str, Any]) -> Path:
    """Returns the folder called `name`, fetched from the hub if it is neither embedded nor a local one."""
    try:
        if (embedded := embedded_folder(name)) is not None:
            return embedded
    except CheckpointError as error:
        raise TokenizerError(str(error)) from error
    folder = Path(name)
    if folder.is_dir():
        return folder
    if isinstance(name, Path) and not folder.exists():
        raise TokenizerError(f"There is no folder {str(name)!r}.")
    if folder.exists() or not _HUB_NAME.fullmatch(str(name)):
        raise TokenizerError(
            f"{str(name)!r} is not a folder, and not a hub name such as 'THUDM/glm-large-chinese'."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), allow_patterns=list(_FILES), **hub_options))
    except (OSError, ValueError) as error:  # all of the hub's errors are one of these
        raise TokenizerError(
            f"There is no folder {str(name)!r}, and the tokenizer of that name could not be fetched from the hub "
            f"({type(error).__name__}: {str(error).splitlines()[0]}). Check the spelling; or connect to the network "
            f"and unset HF_HUB_OFFLINE; or, on a machine that is connected, run `hf download {name} --local-dir DIR`, "
            "copy DIR here and give its path."
        ) from error


def _base_of(folder: Path) -> str | None:
    """Returns the model to which a folder's adapter belongs; None where it has no adapter, or one that names none."""
    return read_json(folder / "adapter_config.json").get("base_model_name_or_path")


def _published_kind(folder: Path) -> str | None:
    """Returns which published vocabulary `folder` holds, or None for glmkit's own format."""
    read_json(folder / "tokenizer_config.json")  # complains about damage with the file's name
    return published_kind(folder)


# AutoTokenizer finds the class by the name in tokenizer_config.json, the originals' names included.
for _name in ("GLMTokenizer", "GLMChineseTokenizer", "GLMGPT2Tokenizer", "GLMBertTokenizer", "GLMRobertaTokenizer"):  # fmt: skip
    REGISTERED_TOKENIZER_CLASSES[_name] = GLMTokenizer
