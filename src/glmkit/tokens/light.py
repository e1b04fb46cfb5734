"""`LightTokenizer`: what answers of a GLM need of its tokenizer, on the Rust library alone.

In: a folder with a vocabulary. Out: ids, text and special tokens as `GLMTokenizer` gives them, but without the seconds and the memory
that transformers and torch take to import. What it does not have itself is asked of a `GLMTokenizer`, made when first needed.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from glmkit.errors import TokenizerError, needs_torch
from glmkit.tokens.base import GLMTokenizerBase
from glmkit.tokens.folders import base_of, find_folder, kind_of
from glmkit.tokens.published import build_published, read_json

if TYPE_CHECKING:
    from glmkit.tokens.tokenizer import GLMTokenizer

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")  # fmt: skip
"""The parts that a special token can play, in transformers' order."""

_SETTINGS = {
    **dict.fromkeys(_NAMED, str | None),
    "extra_special_tokens": list,
    "chat_template": str,
    "clean_up_tokenization_spaces": bool,
    "kind": str,
    "tokenizer_class": str,
    "model_max_length": int,
    "padding_side": str,
    "truncation_side": str,
    "backend": str,
    "is_local": bool,
    "local_files_only": bool,
}
"""What a `tokenizer_config.json` may say: other keys or types are transformers' business."""

_OTHER_FILES = ("special_tokens_map.json", "added_tokens.json", "additional_chat_templates")
"""Of older versions or other programs; transformers takes settings from them."""

_LARGEST = 100_000
"""Tokens; transformers looks whether a larger vocabulary needs a repair."""

_BUILDING = threading.Lock()


