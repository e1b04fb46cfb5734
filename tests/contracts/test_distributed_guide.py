"""The guide's memory tables are the function's, and its launch files are sound."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from glmkit.training.memory import memory_table

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "recipes" / "launch"


@pytest.mark.parametrize("name", ["distributed.md", "distributed.zh.md"])
def test_memory_tables(name):
    text = (ROOT / "docs" / "guides" / name).read_text(encoding="utf-8")
    found = dict(re.findall(r"<!-- (memory[^/]*?) -->\n(.*?)\n<!-- /\1 -->", text, re.DOTALL))
    assert found == {
        "memory": memory_table(),
        "memory checkpointing": memory_table(checkpointing=True),
    }


def test_kubernetes_manifest():
    service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text(encoding="utf-8"))
    pod = job["spec"]["template"]
    container = pod["spec"]["containers"][0]
    arguments = dict(one.split("=", 1) for one in container["args"] if "=" in one)
    assert service["spec"]["clusterIP"] == "None"
    assert service["metadata"]["name"] == pod["spec"]["subdomain"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(arguments["--nnodes"])
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert int(arguments["--nproc-per-node"]) == gpus == int(arguments["distribution.shards"])
    host, port = arguments["--rdzv-endpoint"].split(":")
    # An Indexed Job's first pod has the host name <job>-0, in the Service's domain.
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert int(port) == service["spec"]["ports"][0]["port"]
    mounted = {one["name"] for one in container["volumeMounts"]}
    assert mounted == {one["name"] for one in pod["spec"]["volumes"]}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_slurm_script_is_bash():
    script = str(LAUNCH / "slurm.sh")
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


@pytest.mark.slow
def test_slurm_script_starts_two_nodes(tmp_path):
    """Two torchruns with one process each meet as two nodes would; the script's own lines, without Slurm."""
    (tmp_path / "glmkit").write_text(
        f"#!{sys.executable}\n"
        "import os, pathlib, sys\n"
        "import torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "pathlib.Path(sys.argv[2], f'rank{dist.get_rank()}').write_text(\n"
        "    f'{dist.get_world_size()} {os.environ[\"LOCAL_RANK\"]} {sys.argv[1]}')\n"
        "dist.barrier()\n"
        "dist.destroy_process_group()\n"
    )
    (tmp_path / "torchrun").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m torch.distributed.run "$@"\n'
    )
    for name in ("glmkit", "torchrun"):
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SRUN": "env",
        "SLURM_JOB_NUM_NODES": "2",
        "PROCESSES_PER_NODE": "1",
        "HEAD": "localhost",
        "PORT": "29617",
    }
    command = ["bash", str(LAUNCH / "slurm.sh"), str(tmp_path)]
    nodes = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [node.wait(timeout=100) for node in nodes] == [0, 0]
    assert (tmp_path / "rank0").read_text() == (tmp_path / "rank1").read_text() == "2 0 pretrain"
