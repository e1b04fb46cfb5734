"""The model in transformers' pipelines, in torch.export and in ONNX: the same text, the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import pipeline

import glmkit
from glmkit.blanks.layout import Example, Piece, collate, dense_mask, lay_out
from glmkit.model import GLMConfig, GLMForConditionalGeneration

SOP, EOP, PAD, MASK, VOCAB = 62, 63, 60, 61, 64
NAMES = ("input_ids", "position_ids", "attention_mask")


@pytest.fixture(scope="module")
def glm() -> glmkit.GLM:
    return glmkit.load(backend="torch", device="cpu")


# transformers' pipelines


def test_text_generation_writes_what_the_model_writes(glm: glmkit.GLM):
    pipe = pipeline("text-generation", model=glm.model, tokenizer=glm.tokenizer)
    texts = ["长城", "床前[MASK]光，疑是地上霜。"]
    shown = [one[0]["generated_text"] for one in pipe(texts, max_new_tokens=6, do_sample=False, return_full_text=False)]  # fmt: skip
    for text, written in zip(texts, shown, strict=True):
        ids = glm.model.generate(glm.tokenizer.encode(text), max_new_tokens=6, do_sample=False)
        start = ids[0].tolist().index(glm.tokenizer.special_ids.sop)
        assert written == glm.tokenizer.decode(ids[0, start:], skip_special_tokens=True)


def test_fill_blanks_is_a_pipeline(glm: glmkit.GLM, tmp_path: Path):
    import glmkit.pipelines

    glm.model.save_pretrained(tmp_path)
    glm.tokenizer.save_pretrained(tmp_path)
    pipe = pipeline("fill-blanks", model=str(tmp_path))
    assert isinstance(pipe, glmkit.pipelines.FillBlanksPipeline)
    texts = ["床前[MASK]光，疑是[MASK]上霜。", "The city lies on the [MASK]."]
    wanted = glm.fill(texts, max_new_tokens=5)
    found = pipe(texts, max_new_tokens=5)
    assert [one["text"] for one in found] == [one.text for one in wanted]
    assert [one["blanks"] for one in found] == [one.blanks for one in wanted]
    several = pipe(texts[0], n=2, max_new_tokens=3)["candidates"]
    assert several[0]["probability"] >= several[1]["probability"] > 0
    with pytest.raises(glmkit.UserError, match="max_new_tokens"):
        pipe(texts[0], max_new_token=5)


# torch.export and ONNX: the encoder reads part A, the decoder part A and what is written


class Encoder(torch.nn.Module):
    """Part A -> hidden states [B, S, H], all tokens seeing each other."""

    def __init__(self, model: GLMForConditionalGeneration):
        super().__init__()
        self.model = model

    def forward(self, input_ids, position_ids, attention_mask):
        return self.model.glm(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=attention_mask,
            use_cache=False,
        ).last_hidden_state


class Decoder(Encoder):
    """Part A and part B -> logits [B, S, V]."""

    def forward(self, input_ids, position_ids, attention_mask):
        return self.model.lm_head(super().forward(input_ids, position_ids, attention_mask))


def tiny() -> GLMForConditionalGeneration:
    torch.manual_seed(0)
    config = GLMConfig(vocab_size=VOCAB, hidden_size=32, num_layers=2, num_attention_heads=4, max_sequence_length=32, initializer_range=0.1)  # fmt: skip
    return GLMForConditionalGeneration(config).eval()


def tensors(count: int, written: bool) -> tuple[torch.Tensor, ...]:
    """A batch of `count` texts of several lengths, with what was written in the blank or without."""
    rng = np.random.default_rng(count)
    examples: list[Example] = []
    for _ in range(count):
        words = rng.integers(0, 50, rng.integers(4, 9)).tolist()
        blank = [Piece(1, rng.integers(0, 50, rng.integers(1, 4)), EOP)] * written
        examples.append(lay_out([words[0], MASK, *words[1:]], blank, SOP))
    batch = collate(examples, PAD)
    seen = torch.from_numpy(dense_mask(batch)[:, None].astype(np.int64))
    return torch.from_numpy(batch["input_ids"]), torch.from_numpy(batch["position_ids"]), seen


def shapes() -> tuple[dict[int, torch.export.Dim], ...]:
    rows = torch.export.Dim("rows", min=1, max=64)
    length = torch.export.Dim("length", min=2, max=64)
    return {0: rows, 1: length}, {0: rows, 2: length}, {0: rows, 2: length, 3: length}


@pytest.mark.parametrize("part", [Encoder, Decoder])
def test_torch_export_with_batches_of_any_size(part: type[Encoder]):
    module = part(tiny())
    written = part is Decoder
    exported = torch.export.export(module, tensors(8, written), dynamic_shapes=shapes())
    for count in (1, 3, 11):
        given = tensors(count, written)
        with torch.no_grad():
            torch.testing.assert_close(exported.module()(*given), module(*given))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", [Encoder, Decoder])
def test_onnx(part: type[Encoder], tmp_path: Path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    module = part(tiny())
    written = part is Decoder
    program = torch.onnx.export(
        module,
        tensors(8, written),
        dynamo=True,
        dynamic_shapes=shapes(),
        input_names=list(NAMES),
        output_names=["output"],
    )
    program.save(str(tmp_path / "part.onnx"))
    session = runtime.InferenceSession(tmp_path / "part.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 3, 11):
        given = tensors(count, written)
        feeds = {name: value.numpy() for name, value in zip(NAMES, given, strict=True)}
        (found,) = session.run(None, feeds)
        with torch.no_grad():
            np.testing.assert_allclose(found, module(*given).numpy(), atol=1e-5, rtol=1e-4)
