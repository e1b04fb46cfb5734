"""Without torch and transformers: what needs them says so, in both languages, and the rest answers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from glmkit.checkpoint import resolve
from glmkit.native.library import why_not

ROOT = Path(__file__).resolve().parents[2]

BLOCKED = """
import contextlib, importlib, io, json, os, sys
from pathlib import Path

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from glmkit.cli.main import main

def command(*words, language="en"):
    os.environ["GLMKIT_LANG"] = language
    sys.argv = ["glmkit", *words]
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = end.code
    return status, out.getvalue(), err.getvalue()
"""

PYTHON = """
import glmkit
from glmkit.native.quantizing import quantize
glm = glmkit.load()
folders = Path(sys.argv[1])
cases = {
    "GLMModel": lambda: glmkit.GLMModel,
    "GLMTokenizer": lambda: glmkit.GLMTokenizer,
    "backend": lambda: glmkit.load(backend="torch"),
    "option": lambda: glmkit.load(attn_implementation="eager"),
    "float16": lambda: glmkit.load(folders / "plain", dtype="float16"),
    "cuda": lambda: glmkit.load(device="cuda"),
    "pickled": lambda: glmkit.load(folders / "pickled"),
    "adapter": lambda: glmkit.load(folders / "adapter"),
    "quantize": lambda: quantize(folders / "pickled", folders / "quantized", "int8"),
    "head": lambda: glmkit.load(folders / "head"),
    "media": lambda: glmkit.load(folders / "media"),
    "load_adapter": lambda: glm.load_adapter(folders / "adapter"),
    "classify": lambda: glm.classify("好", head=folders / "head"),
    "explain": lambda: glm.explain("今天[MASK]。"),
    "calibrate": lambda: glm.fit_calibration(["好"], ["1"]),
    "tokenizer": lambda: glm.tokenizer,
    "call": lambda: glm.vocabulary("今天"),
    "torch_model": lambda: glm.model.torch_model,
    "parameters": lambda: glm.model.parameters(),
    "generate": lambda: glm.model.generate(),
    "pretrain": lambda: importlib.import_module("glmkit.training.pretrain"),
    "finetune": lambda: importlib.import_module("glmkit.training.finetune"),
}
found = {}
for name, case in cases.items():
    try:
        case()
    except glmkit.MissingDependencyError as error:
        found[name] = [str(error), error.chinese]
    except Exception as error:
        found[name] = [repr(error), ""]
print(json.dumps(found))
"""

COMMANDS = """
found = {}
for verb, *words in json.loads(sys.argv[1]):
    found[verb] = [command(verb, *words, language=language) for language in ("en", "zh")]
