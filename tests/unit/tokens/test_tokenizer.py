"""Loading, saving, special tokens and odd texts of `GLMTokenizer`; ids are compared in tests/parity."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from tokenizer_samples import bert_folder, chinese_folder, gpt2_folder

from glmkit.errors import TokenizerError
from glmkit.tokens.blanked import encode_plain
from glmkit.tokens.tokenizer import GLMTokenizer


@pytest.fixture
def gpt2(tmp_path: Path) -> GLMTokenizer:
    return GLMTokenizer.from_pretrained(gpt2_folder(tmp_path / "gpt2"))


def test_special_tokens_get_their_places(gpt2: GLMTokenizer) -> None:
    base = 256 + 3
    assert gpt2.kind == "gpt2"
    assert gpt2.special_ids.eos == gpt2.special_ids.pad == base - 1
    assert gpt2.sop_token_id == base
    assert gpt2.eop_token_id == base + 1
    assert gpt2.mask_token_ids == [base + 3, base + 7, base + 6]
    assert gpt2.smask_token_id == base + 7
    assert gpt2.gmask_token_id == base + 6
    assert gpt2.special_ids.block == 50265  # the published id, though no text gives it
    assert gpt2.encode("[dBLOCK]", add_special_tokens=False) != [50265]


def test_bert_has_one_mask_for_all_parts(tmp_path: Path) -> None:
    tokenizer = GLMTokenizer.from_pretrained(bert_folder(tmp_path))
    assert tokenizer.kind == "bert"
    assert tokenizer.mask_token_ids == [4]
    assert tokenizer.smask_token_id == tokenizer.gmask_token_id == 4
    assert tokenizer.special_ids.eos == 3  # [SEP] ends BERT's texts
    assert tokenizer.special_ids.block is None
    assert tokenizer.encode("Hello worlds 好") == [2, 5, 6, 7, 8, 3]
    assert tokenizer.decode([2, 5, 6, 7, 3], skip_special_tokens=True) == "hello worlds"


def test_a_pair_of_texts_is_joined_as_the_vocabulary_does(
    tmp_path: Path, gpt2: GLMTokenizer
) -> None:
    bert = GLMTokenizer.from_pretrained(bert_folder(tmp_path))
    assert bert("hello", "world")["input_ids"] == [2, 5, 3, 6, 3]
    special = gpt2.special_ids
    h = gpt2.convert_tokens_to_ids("h")
    assert gpt2("h", "h")["input_ids"] == [special.cls, h, special.eos, h, special.eos]


def test_saved_tokenizer_loads_through_transformers_too(gpt2: GLMTokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    gpt2.save_pretrained(tmp_path / "saved")
    text = "hello [MASK] <|endoftext|> x"
    for again in (
        GLMTokenizer.from_pretrained(tmp_path / "saved"),
        AutoTokenizer.from_pretrained(tmp_path / "saved"),
        AutoTokenizer.from_pretrained(tmp_path / "gpt2"),
        pickle.loads(pickle.dumps(gpt2)),
    ):
        assert isinstance(again, GLMTokenizer)
        assert again.kind == "gpt2"
        assert again.encode(text) == gpt2.encode(text)
        assert again.fingerprint() == gpt2.fingerprint()
        assert again.special_ids == gpt2.special_ids


def test_padding_of_the_last_call_is_not_saved(gpt2: GLMTokenizer, tmp_path: Path) -> None:
    """A tokenizer saved after a left-padded call came back padding on the left."""
    gpt2(["h", "hello"], padding=True, padding_side="left", truncation=True, max_length=4)
    gpt2.save_pretrained(tmp_path)
    again = GLMTokenizer.from_pretrained(tmp_path)
    assert (again.padding_side, again.truncation_side) == ("right", "left")
    assert again.encode("hello world") == gpt2.encode("hello world")


def test_settings_can_be_replaced_when_loading(tmp_path: Path) -> None:
    folder = gpt2_folder(tmp_path / "gpt2")
    tokenizer = GLMTokenizer.from_pretrained(folder, padding_side="left", model_max_length=7)
    assert tokenizer.padding_side == "left"
    assert tokenizer.model_max_length == 7
    tokenizer.save_pretrained(tmp_path / "saved")
    again = GLMTokenizer.from_pretrained(tmp_path / "saved", padding_side="right")
    assert again.padding_side == "right"
    assert again.model_max_length == 7


def test_strings_of_special_tokens_are_tokens_or_text_as_asked(gpt2: GLMTokenizer) -> None:
    text = "a[MASK]b<|endoftext|>[SEP]"
    assert set(gpt2.mask_token_ids) & set(gpt2.encode(text))
    plain = gpt2(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert max(plain) < 256 + 2
    assert gpt2.decode(plain, clean_up_tokenization_spaces=False) == text
    assert gpt2.mask_token_id in gpt2.encode(text)  # the next call is not affected


def test_surrogates_are_joined_or_replaced_before_anything_else(gpt2: GLMTokenizer) -> None:
    assert gpt2.encode("\ud83d\ude00") == gpt2.encode("😀")
    assert gpt2.encode("a\ud800b") == gpt2.encode("a\ufffdb")
    assert gpt2(["\udfff", "x"])["input_ids"] == gpt2(["\ufffd", "x"])["input_ids"]
    assert gpt2([("\ud800", "x")])["input_ids"] == gpt2([("\ufffd", "x")])["input_ids"]
    assert gpt2.tokenize("\ud800") == gpt2.tokenize("\ufffd")
    assert len(gpt2.encode("\0")) == 3


@pytest.mark.parametrize("text", ["中", "a", " ", "!", "\u0301", "\u200b", "\0", "[MASK]", "a b"])
@pytest.mark.parametrize("make", [gpt2_folder, bert_folder, chinese_folder])
def test_a_very_long_text_takes_linear_time(make, text: str, tmp_path: Path, monkeypatch) -> None:
    if make is chinese_folder:
        pytest.importorskip("sentencepiece")
    monkeypatch.setenv("GLMKIT_CACHE", str(tmp_path / "cache"))
    tokenizer = GLMTokenizer.from_pretrained(make(tmp_path / "model"))
    # Time that grew with the square of the length would be ended by the limit of a test.
    assert tokenizer.decode(tokenizer.encode(text * (100_000 // len(text)))) is not None


def test_ids_of_padding_rows_are_left_out_of_the_text(gpt2: GLMTokenizer) -> None:
    ids = gpt2.encode("hello")
    assert gpt2.decode([*ids, 50303]) == gpt2.decode(ids)
    assert gpt2.decode(gpt2.convert_tokens_to_ids("he")) == "he"
    assert gpt2.batch_decode([ids, ids], skip_special_tokens=True) == ["hello", "hello"]


def test_tensors_and_arrays_are_decoded(gpt2: GLMTokenizer) -> None:
    encoded = gpt2(["hello", "he"], padding=True, return_tensors="pt")
    assert encoded["input_ids"].shape == encoded["attention_mask"].shape
    assert gpt2.decode(encoded["input_ids"][0], skip_special_tokens=True) == "hello"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/folder/here", "not a folder"),
        (Path("no/tokenizer"), "There is no folder 'no/tokenizer'.$"),
        ("THUDM/glm-large-chinese", "hf download THUDM/glm-large-chinese"),
    ],
)
def test_a_missing_folder_says_what_to_do(name: str | Path, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        GLMTokenizer.from_pretrained(name)


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("x")
    with pytest.raises(TokenizerError, match="not a folder"):
        GLMTokenizer.from_pretrained(tmp_path / "vocab.txt")


def test_a_hub_name_is_fetched_without_code(tmp_path: Path, monkeypatch) -> None:
    import huggingface_hub

    calls = []

    def snapshot_download(name: str, **options: object) -> str:
        calls.append((name, options))
        return str(gpt2_folder(tmp_path / "snapshot"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    tokenizer = GLMTokenizer.from_pretrained("some/model", revision="v2", trust_remote_code=True)
    assert tokenizer.name_or_path == "some/model"
    [(name, options)] = calls
    assert name == "some/model"
    assert options["revision"] == "v2"
    assert not [file for file in options["allow_patterns"] if file.endswith((".py", ".bin"))]


def damage_nothing(folder: Path) -> None:
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()
    (folder / "tokenizer_config.json").unlink()


def damage_config(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{")


def damage_config_type(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("[]")


def damage_vocab(folder: Path) -> None:
    (folder / "vocab.json").write_text("{}x")


def damage_merges(folder: Path) -> None:
    (folder / "merges.txt").unlink()


def damage_added(folder: Path) -> None:
    (folder / "added_tokens.json").write_text(json.dumps({"[CLS]": 300}))


def damage_own(folder: Path) -> None:
    damage_nothing(folder)
    (folder / "tokenizer.json").write_text("{}")


def other_tokenizer(folder: Path) -> None:
    """A Rust tokenizer that has nothing to do with GLM."""
    from tokenizers import Tokenizer, models

    damage_nothing(folder)
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_nothing, "has no vocabulary"),
        (damage_config, "tokenizer_config.json is not valid JSON"),
        (damage_config_type, "holds a list"),
        (damage_vocab, "vocab.json and merges.txt in .* cannot be read"),
        (damage_merges, "has no merges.txt"),
        (damage_added, "259 was expected"),
        (damage_own, "cannot be read"),
        (other_tokenizer, "has no cls / eos / pad / mask token"),
    ],
)
def test_a_damaged_folder_is_named_in_the_error(damage, message: str, tmp_path: Path) -> None:
    folder = gpt2_folder(tmp_path / "model")
    damage(folder)
    with pytest.raises(TokenizerError, match=message) as error:
        GLMTokenizer.from_pretrained(folder)
    assert str(folder) in str(error.value)


def test_an_adapter_without_a_vocabulary_has_its_base_s(tmp_path: Path) -> None:
    base, adapter = gpt2_folder(tmp_path / "base"), tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    own, found = (GLMTokenizer.from_pretrained(one) for one in (base, adapter))
    assert found.get_vocab() == own.get_vocab()
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(TokenizerError, match="has no vocabulary"):
        GLMTokenizer.from_pretrained(adapter)


def test_added_tokens_of_a_fine_tuned_folder_are_kept(tmp_path: Path) -> None:
    folder = gpt2_folder(tmp_path)
    names = ("<|startofpiece|>", "<|endofpiece|>", "[CLS]", "[MASK]", "[SEP]", "[UNK]", "[gMASK]")
    added = {name: 259 + i for i, name in enumerate((*names, "[sMASK]", "[mine]"))}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    tokenizer = GLMTokenizer.from_pretrained(folder)
    assert tokenizer.encode("[mine]", add_special_tokens=False) == [267]
    assert tokenizer.decode([267], skip_special_tokens=True) == "[mine]"


def test_many_plain_texts_are_as_one_by_one(golden):
    """`encode_plain` of a list goes past transformers; a call before it may have left padding and truncation on."""
    tokenizer = GLMTokenizer.from_pretrained(golden.path)
    texts = ["北京 is [MASK]", "<|endofpiece|>", "", " a b ", "\ud800x", "很长" * 20]
    expected = [encode_plain(tokenizer, text) for text in texts]
    tokenizer(texts[:2], padding="max_length", truncation=True, max_length=5)
    assert encode_plain(tokenizer, texts) == expected
    mask = tokenizer(tokenizer.mask_token, add_special_tokens=False)["input_ids"]
    assert mask == [tokenizer.mask_token_id]  # special strings are tokens again
