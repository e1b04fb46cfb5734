"""Training steps of GLM against transformers' GPT-2 of the same shape: tokens a second and peak memory.

    python benchmarks/bench_train.py [--shape large|base|smoke] [--rows 4] [--length 512] [--smoke]

Prints a table, then one JSON line. Contenders run interleaved, each repetition in its own process, so that a peak of
memory belongs to one of them; numbers are medians. A step is forward, backward, clipping, AdamW; a step's tokens are
its places (rows · length), padding included. Number types: float32, and bfloat16 where the device is fast in it.

    glmkit          the model on packed rows of its own stream, all objectives (bfloat16: weights with masters)
    glmkit-autocast the same under bf16 autocast (bfloat16 only)
    gpt2            transformers' GPT-2 at its best settings: SDPA, no dropout, fused AdamW (bfloat16: autocast)
    gpt2-defaults   the same with its default dropout and the unfused AdamW

Random weights and random tokens: a step costs the same whatever it learns.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

CONTENDERS = ("glmkit", "glmkit-autocast", "gpt2", "gpt2-defaults")
SHAPES = {  # layers, hidden, heads, vocabulary
    "large": (24, 1024, 16, 50048),
    "base": (12, 768, 12, 50048),
    "smoke": (2, 64, 2, 512),
}
NO_DROPOUT = {f"{name}_dropout_prob": 0.0 for name in ("embedding", "attention", "output")}


def build_glm(arguments: argparse.Namespace) -> tuple[Any, Iterator[dict[str, Any]], Any]:
    """Returns GLM, its batches, and its optimizer."""
    from glmkit.model import GLMConfig, GLMForConditionalGeneration
    from glmkit.training.masters import MasterAdamW

    layers, hidden, heads, vocab = SHAPES[arguments.shape]
    config = GLMConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_layers=layers,
        num_attention_heads=heads,
        max_sequence_length=arguments.length,
        **NO_DROPOUT,
    )
    model = GLMForConditionalGeneration(config)
    kind: type[torch.optim.AdamW] = torch.optim.AdamW
    if arguments.dtype == "bfloat16" and arguments.contender == "glmkit":
        model, kind = model.bfloat16(), MasterAdamW
    model = model.to(arguments.device)
    return model, glm_batches(arguments, vocab), kind(model.parameters(), lr=1e-4, fused=True)


def glm_batches(arguments: argparse.Namespace, vocab: int) -> Iterator[dict[str, Any]]:
    """Yields packed rows of a store of random tokens, as pretraining reads them."""
    import numpy as np

    from glmkit.blanks.objectives import ObjectiveSettings
    from glmkit.special_tokens import SpecialTokenIds
    from glmkit.tokens.store import TokenStore, TokenStoreWriter
    from glmkit.training.data import PretrainingStream

    rng = np.random.default_rng(0)
    specials = SpecialTokenIds(*range(8), block=8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "store"
        with TokenStoreWriter(folder, "benchmark", vocab) as writer:
            for length in rng.integers(20, 2 * arguments.length, 400):
                words = rng.integers(20, vocab, length)
                writer.add([specials.cls, *words.tolist(), specials.eos])
        stream = PretrainingStream(
            TokenStore.open(folder, "benchmark"),
            specials,
            ObjectiveSettings(),
            rows=arguments.rows,
            row_length=arguments.length,
            seed=0,
            sentence_ends=rng.random(vocab) < 0.05,
        )
        for batch in stream:
            yield {
                key: value
                for key, value in batch.items()
                if key not in ("objective_ids", "documents")
            }


def build_gpt2(arguments: argparse.Namespace) -> tuple[Any, Iterator[dict[str, Any]], Any]:
    """Returns GPT-2, its batches, and its optimizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    layers, hidden, heads, vocab = SHAPES[arguments.shape]
    best = arguments.contender == "gpt2"
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if best else {}
    config = GPT2Config(
        vocab_size=vocab,
        n_embd=hidden,
        n_layer=layers,
        n_head=heads,
        n_positions=arguments.length,
        use_cache=False,
        **dropout,
    )
    model = GPT2LMHeadModel(config).to(arguments.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=best)

    def batches() -> Iterator[dict[str, Any]]:
        while True:
            ids = torch.randint(vocab, (arguments.rows, arguments.length))
            yield {"input_ids": ids, "labels": ids}

    return model, batches(), optimizer


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Runs one contender in this process; returns seconds a step, peak MiB, the predicted share, the last loss."""
    torch.manual_seed(0)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    build: Callable[[argparse.Namespace], Any] = (
        build_gpt2 if "gpt2" in arguments.contender else build_glm
    )
    model, batches, optimizer = build(arguments)
    model.train()
    autocast = arguments.dtype == "bfloat16" and arguments.contender != "glmkit"
    seconds, predicted = [], 0.0
    for _ in range(arguments.steps + 1):
        batch = {key: value.to(arguments.device) for key, value in next(batches).items()}
        began = time.perf_counter()
        with torch.autocast(arguments.device, torch.bfloat16, enabled=autocast):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        value = loss.item()  # waits for a GPU
        seconds.append(time.perf_counter() - began)
        predicted += float((batch["labels"] != -100).float().mean()) / (arguments.steps + 1)
    if arguments.device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        scale = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20
    return {
        "seconds": statistics.median(seconds[1:]),
        "peak_mib": peak,
        "predicted": predicted,
        "loss": value,
    }


def spawn(arguments: argparse.Namespace, contender: str, dtype: str) -> dict[str, float]:
    """Measures one contender in a process of its own."""
    options = {
        name: getattr(arguments, name)
        for name in ("shape", "rows", "length", "steps", "device", "threads")
    }
    options |= {"contender": contender, "dtype": dtype}
    command = [sys.executable, __file__]
    command += [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{contender} in {dtype} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Runs the benchmark, or with `--contender` one measurement of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="large")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2, help="timed steps of a repetition")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--dtypes", nargs="+", choices=("float32", "bfloat16"), help="by default what is fast here"
    )
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one repetition")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", default="float32", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(measure(arguments)))
        return
    if arguments.smoke:
        arguments.shape, arguments.rows, arguments.length = "smoke", 2, 64
        arguments.repetitions = 1
    report(arguments)


def report(arguments: argparse.Namespace) -> None:
    """Measures all contenders, interleaved, and prints the table."""
    from glmkit.runtime import has_fast_bfloat16

    dtypes = arguments.dtypes
    if not dtypes:
        fast = has_fast_bfloat16(torch.device(arguments.device))
        dtypes = ["float32", "bfloat16"] if fast else ["float32"]
    runs: dict[tuple[str, str], list[dict[str, float]]] = {
        (contender, dtype): []
        for dtype in dtypes
        for contender in arguments.contenders
        if dtype == "bfloat16" or contender != "glmkit-autocast"
    }
    for _ in range(arguments.repetitions):
        for (contender, dtype), results in runs.items():
            results.append(spawn(arguments, contender, dtype))
    places = arguments.rows * arguments.length
    rows = {
        key: {name: statistics.median(run[name] for run in results) for name in results[0]}
        for key, results in runs.items()
    }
    print(
        f"{arguments.shape}: {SHAPES[arguments.shape]} layers, hidden, heads, vocabulary; "
        f"{arguments.rows} x {arguments.length} tokens on {arguments.device}"
    )
    print(
        f"{'':26}{'tokens/s':>9}{'of gpt2':>9}{'s/step':>9}{'peak MiB':>10}{'predicted':>11}{'loss':>8}"
    )
    output = []
    for (contender, dtype), row in rows.items():
        rate = places / row["seconds"]
        peer = rows.get(("gpt2", dtype))
        ratio = peer["seconds"] / row["seconds"] if peer else float("nan")
        print(
            f"{contender + ' ' + dtype:26}{rate:9.1f}{ratio:9.2f}{row['seconds']:9.2f}"
            f"{row['peak_mib']:10.0f}{row['predicted']:11.1%}{row['loss']:8.2f}"
        )
        output.append({"contender": contender, "dtype": dtype, "tokens_per_second": rate, **row})
    print(json.dumps({"benchmark": "train", "shape": arguments.shape, "results": output}))


if __name__ == "__main__":
    main()