print(json.dumps(found))
"""

SAID = {
    "GLMModel": ("glmkit.GLMModel needs", "glmkit.GLMModel 需要"),
    "GLMTokenizer": ("glmkit.GLMTokenizer needs the package 'transformers'", "需要 transformers"),
    "backend": ("backend='torch' needs the package 'torch'", "backend='torch' 需要 torch"),
    "option": ("attn_implementation: options of the torch model", "attn_implementation"),
    "float16": ("not in float16", "float16"),
    "cuda": ("device='cuda' needs", "device='cuda' 需要"),
    "pickled": ("pickled files", "pickle 文件"),
    "quantize": ("pickled files", "pickle 文件"),
    "adapter": ("The adapter ", "适配器"),
    "head": ("A head that classifies or tags needs", "分类头与标注头需要"),
    "media": ("A model that reads images, sounds or clips needs", "能读图像、声音或视频的模型需要"),
    "load_adapter": ("An adapter needs", "适配器需要"),
    "classify": ("A head that classifies or tags needs", "分类头与标注头需要"),
    "explain": ("An explanation needs", "解释需要"),
    "calibrate": ("Calibration needs", "校准需要"),
    "tokenizer": ("glm.vocabulary does without", "glm.vocabulary 则不需要"),
    "call": ("A tokenizer as transformers has it", "transformers 的分词器"),
    "torch_model": ("What the native decoder does not do itself", "原生解码器不做的事"),
    "parameters": ("What the native decoder does not do itself", "原生解码器不做的事"),
    "generate": ("What the native decoder does not do itself", "原生解码器不做的事"),
    "pretrain": ("Pretraining needs", "预训练需要"),
    "finetune": ("Fine-tuning needs", "微调需要"),
}  # fmt: skip


def blocked(code: str, *arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of models as far as they are read before torch is needed."""
    home = tmp_path_factory.mktemp("models")
    mini = resolve("glm-mini")
    config = json.loads((mini / "config.json").read_text("utf-8"))
    for name in ("plain", "pickled", "adapter", "head", "media"):
        folder = home / name
        folder.mkdir()
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(mini / file, folder)
        told = dict(config)
        if name == "head":
            told["architectures"] = ["GLMForSequenceClassification"]
            (folder / "tasks").mkdir()
            shutil.copy(
                ROOT / "src/glmkit/tasks/catalog/sentiment.yaml", folder / "tasks/sentiment.yaml"
            )
        (folder / "config.json").write_text(json.dumps(told))
        (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (home / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "glm-mini"}')
    (home / "media" / "pytorch_model.bin").unlink()
    shutil.copy(mini / "quantized.safetensors", home / "media")
    (home / "media" / "media").mkdir()
    (home / "media" / "media" / "config.json").write_text("{}")
    return home


@pytest.fixture(scope="module")
def python(folders: Path) -> dict[str, list[str]]:
    if why_not() is not None:
        pytest.skip("the native decoder is not here")
    return blocked(PYTHON, str(folders))


@pytest.mark.parametrize("case", SAID)
def test_what_needs_torch_says_so(python: dict[str, list[str]], case: str):
    assert case in python, "no error"
    english, chinese = python[case]
    assert SAID[case][0] in english
    assert re.search(r"needs the package '(torch|transformers)', which is not installed\.", english)
    assert "pip install glmkit" in english
    assert SAID[case][1] in chinese
    assert "pip install glmkit" in chinese


def test_commands_that_need_torch_say_so(tmp_path: Path):
    text = tmp_path / "texts.txt"
    text.write_text("今天天气好。\n", "utf-8")
    commands = [
        ["explain", "今天[MASK]。"],
        ["convert", "glm-mini", str(tmp_path / "out")],
        ["finetune", "glm-mini", "sentiment", "--data", str(text)],
        ["demo"],
    ]
    for verb, answers in blocked(COMMANDS, json.dumps(commands)).items():
        for (status, _, err), words in zip(
            answers, (("error: ", "not installed"), ("错误: ", "未安装")), strict=True
        ):
            assert status == 2, (verb, err)
            assert all(word in err for word in words), (verb, err)
            assert "pip install glmkit" in err
            assert "Traceback" not in err


@pytest.mark.skipif(why_not() is not None, reason="the native decoder is not here")
def test_tasks_are_evaluated(tmp_path: Path):
    records = tmp_path / "reviews.jsonl"
    records.write_text(
        '{"text": "好吃", "label": "1"}\n{"text": "太慢了", "label": "0"}\n', "utf-8"
    )
    command = ["evaluate", "glm-mini", "--tasks", "sentiment", "--data", f"sentiment={records}"]
    (status, out, err), _ = blocked(COMMANDS, json.dumps([[*command, "-o", str(tmp_path / "out")]]))["evaluate"]  # fmt: skip
    assert status == 0, err
    assert "accuracy" in out


def test_models_are_chosen_and_quantized(tmp_path: Path):
    commands = [
        ["choose", "--task", "sentiment", "--examples", "100"],
        ["convert", "glm-mini", str(tmp_path / "int8"), "--quantize", "int8", "--overwrite"],
    ]
    found = blocked(COMMANDS, json.dumps(commands))
    for verb, said in (("choose", "$ glmkit finetune "), ("convert", "int8")):
        (status, out, err), _ = found[verb]
        assert status == 0, err
        assert said in out


def test_info_says_what_is_missing():
    (english, chinese) = blocked(COMMANDS, json.dumps([["info"]]))["info"]
    assert (english[0], chinese[0]) == (0, 0), english[2]
    assert re.search(r"^torch +not installed: no training, heads", english[1], re.MULTILINE)
    assert re.search(r"^transformers +not installed$", english[1], re.MULTILINE)
    assert re.search(r"^torch +未安装：", chinese[1], re.MULTILINE)
    (status, out, err), _ = blocked(COMMANDS, json.dumps([["info", "glm-mini"]]))["info"]
    assert status == 0, err
    assert "parameters" in out


def test_the_best_device_without_torch_is_the_cpu(monkeypatch: pytest.MonkeyPatch):
    """A driver's file on a machine without torch, and any machine that is not Linux."""
    code = """
import glmkit.runtime as runtime
runtime.may_have_accelerator = lambda: True
found = [runtime.choose_device()]
sys.platform = "darwin"
found.append(runtime.num_threads())
print(json.dumps(found))
"""
    assert blocked(code) == ["cpu", os.cpu_count()]


def test_requirements_are_those_of_the_project():
    """`requirements-answers.txt` is what pyproject.toml requires, less torch and transformers, and the extra serve."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    core, serve = (
        re.findall(r'"([^"]+)"', re.search(pattern, project, re.DOTALL | re.MULTILINE)[1])  # type: ignore[index]
        for pattern in (r"^dependencies = \[\n(.*?)^\]$", r"^serve = \[([^\n]*)\]$")
    )
    given = (ROOT / "requirements-answers.txt").read_text("utf-8").splitlines()
    left_out = [one for one in core if re.match(r"(torch|transformers)\b", one)]
    assert len(left_out) >= 2
    wanted = [one for one in core if one not in left_out] + serve
    assert [one for one in given if not one.startswith("#")] == wanted
