"""A tiny prepared corpus and configuration; run as a script it pretrains, until it is done or killed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from transformers import TrainerCallback

from glmkit.config import from_values
from glmkit.tokens.store import TokenStoreWriter
from glmkit.tokens.train import train_tokenizer
from glmkit.training.meters import MACHINE_DEPENDENT
from glmkit.training.settings import PretrainConfig


class Killed(BaseException):
    """As good as a kill: no handler of errors sees it."""


class KillAt(TrainerCallback):
    """Ends a run before the step after `step`."""

    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


def write_prepared(folder: Path, documents: int = 120) -> Path:
    """Writes what `glmkit prepare` would: train/, valid/ and tokenizer/, of invented lines."""
    rng = np.random.default_rng(0)
    words = ["春江", "潮水", "明月", "花林", "白云", "青枫", "玉户", "海", "天", "人"]
    texts = [
        "".join("".join(rng.choice(words, 4)) + "。" for _ in range(rng.integers(1, 9)))
        for _ in range(documents)
    ]
    tokenizer = train_tokenizer(texts, 350, "bpe")
    tokenizer.save_pretrained(folder / "tokenizer")
    for name, part in (("train", texts[20:]), ("valid", texts[:20])):
        with TokenStoreWriter(folder / name, tokenizer.fingerprint(), len(tokenizer)) as writer:
            for text in part:
                writer.add(tokenizer(text)["input_ids"])
    return folder


def make_config(data: Path, run: Path, sections: dict | None = None, **trainer) -> PretrainConfig:
    """Returns a run of 12 steps of a model of a few thousand weights, dropout included."""
    values = {
        "data": {"folder": str(data), "row_length": 32, "valid_rows": 8},
        "model": {
            "hidden_size": 16,
            "num_layers": 2,
            "num_attention_heads": 2,
            "max_sequence_length": 32,
        },
        "trainer": {
            "output_dir": str(run),
            "max_steps": 12,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 3e-3,
            "logging_steps": 3,
            "eval_steps": 4,
            "save_steps": 4,
            "use_cpu": True,
            **trainer,
        },
        **(sections or {}),
    }
    return from_values(PretrainConfig, values)


def curve(run: Path) -> list[dict]:
    """Returns the log lines of a run without what depends on the clock."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k not in MACHINE_DEPENDENT}
        for line in lines
        if "train_runtime" not in line
    ]


if __name__ == "__main__":
    from glmkit.training.pretrain import pretrain

    pretrain(make_config(Path(sys.argv[1]), Path(sys.argv[2]), **json.loads(sys.argv[3])))
