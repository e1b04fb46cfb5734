"""`LightTokenizer` answers as `GLMTokenizer` does, and is one with the `GLMTokenizer` that it makes."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_samples import SENTENCES, bert_folder, gpt2_folder

from conftest import VARIANTS, golden_folder
from glmkit.embedded import ASSETS
from glmkit.errors import TokenizerError
from glmkit.special_tokens import GMASK, MASK, SMASK
from glmkit.tokens.blanked import encode_content, encode_pieces, encode_plain, split_at_blanks
from glmkit.tokens.extend import add_words
from glmkit.tokens.light import LightTokenizer, load_tokenizer
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.tokens.train import train_tokenizer

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
TRAINED = ("unigram", "bpe", "wordpiece")
EXTENDED = {
    "extended-bpe": "bpe",
    "extended-bert": "bert",
    "extended-tiny-gpt2": "tiny-gpt2",
    "extended-tiny-chinese": "tiny-chinese",
}
KINDS = ("glm-mini", *TRAINED, "gpt2", "saved-gpt2", "bert", *EXTENDED, *VARIANTS)

PIECES = (
    *SENTENCES,
    "北京",
    "天气很好",
    "hello, world ! hellos",
    "it 's n't",
    "👩‍👧🇨🇳",
    "\ud83d\ude00",
    "\ud800",
    "\n\t  ",
    "\0",
    "e\u0301",
    "𠮷",
    "１２3",
    "ÀÉ",
    *(MASK, SMASK, GMASK, "<mask>", "<|endoftext|>", "<|startofpiece|>", "<|image|>", "[CLS]", "</s>"),
)  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=6).map("".join)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """A function: the name of a vocabulary -> its folder, made when first asked for."""
    root = tmp_path_factory.mktemp("vocabularies")
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        folder = root / name
        if name == "glm-mini":
            return ASSETS / name
        if name in TRAINED:
            train_tokenizer(SENTENCES * 20, 600, name).save_pretrained(folder)
        elif name in EXTENDED:
            source = GLMTokenizer.from_pretrained(find(EXTENDED[name]))
            words = ["hellos"] if name == "extended-bert" else ["清华大学", "公园", "world"]
            extended, added = add_words(source, words)
            assert added
            extended.save_pretrained(folder)
        elif name == "saved-gpt2":
            GLMTokenizer.from_pretrained(find("gpt2")).save_pretrained(folder)
        elif name in VARIANTS:
            return golden_folder(name).path
        else:
            {"gpt2": gpt2_folder, "bert": bert_folder}[name](folder)
        return folder

    def find(name: str) -> Path:
        if name not in made:
            made[name] = make(name)
        return made[name]

    return find


@pytest.fixture(scope="module", params=KINDS)
def pair(request, folder_of):
    """(light, transformers') tokenizer of one folder."""
    folder = folder_of(request.param)
    light = LightTokenizer.of_folder(folder)
    assert light is not None
    return light, GLMTokenizer.from_pretrained(folder)


def check_vocabulary(light, own) -> None:
    for name in (
        *NAMED,
        *(f"{name}_id" for name in NAMED),
        *("kind", "special_ids", "mask_token_ids", "sop_token_id", "eop_token_id"),
        *("smask_token_id", "gmask_token_id", "textless_ids", "all_special_ids"),
        *("all_special_tokens", "extra_special_tokens", "name_or_path", "chat_template"),
        *("clean_up_tokenization_spaces", "vocab_size"),
    ):
        assert getattr(light, name) == getattr(own, name), name
    assert len(light) == len(own)
    assert light.get_vocab() == own.get_vocab()
    assert repr(light.added_tokens_decoder) == repr(own.added_tokens_decoder)
    assert light.fingerprint() == own.fingerprint()
    assert (light.sentence_ends() == own.sentence_ends()).all()


def check_ids(light, own, ids) -> None:
    for skip in (False, True):
        expected = own.decode(ids, skip_special_tokens=skip)
        assert light.decode(ids, skip_special_tokens=skip) == expected
        assert light.decode(np.array(ids, np.int64), skip_special_tokens=skip) == expected
        tokens = own.convert_ids_to_tokens(ids, skip_special_tokens=skip)
        assert light.convert_ids_to_tokens(ids, skip_special_tokens=skip) == tokens
    tokens = [token for token in own.convert_ids_to_tokens(ids) if token is not None]
    assert light.convert_tokens_to_ids(tokens) == own.convert_tokens_to_ids(tokens)
    for keep in (False, True):
        found = light.decode(ids, clean_up_tokenization_spaces=keep)
        assert found == own.decode(ids, clean_up_tokenization_spaces=keep)


def test_the_vocabulary_is_the_same(pair):
    check_vocabulary(*pair)


@settings(max_examples=40)
@given(text=texts)
def test_texts_have_the_same_ids(pair, text):
    light, own = pair
    ids = encode_plain(own, text)
    assert encode_plain(light, text) == ids
    assert ids == own(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    pieces = split_at_blanks(own, text)
    assert split_at_blanks(light, text) == pieces
    assert encode_pieces(light, pieces) == (whole := encode_pieces(own, pieces))
    content = [encode_content(one, text, own.mask_token_id, text) for one in pair]
    assert content[0] == content[1]
    check_ids(light, own, ids)
    check_ids(light, own, whole)


@settings(max_examples=40)
@given(data=st.data())
def test_ids_have_the_same_text(pair, data):
    """Ids of padding rows, behind all tokens, are among them."""
    light, own = pair
    special = st.sampled_from(sorted(own.textless_ids))
    one = st.one_of(st.integers(0, len(own) + 50), special)
    check_ids(light, own, data.draw(st.lists(one, max_size=12)))


def test_forms_of_ids(pair):
    light, own = pair
    rows = [[1, 2, 3], [own.special_ids.cls, 5, 6]]
    forms = (
        rows,
        tuple(map(tuple, rows)),
        np.array(rows),
        torch.tensor(rows),
        rows[0],
        rows[0][0],
        [],
    )
    for form in (*forms, torch.tensor(rows[0]), [torch.tensor(3)], np.int64(3), list(np.array(rows))):  # fmt: skip
        assert light.decode(form) == own.decode(form)
    for form in (rows[0], np.array(rows[0]), 3, []):
        assert light.convert_ids_to_tokens(form) == own.convert_ids_to_tokens(form)
    assert light.batch_decode(rows) == own.batch_decode(rows)
    assert light.convert_tokens_to_ids("no such token") == own.unk_token_id


@pytest.mark.parametrize("kind", KINDS)
def test_the_full_one_is_transformers_own(folder_of, kind, tmp_path):
    folder = folder_of(kind)
    light, own = LightTokenizer.of_folder(folder), GLMTokenizer.from_pretrained(folder)
    full = light.full()
    assert type(full) is GLMTokenizer
    assert light.full() is full
    for one in (light, full):
        check_vocabulary(one, own)
    for asked in (light, full):
        for text in PIECES:
            assert asked(text)["input_ids"] == own(text)["input_ids"]
        padded = asked(list(SENTENCES), padding=True, truncation=True, max_length=9, return_tensors="pt")  # fmt: skip
        expected = own(list(SENTENCES), padding=True, truncation=True, max_length=9, return_tensors="pt")  # fmt: skip
        assert all((padded[name] == expected[name]).all() for name in expected)
    assert (light.padding_side, light.truncation_side) == (own.padding_side, own.truncation_side)
    assert light.model_max_length == own.model_max_length
    check_ids(light, own, encode_plain(light, "".join(SENTENCES)))
    light.save_pretrained(tmp_path / "light")
    own.save_pretrained(tmp_path / "own")
    written = [
        {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / name).iterdir()}
        for name in ("light", "own")
    ]
    assert written[0] == written[1]


def test_what_changes_one_changes_the_other(folder_of):
    light = LightTokenizer.of_folder(folder_of("bpe"))
    light.chat_template = "{{ messages }}"
    full = light.full()
    assert full.chat_template == "{{ messages }}"
    assert light.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    full.chat_template = None
    assert light.chat_template is None
    full.add_tokens(["牛津大学"])
    assert len(light) == len(full)
    assert light.decode(encode_plain(light, "在牛津大学")) == "在牛津大学"
    light.pad_token = "[UNK]"
    assert light.special_ids.pad == full.pad_token_id == light.unk_token_id
    light.padding_side = "left"
    assert full.padding_side == "left"


def test_a_template_of_the_folder(folder_of, tmp_path):
    folder = shutil.copytree(folder_of("bpe"), tmp_path / "with-template")
    (folder / "chat_template.jinja").write_text("{{ '你好' }}", encoding="utf-8")
    light = LightTokenizer.of_folder(folder)
    assert light.chat_template == GLMTokenizer.from_pretrained(folder).chat_template
    shutil.rmtree(folder)
    assert light.full().chat_template == "{{ '你好' }}"


def test_copies(folder_of):
    light = LightTokenizer.of_folder(folder_of("unigram"))
    for one in (copy.copy(light), copy.deepcopy(light), pickle.loads(pickle.dumps(light))):
        assert type(one) is LightTokenizer
        check_vocabulary(one, light)
        assert not isinstance(one._state, GLMTokenizer)
    assert not hasattr(light, "_repr_html_")
    with pytest.raises(AttributeError, match="has no attribute nothing_like_this"):
        light.nothing_like_this  # noqa: B018


def changed(file_name, name, value):
    def change(folder: Path) -> None:
        path = folder / file_name
        state = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**state, name: value}), encoding="utf-8")

    return change


