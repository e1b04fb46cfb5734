"""Fixtures shared by all tests: where the recorded numbers and the real corpora are, if they are here."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# How long an example takes says nothing on a shared machine.
hypothesis.settings.register_profile("glmkit", deadline=None)
hypothesis.settings.load_profile("glmkit")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Conversions of this run alone: what an earlier version left in the user's cache would hide mistakes.
if "GLMKIT_CACHE" not in os.environ:
    os.environ["GLMKIT_CACHE"] = tempfile.mkdtemp(prefix="glmkit-tests-")
    atexit.register(shutil.rmtree, os.environ["GLMKIT_CACHE"], ignore_errors=True)

SHARED = Path(__file__).resolve().parents[2] / "shared"
VARIANTS = ("tiny-chinese", "tiny-gpt2", "tiny-bert", "tiny-roberta")


@dataclass(frozen=True)
class Golden:
    """One folder of numbers recorded from the original implementation."""

    path: Path

    @cached_property
    def json(self) -> dict:
        return json.loads((self.path / "golden.json").read_text(encoding="utf-8"))

    @cached_property
    def npz(self) -> dict[str, np.ndarray]:
        with np.load(self.path / "golden.npz") as arrays:
            return {name: arrays[name] for name in arrays.files}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: needs Chromium and its driver; skipped without")


_goldens: dict[str, Golden] = {}


def golden_folder(name: str) -> Golden:
    """Returns the recorded numbers called `name`; skips the test where they are absent."""
    path = SHARED / "golden" / name
    if not path.is_dir():
        pytest.skip(f"recorded numbers are not on this machine: shared/golden/{name}")
    return _goldens.setdefault(name, Golden(path))


@pytest.fixture(params=VARIANTS)
def golden(request: pytest.FixtureRequest) -> Golden:
    """Each of the four published model variants in turn."""
    return golden_folder(request.param)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real corpora; skips where it is absent."""
    path = SHARED / "data"
    if not path.is_dir():
        pytest.skip("real corpora are not on this machine: shared/data")
    return path


@pytest.fixture
def glm():
    """(model, tokenizer) of the tiny Chinese checkpoint, fresh for each test."""
    import torch

    from glmkit import GLMForConditionalGeneration, GLMTokenizer

    path = golden_folder("tiny-chinese").path
    model = GLMForConditionalGeneration.from_pretrained(path, dtype=torch.float32)
    return model, GLMTokenizer.from_pretrained(path)
