"""Speed of generation on a GPU: glmkit's captured passes beside transformers' `generate`, and both beside what the device allows.

    python benchmarks/bench_generate_gpu.py --seconds 140 [--out FILE] [--shapes 2b 10b large] [--save]
    python benchmarks/bench_generate_gpu.py --page FILE        write docs/results from what a run on another machine left

Random weights in bfloat16, greedy, 127 tokens of prompt and 128 after the first new one (peers: 32, which take as long each); prefills
of 512. Peers are GPT-2 and Llama of the same sizes. First a process of its own checks that captured passes write what plain ones
write. Then one contender after the other is measured, the rows that matter most first (`STAGES`), until the time is over; each number is on
paper (FILE, replaced whole) as soon as it is there, and who fails says why and stops nobody. `--device cpu --shapes tiny` runs the
same program anywhere.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from results_page import commit

START = time.perf_counter()
PROMPT, NEW, PREFILL = 127, 128, 512

TASKS: dict[str, tuple[str, int]] = {
    "decode 1": ("decode", 1),
    "prefill 1": ("prefill", 1),
    "decode 64": ("decode", 64),
    "prefill 16": ("prefill", 16),
    "decode 256": ("decode", 256),
}

PEER_NEW = 32
"""Tokens that a peer writes at the most: every one takes as long, and they are slow."""

STAGES: tuple[tuple[tuple[str, tuple[str, ...]], ...], ...] = (
    (
        ("glmkit graphs", ("prefill 1", "prefill 16", "decode 1")),
        ("gpt2 dynamic", ("prefill 1", "prefill 16")),
        ("glmkit int8", ("decode 1", "prefill 1", "prefill 16")),
        ("glmkit graphs one", ("decode 1",)),
        ("glmkit int8 one", ("decode 1",)),
    ),
    (
        ("glmkit graphs", ("decode 64", "decode 256")),
        ("glmkit int8", ("decode 64", "decode 256")),
        ("gpt2 dynamic", ("decode 1", "decode 64", "decode 256")),
    ),
    (("gpt2 static", ("decode 1",)), ("llama compiled", ("decode 1",))),
    (("glmkit torch", ("prefill 1", "prefill 16", "decode 1")), ("llama dynamic", ("prefill 1", "prefill 16", "decode 1"))),
)  # fmt: skip
"""What is measured, contender by contender: each group for all shapes before the next group."""

COMPILING = 30
"""Seconds that must be left to try what is compiled."""


class Paper:
    """What was measured so far; the file is replaced whole at each change."""

    def __init__(self, path: Path | None, values: dict[str, Any]):
        self.path, self.values = path, values

    def add(self, shape: str, contender: str, task: str, value: Any) -> None:
        """Notes a number, or the message of an error."""
        place = self.values["results"].setdefault(shape, {}).setdefault(contender, {})
        if isinstance(value, float):
            place.setdefault(task, []).append(value)
        else:
            place[task] = value
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"{time.perf_counter() - START:6.1f} s  {shape:5} {contender:15} {task:12} {shown}", flush=True)  # fmt: skip
        self.write()

    def write(self) -> None:
        """Replaces the file."""
        self.values["seconds"] = round(time.perf_counter() - START)
        if self.path is not None:
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text(json.dumps(self.values, indent=1) + "\n", encoding="utf-8")
            os.replace(temporary, self.path)


def check(device: str) -> dict[str, Any]:
    """Returns whether captured steps write what plain ones do, in float32, through forks and forgetting, and how far kernels are off."""
    from random import Random

    import torch
    from gpu_contenders import made_on

    from glmkit.generation.graphs import GraphDecoder, GraphRunner
    from glmkit.generation.runner import Feed
    from glmkit.generation.torch_runner import TorchRunner
    from glmkit.model import GLMConfig, GLMForConditionalGeneration

    config = GLMConfig(num_layers=3, hidden_size=256, num_attention_heads=4, vocab_size=1000, max_sequence_length=600, hidden_act="gelu")  # fmt: skip
    torch.manual_seed(0)
    model = made_on(device, torch.float32, lambda: GLMForConditionalGeneration(config))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)  # so that every input changes every output
    decoder = GraphDecoder(model, captures=None if device != "cpu" else False)
    captured = decoder.make_runner()
    answers: list[list[np.ndarray]] = []
    for runner in (captured, captured, TorchRunner(model)):  # the second time prompts are captured
        rng, found = Random(0), []
        handles = [runner.open() for _ in range(3)]
        for number, handle in enumerate(handles):
            count = 90 + 100 * number  # the third grows beyond the first room
            ids = [rng.randrange(1000) for _ in range(count)]
            found += runner.forward([Feed(handle, ids, range(count), [0] * count, count - 1)])
        handles.append(runner.fork(handles[1]))
        for step in range(12):
            some = handles if step % 3 else handles[:1]
            feeds = []
            for handle in some:
                count = rng.choice([1, 1, 3])
                ids = [rng.randrange(1000) for _ in range(count)]
                feeds.append(Feed(handle, ids, [5] * count, range(step, step + count), 0, count))
            found += runner.forward(feeds)
            runner.truncate(handles[2], runner.length(handles[2]) - 1)
        for _ in range(20):  # greedy, alone
            token = int(found[-1][-1].argmax())
            found += runner.forward([Feed(handles[0], [token], [7], [3])])
        for handle in handles:
            runner.close(handle)
        answers.append(found)
    pair = [np.concatenate(answers[0] + answers[1]), np.concatenate(answers[2] + answers[2])]
    difference = float(np.abs(pair[0] - pair[1]).max() / pair[1].std())
    same = bool((pair[0].argmax(-1) == pair[1].argmax(-1)).all())
    stepper = decoder._stepper
    return {
        "passed": same and difference < 1e-3 and isinstance(captured, GraphRunner),
        "runner": type(captured).__name__,
        "logits": len(pair[0]),
        "same_tokens": same,
        "largest_difference": difference,
        "triton": stepper is not None and stepper.kernels is not None,
        "prefill": stepper is not None and stepper.prefill is not None,
    }


def begin_check(device: str) -> subprocess.Popen[str]:
    """Starts `check` in a process of its own: a kernel that went wrong would take this one's device with it."""
    command = [sys.executable, str(Path(__file__)), "--check", "--device", device]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end_check(process: subprocess.Popen[str], seconds: float) -> dict[str, Any]:
    """Returns what the process has found."""
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return {"passed": False, "late": True, "error": f"no answer in {seconds:.0f} s"}
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if process.returncode or not lines:
        return {"passed": False, "error": errors.strip()[-1500:]}
    return {**json.loads(lines[-1]), "log": errors.strip()[-1500:]}


