"""Speed of generation on a GPU: glmkit's captured steps beside transformers' `generate`, and both beside what the device allows.

    python benchmarks/bench_generate_gpu.py --seconds 140 [--out FILE] [--shapes large 2b 10b] [--save]
    python benchmarks/bench_generate_gpu.py --page FILE        write docs/results from what a run on another machine left

Random weights in bfloat16, greedy, 127 tokens of prompt and 128 after the first new one; prefills of 512. Peers are GPT-2 and Llama of
the same sizes. First a process of its own checks that captured steps write what plain ones write. Then, shape by shape, contenders take
turns; each number is on paper (FILE, replaced whole) as soon as it is there, numbers are medians of as many rounds as the time allows,
at most 3, and who fails says why and stops nobody. `--device cpu --shapes tiny` runs the same program anywhere.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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

CONTENDERS = {
    "glmkit graphs": tuple(TASKS),
    "gpt2 dynamic": tuple(TASKS),
    "llama dynamic": tuple(TASKS),
    "gpt2 static": ("decode 1",),
    "llama static": ("decode 1",),
    "glmkit torch": ("decode 1", "prefill 1"),
}
"""Contender -> what it is asked. A compiled static cache comes last, once, if there is time: compiling alone takes that long."""

SHARES = {"tiny": 1.0, "large": 0.42, "2b": 0.68, "10b": 1.0}
"""Which share of the time a shape may have used up when its last measurement begins."""


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
    from glmkit.generation.runner import Feed, TorchRunner
    from glmkit.model import GLMConfig, GLMForConditionalGeneration

    config = GLMConfig(num_layers=3, hidden_size=256, num_attention_heads=4, vocab_size=1000, max_sequence_length=600, hidden_act="gelu")  # fmt: skip
    torch.manual_seed(0)
    model = made_on(device, torch.float32, lambda: GLMForConditionalGeneration(config))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)  # so that every input changes every output
    decoder = GraphDecoder(model, captures=None if device != "cpu" else False)
    captured = decoder.make_runner()
    answers: list[list[torch.Tensor]] = []
    for runner in (captured, TorchRunner(model)):
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
    pair = [torch.cat(found) for found in answers]
    difference = float((pair[0] - pair[1]).abs().max() / pair[1].std())
    same = bool((pair[0].argmax(-1) == pair[1].argmax(-1)).all())
    kernels = decoder._stepper.kernels if decoder._stepper is not None else None
    return {
        "passed": same and difference < 1e-3 and isinstance(captured, GraphRunner),
        "runner": type(captured).__name__,
        "logits": len(pair[0]),
        "same_tokens": same,
        "largest_difference": difference,
        "triton": kernels is not None,
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


def make(name: str, shape: tuple[int, ...], arguments: argparse.Namespace, others: Any) -> Any:
    """Returns a contender; those of one model share its weights."""
    import torch
    from gpu_contenders import Glmkit, Transformers

    dtype = torch.bfloat16
    package, kind = name.split()
    for other, made in others.items():
        if other.split()[0] == package and package != "glmkit":
            same = copy.copy(made)
            same.cache = kind
            return same
    if package == "glmkit":
        weights = next((made.model for other, made in others.items() if other.startswith("glmkit")), None)  # fmt: skip
        return Glmkit(shape, arguments.device, kind, dtype, weights, triton=arguments.triton)
    return Transformers(shape, arguments.device, package, dtype, kind)


def rate(contender: Any, task: str, new: int) -> float:
    """Returns tokens a second: of all texts after the first new token, or of prompts up to it."""
    kind, batch = TASKS[task]
    if kind == "prefill":
        return batch * PREFILL / contender.write(batch, PREFILL, 1)
    until_first = contender.write(batch, PROMPT, 1)
    return batch * new / (contender.write(batch, PROMPT, new + 1) - until_first)


def measure(
    paper: Paper, shape: str, name: str, contender: Any, task: str, new: int, warm: bool
) -> bool:
    """Measures once and notes it; returns whether it went well."""
    import torch

    kind, batch = TASKS[task]
    try:
        if not warm:
            contender.write(batch, PROMPT if kind == "decode" else PREFILL, 3 if kind == "decode" else 1)  # fmt: skip
        paper.add(shape, name, task, rate(contender, task, new))
        if name == "glmkit graphs":
            if kind == "decode" and (seconds := contender.step_seconds(batch)) is not None:
                paper.add(shape, name, f"step {batch}", seconds)
            paper.values["facts"][shape] = contender.facts()
    except Exception as error:
        message = (str(error).strip() or "no message").splitlines()[0]
        paper.add(shape, name, task, f"{type(error).__name__}: {message[:300]}")
        return False
    finally:
        if batch > 1:
            contender.free()
            gc.collect()
            if contender.device != "cpu":
                torch.cuda.empty_cache()
    return True


def run_group(
    paper: Paper, shape: str, names: list[str], arguments: argparse.Namespace, end: float
) -> None:
    """Lets contenders that are in memory together take turns, until the time is over."""
    from gpu_contenders import SHAPES

    made: dict[str, Any] = {}
    for name in names:
        if name.endswith("static") and shape != arguments.shapes[0]:
            continue  # once is enough to see what it is worth
        try:
            made[name] = make(name, SHAPES[shape], arguments, made)
        except Exception as error:
            paper.add(shape, name, "making", f"{type(error).__name__}: {error}"[:300])
    last: dict[tuple[str, str], float] = {}
    for round_number in range(arguments.rounds):
        for task in TASKS:
            for name, contender in made.items():
                if task not in CONTENDERS[name] or last.get((name, task), 0.0) == float("inf"):
                    continue
                if round_number and name in ("glmkit torch", "gpt2 static", "llama static"):
                    continue
                begin = time.perf_counter()
                if begin - START + last.get((name, task), 0.0) > end:
                    continue
                warm = round_number > 0 and TASKS[task][1] == 1 and not name.startswith("glmkit")
                good = measure(paper, shape, name, contender, task, arguments.new, warm)
                last[name, task] = time.perf_counter() - begin if good else float("inf")
        if round_number == 0 and "glmkit graphs" in made and arguments.device != "cpu":
            try:
                from gpu_contenders import matrices

                paper.values["matrices"][shape] = matrices(made["glmkit graphs"].model)
                print(shape, json.dumps(paper.values["matrices"][shape]), flush=True)
            except Exception as error:
                paper.values["matrices"][shape] = str(error)[:300]


def run_shape(paper: Paper, shape: str, arguments: argparse.Namespace) -> None:
    """Measures all contenders of a shape, together if the device has room for all of their weights."""
    import torch
    from gpu_contenders import SHAPES

    end = SHARES[shape] * arguments.seconds
    names = list(CONTENDERS)
    groups = [names]
    if arguments.device != "cpu":
        weights, per_text = sizes(SHAPES[shape])
        free = torch.cuda.mem_get_info()[0]
        if 3 * weights + 2.5 * 64 * per_text * (PROMPT + NEW) > free:
            groups = [[name for name in names if name.startswith(kind)] for kind in ("glmkit", "gpt2", "llama")]  # fmt: skip
    for number, group in enumerate(groups):
        now = time.perf_counter() - START
        run_group(paper, shape, group, arguments, now + (end - now) / (len(groups) - number))
        gc.collect()
        if arguments.device != "cpu":
            torch.cuda.empty_cache()


def compiled(paper: Paper, shape: str, arguments: argparse.Namespace) -> None:
    """Measures transformers' compiled static cache for one text, if there is time to try."""
    from gpu_contenders import SHAPES

    left = arguments.seconds - (time.perf_counter() - START)
    if arguments.device == "cpu" or left < 25:
        return
    contender = make("llama compiled", SHAPES[shape], arguments, {})
    measure(paper, shape, "llama compiled", contender, "decode 1", arguments.new, False)


