"""Tokens a second of making batches, by objective, and the share of a training step that waits for them.

    python benchmarks/bench_blanks.py [--smoke] [--row-length N] [--repetitions N] [--steps N] [--data DIR]

Prints a table, then one JSON line. All is one process and one core: planning the rows of a window, drawing blanks,
laying out, packing, collating into tensors, from a token store on disk: documents of 50 to 2000 random tokens, or what
`glmkit prepare` made of `--data`. The contenders run interleaved; numbers are medians, of CPU time. Then the base model
is trained on such batches by the real trainer, made when they are asked for (no workers), and its own meter tells
tokens/s and the share of waiting; `--steps 0` leaves this out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from glmkit.blanks.objectives import ObjectiveSettings
from glmkit.tasks.encoding import encode_sample
from glmkit.tasks.mixture import MixtureSettings
from glmkit.tokens.store import TokenStore, TokenStoreWriter
from glmkit.training.data import PretrainingStream

CONTENDERS: dict[str, dict[str, float]] = {
    "token": {"token_weight": 1, "sentence_weight": 0, "document_weight": 0},
    "sentence": {"token_weight": 0, "sentence_weight": 1, "document_weight": 0},
    "document": {"token_weight": 0, "sentence_weight": 0, "document_weight": 1},
    "published": {},
    "with tasks": {},
}
SIZES = {
    "real": {"tokens": 2_000_000, "row_length": 512, "rows": 8, "batches": 100},
    "smoke": {"tokens": 20_000, "row_length": 64, "rows": 2, "batches": 5},
}
SENTENCE = 25
"""Tokens of a sentence, on average."""


def ordinary(tokenizer: Any) -> np.ndarray:
    """Returns int64 [n]: the ids that are no special tokens."""
    return np.setdiff1d(np.arange(len(tokenizer)), list(tokenizer.added_tokens_decoder))


def write_store(folder: Path, tokenizer: Any, tokens: int) -> None:
    """Writes documents of random ids, their lengths log-normal around 400 tokens, cut to 50 … 2000."""
    rng, written, specials = np.random.default_rng(0), 0, tokenizer.special_ids
    words = ordinary(tokenizer)
    with TokenStoreWriter(folder, tokenizer.fingerprint(), len(tokenizer)) as writer:
        while written < tokens:
            length = int(np.clip(rng.lognormal(6, 0.8), 50, 2000))
            body = rng.choice(words, length)
            writer.add(np.concatenate(([specials.cls], body, [specials.eos])))
            written += length


def invent(folder: Path, size: dict[str, int]) -> Path:
    """Writes a corpus of invented texts; returns its folder."""
    from glmkit.tokens.train import train_tokenizer

    texts = ["春江潮水连海平，海上明月共潮生。", "Blanks are filled."]
    tokenizer = train_tokenizer(texts * 20, 320, "bpe")
    tokenizer.save_pretrained(folder / "tokenizer")
    for split, tokens in (("train", size["tokens"]), ("valid", size["tokens"] // 20)):
        write_store(folder / split, tokenizer, tokens)
    return folder


def write_task(folder: Path, tokenizer: Any) -> None:
    """Writes samples of a task: questions of 10 to 50 tokens, answers of one to five."""
    rng, specials = np.random.default_rng(1), tokenizer.special_ids
    words = ordinary(tokenizer)
    with TokenStoreWriter(folder, tokenizer.fingerprint(), len(tokenizer)) as writer:
        for _ in range(1000):
            body = rng.choice(words, rng.integers(10, 51))
            part_a = [specials.cls, *body, specials.mask, specials.eos]
            answer = rng.choice(words, rng.integers(1, 6))
            writer.add(encode_sample(part_a, answer, specials))


def make_stream(
    contender: str, corpus: Path, task: Path, tokenizer: Any, size: dict[str, int], invented: bool
) -> PretrainingStream:
    """Returns a contender's stream."""
    mixed = contender == "with tasks"
    return PretrainingStream(
        TokenStore.open(corpus / "train"),
        tokenizer.special_ids,
        ObjectiveSettings(**CONTENDERS[contender]),
        rows=size["rows"],
        row_length=size["row_length"],
        seed=1,
        sentence_ends=(
            np.arange(len(tokenizer)) % SENTENCE == 0 if invented else tokenizer.sentence_ends()
        ),
        tasks={"task": TokenStore.open(task / "train")} if mixed else None,
        mixture=MixtureSettings(max_share=0.05) if mixed else None,
    )