def make(name: str, shape: tuple[int, ...], arguments: argparse.Namespace) -> Any:
    """Returns a contender."""
    import torch
    from gpu_contenders import Glmkit, Transformers

    package, kind = name.split(maxsplit=1)
    if package == "glmkit":
        return Glmkit(shape, arguments.device, kind, torch.bfloat16, triton=arguments.triton)
    return Transformers(shape, arguments.device, package, torch.bfloat16, kind)


def rates(contender: Any, task: str, new: int, own: bool, rounds: int) -> Iterator[float]:
    """Yields tokens a second: of all texts after the first new token, or of prompts up to it."""
    kind, batch = TASKS[task]
    prompt = PREFILL if kind == "prefill" else PROMPT
    for _ in range(3 if own else 1):  # a pass over prompts is captured the second time
        contender.write(batch, prompt, 3 if kind == "decode" else 1)
    begin = time.perf_counter()
    for number in range(rounds):
        if number and time.perf_counter() - begin > 2.0:
            return
        if kind == "prefill":
            yield batch * PREFILL / contender.write(batch, PREFILL, 1)
        else:
            until_first = contender.write(batch, PROMPT, 1)
            yield batch * new / (contender.write(batch, PROMPT, new + 1) - until_first)


def measure(
    paper: Paper, shape: str, name: str, contender: Any, task: str, arguments: argparse.Namespace
) -> None:
    """Measures a task and notes what is found."""
    import torch

    kind, batch = TASKS[task]
    own = name.startswith("glmkit")
    new = arguments.new if own else min(arguments.new, PEER_NEW)
    try:
        for found in rates(contender, task, new, own, arguments.rounds):
            paper.add(shape, name, task, found)
        if own:
            kind_of, alone = ("step", contender.step_seconds(batch)) if kind == "decode" else ("pass", contender.prompt_seconds())  # fmt: skip
            if alone is not None:
                paper.add(shape, name, f"{kind_of} {batch}", alone)
            paper.values["facts"][f"{shape} {name}"] = contender.facts()
    except Exception as error:
        message = (str(error).strip() or "no message").splitlines()[0]
        paper.add(shape, name, task, f"{type(error).__name__}: {message[:300]}")
    finally:
        if batch > 1:
            contender.free()
            gc.collect()
            if contender.device != "cpu":
                torch.cuda.empty_cache()


