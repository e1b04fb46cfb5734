"""What is published: an archive from which the wheel can be built, a wheel that has everything, and a demo without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(*words: str | Path, cwd: Path, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**environment, "HF_HUB_OFFLINE": "1", **variables},
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
    venv.create(home, with_pip=True)
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    install = ("-m", "pip", "install", "--no-deps", "--no-index", "--quiet", built[1])
    run(scripts / "python", *install, cwd=home)
    place = run(scripts / "python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=home)  # fmt: skip
    dependencies = sysconfig.get_paths()["purelib"]
    # As text, not as a .pth line of its own kind: the tests' editable install of glmkit is not followed.
    (Path(place.strip()) / "dependencies.pth").write_text(dependencies + "\n")
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
    for wanted in ("docs/index.zh.md", "mkdocs.yml", "tests/conftest.py", "recipes/pretrain-mini.yaml", "native/model.cpp", "CITATION.cff", "examples", "deploy/Dockerfile"):  # fmt: skip
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
