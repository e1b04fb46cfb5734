"""The original README's snippets and the tutorial's call, with nothing changed but where the classes come from."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from transformers import TextStreamer

from conftest import golden_folder
from glmkit.model import GLMForConditionalGeneration as AutoModelForSeq2SeqLM
from glmkit.model import GLMForMultipleChoice as AutoModelForMultipleChoice
from glmkit.model import GLMForSequenceClassification
from glmkit.tokens.tokenizer import GLMTokenizer as AutoTokenizer

ENGLISH = "tiny-gpt2"
"""The snippets name THUDM/glm-10b, whose vocabulary this is."""


@pytest.fixture
def folder():
    return str(golden_folder(ENGLISH).path)


def test_generation(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True)
    model = model.half().to("cpu")
    model.eval()

    inputs = tokenizer("Ng is an adjunct professor at [MASK] (formerly associate professor and Director of its Stanford AI Lab or SAIL ). Also a pioneer in online education, Ng co-founded Coursera and deeplearning.ai.", return_tensors="pt")  # fmt: skip
    inputs = tokenizer.build_inputs_for_generation(inputs, max_gen_length=512)
    inputs = inputs.to("cpu")
    outputs = model.generate(**inputs, max_length=100, eos_token_id=tokenizer.eop_token_id)
    assert outputs.shape[1] <= 100
    decoded = tokenizer.decode(outputs[0].tolist())
    assert decoded.startswith("[CLS]")
    assert "<|startofpiece|>" in decoded


def test_training(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True)
    model = model.float().to("cpu")
    model.eval()

    inputs = tokenizer(
        ["Tsinghua University is located in [MASK].", "One minus one equals zero, is it correct? Answer: [MASK]"],
        return_tensors="pt", padding=True)  # fmt: skip
    inputs = tokenizer.build_inputs_for_generation(inputs, targets=["Beijing", "No"], max_gen_length=8)  # fmt: skip
    inputs = inputs.to("cpu")
    outputs = model(**inputs)
    loss = outputs.loss
    logits = outputs.logits
    assert logits.shape == (*inputs["input_ids"].shape, model.config.vocab_size)
    loss.backward()
    assert model.glm.word_embeddings.weight.grad.norm() > 0


def test_classification(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForMultipleChoice.from_pretrained(folder, trust_remote_code=True)
    model = model.half().to("cpu")
    model.eval()

    inputs = tokenizer(["Tsinghua University is located in [MASK].",
                        "One minus one equals zero, is it correct? Answer: [MASK]"], return_tensors="pt", padding=True)  # fmt: skip
    choices = [["Beijing", "Shanghai"], ["Yes", "No"]]
    inputs = tokenizer.build_inputs_for_multiple_choice(inputs, choices)
    inputs = inputs.to("cpu")
    outputs = model(**inputs)
    logits = outputs.logits
    assert logits.shape == (2, 2)
    assert torch.isfinite(logits).all()


def test_the_tutorials_call(golden):
    tokenizer = AutoTokenizer.from_pretrained(golden.path)
    model = AutoModelForSeq2SeqLM.from_pretrained(golden.path, dtype=torch.float32)
    text = "Tsinghua University is in Beijing"

    input_ids = tokenizer.encode(text, add_special_tokens=True)
    output = model.generate(input_ids, max_length=100)
    decoded = tokenizer.decode(output[0], skip_special_tokens=True)

    assert isinstance(input_ids, list)
    assert output.shape[1] <= 100
    prompt = tokenizer.decode(input_ids, skip_special_tokens=True).strip()
    assert decoded.strip().startswith(prompt)
    assert len(decoded) > len(prompt)


def test_what_a_tokenizer_returns_can_be_generated_from(golden):
    """`generate(**tokenizer(...))`, padded on either side, answers each text as alone."""
    tokenizer = AutoTokenizer.from_pretrained(golden.path)
    model = AutoModelForSeq2SeqLM.from_pretrained(golden.path, dtype=torch.float32)
    mask = tokenizer.mask_token
    texts = [f"I have two {mask} at home.", f"{mask} is far.", "Nothing is missing here"]
    singles = [
        model.generate(tokenizer.encode(text, add_special_tokens=True), max_new_tokens=8)[0, -8:]
        for text in texts
    ]
    for side in ("left", "right"):
        tokenizer.padding_side = side
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        output = model.generate(**batch, max_new_tokens=8)
        for row, single in zip(output, singles, strict=True):
            assert row[-8:].tolist() == single.tolist()


def test_streaming_text():
    golden = golden_folder(ENGLISH)
    tokenizer = AutoTokenizer.from_pretrained(golden.path)
    model = AutoModelForSeq2SeqLM.from_pretrained(golden.path, dtype=torch.float32)
    streamer = TextStreamer(tokenizer, skip_prompt=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        output = model.generate(
            tokenizer.encode("Hello", add_special_tokens=True), max_new_tokens=8, streamer=streamer
        )
    assert printed.getvalue().strip() == tokenizer.decode(output[0, -8:]).strip()


def test_a_classifier_from_one_file(tmp_path):
    """The recorded head merged with its backbone into one file loads without a word."""
    golden = golden_folder("tiny-chinese")
    state = torch.load(golden.path / "pytorch_model.bin", weights_only=True)
    state |= torch.load(golden.path / "seqcls_head.bin", weights_only=True)
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_bytes((golden.path / "config.json").read_bytes())
    model = GLMForSequenceClassification.from_pretrained(tmp_path, num_labels=3)
    logits = model(
        input_ids=torch.from_numpy(golden.npz["seqcls/input_ids"]),
        attention_mask=torch.from_numpy(golden.npz["seqcls/attention_mask"]),
    ).logits
    np.testing.assert_allclose(
        logits.detach(), golden.npz["seqcls/mask2d/logits"], rtol=1e-5, atol=1e-4
    )