def run_stage(
    paper: Paper, shape: str, name: str, tasks: Sequence[str], arguments: argparse.Namespace
) -> None:
    """Measures one contender's tasks, as far as there is time."""
    import torch
    from gpu_contenders import SHAPES

    def left() -> float:
        return arguments.seconds - (time.perf_counter() - START)

    tasks = [task for task in tasks if task in TASKS]
    compiles = name.endswith("compiled")
    if not tasks or left() < 2 or (compiles and (left() < COMPILING or arguments.device == "cpu")):
        return
    contender = make(name, SHAPES[shape], arguments)
    for task in tasks:
        if left() > 1:
            measure(paper, shape, name, contender, task, arguments)
    if name == "glmkit graphs" and "decode 1" in tasks and arguments.device != "cpu":
        from gpu_contenders import matrices

        try:
            paper.values["matrices"][shape] = matrices(contender.model)
        except Exception as error:
            paper.values["matrices"][shape] = str(error)[:300]
    contender.free()
    del contender
    gc.collect()
    if arguments.device != "cpu":
        torch.cuda.empty_cache()


def sizes(shape: tuple[int, ...]) -> tuple[float, float]:
    """Returns the bytes of weights that a token reads, and of keys and values that it leaves; in 16 bits."""
    layers, hidden, _, vocabulary, _ = shape
    return 2.0 * (12 * layers * hidden**2 + vocabulary * hidden), 4.0 * layers * hidden


def floor(shape: tuple[int, ...], texts: int, ceilings: dict[str, float]) -> tuple[float, float]:
    """Returns the seconds that reading prompts of `PREFILL` takes at least: their products, and the bytes of weights."""
    layers, hidden = shape[:2]
    weights, per_token = sizes(shape)
    tokens = texts * PREFILL
    products = tokens * layers * (24 * hidden**2 + 4 * PREFILL * hidden)
    moved = weights + tokens * per_token
    return products / ceilings["matmul_tflop_s"] / 1e12, moved / ceilings["copy_gb_s"] / 1e9


