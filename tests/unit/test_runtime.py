"""What the machine has, asked without torch: the same answers as torch's, or torch is asked."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from glmkit import runtime

CODE = """
import sys
from glmkit.runtime import num_threads
alone = num_threads()
assert ("torch" in sys.modules) == (sys.platform != "linux")
import torch
assert alone == num_threads() == torch.get_num_threads(), (alone, torch.get_num_threads())
torch.set_num_threads(alone + 1)
assert num_threads() == alone + 1
"""


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"OMP_NUM_THREADS": "64,1", "MKL_NUM_THREADS": ""},
        {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "1"},
    ],
)
def test_as_many_threads_as_torch_takes(told: dict[str, str]):
    named = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DYNAMIC"}
    environment = {name: value for name, value in os.environ.items() if name not in named}
    subprocess.run([sys.executable, "-c", CODE], env={**environment, **told}, check=True)


def test_two_threads_of_a_core_count_once(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5}, raising=False)
    monkeypatch.setattr(runtime, "PROCESSORS", tmp_path)
    for processor, siblings in ((0, "0,4"), (1, "1,5"), (5, "1,5")):
        (tmp_path / f"cpu{processor}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{processor}" / "topology" / "thread_siblings_list").write_text(siblings)
    assert runtime._cores() == 3


def test_no_gpu_is_said_only_where_there_is_none_for_certain(monkeypatch, tmp_path):
    def without(name: str) -> None:
        assert name == "libcuda.so.1"
        raise OSError

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(runtime, "DEVICES", tmp_path)
    monkeypatch.setattr(runtime.ctypes, "CDLL", without)
    for name in ("null", "nvme0n1", "nvram"):
        (tmp_path / name).touch()
    assert not runtime.may_have_accelerator()
    for name in ("nvidiactl", "nvidia0", "nvhost-ctrl-gpu", "nvmap", "dxg", "kfd"):
        (tmp_path / name).touch()
        assert runtime.may_have_accelerator(), name
        (tmp_path / name).unlink()
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: object())
    assert runtime.may_have_accelerator()
    monkeypatch.setattr(runtime.ctypes, "CDLL", without)
    for platform in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        assert runtime.may_have_accelerator()
