"""Imports point one way, and importing the package is quick and light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glmkit.native.library import why_not

SRC = Path(__file__).resolve().parents[2] / "src" / "glmkit"
GROUND = {
    "errors",
    "special_tokens",
    "attention_rule",
    "config",
    "runtime",
    "whole_files",
    "html_page",
    "embedded",
}

# package -> packages that it may import, besides the ground and itself.
ALLOWED = {
    "corpus": set(),
    "blanks": set(),
    "tokens": {"corpus", "blanks"},
    "checkpoint": set(),
    # The model side knows the data side by the layout alone: generate() must not build positions by hand.
    "model": {"checkpoint", "blanks.layout", "blanks.media"},
    "generation": {"tokens", "blanks", "model", "checkpoint"},
    # The native decoder stands where a torch model stands; nothing but loading knows which it is.
    "native": {"blanks.media", "model", "checkpoint", "generation.runner", "generation.graphs"},
    # Files -> rows of embeddings; what a medium is, the data side knows too.
    "multimodal": {"model", "checkpoint"},
    "evaluation": {"tokens", "blanks", "model", "checkpoint", "corpus", "generation", "tasks", "applications"},
    "tasks": {"tokens", "blanks", "corpus", "multimodal.media", "multimodal.messages"},
    "applications": {"tokens", "blanks", "tasks", "model", "multimodal", "checkpoint", "generation"},
    "training": {"tokens", "blanks", "tasks", "model", "multimodal", "checkpoint", "corpus"},
    # A GLM is given to it; how that is loaded the command says.
    "serving": {"tokens", "blanks", "tasks", "multimodal", "generation", "applications"},
    # The page of a server: what it shows of choosing and explaining needs no route.
    "playground": {"multimodal", "serving", "tasks", "generation", "applications", "explain", "choosing"},
    "harness": {"api", "tokens", "blanks", "generation", "evaluation"},
    "pipelines": {"api", "generation", "model"},
    # Of what it chooses between it knows sizes and costs alone.
    "choosing": {"tasks", "checkpoint.architecture", "generation.memory", "training.memory", "training.adapter_memory", "training.flops"},
    "explain": {"multimodal", "tokens", "blanks", "tasks", "model", "generation", "applications", "evaluation.resampling"},
    "api": {"multimodal", "native", "tokens", "blanks", "tasks", "model", "checkpoint", "generation", "evaluation", "applications", "explain"},
    # What joins training and evaluation outside the command: objectives beside each other.
    "comparison": {"tokens", "blanks", "tasks", "model", "checkpoint", "corpus", "training", "evaluation"},
    "cli": {"multimodal", "native", "api", "harness", "applications", "explain", "choosing", "comparison", "corpus", "tokens", "blanks", "model", "checkpoint", "tasks", "training", "generation", "evaluation", "serving", "playground"},
    "__main__": {"cli"},
}  # fmt: skip


def imported_modules(path: Path) -> set[str]:
    """Returns the glmkit modules (dotted, without `glmkit.`) that a file imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "glmkit":
            module = (node.module or "").removeprefix("glmkit").lstrip(".")
            found |= {f"{module}.{alias.name}".lstrip(".") for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("glmkit.")
                for alias in node.names
                if alias.name.startswith("glmkit.")
            }
    return found