def floors(values: dict[str, Any]) -> str:
    """Returns for each shape the least milliseconds of a prefill, and those of contenders."""
    from gpu_contenders import SHAPES

    lines = ["| shape | prompts | products | bytes | floor | glmkit, device alone | glmkit | int8 | gpt2 | gpt2 / floor |", "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for shape, contenders in values["results"].items():
        for texts in (1, 16):

            def spent(name: str, texts: int = texts, contenders: Any = contenders) -> float | None:
                found = contenders.get(name, {}).get(f"prefill {texts}")
                return 1e3 * texts * PREFILL / statistics.median(found) if isinstance(found, list) else None  # fmt: skip

            parts = [1e3 * part for part in floor(SHAPES[shape], texts, values["ceilings"])]
            alone = contenders.get("glmkit graphs", {}).get(f"pass {texts}")
            own = [1e3 * statistics.median(alone) if alone else None, *map(spent, ("glmkit graphs", "glmkit int8", "gpt2 dynamic"))]  # fmt: skip
            cells = [f"{one:.2f}" if one is not None else "" for one in (*parts, max(parts), *own)]
            over = f"{own[-1] / max(parts):.1f}" if own[-1] is not None else ""
            lines.append(f"| {shape} | {texts} × {PREFILL} | {' | '.join(cells)} | {over} |")
    return "\n".join(lines)


def table(values: dict[str, Any]) -> str:
    """Returns the table: tokens a second, and how near they are to what the device copies and multiplies."""
    from gpu_contenders import SHAPES

    lines = [
        "| shape | contender | decode, 1 text | of bandwidth | ms a step, device alone | of bandwidth | decode, 64 texts | 256 texts | of bandwidth | prefill 512 | of products | 16 × 512 | of products |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    bandwidth = values["ceilings"]["copy_gb_s"]
    for shape, contenders in values["results"].items():
        weights, per_token = sizes(SHAPES[shape])
        for name, found in contenders.items():
            number = {task: statistics.median(some) for task, some in found.items() if isinstance(some, list)}  # fmt: skip

            stored = weights / 2 if name.startswith("glmkit int8") else weights

            def share(rate: float | None, batch: int, sizes_: Any = (stored, per_token)) -> str:
                read = sizes_[0] + batch * sizes_[1] * (PROMPT + values["new"] / 2)
                return f"{rate / batch * read / bandwidth / 1e9:.0%}" if rate else ""

            def cell(task: str, number: Any = number, found: Any = found) -> str:
                if task in number:
                    return f"{number[task]:,.0f}"
                return "" if task not in found else "failed"

            def of_products(texts: int, number: Any = number, shape: str = shape) -> str:
                rate = number.get(f"prefill {texts}")
                least = floor(SHAPES[shape], texts, values["ceilings"])[0]
                return f"{least * rate / texts / PREFILL:.0%}" if rate else ""

            step = number.get("step 1")
            alone = (f"{step * 1e3:.2f}", share(1 / step, 1)) if step else ("", "")
            cells = [cell("decode 1"), share(number.get("decode 1"), 1), *alone, cell("decode 64"), cell("decode 256"), share(number.get("decode 256"), 256)]  # fmt: skip
            cells += [cell("prefill 1"), of_products(1), cell("prefill 16"), of_products(16)]
            lines.append(f"| {shape} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ratios(values: dict[str, Any]) -> str:
    """Returns how many times as fast as the best peer glmkit is."""
    lines = ["| shape | glmkit | " + " | ".join(TASKS) + " |", "|---|---|" + "---|" * len(TASKS)]
    for shape, contenders in values["results"].items():
        for who in (
            name for name in contenders if name.startswith(("glmkit graphs", "glmkit int8"))
        ):
            cells = []
            for task in TASKS:
                number = {name: statistics.median(found[task]) for name, found in contenders.items() if isinstance(found.get(task), list)}  # fmt: skip
                own = number.get(who)
                peers = {name: value for name, value in number.items() if not name.startswith("glmkit")}  # fmt: skip
                best = max(peers, key=lambda name: peers[name]) if peers else ""  # noqa: B023
                cells.append(f"{own / peers[best]:.2f} × {best}" if own and peers else "")
            if any(cells):
                lines.append(f"| {shape} | {who.removeprefix('glmkit ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page(values: dict[str, Any], theme: str) -> Path:
    """Writes docs/results/generate_h100_….md, or what theme and device are."""
    from results_page import write_table_page

    found, limits = values["check"], values["ceilings"]
    failed = [
        f"{shape} {name} {task}: {value}"
        for shape, contenders in values["results"].items()
        for name, some in contenders.items()
        for task, value in some.items()
        if isinstance(value, str)
    ]
    used = found.get("triton") and found.get("prefill")
    introduction = f"""
Greedy generation in bfloat16 on one {values["device"]} with random weights: {PROMPT} tokens of prompt, tokens a second of the {values["new"]} after the first new one (of peers {PEER_NEW}), of all
texts together; prefill is tokens a second of prompts of {PREFILL} up to the first new token. glmkit through its engine, as `glm.fill` uses it: `graphs` is its captured
passes (`generation.graphs`), `int8` the same with weights of 8 bits, `torch` the eager runner. Peers are transformers' `generate` on GPT-2 and Llama of the same layers, width, heads and vocabulary (Llama's
MLP with as many weights), with its default cache, a static one, or a static one compiled. One contender was measured after the other; numbers are medians of up to {values["rounds"]} rounds.
The device copied at {limits["copy_gb_s"]:,.0f} GB/s (read and written) and multiplied matrices at {limits["matmul_tflop_s"]:,.0f} TFLOP/s in this run. The share of bandwidth counts the weights that a step
reads (of int8 half) and the keys and values, at the middle of the text; "device alone" is the captured pass without what Python does around it. The share of products counts those of layers, with attention.
Captured passes wrote what plain ones write in float32 ({found.get("by") or f"{found.get('logits', 0)} logits, forks and forgetting among them"}): {"yes" if found.get("passed") else "NO"}; Triton's kernels were {"used" if used else "not all used"}.
{f"Failed: {'; '.join(failed)}." if failed else ""}
"""
    text = (
        f"glmkit beside the fastest peer:\n\n{ratios(values)}\n\n{table(values)}\n\n"
        f"Milliseconds of reading prompts, beside the least that the device takes for the products and for the bytes of weights and cache:\n\n{floors(values)}"
    )
    title = "Generation on a GPU beside transformers"
    return write_table_page(theme, title, introduction, text, values, values["command"], values["hardware"])  # fmt: skip


def environment(device: str) -> dict[str, str]:
    """Returns date, device, versions and commit."""
    import datetime

    import torch

    from glmkit.evaluation.provenance import versions

    known = versions(("transformers", "triton"))
    found = {"date": datetime.date.today().isoformat(), "hardware": device_name(device)}
    found |= {"python": known["python"], "torch": torch.__version__}
    found |= {name: known[name] or "none" for name in ("transformers", "triton")}
    try:
        found["commit"] = commit()
    except OSError:
        found["commit"] = ""
    return found


def device_name(device: str) -> str:
    """Returns what the device is called."""
    import torch

    return "CPU" if device == "cpu" else torch.cuda.get_device_name()


def parse() -> argparse.Namespace:
    """Returns the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument(
        "--shapes",
        nargs="+",
        default=["2b", "10b", "large"],
        choices=("tiny", "large", "2b", "10b"),
    )
    parser.add_argument("--contenders", nargs="+", help="only these, as 'glmkit graphs'")
    parser.add_argument("--seconds", type=float, default=140, help="time for all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new", type=int, default=NEW, help="tokens after the first new one")
    parser.add_argument("--batches", type=int, nargs="*", help="only these numbers of texts")
    parser.add_argument("--out", type=Path, help="file for the numbers, as JSON")
    parser.add_argument("--save", action="store_true", help="write docs/results")
    parser.add_argument("--theme", default="generate", help="first part of the page's name")
    parser.add_argument("--page", type=Path, help="write docs/results from a file that --out left")
    parser.add_argument("--without-triton", dest="triton", action="store_false")
    parser.add_argument("--check", action="store_true", help="only check, and print it as JSON")
    parser.add_argument("--checked", action="store_true", help="tests/gpu has just checked: do not")
    arguments = parser.parse_args()
    if arguments.save and arguments.device == "cpu":
        parser.error("--save is for a GPU; bench_generate.py measures a CPU")
    return arguments


def guarded(paper: Paper, what: str, work: Callable[[], Any]) -> Any:
    """Returns what a piece of work returns, or notes its error."""
    try:
        return work()
    except Exception as error:
        paper.values["errors"][what] = f"{type(error).__name__}: {error}"[:500]
        print(what, paper.values["errors"][what], flush=True)
        paper.write()
        return None


def give_up(values: dict[str, Any]) -> None:
    """Ends the process when the time is over: all numbers are in the file already."""
    print(
        f"the time is over\n\n{ratios(values)}\n\n{table(values)}\n\n{floors(values)}", flush=True
    )
    os._exit(0)


def main() -> None:
    """Runs the benchmark."""
    arguments = parse()
    if arguments.check:
        print(json.dumps(check(arguments.device)))
        return
    if arguments.page:
        values = json.loads(arguments.page.read_text(encoding="utf-8"))
        values["environment"]["commit"] = values["environment"]["commit"] or commit()
        print(write_page(values, arguments.theme))
        return
    for task in [task for task, (_, batch) in TASKS.items() if arguments.batches and batch not in arguments.batches]:  # fmt: skip
        del TASKS[task]
    process = None if arguments.checked else begin_check(arguments.device)
    import torch
    import transformers  # noqa: F401 - while the other process does the same
    from gpu_contenders import ceilings

    found = {"passed": True, "triton": True, "prefill": True, "by": "tests/gpu/test_gpu_prompts.py"} if process is None else end_check(process, min(60.0, arguments.seconds / 2))  # fmt: skip
    print("CHECK", "PASS" if found["passed"] else "FAIL", json.dumps(found), flush=True)
    if not found["passed"] and not found.get("late"):  # what is measured is torch's operations then
        arguments.triton = False
    name = device_name(arguments.device)
    values: dict[str, Any] = {
        "environment": environment(arguments.device),
        "device": name,
        "hardware": found_name[0].lower() if (found_name := re.findall(r"[A-Z]+[0-9]+", name)) else "cpu",
        "command": f"python benchmarks/bench_generate_gpu.py --seconds {arguments.seconds:.0f} --shapes {' '.join(arguments.shapes)}",
        "new": arguments.new,
        "rounds": arguments.rounds,
        "check": found,
        "results": {},
        "facts": {},
        "matrices": {},
        "errors": {},
    }  # fmt: skip
    paper = Paper(arguments.out, values)
    watch = threading.Timer(arguments.seconds - (time.perf_counter() - START), give_up, [values])
    watch.daemon = True
    watch.start()
    values["ceilings"] = ceilings(arguments.device, torch.bfloat16)
    print(name, json.dumps(values["ceilings"]), flush=True)
    paper.write()
    for stages in STAGES:
        for shape, (contender, tasks) in product(arguments.shapes, stages):
            if contender in (arguments.contenders or [contender]):
                guarded(
                    paper,
                    f"{shape} {contender}",
                    lambda stage=(shape, contender, tasks): run_stage(paper, *stage, arguments),  # type: ignore[misc]
                )
    print(f"{ratios(values)}\n\n{table(values)}\n\n{floors(values)}", flush=True)
    watch.cancel()
    paper.write()
    print(json.dumps({"benchmark": "generate-gpu", **{name: values[name] for name in ("check", "ceilings", "results", "facts", "matrices", "errors")}}))  # fmt: skip
    if arguments.save:
        print(write_page(values, arguments.theme))


if __name__ == "__main__":
    main()
