"""Where the tests of a GPU compute, and what they measured.

They need CUDA. With `GLMKIT_GPU_TESTS_ON=cpu` they run on the CPU, which proves all of them but the device. Each compares a
device with the CPU or with a formula; numbers given to `record_property` are listed at the end, of tests that pass too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

for folder in (
    "integration",
    "unit/generation",
    "unit/model",
    "unit/training",
):  # where the samples are
    sys.path.append(str(Path(__file__).parents[1] / folder))

SWITCH = "GLMKIT_GPU_TESTS_ON"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """CUDA, or what the switch says; skips where there is none."""
    asked = os.environ.get(SWITCH, "cuda")
    assert asked in ("cuda", "cpu"), f"{SWITCH}={asked!r} must be cuda or cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"no CUDA device here; {SWITCH}=cpu runs these tests on the CPU")
    return torch.device(asked)


@pytest.fixture(autouse=True)
def whole_float32(device, monkeypatch):
    """No TensorFloat-32, whose numbers are a thousandth off: a comparison with the CPU means something."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(autouse=True, scope="module")
def compiled_anew():
    """A function is compiled for few cases and is slow in all others: that is an error here. Each module has its own few."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield


def pytest_terminal_summary(terminalreporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if report.when == "call" and report.user_properties:
                name = report.nodeid.rpartition("::")[2]
                facts = ", ".join(f"{key} {value}" for key, value in report.user_properties)
                terminalreporter.write_line(f"{name}: {facts}")
