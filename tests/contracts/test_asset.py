"""The embedded models are whole: what the checksums say, no larger than a package may be, loaded by the ordinary loader."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

import glmkit
from glmkit.embedded import ASSETS, DEFAULT_MODEL, EMBEDDED, VISION_MODEL

MAX_BYTES = 40_000_000
MAX_ADDED_MIB = 90
FOLDER = ASSETS / DEFAULT_MODEL
(WEIGHTS,) = FOLDER.glob("*.safetensors")


@pytest.mark.parametrize("name", EMBEDDED)
def test_files_are_those_of_the_checksums(name: str):
    folder = ASSETS / name
    lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    expected = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    for file, digest in expected.items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest, file
    files = {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()}
    unlisted = {"SHA256SUMS", "MODEL_CARD.md", "MODEL_CARD.zh.md"}
    assert files - set(expected) == unlisted | ({"training.json"} & files)
    needed = {
        DEFAULT_MODEL: {"config.json", WEIGHTS.name, "tokenizer.json"},
        VISION_MODEL: {"adapter_model.safetensors", "media/model.safetensors", "example.png"},
    }
    assert needed[name] <= set(expected)


def test_the_package_stays_small():
    assert sum(path.stat().st_size for path in ASSETS.rglob("*")) <= MAX_BYTES


@pytest.mark.parametrize("model", EMBEDDED)
@pytest.mark.parametrize("name", ["MODEL_CARD.md", "MODEL_CARD.zh.md"])
def test_cards_have_numbers(model: str, name: str):
    card = (ASSETS / model / name).read_text(encoding="utf-8")
    assert "%" in card
    assert "not recorded" not in card
    assert "Not measured yet" not in card
    assert "尚未评测" not in card


@pytest.mark.parametrize("name", ["gallery.md", "gallery.zh.md"])
def test_the_gallery_is_of_these_weights(name: str):
    """`recipes/glm-mini/gallery.py` is run again for every shipped model."""
    docs = Path(__file__).resolve().parents[2] / "docs"
    digest = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert digest[:12] in (docs / name).read_text(encoding="utf-8")
    quickstart = docs / name.replace("gallery", "quickstart")
    assert f"({name})" in quickstart.read_text(encoding="utf-8")


def test_it_loads_offline_and_has_learnt():
    glm = glmkit.load(device="cpu")
    texts = [
        "举头望明[MASK]，低头思故乡。",
        "野火烧不[MASK]，春风吹又生。",
        "房间很干净，服务员很[MASK]。",
    ]
    [moon], [fire], [staff] = [glm.fill(text, n=3).blanks for text in texts]
    assert (moon, fire) == ("月", "尽")
    assert staff in {"好", "亲切", "热情", "友好", "周到"}
    judged = glm.sentiment(["很快，好吃", "房间很脏，服务态度差"])
    assert [one.label for one in judged] == ["positive", "negative"]
    known, shuffled = "春眠不觉晓，处处闻啼鸟。", "鸟觉处啼春，闻不晓眠处。"
    assert glm.bits_per_character(known) < glm.bits_per_character(shuffled)


def test_the_adapter_sees_what_its_example_shows():
    pytest.importorskip("PIL")
    pytest.importorskip("peft")
    glm = glmkit.load(VISION_MODEL, device="cpu")
    assert glm.media.kinds == ("image",)

    def ask(question: str) -> str:
        picture = {"type": "image", "image": str(ASSETS / VISION_MODEL / "example.png")}
        parts = [picture, {"type": "text", "text": question}]
        return str(glm.chat([{"role": "user", "content": parts}]))

    assert ask("红色的是什么形状？") == "方形"
    assert ask("Which shape is purple?") == "cross"
    assert ask("环形是大还是小？") == "小"
    assert ask("How many shapes are there?") == "three"


@pytest.mark.slow
def test_what_the_model_adds_to_memory_stays_small():
    """In a process of its own, beside torch and transformers, whose imports alone take some 260 MiB."""
    if not Path("/proc/self/status").exists():
        pytest.skip("resident memory is read from /proc")
    code = (
        "import re, glmkit.api as api\n"
        "def resident(): return int(re.search(r'VmRSS:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "before = resident(); glm = api.load(device='cpu'); glm.fill('床前[MASK]光', max_new_tokens=4)\n"
        "print((resident() - before) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) <= MAX_ADDED_MIB