def measure(stream: PretrainingStream, batches: int) -> dict[str, float]:
    """Returns real tokens a second, and the share of padding, of some batches."""
    real = places = 0
    started = time.process_time()  # of this core: other processes do not count
    for _ in range(batches):
        segments = next(stream)["segment_ids"]
        real, places = real + int((segments > 0).sum()), places + segments.numel()
    return {
        "tokens_per_second": real / (time.process_time() - started),
        "padding": 1 - real / places,
    }


def train(
    corpus: Path, work: Path, steps: int, size: dict[str, int], smoke: bool
) -> dict[str, float]:
    """Trains the base model (with `smoke` a tiny one) for some steps; returns the medians of the trainer's meter."""
    import torch

    from glmkit.config import from_values
    from glmkit.runtime import has_fast_bfloat16
    from glmkit.training.pretrain import build_trainer
    from glmkit.training.settings import PretrainConfig, check

    tiny = {"hidden_size": 32, "num_layers": 2, "num_attention_heads": 2}
    values = {
        "data": {"folder": str(corpus), "row_length": size["row_length"], "valid_rows": 1},
        "model": {"preset": "base", "vocab_size": 30_528, **(tiny if smoke else {})},
        "tasks": {"folders": {"task": str(work / "task")}},
        "trainer": {
            "output_dir": str(work / "run"),
            "max_steps": steps + 1,
            "per_device_train_batch_size": 2,
            "logging_steps": 1,
            "eval_strategy": "no",
            "eval_on_start": False,
            "save_strategy": "no",
            "use_cpu": True,
            "bf16": has_fast_bfloat16(torch.device("cpu")) and not smoke,
        },
    }
    trainer = build_trainer(check(from_values(PretrainConfig, values)))
    (work / "run").mkdir(exist_ok=True)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "tokens_per_second" in line][1:]
    names = ("tokens_per_second", "data_wait_ratio", "padding_ratio")
    return {name: statistics.median(line[name] for line in lines) for name in names}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="of training, after one that warms up")
    parser.add_argument("--data", type=Path, help="what `glmkit prepare` wrote")
    parser.add_argument("--row-length", type=int, help="in tokens")
    arguments = parser.parse_args()
    from glmkit.tokens.tokenizer import GLMTokenizer

    size = dict(SIZES["smoke" if arguments.smoke else "real"])
    size["row_length"] = arguments.row_length or size["row_length"]
    repetitions = 1 if arguments.smoke else arguments.repetitions
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        corpus = arguments.data or invent(work / "corpus", size)
        tokenizer = GLMTokenizer.from_pretrained(corpus / "tokenizer")
        for split in ("train", "valid"):
            write_task(work / "task" / split, tokenizer)
        runs: dict[str, list[dict[str, float]]] = {contender: [] for contender in CONTENDERS}
        streams = {
            one: make_stream(one, corpus, work / "task", tokenizer, size, arguments.data is None)
            for one in CONTENDERS
        }
        for _ in range(repetitions):
            for contender, stream in streams.items():
                runs[contender].append(measure(stream, size["batches"]))
        steps = 2 if arguments.smoke else arguments.steps
        trained = train(corpus, work, steps, size, arguments.smoke) if steps else None
    medians = {
        contender: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for contender, found in runs.items()
    }
    print(", ".join(f"{key} {value}" for key, value in size.items()) + "; one core")
    print(f"{'':12}{'tokens/s':>14}{'padding':>10}{'x training':>12}")
    for contender, row in medians.items():
        speed = row["tokens_per_second"]
        times = f"{speed / trained['tokens_per_second']:12,.0f}" if trained else ""
        print(f"{contender:12}{speed:14,.0f}{row['padding']:10.2%}{times}")
    if trained:
        print(
            f"{'training':12}{trained['tokens_per_second']:14,.0f}{trained['padding_ratio']:10.2%}"
            f"{1:12}   waits for data {trained['data_wait_ratio']:.3%} of a step"
        )
    print(
        json.dumps({"benchmark": "blanks", "size": size, "medians": medians, "training": trained})
    )


if __name__ == "__main__":
    main()
