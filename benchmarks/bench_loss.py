"""Peak memory and time of a training step: LM head at predicted tokens only, against full logits.

    python benchmarks/bench_loss.py [--smoke] [--device cpu|cuda]

Prints a table, then one JSON line. Contenders run interleaved, each repetition in its own process, so that a
peak of memory belongs to one of them; numbers are medians. A step is forward, loss and backward on a batch of
blank-infilling rows, of which 15 % of the tokens are predicted.

    predicted   what `GLMForConditionalGeneration` does in training: T rows of logits
    full        logits [B, S, V] of the same model, then cross-entropy over all positions
    backbone    no head at all: the floor of both
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

CONTENDERS = ("predicted", "full", "backbone")
SIZES = {
    "real": {"rows": 4, "length": 512, "vocab": 50048, "hidden": 1024, "layers": 2},
    "smoke": {"rows": 2, "length": 32, "vocab": 512, "hidden": 32, "layers": 1},
}
PREDICTED = 0.15


def measure(contender: str, size: dict[str, int], steps: int, device: str) -> dict[str, float]:
    """Runs one contender in this process; returns seconds a step, peak MiB, MiB before, and the loss."""
    import torch
    import torch.nn.functional as F

    from glmkit.model import GLMConfig, GLMForConditionalGeneration

    torch.manual_seed(0)
    config = GLMConfig(
        vocab_size=size["vocab"],
        hidden_size=size["hidden"],
        num_layers=size["layers"],
        num_attention_heads=size["hidden"] // 16,
        max_sequence_length=size["length"],
        embedding_dropout_prob=0.0,
        attention_dropout_prob=0.0,
        output_dropout_prob=0.0,
    )
    model = GLMForConditionalGeneration(config).to(device).train()
    shape = (size["rows"], size["length"])
    input_ids = torch.randint(size["vocab"], shape, device=device)
    prefix = size["length"] - round(PREDICTED * size["length"])
    labels = torch.full_like(input_ids, -100)
    labels[:, prefix:] = torch.randint(size["vocab"], labels[:, prefix:].shape, device=device)
    prefix_lengths = torch.full((size["rows"],), prefix, device=device)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)

    def step() -> float:
        model.zero_grad(set_to_none=False)
        inputs = {"input_ids": input_ids, "prefix_lengths": prefix_lengths}
        if contender == "predicted":
            loss = model(**inputs, labels=labels).loss
        elif contender == "full":
            loss = F.cross_entropy(model(**inputs).logits.flatten(0, 1).float(), labels.flatten())
        else:
            loss = model.glm(**inputs).last_hidden_state.square().mean()
        loss.backward()
        return loss.item()

    def peak() -> float:
        if device == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20

    before = peak()
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": min(seconds),
        "peak_mib": peak(),
        "before_mib": before,
        "loss": loss,
    }


def spawn(contender: str, arguments: argparse.Namespace, size: str) -> dict[str, float]:
    """Measures one contender in a process of its own."""
    command = [sys.executable, __file__, "--contender", contender, "--size", size]
    command += ["--steps", str(arguments.steps), "--device", arguments.device]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Runs the benchmark, or with `--contender` one measurement of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one repetition")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--size", choices=SIZES, default="real", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        size = SIZES[arguments.size]
        print(json.dumps(measure(arguments.contender, size, arguments.steps, arguments.device)))
        return
    name = "smoke" if arguments.smoke else "real"
    repetitions = 1 if arguments.smoke else arguments.repetitions
    runs: dict[str, list[dict[str, float]]] = {contender: [] for contender in CONTENDERS}
    for _ in range(repetitions):
        for contender, results in runs.items():
            results.append(spawn(contender, arguments, name))
    medians = {
        contender: {key: statistics.median(run[key] for run in results) for key in results[0]}
        for contender, results in runs.items()
    }
    size = SIZES[name]
    print(", ".join(f"{key} {value}" for key, value in size.items()), f"on {arguments.device}")
    print(f"{'':12}{'s/step':>9}{'peak MiB':>10}{'above model':>13}{'loss':>10}")
    for contender, row in medians.items():
        above = row["peak_mib"] - row["before_mib"]
        print(
            f"{contender:12}{row['seconds']:9.3f}{row['peak_mib']:10.0f}{above:13.0f}{row['loss']:10.4f}"
        )
    print(json.dumps({"benchmark": "loss", "size": size, "medians": medians}))


if __name__ == "__main__":
    main()
