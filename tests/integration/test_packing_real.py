"""Padding on real paragraphs with the published settings: below 2 % at 512 tokens, the objectives' shares kept."""

from __future__ import annotations

from collections import Counter

import pytest

from conftest import SHARED, golden_folder
from glmkit.blanks.objectives import ObjectiveSettings
from glmkit.corpus.sources import read_documents
from glmkit.tokens.store import TokenStore, TokenStoreWriter
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.training.data import PretrainingStream

WIKI = SHARED / "data" / "wiki_zh.train.jsonl.gz"


@pytest.mark.skipif(not WIKI.is_file(), reason="needs shared/data/wiki_zh.train.jsonl.gz")
def test_padding_and_shares_on_wikipedia(tmp_path):
    tokenizer = GLMTokenizer.from_pretrained(golden_folder("tiny-chinese").path)
    texts = [document.text for document in read_documents(WIKI)][:1500]
    with TokenStoreWriter(tmp_path / "wiki", "none", 50_048) as writer:
        for ids in tokenizer(texts)["input_ids"]:
            writer.add(ids)
    stream = PretrainingStream(
        TokenStore.open(tmp_path / "wiki"),
        tokenizer.special_ids,
        ObjectiveSettings(),
        rows=16,
        row_length=512,
        seed=1,
        sentence_ends=tokenizer.sentence_ends(),
    )
    real = places = 0
    tokens: Counter[str] = Counter()
    while stream.epochs < 1:
        batch = next(stream)
        here = batch["segment_ids"] > 0
        real, places = real + int(here.sum()), places + here.numel()
        for number, name in enumerate(stream.objective_names):
            of_name = here & (batch["objective_ids"] == number)
            part_b = of_name & (batch["position_ids"][:, 1] > 0)
            tokens[name] += int((of_name & ~part_b).sum())
            tokens[f"{name} hidden"] += int(part_b.sum())
    assert 1 - real / places < 0.02
    for name, weight in (("token", 0.4), ("sentence", 0.3), ("document", 0.3)):
        text = tokens[name] + tokens[f"{name} hidden"]
        assert text / sum(tokens.values()) == pytest.approx(weight, abs=0.04)
    # Room for blanks is planned; it must not have become too little to hide what the settings ask for.
    for name, least, most in (("token", 0.15, 0.22), ("sentence", 0.15, 0.32)):
        share = tokens[f"{name} hidden"] / (tokens[name] + tokens[f"{name} hidden"])
        assert least < share < most
