"""Files that appear whole: also where a text has what UTF-8 cannot hold. Locks that end with their process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from glmkit.whole_files import locked, write_text


def test_half_of_a_surrogate_pair_comes_back_from_json(tmp_path):
    """Such a text, cut within a face, ended an evaluation in a UnicodeEncodeError when all was asked."""
    values = {"text": "好\ud83d", "face": "😀"}
    write_text(tmp_path / "values.json", json.dumps(values, ensure_ascii=False))
    assert json.loads((tmp_path / "values.json").read_text(encoding="utf-8")) == values
    assert [path.name for path in tmp_path.iterdir()] == ["values.json"]


def test_a_lock_is_of_one_process_until_it_ends(tmp_path):
    pytest.importorskip("fcntl")
    path = tmp_path / "lock"
    holder = (
        "import pathlib, sys; from glmkit.whole_files import locked\n"
        "with locked(pathlib.Path(sys.argv[1])) as mine: print(mine, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holder, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"True"
        with locked(path, wait=False) as mine:
            assert not mine
        other.kill()
        other.wait()
        with locked(path, wait=False) as mine:
            assert mine
    with locked(path) as mine:
        assert mine
