"""Speed and memory of generation: glmkit's number formats beside llama.cpp, OpenVINO, CTranslate2 and transformers.

    python benchmarks/bench_generate.py [--smoke] [--threads 2] [--rounds 5] [--only TEXT …] [--peers PYTHON] [--save]

The shape is glm-large-chinese's (24 layers of 1024, vocabulary 50048) with random weights; peers run GPT-2 of that shape. Greedy, a
prompt of 128 tokens and 64 new ones (32 for each of 8 texts); a prefill of 512. Each contender lives in a process of its own; in each round every one is
asked once, in a new order, and numbers are medians over rounds. glmkit also starts anew in every round, and glm-mini writes. A peer that is not installed (`pip install glmkit[bench]`, or another
interpreter by --peers) is left out, which the page says. Beside them stands what this machine's memory allows: bytes of weights that a
token reads, against the bandwidth just before or after it was written.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from generate_contenders import CONTENDERS, SHAPES
from results_page import RESULTS, environment, write_table_page

ASKED = {
    "decode 1": {"do": "decode", "batch": 1, "prompt": 128, "new": 64},
    "decode 8": {"do": "decode", "batch": 8, "prompt": 128, "new": 32},
    "prefill": {"do": "prefill", "tokens": 512},
}
ALONE: dict[str, dict[str, dict[str, Any]]] = {
    **{
        f"glmkit {kind}": {"start": {"do": "start", "prompt": 128}}
        for kind in ("bfloat16", "int8", "int4")
    },
    "glm-mini": {"first": {"do": "first"}, "poem": {"do": "poem"}},
}
"""What no peer is asked: seconds of a new process up to its first token, of glm-mini's first token and of a poem by it."""

BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "int4": 0.59375}
"""Of a weight with its scales and zero points; glmkit stores bfloat16 in 12 bits."""


def weight_bytes(name: str) -> float | None:
    """Returns the bytes of a contender's weight, None where its name does not tell them."""
    package, kind = name.split(" ", 1)
    return 1.5 if (package, kind) == ("glmkit", "bfloat16") else BYTES.get(kind.split("_")[0])


