"""What is published: an archive from which the wheel can be built, a wheel that has everything, and a demo without the checkout; the
wheel without torch and transformers, with what `requirements-answers.txt` names and nothing else."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
import urllib.request
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def outside(**variables: str) -> dict[str, str]:
    """The environment of a process that must not see the checkout."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**own, "HF_HUB_OFFLINE": "1", **variables}


def run(*words: str | Path, cwd: Path, **variables: str) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=outside(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(archive, wheel): the archive of this tree, and the wheel made of nothing but the archive."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    (wheel,) = folder.glob("*.whl")
    return archive, wheel


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts' folder of a fresh environment with the wheel; what it depends on comes from the environment of the tests."""
    home = tmp_path_factory.mktemp("environment")
    scripts, place = install(built[1], home)
    dependencies = sysconfig.get_paths()["purelib"]
    # As text, not as a .pth line of its own kind: the tests' editable install of glmkit is not followed.
    (place / "dependencies.pth").write_text(dependencies + "\n")
    return scripts


def install(wheel: Path, home: Path) -> tuple[Path, Path]:
    """Makes an environment with nothing but a wheel; returns the folders of its scripts and of its packages."""
    venv.create(home, with_pip=True)
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    words = ("-m", "pip", "install", "--no-deps", "--no-index", "--quiet", wheel)
    run(scripts / "python", *words, cwd=home)
    place = run(scripts / "python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=home)  # fmt: skip
    return scripts, Path(place.strip())


@pytest.fixture(scope="module")
def light(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `installed`, but of the tests' packages only those that `requirements-answers.txt` names, and what they require."""
    home = tmp_path_factory.mktemp("light")
    scripts, place = install(built[1], home)
    lines = (ROOT / "requirements-answers.txt").read_text("utf-8").splitlines()
    waiting = [(line, "") for line in lines if not line.startswith("#")]
    met: set[tuple[str, str]] = set()
    while waiting:
        line, extra = waiting.pop()
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
            continue
        found = distribution(wanted.name)
        for asked in {"", *wanted.extras} - {b for a, b in met if a == canonicalize_name(wanted.name)}:  # fmt: skip
            met.add((canonicalize_name(wanted.name), asked))
            waiting += [(one, asked) for one in found.requires or ()]
        for top in {path.parts[0] for path in found.files or ()} - {"..", "__pycache__"}:
            source = Path(str(found.locate_file(top)))
            if not (place / top).exists():
                (place / top).symlink_to(source, target_is_directory=source.is_dir())
    assert not {"torch", "transformers"} & {name for name, _ in met}
    return scripts


def test_the_wheel_has_what_it_needs(built: tuple[Path, Path]):
    with zipfile.ZipFile(built[1]) as packed:
        names = set(packed.namelist())
        metadata = packed.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    tracked = run("git", "ls-files", "src/glmkit", cwd=ROOT).split("\n") if (ROOT / ".git").exists() else []  # fmt: skip
    missing = {name.removeprefix("src/") for name in tracked if name} - names
    assert not missing
    assert {"glmkit/py.typed", "glmkit/assets/glm-mini/quantized.safetensors"} <= names
    assert all(name.startswith("glmkit") for name in names)
    assert "License-Expression: Apache-2.0" in metadata
    assert "Provides-Extra: all" in metadata


def test_the_archive_has_docs_tests_and_recipes(built: tuple[Path, Path]):
    with tarfile.open(built[0]) as packed:
        names = {name.split("/", 1)[1] for name in packed.getnames() if "/" in name}
    for wanted in ("docs/index.zh.md", "mkdocs.yml", "tests/conftest.py", "recipes/pretrain-mini.yaml", "native/model.cpp", "CITATION.cff", "examples", "deploy/Dockerfile", "requirements-answers.txt"):  # fmt: skip
        assert any(name == wanted or name.startswith(f"{wanted}/") for name in names), wanted
    assert not any(name.endswith((".so", ".pyc")) for name in names)


def test_it_runs_outside_the_checkout(installed: Path, tmp_path: Path):
    where = "import glmkit, pathlib; print(pathlib.Path(glmkit.__file__).resolve())"
    place = run(installed / "python", "-c", where, cwd=tmp_path).strip()
    assert Path(place).is_relative_to(installed.parent.resolve())
    assert "glmkit" in run(installed / "glmkit", "--version", cwd=tmp_path)
    filled = run(installed / "glmkit", "fill", "床前[MASK]光，疑是地上霜。", "--json", cwd=tmp_path)
    assert '"blanks"' in filled
    shown = run(installed / "glmkit", "demo", "--steps", "4", cwd=tmp_path, GLMKIT_LANG="zh", OMP_NUM_THREADS="1")  # fmt: skip
    assert ">>> glm.poem(" in shown
    assert "困惑度" in shown


ANSWERS = """
import resource, sys, time
began = time.perf_counter()
import glmkit
from glmkit.generation.grammar import Regex
glm = glmkit.load()
print(glm.fill("北京是中国的[MASK]。").text)
assert len(glm.fill(["今天[MASK]。", "The [MASK] is red."], do_sample=True, seed=1)) == 2
assert glm.fill("今天[MASK]。", constraints=Regex(glm.vocabulary, "[一-龥]{2}")).blanks
assert len(glm.fill("今天[MASK]。", n=2).candidates) == 2
assert "".join(glm.generate("春天来了，", max_new_tokens=4, stream=True))
assert glm.chat("你好", max_new_tokens=4)
assert glm.poem("春日", candidates=1)
assert glm.sentiment("这家店的菜很好吃").label and glm.classify("很好吃", labels=["好", "坏"]).label
assert glm.answer("北京在哪里？", "北京在中国的北方。")
assert glm.summarize("北京是中国的首都，在北方。", max_new_tokens=4)
assert glm.score("春天").tokens and glm.perplexity("春天来了") > 1 and glm.embed("春天").shape == (512,)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"answers: {time.perf_counter() - began:.1f} s, {peak:.0f} MB at most")
for package in ("torch", "transformers"):
    try:
        __import__(package)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{package} is here")
"""


def test_it_answers_without_torch(light: Path, tmp_path: Path):
    said = run(light / "python", "-c", ANSWERS, cwd=tmp_path)
    assert said.startswith("北京是中国的")
    sys.stdout.write(said)
    filled = run(light / "glmkit", "fill", "床前[MASK]光，疑是地上霜。", "--json", cwd=tmp_path)
    assert '"blanks"' in filled
    for words in (["sentiment", "好吃"], ["score", "春天"], ["poem", "春日"], ["chat", "你好"]):
        assert run(light / "glmkit", *words, cwd=tmp_path).strip()
    assert re.search(r"^torch +not installed", run(light / "glmkit", "info", cwd=tmp_path, GLMKIT_LANG="en"), re.MULTILINE)  # fmt: skip


@pytest.mark.parametrize(("language", "words"), [("en", "needs the package"), ("zh", "需要 torch")])
def test_without_torch_an_explanation_says_what_it_needs(
    light: Path, tmp_path: Path, language: str, words: str
):
    done = subprocess.run(
        [str(light / "glmkit"), "explain", "今天[MASK]。"],
        cwd=tmp_path,
        env=outside(GLMKIT_LANG=language),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_it_serves_without_torch(light: Path, tmp_path: Path):
    began = time.perf_counter()
    log = tmp_path / "serve.log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            [str(light / "glmkit"), "serve", "--port", "0", "--no-playground"],
            cwd=tmp_path,
            env=outside(GLMKIT_LANG="en"),
            stderr=stream,
        )
    try:
        while (found := re.search(r"at (http://[\d.:]+)/v1", log.read_text("utf-8"))) is None:
            assert server.poll() is None, log.read_text("utf-8")
            assert time.perf_counter() - began < 120
            time.sleep(0.05)
        body = json.dumps({"model": "glm-mini", "prompt": "今天[MASK]。", "max_tokens": 4})
        request = urllib.request.Request(
            f"{found[1]}/v1/completions", body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["choices"][0]["text"]
        took = f"a server's first answer: {time.perf_counter() - began:.1f} s after its start"
        status = Path(f"/proc/{server.pid}/status")
        memory = re.findall(r"^Vm(?:HWM|RSS):\s+\d+ kB", status.read_text(), re.MULTILINE) if status.exists() else []  # fmt: skip
        sys.stdout.write(f"{' '.join([took, *memory])}\n")
    finally:
        server.terminate()
        assert server.wait(60) in (0, -signal.SIGTERM)
