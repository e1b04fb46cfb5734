"""Where a number comes from: versions, commit, fingerprints of weights and data."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import glmkit
from glmkit.generation.arrays import takes_arrays

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "sacrebleu", "rouge-score")
"""Whose versions are written down."""


def facts_of(model: Any) -> dict[str, Any]:
    """Returns number and fingerprint of a model's weights, versions and commit."""
    return {
        "parameters": sum(one.size for _, one in _weights(model)),
        "weights_fingerprint": weights_fingerprint(model),
        "versions": versions(),
        "commit": commit(),
    }


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Returns the versions of glmkit, Python and packages; "" where one is not installed."""
    found = {"glmkit": glmkit.__version__, "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def weights_fingerprint(model: Any) -> str:
    """Returns a SHA-256 (hex) of names, shapes and values (as float32): the same on any device and number of threads."""
    found = hashlib.sha256()
    for name, weight in _weights(model):
        found.update(f"{name} {weight.shape}".encode())
        found.update(np.ascontiguousarray(weight).data)
    return found.hexdigest()


def _weights(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yields names, in order, and weights as float32; of the native decoder without a torch model of them."""
    if takes_arrays(model):
        yield from model.weights.items()
        return
    for name, weight in sorted(model.named_parameters()):
        yield name, weight.detach().float().cpu().numpy()


def commit() -> str:
    """Returns the commit of the source tree from which glmkit is imported, or "" where it is not in one."""
    try:
        done = subprocess.run(
            [
                "git",
                "-C",
                str(Path(__file__).parent),
                "describe",
                "--always",
                "--dirty=+",
                "--exclude=*",
            ],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def digest(value: Any) -> str:
    """Returns the SHA-256 (hex) of a value that JSON can hold."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
