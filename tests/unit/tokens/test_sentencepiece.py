"""Reading SentencePiece models: same ids as the library, the cache, and what can go wrong."""

from __future__ import annotations

import builtins
import io
from pathlib import Path

import pytest
from tokenizer_samples import SENTENCES, chinese_folder

from glmkit.errors import MissingDependencyError, TokenizerError
from glmkit.tokens.sentencepiece import cache_folder, load_sentencepiece
from glmkit.tokens.tokenizer import GLMTokenizer

sentencepiece = pytest.importorskip("sentencepiece")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLMKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path: Path, cache: Path) -> Path:
    return chinese_folder(tmp_path / "model") / "cog-pretrain.model"


def forbid_sentencepiece(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("sentencepiece"):
            raise ModuleNotFoundError("No module named 'sentencepiece'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)


@pytest.mark.parametrize(
    "text",
    [
        *SENTENCES,
        "",
        "  two   spaces ",
        "\u200bzero width first",
        "\u0301mark first",
        "e\u0301 Ａ\u0301 ｶﾞ ①\u0301",
        "<n><n> a<n>b <s></s><unk>",
        "<n><s>",
        "▁ ▁x",
        "a\0b\ufeff",
        "🎉👨\u200d👩\u200d👧",
    ],
)
def test_ids_and_text_are_those_of_the_library(text: str, model: Path) -> None:
    reference = sentencepiece.SentencePieceProcessor(str(model))
    tokenizer = load_sentencepiece(model)
    ids = tokenizer.encode(text).ids
    assert ids == reference.encode(text)
    assert tokenizer.decode(ids) == reference.decode(ids)


def test_the_conversion_is_kept_and_needs_no_package_afterwards(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_sentencepiece(model)
    [file] = (cache / "sentencepiece").iterdir()
    assert file.suffix == ".json"
    forbid_sentencepiece(monkeypatch)
    assert load_sentencepiece(model).to_str() == first.to_str()


def test_a_damaged_cache_is_mended(model: Path, cache: Path) -> None:
    first = load_sentencepiece(model)
    [file] = (cache / "sentencepiece").iterdir()
    good = file.read_bytes()
    file.write_text("{")
    assert load_sentencepiece(model).to_str() == first.to_str()
    assert file.read_bytes() == good


def test_a_cache_that_cannot_be_written_is_no_error(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GLMKIT_CACHE", str(tmp_path / "file"))
    assert load_sentencepiece(model).get_vocab_size() > 50


def test_no_half_file_is_left_when_writing_fails(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    load_sentencepiece(model)
    assert list((cache / "sentencepiece").iterdir()) == []


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLMKIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/glmkit")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "glmkit"


def test_without_the_package_the_install_command_is_given(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_sentencepiece(monkeypatch)
    with pytest.raises(MissingDependencyError, match=r"glmkit\[sentencepiece\]"):
        GLMTokenizer.from_pretrained(model.parent)


@pytest.mark.parametrize("content", [b"", b"\x00\x01 no model at all", b"\x0a\xff"])
def test_what_is_no_model_is_refused(content: bytes, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "cog-pretrain.model").write_bytes(content)
    with pytest.raises(TokenizerError, match="not a SentencePiece model"):
        GLMTokenizer.from_pretrained(tmp_path)


def test_a_truncated_model_is_refused(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(TokenizerError, match="truncated"):
        GLMTokenizer.from_pretrained(model.parent)


def test_other_model_types_are_refused(tmp_path: Path, cache: Path) -> None:
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3),
        model_writer=writer,
        vocab_size=100,
        model_type="unigram",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "cog-pretrain.model").write_bytes(writer.getvalue())
    with pytest.raises(TokenizerError, match="only type 2"):
        load_sentencepiece(tmp_path / "cog-pretrain.model")