class Process:
    """A contender at work."""

    def __init__(self, name: str, shape: str, threads: int, python: str):
        self.name = name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - a pipe that nobody reads would stop it
        script = Path(__file__).with_name("generate_contenders.py")
        variables = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [python, str(script), name, shape, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=variables,
        )
        self.errors = ""
        self.alive = self._line() is not None

    def ask(self, **what: Any) -> Any:
        """Returns the answer, or None if the contender has died."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        found = self._line()
        return None if found is None else found["value"]

    def _line(self) -> dict[str, Any] | None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # libraries print what they like
                return json.loads(line)
        self.log.seek(0)
        self.errors = self.log.read().strip()[-300:]
        return None

    def end(self) -> None:
        """Lets it go."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def bandwidth(threads: int) -> float:
    """Returns the bytes a second that the threads read from memory together, in GB/s; of all of NumPy's functions `dot` reads the fastest."""
    from concurrent.futures import ThreadPoolExecutor

    parts = [np.ones(2**25, np.float32) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        best = 0.0
        for _ in range(3):
            start = time.perf_counter()
            list(pool.map(np.dot, parts, parts))
            best = max(best, sum(part.nbytes for part in parts) / (time.perf_counter() - start))
    return best / 1e9


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns medians for each contender that is here, the ones left out, and the bandwidth."""
    shape = "smoke" if arguments.smoke else "large"
    names = [name for name in CONTENDERS if not arguments.only or any(one in name for one in arguments.only)]  # fmt: skip
    processes: dict[str, Process] = {}
    missing = {name: "left out" for name in CONTENDERS if name not in names}
    for name in names:
        if name in arguments.without:
            missing[name] = "left out"
            continue
        own = {"glmkit": sys.executable, "original": arguments.original}
        python = own.get(name.split()[0], arguments.peers)
        process = Process(name, shape, arguments.threads, python)
        if process.alive:
            processes[name] = process
        else:
            missing[name] = process.errors.splitlines()[-1] if process.errors else "it ended"
        print(f"{name}: {'ready' if process.alive else missing[name]}", file=sys.stderr, flush=True)
    times: dict[str, dict[str, list[float]]] = {
        name: {what: [] for what in ASKED} for name in processes
    }
    mini = Process("glm-mini", shape, arguments.threads, sys.executable)
    if not mini.alive:
        raise SystemExit(f"glm-mini cannot be made: {mini.errors}")
    everyone = {**processes, "glm-mini": mini}
    alone: dict[str, dict[str, list[float]]] = {
        name: {what: [] for what in asked} for name, asked in ALONE.items() if name in everyone
    }
    speeds: dict[str, list[float]] = {name: [] for name in processes if name.startswith("glmkit ")}
    memory = {}
    for round_number in range(arguments.rounds):
        for what, asked in ASKED.items():
            for name in random.Random(round_number).sample(list(processes), len(processes)):
                smaller = {"new": 4} if arguments.smoke and "new" in asked else {}
                is_ours = what == "decode 1" and name in speeds
                before = bandwidth(arguments.threads) if is_ours else 0
                seconds = processes[name].ask(**{**asked, **smaller})
                if is_ours:
                    speeds[name].append(max(before, bandwidth(arguments.threads)))
                tokens = asked.get("tokens") or asked["batch"] * {**asked, **smaller}["new"]
                times[name][what].append(tokens / seconds)
                if what == "decode 1" and not round_number:
                    memory[name] = processes[name].ask(do="memory")
        for name, taken in alone.items():
            for what, asked in ALONE[name].items():
                taken[what].append(everyone[name].ask(**asked))
        print(f"round {round_number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
    results = {}
    for name, process in processes.items():
        medians = {what: statistics.median(some) for what, some in times[name].items()}
        results[name] = {**medians, "memory 1": memory[name], "memory": process.ask(do="memory"), "all": times[name]}  # fmt: skip
        process.end()
    mini.end()
    return {
        "shape": dict(zip(("layers", "hidden", "heads", "vocabulary", "positions"), SHAPES[shape], strict=True)),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "bandwidth_gb_s": speeds,
        "results": results,
        "alone": alone,
        "missing": missing,
    }  # fmt: skip


def num_weights(values: dict[str, Any]) -> int:
    """Returns the weights that a token reads: those of the layers' matrices and of the LM head."""
    shape = values["shape"]
    return 12 * shape["layers"] * shape["hidden"] ** 2 + shape["vocabulary"] * shape["hidden"]


def bandwidth_range(values: dict[str, Any]) -> tuple[float, float]:
    """Returns the least and the most GB/s that memory was read at."""
    speeds = [speed for some in values["bandwidth_gb_s"].values() for speed in some]
    return min(speeds), max(speeds)


def roofline_share(values: dict[str, Any], name: str) -> float | None:
    """Returns how near one text of a contender of ours comes to what memory allows: the median of the rounds' shares."""
    each = weight_bytes(name)
    if not name.startswith("glmkit ") or not each:
        return None
    read = num_weights(values) * each
    rates, speeds = values["results"][name]["all"]["decode 1"], values["bandwidth_gb_s"][name]
    return statistics.median(
        rate * read / speed / 1e9 for rate, speed in zip(rates, speeds, strict=True)
    )


def table(values: dict[str, Any]) -> str:
    """Returns the table: tokens a second, memory, and how near decoding is to what memory allows."""
    lines = [
        "| contender | decode, 1 text | of the roofline | decode, 8 texts | prefill 512 | peak MB, 1 text | peak MB, all |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in values["results"].items():
        share = roofline_share(values, name)
        roofline = "" if share is None else f"{share:.0%}"
        numbers = (one["decode 1"], one["decode 8"], one["prefill"], one["memory 1"], one["memory"])
        first, *rest = [f"{number:.1f}" if number < 100 else f"{number:.0f}" for number in numbers]
        lines.append(f"| {name} | {first} | {roofline} | {' | '.join(rest)} |")
    return "\n".join(lines)


def draw(values: dict[str, Any], path: Path) -> None:
    """Draws the roofline: tokens a second of one text over the bytes that a token reads, beside what memory allows."""
    from matplotlib.figure import Figure

    count, (slowest, fastest) = num_weights(values), bandwidth_range(values)
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    megabytes = np.geomspace(150, 1600, 50)
    axes.fill_between(
        megabytes,
        slowest * 1e3 / megabytes,
        fastest * 1e3 / megabytes,
        color="#BBBBBB",
        label=f"what memory allows ({slowest:.0f}–{fastest:.0f} GB/s)",
    )
    looks = {
        "glmkit": ("o", "#0072B2"),
        "llama.cpp": ("s", "#D55E00"),
        "openvino": ("^", "#009E73"),
        "ctranslate2": ("v", "#CC79A7"),
        "transformers": ("D", "#E69F00"),
    }
    for package, (marker, colour) in looks.items():
        points = [
            (count * each / 1e6, one["decode 1"])
            for name, one in values["results"].items()
            if name.startswith(f"{package} ") and (each := weight_bytes(name))
        ]
        if points:
            axes.plot(
                *zip(*sorted(points), strict=True), marker, color=colour, label=package, ls=":"
            )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="MB of weights that a token reads (4, 8, 16, 32 bits a weight; glmkit has 12 for 16)",
        ylabel="tokens a second, one text",
        title=f"Decoding, {count / 1e6:.0f} M weights, {values['threads']} threads",
    )
    axes.set_xticks([200, 400, 800, 1600], ["200", "400", "800", "1,600"])
    axes.set_yticks([5, 10, 20, 50, 100, 200], ["5", "10", "20", "50", "100", "200"])
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


GOALS = (
    ("16 bit, 1 text", "glmkit bfloat16", "decode 1", ("llama.cpp bfloat16",), 1.1),
    ("8 bit, 1 text", "glmkit int8", "decode 1", ("llama.cpp int8",), 1.3),
    ("4 bit, 1 text", "glmkit int4", "decode 1", ("llama.cpp int4", "llama.cpp int4_k"), 1.3),
    ("8 texts, the fastest of each side", None, "decode 8", None, 1.2),
    ("prefill, the fastest of each side", None, "prefill", None, 1.2),
    ("8 bit, 1 text, beside the original", "glmkit int8", "decode 1", ("original float32",), 20),
    (
        "16 bit, 1 text, beside the original",
        "glmkit bfloat16",
        "decode 1",
        ("original float32",),
        10,
    ),
)
"""Row, our contender (None: the best), what is compared, the peers (None: all), how many times theirs it shall be."""

BOUNDS = (
    ("16 bit", "glmkit bfloat16", 0.85, 800),
    ("8 bit", "glmkit int8", 0.8, 450),
    ("4 bit", "glmkit int4", None, 300),
)
"""Row, our contender, the least share of the bandwidth for one text, the most MB of resident memory with one text."""
MOST_SECONDS = {
    "start": ("from a new process to the first token after 128, s", 2.0, 1),
    "first": ("first token, ms", 30, 1e3),
    "poem": ("a poem of four lines, s", 0.5, 1),
}
"""What is asked of one alone -> how it is called, the most it shall take, units in a second."""


def goals(values: dict[str, Any]) -> str:
    """Returns the ratios that the project wants, beside what they are: the medians of the rounds' ratios; nothing without peers."""
    results = values["results"]
    peers = [name for name in results if not name.startswith("glmkit")]
    lines = ["| | glmkit | peer | ratio | goal | met |", "|---|---|---|---|---|---|"]
    for row, ours, what, theirs, goal in GOALS:
        mine = [ours] if ours else [name for name in results if name.startswith("glmkit")]
        others = [name for name in (theirs or peers) if name in results]
        mine = [name for name in mine if name in results]
        if not mine or not others:
            continue
        best, peer = (max(some, key=lambda name: results[name][what]) for some in (mine, others))
        # A shared machine changes its speed from round to round: within one, both were measured minutes apart at most.
        rounds = zip(*(results[name]["all"][what] for name in (best, peer)), strict=False)
        ratio = statistics.median(own / other for own, other in rounds)
        cells = [
            f"{name} {results[name][what]:.{1 if results[name][what] < 10 else 0}f}"
            for name in (best, peer)
        ]
        met = "yes" if ratio >= goal else "no"
        lines.append(f"| {row} | {cells[0]} | {cells[1]} | {ratio:.2f} | {goal} | {met} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def bounds(values: dict[str, Any]) -> str:
    """Returns what is wanted of glmkit without a peer, beside what it is."""
    lines = ["| | glmkit | wanted | met |", "|---|---|---|---|"]

    def row(name: str, measured: str, wanted: str, met: bool) -> None:
        lines.append(f"| {name} | {measured} | {wanted} | {'yes' if met else 'no'} |")

    for name, ours, least, most in BOUNDS:
        if ours in values["results"]:
            share, used = roofline_share(values, ours), values["results"][ours]["memory 1"]
            if least is not None and share is not None:
                called = f"{name}, 1 text, of the bandwidth"
                row(called, f"{share:.0%}", f"{least:.0%}", share >= least)
            row(f"{name}, resident MB with 1 text", f"{used:.0f}", f"{most}", used <= most)
    for name, taken in values["alone"].items():
        for what, seconds in taken.items():
            called, most, units = MOST_SECONDS[what]
            median = statistics.median(seconds) * units
            row(f"{name}: {called}", f"{median:.2g}", f"{most:g}", median <= most)
    return "\n".join(lines)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", nargs="*", default=(), help="contenders with these words in their name"
    )
    parser.add_argument("--without", nargs="*", default=(), help="contenders to leave out")
    parser.add_argument("--peers", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument(
        "--original",
        default=sys.executable,
        help="interpreter that has the original's modeling_glm, configuration_glm and transformers 4.25",
    )
    parser.add_argument("--save", action="store_true", help="write docs/results")
    parser.add_argument("--hardware", default="cpu", help="second part of the page's name")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.rounds = 1
    start = time.perf_counter()
    values = {"environment": environment(), **measure(arguments)}
    values["seconds"] = round(time.perf_counter() - start)
    text = "\n\n".join(part for part in (goals(values), bounds(values), table(values)) if part)
    print(text)
    print(json.dumps({"benchmark": "generate", "results": values["results"], "missing": values["missing"]}))  # fmt: skip
    if arguments.save:
        print(write_page(values, text, arguments))


def write_page(values: dict[str, Any], text: str, arguments: argparse.Namespace) -> Path:
    """Writes docs/results/generate_….md."""
    slowest, fastest = bandwidth_range(values)
    absent = "; ".join(f"{name} ({why})" for name, why in values["missing"].items())
    introduction = f"""
Greedy generation at the shape of glm-large-chinese (24 layers of 1024, 16 heads, vocabulary 50048), random weights, {values["threads"]} threads; a
prompt of 128 tokens, tokens a second of the 64 after it (32 for each of 8 texts, all together), and of a prompt of 512 up to the first token. glmkit through its
engine, as `glm.fill` uses it; peers run GPT-2 of the same sizes. Medians of {values["rounds"]} rounds, contenders interleaved, each in a process of its own.
The roofline is how fast memory was read just before or after (the faster; {slowest:.0f} to {fastest:.0f} GB/s) over the bytes of weights which a token reads. Ratios and shares of the roofline are medians of those of the rounds.
{f"Not measured: {absent}." if absent else ""}
Peak MB of a peer includes making, converting and quantizing its weights in the same process, glmkit's does not, so that these columns are no comparison.
"""
    given = [
        "PYTHON" if word in (arguments.peers, arguments.original) else word for word in sys.argv[1:]
    ]
    command = shlex.join(["python", "benchmarks/bench_generate.py", *given])
    title, folder = "Generation beside its peers", RESULTS
    name = f"generate_{arguments.hardware}_{values['environment']['date'][:7]}.png"
    draw(values, folder / name)
    text += f"\n\n![Tokens a second over bytes a token, beside what memory allows]({name})"
    return write_table_page(
        "generate", title, introduction, text, values, command, arguments.hardware
    )


if __name__ == "__main__":
    main()
