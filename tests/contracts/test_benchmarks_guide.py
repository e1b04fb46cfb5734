"""The guide to benchmarks lists the catalog's as they are, and its Python makes what the tasks read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from markdown_blocks import blocks

from benchmark_samples import IDIOMS, QUESTIONS
from glmkit.tasks.records import read_questions
from glmkit.tasks.rendering import question
from glmkit.tasks.task import catalog, load_task

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "guides"
RECIPES = FOLDER.parents[1] / "recipes" / "paper"


@pytest.fixture(params=["benchmarks.md", "benchmarks.zh.md"])
def text(request: pytest.FixtureRequest) -> str:
    return (FOLDER / request.param).read_text(encoding="utf-8")


def test_the_table_is_the_catalog(text: str):
    rows = re.findall(r"^\| `(\w+/\w+)` \| [^|]+ \| (\w+) \| (\w+) \|", text, re.MULTILINE)
    tasks = [load_task(name) for name in catalog() if "/" in name]
    assert sorted(rows) == sorted((one.name, one.kind, one.metric) for one in tasks)
    assert {f"{name}.yaml" for name in re.findall(r"paper/([\w-]+)\.yaml\)", text)} == {
        path.name for path in RECIPES.glob("*.yaml")
    }


def test_files_of_other_shapes_become_lines(text: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tags = {"#idiom000001#": 1}
    asked = {"content": ["他#idiom000001#。"], "candidates": IDIOMS}
    Path("dev.json").write_text(json.dumps(asked) + "\n", encoding="utf-8")
    Path("dev_answer.json").write_text(json.dumps(tags), encoding="utf-8")
    one = {"question": "树在哪里？", "choice": ["山上", "河边"], "answer": "河边"}
    Path("d-dev.json").write_text(
        json.dumps([[["小河边有一棵树。"], [one], "1"]]), encoding="utf-8"
    )
    names: dict = {}
    for block in blocks(text, "python"):
        exec(block, names)
    names["write"]("chid.jsonl", names["joined_chid"]())
    names["write"]("c3.jsonl", names["flat_c3"]())
    found = {}
    for name in ("chid", "c3"):
        task = load_task(f"clue/{name}")
        [(record, where)] = read_questions(task, f"{name}.jsonl")
        made = question(task, record, where)
        found[name] = (made.before + made.mask + made.after, made.answer)
    assert found["chid"] == ("他[MASK]。", IDIOMS[1])
    assert found["c3"] == QUESTIONS["clue/c3"][1]