def test_every_package_is_in_the_table():
    packages = {path.name for path in SRC.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    modules = {path.stem for path in SRC.glob("*.py")} - {"__init__"}
    assert packages | modules == set(ALLOWED) | (modules & GROUND)


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_point_one_way(package: str):
    root = SRC / package
    files = sorted(root.rglob("*.py")) if root.is_dir() else [SRC / f"{package}.py"]
    wrong = []
    for path in files:
        for module in imported_modules(path):
            top = module.split(".")[0]
            permitted = top in GROUND | {package, "__version__"} | ALLOWED[package] or any(
                module.startswith(f"{name}.") for name in ALLOWED[package]
            )
            if not permitted:
                wrong.append(f"{path.relative_to(SRC)} imports {module}")
    assert not wrong


def test_ground_imports_nothing_above():
    for name in GROUND:
        path = SRC / f"{name}.py"
        tops = {module.split(".")[0] for module in imported_modules(path)}
        assert tops <= GROUND


@pytest.mark.parametrize(
    "module",
    [
        "glmkit",
        "glmkit.cli.main",
        "glmkit.corpus",
        "glmkit.tokens.store",
        "glmkit.tokens.light",
        "glmkit.blanks.layout",
    ],
)
def test_light_modules_do_not_load_torch(module: str):
    code = (
        f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def imported_by(program: str, *names: str) -> list[str]:
    """Returns which modules of these names a program says that it has imported."""
    found = subprocess.run(
        [sys.executable, "-c", program, *names],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


STORED = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import glmkit.native.loading
from glmkit.blanks.layout import Piece, collate, lay_out
from glmkit.checkpoint import resolve
from glmkit.checkpoint.quantized import NativeWeights
from glmkit.native.model import NativeModel
from glmkit.runtime import choose_device, choose_dtype
assert choose_dtype(None, choose_device("cpu")) == "float32"
folder = resolve("glm-mini")
config = SimpleNamespace(**json.loads((folder / "config.json").read_text()))
model = NativeModel(config, NativeWeights.load(folder))
batch = collate([lay_out([5, 6, 7][:n], [Piece(1, [8])], 9) for n in (2, 3)], 0)
del batch["labels"]
assert model(**batch).logits.shape == (2, 4, config.vocab_size)
assert model.lm_head(model.glm(**batch).last_hidden_state).dtype == np.float32
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""


@pytest.mark.skipif(why_not() is not None, reason="the native decoder is not here")
def test_stored_weights_on_the_native_decoder_need_no_torch():
    """What torch and transformers take is ten times what glm-mini takes."""
    unused = ("torch", "transformers", "huggingface_hub", "safetensors", "PIL", "jinja2")
    assert imported_by(STORED, *unused) == []


TEXTS_ALONE = """
import sys
from glmkit.tokens.batch_encoder import BatchEncoder
from glmkit.tokens.blanked import encode_pieces, encode_plain, split_at_blanks
from glmkit.tokens.light import LightTokenizer, load_tokenizer
tokenizer = load_tokenizer("glm-mini")
assert isinstance(tokenizer, LightTokenizer)
ids = encode_pieces(tokenizer, split_at_blanks(tokenizer, "北京是中国的[MASK]。"))
assert tokenizer.mask_token_id in ids and tokenizer.decode(ids) == "北京是中国的[MASK]。"
assert encode_plain(tokenizer, ["a", "[MASK]"])[1] != [tokenizer.mask_token_id]
assert BatchEncoder(tokenizer)(["一个", "blank"])[0][0] == tokenizer.special_ids.cls
assert tokenizer.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(ids)) == ids
assert tokenizer.textless_ids and tokenizer.sentence_ends().any() and len(tokenizer.fingerprint()) == 64
tokenizer.chat_template = "template"
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""


def test_a_light_tokenizer_needs_no_transformers():
    unused = ("torch", "transformers", "huggingface_hub", "jinja2", "PIL", "sentencepiece")
    assert imported_by(TEXTS_ALONE, *unused) == []


ANSWERS = """
import sys, glmkit
from glmkit.generation.grammar import Regex
glm = glmkit.load(backend="native")
glm.fill("北京是中国的[MASK]。")
glm.fill(["今天[MASK]，我们去[MASK]。", "The [MASK] is red."], do_sample=True, top_p=0.9, seed=1, repetition_penalty=1.2)
glm.fill("今天[MASK]。", n=2)
glm.fill("今天[MASK]。", constraints=Regex(glm.vocabulary, "[一-龥]{2}"), negative_prompt="昨天[MASK]。")
glm.generate("The capital of France is", max_new_tokens=2)
list(glm.generate("春天来了，", max_new_tokens=3, stream=True, stop="。"))
glm.chat("你好", max_new_tokens=3)
glm.poem("春日", candidates=1)
glm.article("秋天的校园", max_new_tokens=20)
glm.sentiment("这家店的菜很好吃")
glm.classify("这家店的菜很好吃", labels=["好", "坏"])
glm.answer("北京在哪里？", "北京在中国的北方。")
glm.summarize("北京是中国的首都，在北方。", max_new_tokens=4)
glm.score("春天来了"), glm.perplexity("春天来了"), glm.embed("春天")
assert "torch_model" not in vars(glm.model), "a torch model of the weights was built"
print(*(name for name in sys.argv[1:] if name in sys.modules))
assert type(glm.tokenizer).__name__ == "GLMTokenizer"
assert glm.fill("北京是中国的[MASK]。").blanks
"""


@pytest.mark.skipif(why_not() is not None, reason="the native decoder is not here")
def test_answers_of_the_native_decoder_need_neither_torch_nor_transformers():
    """Their import takes four fifths of the time and half of the memory of a first answer."""
    unused = ("torch", "transformers", "huggingface_hub", "accelerate", "scipy", "PIL", "httpx")
    assert imported_by(ANSWERS, *unused) == []


SERVED = """
import sys, glmkit
from fastapi.testclient import TestClient
from glmkit.serving.app import make_app
from glmkit.serving.settings import ServingSettings
with TestClient(make_app(glmkit.load(backend="native"), ServingSettings(name="mini")), base_url="http://127.0.0.1") as client:
    for path, asked in (
        ("completions", {"prompt": "今天[MASK]。", "max_tokens": 3, "logprobs": 2}),
        ("chat/completions", {"messages": [{"role": "user", "content": "你好"}], "max_tokens": 3, "temperature": 0.8}),
        ("embeddings", {"input": ["你好"]}),
        ("fill", {"texts": ["今天[MASK]。"], "regex": "[一-龥]{2}"}),
        ("classify", {"texts": ["好吃"], "task": "sentiment"}),
        ("score", {"texts": ["你好"]}),
    ):
        answer = client.post(f"/v1/{path}", json={"model": "mini", **asked})
        assert answer.status_code == 200, (path, answer.text)
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""


@pytest.mark.skipif(why_not() is not None, reason="the native decoder is not here")
def test_a_server_of_texts_needs_neither_torch_nor_transformers():
    pytest.importorskip("fastapi")
    assert imported_by(SERVED, "torch", "transformers", "PIL") == []


PLANNED = """
import sys, glmkit
from glmkit.cli.main import build_app
from typer.testing import CliRunner
for command in (
    "choose --task sentiment --examples 500 --latency 1s",
    "choose --task summarize --examples 5000 --gpu 2xL4 --language zh --json",
    "info --memory 10b",
):
    answer = CliRunner().invoke(build_app(), command.split())
    assert answer.exit_code == 0, answer.output
assert glmkit.choose("poem", gpu="cpu").best.candidate.name == "glm-mini"
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""


QUANTIZED = """
import sys
from pathlib import Path
import numpy as np
from glmkit.checkpoint.architecture import Architecture
from glmkit.checkpoint.mapped import write_arrays
from glmkit.checkpoint.quantized import shapes_of
from glmkit.native.loading import load_model
from glmkit.native.quantizing import quantize
plain, packed = (Path(sys.argv[1], name) for name in ("plain", "packed"))
plain.mkdir()
config = Architecture(vocab_size=100, hidden_size=64, num_layers=1, num_attention_heads=4)
config.save(plain)
rng = np.random.default_rng(0)
weights = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes_of(config).items()}
write_arrays(plain / "model.safetensors", weights, {"format": "pt"})
for source, target in ((plain, packed), (packed, packed.with_name("again"))):
    assert 0 < quantize(source, target, "int4").relative_change < 1
for folder in (plain, packed):
    model = load_model(folder, device="cpu", dtype="float32", quantization="int8")
    assert model.weights.quantization == "int8"
print(*(name for name in sys.argv[2:] if name in sys.modules))
"""


@pytest.mark.skipif(why_not() is not None, reason="the native decoder is not here")
def test_quantizing_needs_neither_torch_nor_transformers(tmp_path: Path):
    assert imported_by(QUANTIZED, str(tmp_path), "torch", "transformers", "huggingface_hub") == []


def test_choosing_a_model_needs_neither_torch_nor_transformers():
    assert imported_by(PLANNED, "torch", "transformers", "huggingface_hub") == []


def test_every_public_name_exists():
    import glmkit

    for name in glmkit.__all__:
        assert getattr(glmkit, name) is not None
    assert set(glmkit.__all__) <= set(dir(glmkit))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        glmkit.nothing  # noqa: B018
