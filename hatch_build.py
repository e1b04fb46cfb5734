"""Builds the native decoder when glmkit is installed: `native/*.cpp` -> `src/glmkit/native/libglmkit.so`.

Hatchling calls this for wheels and for editable installs. Each instruction set is one file of kernels, compiled with its own
flags, so that one library runs on every processor of an architecture. Where no compiler is, or it fails, the install goes on
without: glmkit then computes through torch, and `glmkit info` says why. CXX names the compiler; GLMKIT_BUILD_NATIVE=0 builds
nothing, =1 makes a failure an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path("native")
EMULATE = "-DGLMKIT_EMULATE_AVX512"
LIBRARY = Path("src/glmkit/native/libglmkit.so")
COMPILERS = ("c++", "g++", "clang++")

FLAGS = [
    "-std=c++20",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-Wno-psabi",
    "-pthread",
]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl", "vnni"))]
AVX512BF16 = [*AVX512, "-mavx512bf16"]
X86_FLAGS = {
    "kernels_avx2.cpp": AVX2,
    "kernels_avxvnni.cpp": [*AVX2, "-mavxvnni"],
    "kernels_avx512.cpp": AVX512,
    "kernels_avx512bf16.cpp": AVX512BF16,
    "kernels_amx.cpp": [
        *AVX512BF16,
        *(f"-mamx-{part}" for part in ("tile", "int8", "bf16")),
    ],
}
ARM_FLAGS = {"kernels_dotprod.cpp": ["-march=armv8.2-a+dotprod"]}
OWN_FLAGS = {"x86_64": X86_FLAGS, "aarch64": ARM_FLAGS, "arm64": ARM_FLAGS}
"""For what a compiler compiles -> of one file alone: what they allow must not leak into code that runs on older processors. Without them a file is empty."""


class NativeBuild(BuildHookInterface):
    """The hook."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles, and makes the wheel one of this platform."""
        wanted = os.environ.get("GLMKIT_BUILD_NATIVE", "")
        if wanted == "0":
            return
        root = Path(self.root)
        try:
            build(root)
        except (OSError, RuntimeError) as problem:
            (root / LIBRARY).unlink(missing_ok=True)
            if wanted == "1":
                raise
            self.app.display_warning(f"glmkit is installed without its native decoder: {problem}")
            return
        build_data["artifacts"].append(f"/{LIBRARY.as_posix()}")
        build_data["pure_python"] = False
        # The library knows nothing of Python: any version of it will do.
        build_data["tag"] = (
            f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        )


def build(root: Path, *, extra: Sequence[str] = (), library: Path = LIBRARY) -> None:
    """Compiles and links; the library appears when it is complete.

    Args:
        root: The source tree.
        extra: More flags (sanitizers, `-DGLMKIT_EMULATE_AVX512`).
        library: Where it goes, relative to `root`.

    Raises:
        RuntimeError: No compiler, or it reports an error.
    """
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise RuntimeError(
            f"there is no C++ compiler (tried {', '.join(COMPILERS)}; CXX names another)"
        )
    flags = next((one for name, one in OWN_FLAGS.items() if _target(compiler).startswith(name)), {})
    with tempfile.TemporaryDirectory() as folder:

        def compiled(source: Path) -> str:
            target = str(Path(folder, source.stem + ".o"))
            own = flags.get(source.name, [])
            if not _accepts(compiler, own):
                own = []
            if EMULATE in extra and source.name == "kernels_avx512.cpp":
                own = AVX2
            _run([*compiler.split(), *FLAGS, *extra, *own, "-c", str(source), "-o", target])
            return target

        with ThreadPoolExecutor() as pool:
            objects = list(pool.map(compiled, sorted((root / SOURCES).glob("*.cpp"))))
        target = root / library
        linked = target.with_name(f".{target.name}.tmp")
        _run([*compiler.split(), "-shared", "-pthread", *extra, *objects, "-o", str(linked)])
        linked.replace(target)


def _target(compiler: str) -> str:
    """Returns what a compiler compiles for, such as x86_64-linux-gnu."""
    command = [*compiler.split(), "-dumpmachine"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _accepts(compiler: str, flags: list[str]) -> bool:
    """Returns whether a compiler knows flags; older ones know fewer instructions."""
    command = [*compiler.split(), *flags, "-x", "c++", "-fsyntax-only", os.devnull]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:1])} failed: {done.stderr.strip()[-2000:]}")


if __name__ == "__main__":
    build(Path(__file__).resolve().parent, extra=sys.argv[1:])
