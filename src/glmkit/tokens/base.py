"""What GLM adds to a tokenizer of the Rust library: its special tokens, and text from ids as the originals gave it.

In: a `tokenizers.Tokenizer` with GLM's tokens. Out: `GLMTokenizerBase`, of which `GLMTokenizer` (transformers') and
`LightTokenizer` (that library alone) are made, so that both answer alike. It imports neither torch nor transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

from glmkit.blanks.spans import ends_sentence
from glmkit.errors import TokenizerError
from glmkit.special_tokens import DBLOCK, EOP, GMASK, PUBLISHED, SMASK, SOP, SpecialTokenIds

CLEANED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
"""What the published tokenizers take a space from after decoding, in this order."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class GLMTokenizerBase:
    """GLM's part of a tokenizer; the class that has it gives the vocabulary and the names of the special tokens."""

    _words_of_size: tuple[int, dict[int, str]] | None = None

    @property
    def kind(self: Any) -> str:
        """Which vocabulary this is: "chinese", "gpt2", "bert", "roberta", or "glmkit" for a trained one."""
        return self.init_kwargs.get("kind", "glmkit")

    @property
    def sop_token_id(self: Any) -> int:
        """Id of `<|startofpiece|>`, which starts a blank's contents."""
        return self._required_id(SOP)

    @property
    def eop_token_id(self: Any) -> int:
        """Id of `<|endofpiece|>`, which ends a blank's contents."""
        return self._required_id(EOP)

    @property
    def smask_token_id(self: Any) -> int:
        """Id of `[sMASK]`, or of the only mask of BERT's and RoBERTa's vocabularies."""
        return self._tokenizer.token_to_id(SMASK) or self.mask_token_id

    @property
    def gmask_token_id(self: Any) -> int:
        """Id of `[gMASK]`, or of the only mask of BERT's and RoBERTa's vocabularies."""
        return self._tokenizer.token_to_id(GMASK) or self.mask_token_id

    @property
    def mask_token_ids(self: Any) -> list[int]:
        """The distinct ids of the masks, in the order [MASK], [sMASK], [gMASK]."""
        return list(self.special_ids.masks)

    @property
    def special_ids(self: Any) -> SpecialTokenIds:
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

    def _find_special_ids(self: Any) -> SpecialTokenIds:
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

    def sentence_ends(self: Any) -> np.ndarray:
        """Returns bool [vocabulary]: which tokens end a sentence, as the sentence objective needs."""
        pieces = self.backend_tokenizer.decode_batch(
            [[index] for index in range(len(self))], skip_special_tokens=True
        )
        return ends_sentence(pieces)

    def fingerprint(self: Any) -> str:
        """Returns a SHA-256 (hex) of all that decides ids; the same after saving and loading. Takes about 0.1 s."""
        import hashlib  # brings 4 MB, which answers need not

        state = json.loads(self._tokenizer.to_str())
        for unrelated in ("truncation", "padding", "decoder", "version"):
            state.pop(unrelated)
        text = json.dumps(state, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _required_id(self: Any, token: str) -> int:
        index = self._tokenizer.token_to_id(token)
        if index is None:
            raise TokenizerError(
                f"The vocabulary of {self.name_or_path or 'this tokenizer'} has no {token}, so it is not one for "
                "GLM. Train one with `glmkit train-tokenizer`."
            )
        return index

    @property
    def textless_ids(self: Any) -> frozenset[int]:
        """Ids that stand for no text: special and added tokens."""
        return frozenset({*self.all_special_ids, *self.added_tokens_decoder})

    def _decode(
        self: Any,
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

    def clean_up_tokenization(self, text: str) -> str:
        """Returns a text without the spaces that WordPiece and the originals put before punctuation."""
        for spaced in CLEANED:
            text = text.replace(spaced, spaced.strip())
        return text

    def _pieces(self: Any, ids: list[int]) -> Iterator[str]:
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

    def _added_words(self: Any) -> dict[int, str]:
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