def sizes(shape: tuple[int, ...]) -> tuple[float, float]:
    """Returns the bytes of weights that a token reads, and of keys and values that it leaves; in 16 bits."""
    layers, hidden, _, vocabulary, _ = shape
    return 2.0 * (12 * layers * hidden**2 + vocabulary * hidden), 4.0 * layers * hidden


def table(values: dict[str, Any]) -> str:
    """Returns the table: tokens a second, and how near they are to what the device copies and multiplies."""
    from gpu_contenders import SHAPES

    lines = [
        "| shape | contender | decode, 1 text | of bandwidth | ms a step, device alone | decode, 64 texts | 256 texts | of bandwidth | prefill 512 | 16 × 512 | of matrix product |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    bandwidth, product = values["ceilings"]["copy_gb_s"], values["ceilings"]["matmul_tflop_s"]
    for shape, contenders in values["results"].items():
        weights, per_token = sizes(SHAPES[shape])
        for name, found in contenders.items():
            number = {task: statistics.median(some) for task, some in found.items() if isinstance(some, list)}  # fmt: skip

            def share(task: str, batch: int, number: Any = number, sizes_: Any = (weights, per_token)) -> str:  # fmt: skip
                if task not in number:
                    return ""
                read = sizes_[0] + batch * sizes_[1] * (PROMPT + values["new"] / 2)
                return f"{number[task] / batch * read / bandwidth / 1e9:.0%}"

            def cell(task: str, number: Any = number, found: Any = found) -> str:
                if task in number:
                    return f"{number[task]:,.0f}"
                return "" if task not in found else "failed"

            step = f"{number['step 1'] * 1e3:.2f}" if "step 1" in number else ""
            of_product = f"{number['prefill 16'] * (weights - 2 * SHAPES[shape][1] * SHAPES[shape][3]) / product / 1e12:.0%}" if "prefill 16" in number else ""  # fmt: skip
            cells = [cell("decode 1"), share("decode 1", 1), step, cell("decode 64"), cell("decode 256"), share("decode 256", 256), cell("prefill 1"), cell("prefill 16"), of_product]  # fmt: skip
            lines.append(f"| {shape} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ratios(values: dict[str, Any]) -> str:
    """Returns how many times as fast as the best peer glmkit is."""
    lines = ["| shape | " + " | ".join(TASKS) + " |", "|---|" + "---|" * len(TASKS)]
    for shape, contenders in values["results"].items():
        cells = []
        for task in TASKS:
            number = {name: statistics.median(found[task]) for name, found in contenders.items() if isinstance(found.get(task), list)}  # fmt: skip
            own = number.get("glmkit graphs")
            peers = {name: value for name, value in number.items() if not name.startswith("glmkit")}
            if own is None or not peers:
                cells.append("")
                continue
            best = max(peers, key=lambda name: peers[name])
            cells.append(f"{own / peers[best]:.2f} × {best}")
        lines.append(f"| {shape} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page(values: dict[str, Any], command: str) -> Path:
    """Writes docs/results/generate_h100_….md, or what the device is."""
    from results_page import write_table_page

    found, limits = values["check"], values["ceilings"]
    failed = [
        f"{shape} {name} {task}: {value}"
        for shape, contenders in values["results"].items()
        for name, some in contenders.items()
        for task, value in some.items()
        if isinstance(value, str)
    ]
    introduction = f"""
Greedy generation in bfloat16 on one {values["device"]} with random weights: {PROMPT} tokens of prompt, tokens a second of the {values["new"]} after the first new one, of all
texts together; prefill is tokens a second of prompts of {PREFILL} up to the first new token. glmkit through its engine, as `glm.fill` uses it: `graphs` is its captured
steps (`generation.graphs`), `torch` the eager runner. Peers are transformers' `generate` on GPT-2 and Llama of the same layers, width, heads and vocabulary (Llama's
MLP with as many weights), with its default cache, a static one, or a static one compiled. Contenders took turns; numbers are medians of up to 3 rounds.
The device copied at {limits["copy_gb_s"]:,.0f} GB/s (read and written) and multiplied matrices at {limits["matmul_tflop_s"]:,.0f} TFLOP/s in this run. The share of bandwidth counts the weights that a step
reads and the keys and values, at the middle of the text; "device alone" is the captured step without what Python does around it.
Captured steps wrote what plain ones write in float32 ({found.get("logits", 0)} logits, forks and forgetting among them): {"yes" if found.get("passed") else "NO"}; Triton's kernels were {"used" if found.get("triton") else "not used"}.
{f"Failed: {'; '.join(failed)}." if failed else ""}
"""
    text = (
        f"glmkit's captured steps beside the fastest peer:\n\n{ratios(values)}\n\n{table(values)}"
    )
    title = "Generation on a GPU beside transformers"
    return write_table_page("generate", title, introduction, text, values, command, values["hardware"])  # fmt: skip


def environment(device: str) -> dict[str, str]:
    """Returns date, device, versions and commit."""
    import datetime
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    found = {"date": datetime.date.today().isoformat(), "hardware": device_name(device)}
    found |= {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("transformers", "triton"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
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
    parser.add_argument("--shapes", nargs="+", default=["large", "2b", "10b"], choices=list(SHARES))
    parser.add_argument("--seconds", type=float, default=140, help="time for all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new", type=int, default=NEW, help="tokens after the first new one")
    parser.add_argument("--batches", type=int, nargs="*", help="only these numbers of texts")
    parser.add_argument("--out", type=Path, help="file for the numbers, as JSON")
    parser.add_argument("--save", action="store_true", help="write docs/results")
    parser.add_argument("--page", type=Path, help="write docs/results from a file that --out left")
    parser.add_argument("--without-triton", dest="triton", action="store_false")
    parser.add_argument("--check", action="store_true", help="only check, and print it as JSON")
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
    print(f"the time is over\n\n{ratios(values)}\n\n{table(values)}", flush=True)
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
        print(write_page(values, values["command"]))
        return
    for task in [task for task, (_, batch) in TASKS.items() if arguments.batches and batch not in arguments.batches]:  # fmt: skip
        del TASKS[task]
    process = begin_check(arguments.device)
    import torch
    import transformers  # noqa: F401 - while the other process does the same
    from gpu_contenders import ceilings

    found = end_check(process, min(60.0, arguments.seconds / 2))
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
    for shape in arguments.shapes:
        guarded(paper, shape, lambda shape=shape: run_shape(paper, shape, arguments))  # type: ignore[misc]
    print(f"{ratios(values)}\n\n{table(values)}", flush=True)
    guarded(paper, "compiled", lambda: compiled(paper, arguments.shapes[0], arguments))
    watch.cancel()
    paper.write()
    print(json.dumps({"benchmark": "generate-gpu", **{name: values[name] for name in ("check", "ceilings", "results", "facts", "matrices", "errors")}}))  # fmt: skip
    if arguments.save:
        print(write_page(values, values["command"]))


if __name__ == "__main__":
    main()
