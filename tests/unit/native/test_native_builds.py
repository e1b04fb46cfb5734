"""The C++ sources in other builds: AVX-512 and AMX emulated, and all of it under sanitizers."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="kernels for x86"),
]

SHARE_ALL = "-DGLMKIT_LITTLE=0"  # else one thread alone does what models of these sizes need

EXERCISE = """
import sys, numpy, torch
from glmkit.native.library import instructions
from glmkit.special_tokens import FIRST_MEDIA_ID
from native_samples import as_understood, feed, random_model, reference, runner_of, sample, wild_products

expected_instructions, rounds = sys.argv[1], int(sys.argv[2])
assert instructions() == expected_instructions, instructions()
draw = torch.Generator().manual_seed(0)
number = lambda low, high: int(torch.randint(low, high + 1, (), generator=draw))
for round in range(rounds):
    heads, quantization = number(1, 5), ("float32", "bfloat16", "int8", "int4", "float32")[round % 5]
    model = random_model(
        round, num_layers=number(1, 3), hidden_size=heads * number(1, 20), num_attention_heads=heads,
        intermediate_size=number(1, 200), vocab_size=number(1, 300), hidden_act=("gelu", "gelu_new", "relu")[round % 3],
    )
    state = model.state_dict()
    if round % 5 == 4:  # stored in 16 bits
        state = {name: one.to((torch.float16, torch.bfloat16)[round // 5 % 2]) for name, one in state.items()}
        model.load_state_dict(state)
    runner, prefix = runner_of(model, state, quantization, threads=number(1, 3)), number(0, 80)
    tokens = sample(model, prefix, 12, seed=round)
    media = torch.randn(prefix // 2, model.config.hidden_size)
    tokens[0][: len(media)] = FIRST_MEDIA_ID + torch.randperm(len(media), generator=draw)
    first = runner.open()
    found = [runner.forward([feed(first, tokens, 0, prefix + 3, prefix, media=media)])[0]]
    second = runner.fork(first)
    runner.close(first)
    runner.forward([feed(second, tokens, prefix + 3, prefix + 7)])
    runner.truncate(second, prefix + 3)
    other = runner.open()
    for place in range(prefix + 3, prefix + 12):
        found.append(runner.forward([feed(other, tokens, 0, 1, media=media), feed(second, tokens, place, place + 1)])[1])
        runner.truncate(other, 0)
    expected = reference(as_understood(model, quantization), tokens, prefix, media)
    differences = abs(numpy.concatenate(found) - expected) / abs(expected).max()
    most = {"float32": 3e-6, "bfloat16": 1e-4}.get(quantization, 6e-2)
    assert float(differences.max()) <= most, (round, quantization, float(differences.max()))
for found, expected, sizes in wild_products():
    assert (abs(found - expected) <= 2e-5 * sizes).all(), len(found)
"""


def build(folder: Path, *flags: str) -> Path:
    """Copies the package with a library built with the flags; returns where it can be imported from."""
    pytest.importorskip("hatchling", reason="the build's hook needs hatchling")
    sys.path.insert(0, str(ROOT))
    try:
        import hatch_build
    finally:
        sys.path.remove(str(ROOT))
    shutil.copytree(
        ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    shutil.copytree(ROOT / "native", folder / "native")
    hatch_build.build(folder, extra=(*flags, SHARE_ALL))
    return folder / "src"


def test_an_older_compiler_builds_what_it_knows(tmp_path: Path, monkeypatch):
    """Without AMX in the compiler the best kernels are those of AVX-512, or what the processor has of it."""
    compiler = tmp_path / "older"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-mamx*) exit 1;; esac\nexec g++ "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    source = build(tmp_path)
    code = "from glmkit.native.library import instructions; print(instructions())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() in ("avx512bf16", "avx512", "avxvnni", "avx2", "portable")


def exercise(source: Path, instructions: str, rounds: int, **variables: str) -> str:
    """Runs the above; returns what went to stderr."""
    path = os.pathsep.join([str(source), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", EXERCISE, instructions, str(rounds)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


def sanitizer(name: str) -> str:
    """Returns the library that has to be loaded first."""
    command = ["g++", f"-print-file-name=lib{name}.so"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_avx512_kernels_compute_what_the_others_do(tmp_path: Path):
    """Their one own instruction is emulated, everything else runs as it is compiled for this processor."""
    source = build(tmp_path, "-DGLMKIT_EMULATE_AVX512")
    exercise(source, "avx512", 24, GLMKIT_INSTRUCTIONS="avx512")


CPUINFO = Path("/proc/cpuinfo")
PROCESSOR = set(re.findall(r"\w+", CPUINFO.read_text() if CPUINFO.exists() else ""))
EMULATED_NEON = "-DGLMKIT_EMULATE_NEON"
EMULATED_AMX = ("-include", str(Path(__file__).with_name("emulated_amx.h")))


def test_amx_kernels_compute_what_the_others_do(tmp_path: Path):
    """Tiles are emulated, where the processor has the rest: everything else is as it is compiled for AMX."""
    if "avx512_bf16" not in PROCESSOR:
        pytest.skip("this processor has no AVX-512 with BF16")
    source = build(tmp_path, *EMULATED_AMX)
    exercise(source, "amx", 24, GLMKIT_INSTRUCTIONS="amx")


def test_neon_kernels_compute_what_the_others_do(tmp_path: Path):
    """Its few own instructions are emulated, everything else is as it is compiled for ARM."""
    exercise(build(tmp_path, EMULATED_NEON), "neon", 24)


WITHOUT_TORCH = """
import sys, numpy
from glmkit.checkpoint.architecture import Architecture
from glmkit.checkpoint.quantized import NativeWeights, shapes_of
from glmkit.generation.runner import Feed
from glmkit.native.library import instructions
from glmkit.native.runner import NativeDecoder, NativeRunner

draw, found = numpy.random.RandomState(0), {}
for round in range(10):
    heads, prefix = draw.randint(1, 6), draw.randint(0, 80)
    config = Architecture(
        num_layers=draw.randint(1, 4), hidden_size=heads * draw.randint(1, 21), num_attention_heads=heads,
        intermediate_size=int(draw.randint(1, 300)), vocab_size=draw.randint(1, 300), max_sequence_length=100,
        hidden_act=("gelu", "gelu_new", "relu")[round % 3],
    )
    state = {name: draw.standard_normal(shape).astype(numpy.float32) / 3 for name, shape in shapes_of(config).items()}
    places = numpy.arange(prefix + 12)
    tokens = draw.randint(0, config.vocab_size, prefix + 12), numpy.minimum(places, prefix), numpy.maximum(places - prefix + 1, 0)

    def feed(sequence, first, end, prefix=0):
        return Feed(sequence, *(one[first:end] for one in tokens), prefix, end - first)

    for name in ("float32", "float16", "bfloat16", "int8", "int4"):
        stored = {one: array.astype(numpy.float16 if name == "float16" else numpy.float32) for one, array in state.items()}
        weights = NativeWeights.of(config, stored, "float32" if name == "float16" else name)
        runner = NativeRunner(NativeDecoder(config, weights, threads=round % 3 + 1))
        first, other = runner.open(), runner.open()
        logits = runner.forward([feed(first, 0, prefix + 3, prefix)])
        for place in range(prefix + 3, prefix + 12):
            logits.append(runner.forward([feed(other, 0, 1), feed(first, place, place + 1)])[1])
            runner.truncate(other, 0)
        found[f"{round} {name}"] = numpy.concatenate(logits)
numpy.savez(sys.argv[1], instructions=instructions(), **found)
"""

ARM_PYTHON, ARM_COMPILER = os.environ.get("GLMKIT_ARM_PYTHON"), "aarch64-linux-gnu-g++"


@pytest.mark.skipif(
    ARM_PYTHON is None or shutil.which(ARM_COMPILER) is None,
    reason=f"no {ARM_COMPILER}, or GLMKIT_ARM_PYTHON does not name what runs a Python of ARM with NumPy (with qemu)",
)
def test_arm_computes_what_this_processor_does(tmp_path: Path, monkeypatch):
    def logits(python: str, source: Path, instructions: str) -> dict[str, np.ndarray]:
        environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1", "GLMKIT_INSTRUCTIONS": instructions}  # fmt: skip
        file = tmp_path / "found.npz"
        subprocess.run([python, "-c", WITHOUT_TORCH, file], env=environment, check=True)
        found = dict(np.load(file))
        assert found.pop("instructions") == instructions
        return found

    expected = logits(sys.executable, ROOT / "src", "portable")
    monkeypatch.setenv("CXX", ARM_COMPILER)
    source = build(tmp_path)
    for instructions in ("dotprod", "neon", "portable"):
        for name, found in logits(str(ARM_PYTHON), source, instructions).items():
            most = {"float32": 1e-5, "float16": 1e-5, "bfloat16": 1e-4}.get(name.split()[1], 6e-2)
            difference = abs(found - expected[name]).max() / abs(expected[name]).max()
            assert difference <= most, (instructions, name, difference)


@pytest.mark.parametrize(
    "instructions", ["amx", "avx512bf16", "avxvnni", "avx2", "neon", "portable"]
)
def test_sanitizers_find_nothing(tmp_path: Path, instructions: str):
    """No read or write beyond what is there, nothing undefined: over odd sizes, forks, truncations and threads."""
    if instructions in ("amx", "avx512bf16") and "avx512_bf16" not in PROCESSOR:
        pytest.skip("this processor has no AVX-512 with BF16")
    if instructions == "avxvnni" and "avx_vnni" not in PROCESSOR:
        pytest.skip("this processor has no AVX-VNNI")
    emulated = EMULATED_AMX if instructions == "amx" and "amx_int8" not in PROCESSOR else ()
    emulated = (EMULATED_NEON,) if instructions == "neon" else emulated
    source = build(
        tmp_path, "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1", *emulated
    )
    exercise(
        source,
        instructions,
        24,
        GLMKIT_INSTRUCTIONS=instructions,
        LD_PRELOAD=sanitizer("asan"),
        ASAN_OPTIONS="detect_leaks=0",
    )


def test_threads_do_not_race(tmp_path: Path):
    """What one thread writes no other touches before they have waited for each other; torch's own findings are left out."""
    instructions = "avx512bf16" if "avx512_bf16" in PROCESSOR else "avx2"
    source = build(tmp_path, "-fsanitize=thread", "-g1")
    found = exercise(
        source,
        instructions,
        12,
        GLMKIT_INSTRUCTIONS=instructions,
        LD_PRELOAD=sanitizer("tsan"),
        TSAN_OPTIONS="exitcode=0",
    )
    reports = [one for one in found.split("=" * 18) if "libglmkit" in one]
    assert not reports, reports[0]
