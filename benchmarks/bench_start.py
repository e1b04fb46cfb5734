"""How long a newcomer waits: `glmkit fill` in a fresh process, and where its time goes.

    python benchmarks/bench_start.py [--model glm-mini] [--runs 5] [--smoke]

Prints a table and, as the last line, one JSON object. Times are seconds; "cpu" is user and system time of the process,
which other work on the machine lengthens less than "wall". The least of all runs is what the machine can do; the first
run, whose files are perhaps not in memory yet, is in `first_wall`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time

TEXT = "床前[MASK]光，疑是地上霜。"


def measure(arguments: list[str], runs: int) -> dict[str, float]:
    """Returns the least CPU and wall time of a Python process with these arguments, and the first wall time."""
    cpu, wall = [], []
    for _ in range(runs):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        wall.append(time.perf_counter() - started)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"cpu": min(cpu), "wall": min(wall), "first_wall": wall[0]}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="glm-mini")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="one run of the light parts")
    options = parser.parse_args()
    parts = {
        "glmkit --version": ["-m", "glmkit", "--version"],
        "glmkit (greeting)": ["-m", "glmkit"],
    }
    if not options.smoke:
        parts |= {
            "import torch": ["-c", "import torch"],
            "import transformers' models": ["-c", "import transformers.modeling_utils"],
            "import glmkit.api": ["-c", "import glmkit.api"],
            "glmkit fill": ["-m", "glmkit", "fill", TEXT, "-m", options.model],
        }
    runs = 1 if options.smoke else options.runs
    results = {name: measure(arguments, runs) for name, arguments in parts.items()}
    print(f"{'':30}{'cpu':>8}{'wall':>8}{'first':>8}")
    for name, values in results.items():
        print(f"{name:30}" + "".join(f"{value:8.2f}" for value in values.values()))
    machine = {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0))}
    load = {"load": round(os.getloadavg()[0], 1)}
    print(json.dumps({**machine, **load, "runs": runs, "seconds": results}, ensure_ascii=False))


if __name__ == "__main__":
    main()