class _OfState:
    """An attribute that is kept in `_state`: with the settings, and once there is one with the `GLMTokenizer`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, tokenizer: Any, owner: type) -> Any:
        return self if tokenizer is None else getattr(tokenizer._state, self._name)

    def __set__(self, tokenizer: Any, value: Any) -> None:
        setattr(tokenizer._state, self._name, value)


class LightTokenizer(GLMTokenizerBase):
    """Text from ids and all about the vocabulary as in `GLMTokenizer`; ids of a text are given by `tokens.blanked`.

    Everything else that a `GLMTokenizer` has (calls, `encode`, padding, chat templates, saving) is had here too: it is passed on to
    `full()`, which imports transformers. Both are one tokenizer then: what changes one changes the other.

    Attributes:
        name_or_path: Where it came from.
        chat_template: The Jinja text for `apply_chat_template`, or None.
        clean_up_tokenization_spaces: Whether spaces before punctuation go when ids are decoded.
        init_kwargs: The settings of the folder.
    """

    _tokenizer: Any = _OfState()
    _special_tokens_map: Any = _OfState()
    _extra_special_tokens: Any = _OfState()
    init_kwargs: Any = _OfState()
    name_or_path: Any = _OfState()
    chat_template: Any = _OfState()
    clean_up_tokenization_spaces: Any = _OfState()

    def __init__(self, backend: Tokenizer, settings: dict[str, Any]):
        """Wraps a vocabulary.

        Args:
            backend: With all special tokens in place.
            settings: What `GLMTokenizer` takes beside it.
        """
        self._state: Any = SimpleNamespace(
            _tokenizer=backend,
            _special_tokens_map={name: settings.get(name) for name in _NAMED},
            _extra_special_tokens=list(settings.get("extra_special_tokens", ())),
            init_kwargs=settings,
            name_or_path=settings.get("name_or_path", ""),
            chat_template=settings.get("chat_template"),
            clean_up_tokenization_spaces=settings.get("clean_up_tokenization_spaces", False),
        )

    @classmethod
    def of_folder(cls, folder: str | Path, name: str | Path | None = None) -> LightTokenizer | None:
        """Returns the tokenizer of a folder, or None where only `GLMTokenizer.from_pretrained` can say what it is.

        Args:
            folder: In glmkit's own format (`tokenizer.json`), or with the files of a published vocabulary.
            name: What the user called it; the folder by default.

        Raises:
            MissingDependencyError: A SentencePiece vocabulary without `glmkit[sentencepiece]`.
        """
        folder = Path(folder)
        try:
            kind = kind_of(folder)
            if kind is None:
                return cls._of_own(folder)
            backend, settings = build_published(folder, kind)
            found = cls(backend, {**settings, "name_or_path": str(name or folder)})
            return found if found._is_whole() else None
        except TokenizerError:
            return None

    @classmethod
    def _of_own(cls, folder: Path) -> LightTokenizer | None:
        """Returns the tokenizer of a folder in glmkit's own format, or None where something in it is unknown."""
        if any((folder / name).exists() for name in _OTHER_FILES):
            return None
        settings = read_json(folder / "tokenizer_config.json")
        extra = settings.get("extra_special_tokens", [])
        if (
            settings.get("tokenizer_class") != "GLMTokenizer"
            or any(not isinstance(v, _SETTINGS.get(k, ())) for k, v in settings.items())
            or not all(isinstance(token, str) for token in extra)
            or not (folder / "tokenizer.json").is_file()
        ):
            return None
        template = folder / "chat_template.jinja"
        if template.is_file():
            settings["chat_template"] = template.read_text(encoding="utf-8")
        try:
            backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception:  # the library raises bare Exceptions
            return None
        del settings["tokenizer_class"]
        found = cls(backend, {**settings, "name_or_path": str(folder), "is_local": True})
        return found if found._is_whole() else None

    def _is_whole(self) -> bool:
        """Says whether transformers would take the vocabulary as it is, and GLM's tokens are in it."""
        backend = self._tokenizer
        self.special_ids  # noqa: B018 - complains about a vocabulary without GLM's tokens
        return (
            backend.truncation is None
            and backend.padding is None
            and backend.post_processor is not None
            and len(self) <= _LARGEST
            and set(self.all_special_tokens)
            <= {token.content for token in self.added_tokens_decoder.values()}
        )

    def full(self) -> GLMTokenizer:
        """Returns the same tokenizer as transformers knows it; made when first asked for."""
        from huggingface_hub import is_offline_mode

        with needs_torch(
            "A tokenizer as transformers has it (glm.tokenizer; glm.vocabulary does without)",
            "transformers 的分词器（glm.tokenizer；glm.vocabulary 则不需要）",
        ):
            from glmkit.tokens.tokenizer import GLMTokenizer

        with _BUILDING:
            state = self._state
            if not isinstance(state, GLMTokenizer):
                settings = dict(state.init_kwargs)
                if "is_local" in settings:
                    settings["local_files_only"] = is_offline_mode()
                made = GLMTokenizer(tokenizer_object=state._tokenizer, **settings)
                made.chat_template = state.chat_template
                self._state = state = made
        return state

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The Rust library's tokenizer."""
        return self._tokenizer

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary without the added ones."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def get_vocab(self) -> dict[str, int]:
        """Returns token -> id, added tokens included."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        """Id -> added token (`tokenizers.AddedToken`)."""
        return self._tokenizer.get_added_tokens_decoder()

    @property
    def all_special_tokens(self) -> list[str]:
        """The distinct special tokens."""
        tokens = [token for token in self._special_tokens_map.values() if token is not None]
        return list(dict.fromkeys(map(str, [*tokens, *self._extra_special_tokens])))

    @property
    def all_special_ids(self) -> list[int]:
        """Their ids."""
        return self.convert_tokens_to_ids(self.all_special_tokens)

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """Returns the id of a token, or those of a list of tokens; that of the unknown token where there is none."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        index = self._tokenizer.token_to_id(tokens)
        return self.unk_token_id if index is None else index

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """Returns the token of an id, or those of a sequence of ids; None where there is none."""
        if isinstance(ids, int):
            return self._tokenizer.id_to_token(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._tokenizer.id_to_token(i) for i in map(int, ids) if i not in skipped]

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, **kwargs: Any) -> Any:
        """Returns the text of ids (an id, or a list, array or tensor of them), or the texts of a list of such lists."""
        ids = _as_lists(token_ids)
        if isinstance(ids, list) and ids and isinstance(ids[0], list):
            return [self._decode(one, skip_special_tokens, **kwargs) for one in ids]
        return self._decode(ids, skip_special_tokens, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Encodes with transformers, as `GLMTokenizer` does."""
        return self.full()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for by copying, pickling and the like
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        token = name.removesuffix("_id")
        if token in self._special_tokens_map:
            content = self._special_tokens_map[token]
            if content is None or token == name:
                return content if content is None else str(content)
            return self.convert_tokens_to_ids(str(content))
        if name == "extra_special_tokens":
            return list(map(str, self._extra_special_tokens))
        return getattr(self.full(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name in vars(type(self)):
            super().__setattr__(name, value)
        else:
            setattr(self.full(), name, value)

    def __repr__(self) -> str:
        return f"LightTokenizer(name_or_path={self.name_or_path!r}, kind={self.kind!r}, {len(self)} tokens)"


def load_tokenizer(name: str | Path) -> LightTokenizer | GLMTokenizer:
    """Returns the tokenizer of a folder or name as `GLMTokenizer.from_pretrained` finds it, a light one where that can be.

    Args:
        name: A folder, the name of an embedded model, or a hub name.

    Raises:
        TokenizerError: As `GLMTokenizer.from_pretrained` raises it; so is `MissingDependencyError`.
    """
    folder = find_folder(name, {})
    if (light := LightTokenizer.of_folder(folder, name)) is not None:
        return light
    own = (folder / "tokenizer.json").is_file() or kind_of(folder) is not None
    if not own and (base := base_of(folder)) is not None:
        return load_tokenizer(base)
    with needs_torch(
        f"The vocabulary of {name}, which is not all of glmkit's own format,",
        f"{name} 的词表（不完全是 glmkit 自己的格式）",
    ):
        from glmkit.tokens.tokenizer import GLMTokenizer

    return GLMTokenizer.from_pretrained(name)


def _as_lists(ids: Any) -> Any:
    """Returns ids as numbers in lists: of a number, an array or tensor, or of lists of these."""
    if isinstance(ids, list | tuple):
        plain = all(isinstance(one, int) for one in ids)
        return list(ids) if plain else [_as_lists(one) for one in ids]
    return ids.tolist() if hasattr(ids, "tolist") else ids
