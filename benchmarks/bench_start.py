"""How long a newcomer waits: `glmkit fill` in a fresh process, and where its time goes.

    python benchmarks/bench_start.py [--model glm-mini] [--runs 5] [--smoke]

Prints a table and, as the last line, one JSON object. Times are seconds; "cpu" is user and system time of the process,
which other work on the machine lengthens less than "wall"; "MB" is its largest resident memory. The least of all runs is what the machine can do; the first
run, whose files are perhaps not in memory yet, is in `first_wall`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time

TEXT = "床前[MASK]光，疑是地上霜。"


def measure(arguments: list[str], runs: int) -> dict[str, float]:
    """Returns the least CPU and wall time and the peak MB of a Python process with these arguments, and the first wall time."""
    cpu, wall, peaks = [], [], []
    for _ in range(runs):
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        wall.append(time.perf_counter() - started)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{arguments} ended with {process.returncode}")
        cpu.append(used.ru_utime + used.ru_stime)
        peaks.append(used.ru_maxrss / 1024)
    return {"cpu": min(cpu), "wall": min(wall), "first_wall": wall[0], "peak_mb": min(peaks)}


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
            "glmkit poem": ["-m", "glmkit", "poem", "春日", "-m", options.model],
            "glmkit fill, on torch": [
                *(
                    "-c",
                    "import sys, glmkit; print(glmkit.load(sys.argv[1], backend='torch').fill(sys.argv[2]))",
                ),
                *(options.model, TEXT),
            ],
        }
    runs = 1 if options.smoke else options.runs
    results = {name: measure(arguments, runs) for name, arguments in parts.items()}
    print(f"{'':30}{'cpu':>8}{'wall':>8}{'first':>8}{'MB':>8}")
    for name, values in results.items():
        print(f"{name:30}" + "".join(f"{value:8.2f}" for value in values.values()))
    machine = {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0))}
    load = {"load": round(os.getloadavg()[0], 1)}
    print(json.dumps({**machine, **load, "runs": runs, "seconds": results}, ensure_ascii=False))


if __name__ == "__main__":
    main()
