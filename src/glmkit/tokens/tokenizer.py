"""`GLMTokenizer`: text to ids and back, for the four published vocabularies and glmkit's own.

In: text, or a folder or hub name to load from. Out: `input_ids` and `attention_mask` (lists, or int64 tensors), text
again from ids, and the special tokens' ids. It knows nothing about models; the two-dimensional positions of GLM's
inputs are made by `blanks`, behind `GLMInputsMixin`.

The work is done by the Rust library `tokenizers`; no code from a hub is ever run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import REGISTERED_TOKENIZER_CLASSES

from glmkit.errors import TokenizerError
from glmkit.tokens.base import GLMTokenizerBase, well_formed
from glmkit.tokens.folders import base_of, find_folder, kind_of
from glmkit.tokens.inputs import GLMInputsMixin
from glmkit.tokens.published import build_published

_HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only", "force_download")


class GLMTokenizer(GLMTokenizerBase, GLMInputsMixin, PreTrainedTokenizerFast):
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
        folder = find_folder(pretrained_model_name_or_path, hub_options)
        kind = kind_of(folder)
        if kind is not None:
            backend, settings = build_published(folder, kind)
            settings["name_or_path"] = str(pretrained_model_name_or_path)
            return cls(tokenizer_object=backend, **{**settings, **kwargs})
        if not (folder / "tokenizer.json").is_file():
            if (base := base_of(folder)) is not None:
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

    def _encode_plus(  # type: ignore[override]  # passed on, whatever they are
        self, text: Any, text_pair: Any = None, **kwargs: Any
    ) -> BatchEncoding:
        return super()._encode_plus(well_formed(text), well_formed(text_pair), **kwargs)

    def _save_pretrained(self, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        # The padding and truncation of the last call would come back as settings of the loaded tokenizer.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        return super()._save_pretrained(*args, **kwargs)


# AutoTokenizer finds the class by the name in tokenizer_config.json, the originals' names included.
for _name in ("GLMTokenizer", "GLMChineseTokenizer", "GLMGPT2Tokenizer", "GLMBertTokenizer", "GLMRobertaTokenizer"):  # fmt: skip
    REGISTERED_TOKENIZER_CLASSES[_name] = GLMTokenizer
