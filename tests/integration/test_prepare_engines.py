"""The engines: what Slurm, Ray and killed runs leave behind is, byte for byte, what one quiet process does."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "tokens"))
pytest.importorskip("datatrove")

import prepare_samples
from prepare_samples import CharacterTokenizer, write_corpus

from glmkit.corpus import pipeline
from glmkit.corpus.engine_settings import Engine
from glmkit.corpus.steps.settings import NearDuplicateSettings, Steps
from glmkit.errors import ConfigError, DataError
from glmkit.tokens.prepare import prepare

TOKENIZER = CharacterTokenizer()
STEPS = Steps(near_duplicates=NearDuplicateSettings(enabled=True, buckets=3))

SBATCH = """#!{python}
import os, pathlib, re, subprocess, sys
script = pathlib.Path(sys.argv[-1])
text = script.read_text()
log = pathlib.Path({log!r})
number = len(list(log.iterdir()))
(log / f"{{number}}.sh").write_text(text)
array = re.search(r"#SBATCH --array=0-(\\d+)", text)
code = 0
for task in range(int(array[1]) + 1 if array else 1):
    env = {{**os.environ, "SLURM_NODELIST": "here", "SLURM_JOB_ID": str(number), "RUN_OFFSET": "0"}}
    if array:
        env["SLURM_ARRAY_TASK_ID"] = str(task)
    code = max(code, subprocess.run(["bash", str(script)], env=env, capture_output=True).returncode)
print("Submitted batch job", number)
sys.exit(code)
"""
"""Runs the array's tasks one after another, and returns when they have ended, as `sbatch --wait` does."""

SRUN = '#!/bin/bash\nwhile [[ $1 == -* ]]; do [[ $1 == -n ]] && shift; shift; done\nexec "$@"\n'
SCONTROL = "#!/bin/bash\necho here\n"


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Two files, of which each is a task."""
    monkeypatch.setattr(pipeline, "PART_BYTES", prepare_samples.FILE_BYTES)
    return write_corpus(tmp_path / "corpus", files=2)


@pytest.fixture
def expected(corpus, tmp_path):
    prepare(corpus, tmp_path / "expected", TOKENIZER, valid_ratio=0.2, steps=STEPS)
    return files_of(tmp_path / "expected")


def files_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def spoil(corpus: Path) -> None:
    with (corpus / "1.jsonl").open("a") as file:
        file.write('\n{"text": ')


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Slurm's commands as programs that do their work on this machine; returns the folder of submitted scripts."""
    commands, log = tmp_path / "commands", tmp_path / "submitted"
    commands.mkdir()
    log.mkdir()
    sbatch = SBATCH.format(python=sys.executable, log=str(log))
    for name, text in (("sbatch", sbatch), ("srun", SRUN), ("scontrol", SCONTROL)):
        (commands / name).write_text(text, encoding="utf-8")
        (commands / name).chmod(0o755 | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    tests = Path(prepare_samples.__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{tests}:{os.environ.get('PYTHONPATH', '')}")
    return log


@pytest.mark.slow
def test_slurm(corpus, expected, slurm, tmp_path):
    """Twenty seconds: every task is a job with a Python of its own."""
    engine = Engine(
        "slurm",
        workers=2,
        partition="cpu",
        time="01:30:00",
        mem_per_cpu_gb=3,
        sbatch={"account": "glm"},
    )
    prepare(corpus, tmp_path / "out", TOKENIZER, valid_ratio=0.2, steps=STEPS, engine=engine)
    assert files_of(tmp_path / "out") == expected
    script = (slurm / "0.sh").read_text()
    for line in (
        "array=0-1%2",
        "partition=cpu",
        "time=01:30:00",
        "mem-per-cpu=3G",
        "cpus-per-task=1",
        "account=glm",
        "wait",
    ):
        assert f"#SBATCH --{line}\n" in script
    assert "qos" not in script
    assert f"export PATH={Path(sys.executable).parent}" in script


@pytest.mark.slow
def test_errors_come_back_from_slurm(corpus, slurm, tmp_path):
    spoil(corpus)
    with pytest.raises(DataError, match=r"1.jsonl:41: not valid JSON"):
        prepare(corpus, tmp_path / "out", TOKENIZER, engine=Engine("slurm", partition="cpu"))
    assert (tmp_path / "out" / ".work" / "parts" / "00000").is_dir()


def test_without_slurm(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no sbatch on the PATH"):
        prepare(corpus, tmp_path / "out", TOKENIZER, engine=Engine("slurm", partition="cpu"))
    with pytest.raises(ConfigError, match=r"slurm without engine.partition .*engine.time='soon'"):
        prepare(corpus, tmp_path / "out2", TOKENIZER, engine=Engine("slurm", time="soon"))


@pytest.mark.slow
def test_ray(corpus, expected, tmp_path, monkeypatch):
    """A Ray of this machine, with two CPUs; then an error in a task."""
    ray = pytest.importorskip("ray")
    tests = Path(prepare_samples.__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{tests}:{os.environ.get('PYTHONPATH', '')}")
    engine = Engine("ray", workers=2, mem_per_cpu_gb=1)
    try:
        prepare(corpus, tmp_path / "out", TOKENIZER, valid_ratio=0.2, steps=STEPS, engine=engine)
        assert files_of(tmp_path / "out") == expected
        spoil(corpus)
        with pytest.raises(DataError, match=r"1.jsonl:41: not valid JSON"):
            prepare(corpus, tmp_path / "bad", TOKENIZER, engine=engine)
    finally:
        ray.shutdown()


def run_killed(corpus: Path, out: Path, workers: int, moments: list[float]) -> int:
    """Starts the preparation again and again and kills it with its workers; returns how often it was killed."""
    command = [sys.executable, prepare_samples.__file__, str(corpus), str(out), str(workers)]
    for count, moment in enumerate(moments):
        process = subprocess.Popen(command, start_new_session=True)
        while not (out / ".work").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moment)
        if process.poll() is not None:
            return count
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return len(moments)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments(corpus, tmp_path, workers):
    begun = time.perf_counter()
    prepare(corpus, tmp_path / "expected", TOKENIZER, valid_ratio=0.2)
    whole = (time.perf_counter() - begun) / workers
    draw = random.Random(workers)
    moments = [draw.uniform(0.05, 0.9) * whole for _ in range(8)]
    killed = run_killed(corpus, tmp_path / "out", workers, moments)
    assert killed >= 2
    prepare(corpus, tmp_path / "out", TOKENIZER, valid_ratio=0.2)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "expected")