setting, backend = (partial(changed, one) for one in ("tokenizer_config.json", "tokenizer.json"))


def file(name, text="{}"):
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


TRUNCATION = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}

PADDING = {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None}
PADDING |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "[UNK]"}


@pytest.mark.parametrize(
    "change",
    [
        setting("split_special_tokens", True),
        setting("mask_token", {"content": "[MASK]", "__type": "AddedToken"}),
        setting("extra_special_tokens", {"image_token": "[sMASK]"}),
        setting("extra_special_tokens", ["[sMASK]", "<a new one>"]),
        setting("chat_template", [{"name": "default", "template": "x"}]),
        setting("tokenizer_class", "PreTrainedTokenizerFast"),
        setting("image_token", "[UNK]"),
        backend("truncation", TRUNCATION),
        backend("padding", PADDING),
        backend("post_processor", None),
        file("special_tokens_map.json"),
        file("added_tokens.json"),
        lambda folder: (folder / "additional_chat_templates").mkdir(),
        lambda folder: (folder / "tokenizer_config.json").unlink(),
    ],
)
def test_what_it_does_not_know_is_left_to_transformers(folder_of, tmp_path, change):
    folder = shutil.copytree(folder_of("bpe"), tmp_path / "changed")
    assert LightTokenizer.of_folder(folder) is not None
    change(folder)
    assert LightTokenizer.of_folder(folder) is None


@pytest.mark.parametrize(
    "damage",
    [
        file("tokenizer.json"),
        file("tokenizer_config.json", "{"),
        setting("mask_token", None),
        lambda folder: (folder / "tokenizer.json").unlink(),
        shutil.rmtree,
    ],
)
def test_damage_is_told_as_by_transformers(folder_of, tmp_path, damage):
    folder = shutil.copytree(folder_of("bpe"), tmp_path / "damaged")
    damage(folder)
    messages = []
    for load in (GLMTokenizer.from_pretrained, load_tokenizer):
        with pytest.raises(TokenizerError) as caught:
            load(folder)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_loading_by_name(folder_of, tmp_path):
    assert isinstance(load_tokenizer("glm-mini"), LightTokenizer)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    base = {"base_model_name_or_path": str(folder_of("gpt2"))}
    (adapter / "adapter_config.json").write_text(json.dumps(base))
    found = load_tokenizer(adapter)
    assert isinstance(found, LightTokenizer)
    assert found.name_or_path == GLMTokenizer.from_pretrained(adapter).name_or_path
    other = shutil.copytree(folder_of("bpe"), tmp_path / "other")
    setting("split_special_tokens", True)(other)
    assert isinstance(load_tokenizer(other), GLMTokenizer)
