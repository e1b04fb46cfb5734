"""Ids and texts recorded from the original tokenizers: every row of every variant, with no exception."""

from __future__ import annotations

import json
import pickle
from functools import cache
from pathlib import Path

import pytest

from conftest import SHARED, VARIANTS, Golden, golden_folder
from glmkit.special_tokens import PUBLISHED
from glmkit.tokens.tokenizer import GLMTokenizer

WAYS = ("original", "reloaded", "pickled")


@cache
def load(folder: Path) -> GLMTokenizer:
    return GLMTokenizer.from_pretrained(folder)


@pytest.fixture(params=WAYS)
def tokenizer(request: pytest.FixtureRequest, golden: Golden, tmp_path: Path) -> GLMTokenizer:
    """The variant's tokenizer as loaded from the original files, saved and loaded, and pickled."""
    tokenizer = load(golden.path)
    if request.param == "reloaded":
        tokenizer.save_pretrained(tmp_path)
        return GLMTokenizer.from_pretrained(tmp_path)
    if request.param == "pickled":
        return pickle.loads(pickle.dumps(tokenizer))
    return tokenizer


def test_every_row_is_encoded_and_decoded_as_recorded(
    golden: Golden, tokenizer: GLMTokenizer
) -> None:
    rows = golden.json["tokenizer"]
    assert len(rows) == 113
    for row in rows:
        ids, ids_special = row["ids"], row["ids_special"]
        got = {
            "text": row["text"],
            "ids": tokenizer.encode(row["text"], add_special_tokens=False),
            "ids_special": tokenizer.encode(row["text"]),
            "decode": tokenizer.decode(ids),
            "decode_skip": tokenizer.decode(ids, skip_special_tokens=True),
            "decode_special": tokenizer.decode(ids_special),
            "decode_special_skip": tokenizer.decode(ids_special, skip_special_tokens=True),
            "decode_noclean": tokenizer.decode(ids_special, clean_up_tokenization_spaces=False),
        }
        assert got == row


def test_truncation_is_on_the_left_and_keeps_both_special_tokens(
    golden: Golden, tokenizer: GLMTokenizer
) -> None:
    for row in golden.json["tokenizer_truncation"]:
        options = {"truncation": True, "max_length": row["max_length"]}
        assert tokenizer.encode(row["text"], **options) == row["ids"]
        assert (
            tokenizer.encode(row["text"], add_special_tokens=False, **options) == row["ids_plain"]
        )


def test_batches_are_padded_as_recorded(golden: Golden, tokenizer: GLMTokenizer) -> None:
    sides = set()
    for row in golden.json["tokenizer_batch"]:
        sides.add(row["padding_side"])
        tokenizer.padding_side = row["padding_side"]
        options = {name: row[name] for name in ("max_length", "truncation") if name in row}
        batch = tokenizer(row["texts"], padding=row.get("padding", True), **options)
        tokenizer.padding_side = "right"
        # The originals' token_type_ids were two shorter than the ids; there are none here.
        assert set(batch) == {"input_ids", "attention_mask"}
        assert batch["input_ids"] == row["input_ids"]
        assert batch["attention_mask"] == row["attention_mask"]
    assert sides == {"left", "right"}


def test_special_ids_and_sizes_are_the_recorded_ones(
    golden: Golden, tokenizer: GLMTokenizer
) -> None:
    meta = golden.json["meta"]
    for name in (
        *("cls_token_id", "eos_token_id", "pad_token_id", "mask_token_id", "mask_token_ids"),
        *("sop_token_id", "eop_token_id", "unk_token_id", "sep_token_id"),
        *("padding_side", "truncation_side"),
    ):
        assert getattr(tokenizer, name) == meta[name], name
    assert len(tokenizer) == meta["len_tokenizer"]
    assert tokenizer.vocab_size == meta["base_vocab_size"]
    assert tokenizer.kind == golden.path.name.removeprefix("tiny-")
    assert tokenizer.special_ids == PUBLISHED[tokenizer.kind]
    ids = [tokenizer.smask_token_id, tokenizer.gmask_token_id]
    assert set(ids) <= set(meta["mask_token_ids"])


def test_saving_changes_no_id_and_no_setting(golden: Golden, tmp_path: Path) -> None:
    tokenizer = load(golden.path)
    before = tokenizer.fingerprint()
    tokenizer(["a", "b c d"], padding="max_length", truncation=True, max_length=3)
    assert tokenizer.fingerprint() == before
    tokenizer.save_pretrained(tmp_path)
    again = GLMTokenizer.from_pretrained(tmp_path)
    assert again.fingerprint() == before
    assert set(again.all_special_ids) == set(tokenizer.all_special_ids)
    assert {path.name for path in tmp_path.iterdir()} == {
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_training_repository_gives_the_same_ids_where_the_record_says_so(variant: str) -> None:
    tokenizer = load(golden_folder(variant).path)
    recorded = json.loads((SHARED / "golden" / "tokenizer-original.json").read_text("utf-8"))
    rows = [row for row in recorded[variant]["rows"] if row["equal_to_transformers_style"]]
    assert len(rows) >= 80
    for row in rows:
        assert tokenizer.encode(row["text"], add_special_tokens=False) == row["original_ids"], row


def test_fingerprints_tell_the_vocabularies_apart() -> None:
    prints = {load(golden_folder(variant).path).fingerprint() for variant in VARIANTS}
    assert len(prints) == len(VARIANTS)
