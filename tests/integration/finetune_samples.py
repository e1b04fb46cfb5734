"""A tiny model and tasks that it can learn in seconds; run as a script it fine-tunes by the values (JSON) that it is given."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain_samples import KillAt, Killed

from glmkit.config import from_values
from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.tokens.train import train_tokenizer
from glmkit.training import finetune as module
from glmkit.training.building import padded_rows, special_fields, tokenizer_rows
from glmkit.training.finetune_settings import FinetuneConfig

GOOD, BAD = ["很快", "好吃", "干净", "喜欢"], ["太慢", "难吃", "很脏", "讨厌"]
OTHER = ["送餐", "房间", "味道", "老板", "今天", "我们", "早餐", "位置"]


def reviews(count: int, seed: int = 0) -> list[dict]:
    """Returns records whose label is told by one word among others."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(count):
        words = [*rng.choice(OTHER, rng.integers(1, 4)), rng.choice((BAD, GOOD)[number % 2])]
        rng.shuffle(words)
        records.append({"text": "，".join(words), "label": number % 2})
    return records


def write_jsonl(path: Path, records: list[dict]) -> Path:
    lines = (json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_model(folder: Path, **fields) -> Path:
    """Writes a model of random weights and its tokenizer."""
    texts = [record["text"] for record in reviews(100)]
    texts += ["总的来说，很好。评价：差这个评价的意思是：问答春江花月"] * 40
    tokenizer = train_tokenizer(texts, 340, "bpe")
    values = {
        "vocab_size": padded_rows(tokenizer_rows(tokenizer)),
        "hidden_size": 32,
        "num_layers": 2,
        "num_attention_heads": 2,
        "max_sequence_length": 64,
        "initializer_range": 0.05,
        "output_dropout_prob": 0.0,
        "attention_dropout_prob": 0.0,
        "embedding_dropout_prob": 0.0,
        **fields,
    }
    torch.manual_seed(0)
    config = GLMConfig(**special_fields(tokenizer), **values)
    GLMForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def base_model(**fields):
    """Returns a module's fixture: the folder of a model of `write_model(**fields)`."""

    @pytest.fixture(scope="module")
    def base(tmp_path_factory) -> Path:
        return write_model(tmp_path_factory.mktemp("base"), **fields)

    return base


def kill_at(step: int, config: FinetuneConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fine-tunes up to the step after `step`, and ends as good as by a kill."""
    build = module.build_trainer

    def killed(*arguments):
        built = build(*arguments)
        built.add_callback(KillAt(step))
        return built

    with monkeypatch.context() as patched:
        patched.setattr(module, "build_trainer", killed)
        with pytest.raises(Killed):
            module.finetune(config)


def make_config(model: Path, run: Path, tasks: dict, sections: dict | None = None, **trainer):
    """Returns a run of a few steps."""
    values = {
        "model": {"from": str(model)},
        "tasks": tasks,
        "trainer": {
            "output_dir": str(run),
            "learning_rate": 1e-2,
            "num_train_epochs": 6,
            "per_device_train_batch_size": 8,
            "weight_decay": 0.01,
            "use_cpu": True,
            **trainer,
        },
        **(sections or {}),
    }
    return from_values(FinetuneConfig, values)


if __name__ == "__main__":
    from glmkit.training.finetune import finetune

    finetune(from_values(FinetuneConfig, json.loads(sys.argv[1])))
