"""The model as others' programs use it: Auto classes, device maps, torch.compile, PEFT, Trainer."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from glmkit.blanks.layout import Piece, collate, lay_out
from glmkit.model import (
    GLMConfig,
    GLMForConditionalGeneration,
    GLMForMultipleChoice,
    GLMForSequenceClassification,
    GLMModel,
)

CLS, EOS, PAD, MASK, SOP, EOP, VOCAB = 58, 59, 60, 61, 62, 63, 64


def make_model(model_class=GLMForConditionalGeneration, **changes):
    torch.manual_seed(0)
    fields = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_layers": 2,
        "num_attention_heads": 4,
        "max_sequence_length": 32,
        "initializer_range": 0.1,
        "embedding_dropout_prob": 0.0,
        "attention_dropout_prob": 0.0,
        "output_dropout_prob": 0.0,
        "cls_token_id": CLS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "mask_token_id": MASK,
        "sop_token_id": SOP,
        "eop_token_id": EOP,
    }
    return model_class(GLMConfig(**{**fields, **changes})).eval()


def make_examples(count=8):
    rng = np.random.default_rng(0)
    examples = []
    for _ in range(count):
        words = rng.integers(0, 50, rng.integers(4, 9)).tolist()
        blank = Piece(2, rng.integers(0, 50, rng.integers(1, 4)), EOP)
        examples.append(lay_out([CLS, words[0], MASK, *words[1:], EOS], [blank], SOP))
    return examples


def make_batch(examples):
    return {name: torch.from_numpy(array) for name, array in collate(examples, PAD).items()}


@pytest.fixture
def batch():
    return make_batch(make_examples())


def same_logits(left, right, batch, tolerance=1e-5):
    torch.testing.assert_close(
        left(**batch).logits, right(**batch).logits, atol=tolerance, rtol=tolerance
    )


# Folders and the Auto classes


@pytest.mark.parametrize("max_shard_size", ["5GB", "20KB"])
def test_saving_and_loading(tmp_path, batch, max_shard_size):
    model = make_model()
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    names = {path.name for path in tmp_path.glob("*.safetensors*")}
    assert (names == {"model.safetensors"}) == (max_shard_size == "5GB")
    if max_shard_size != "5GB":
        assert "model.safetensors.index.json" in names
        assert len(names) > 2
    same_logits(GLMForConditionalGeneration.from_pretrained(tmp_path), model, batch, 0)


def test_the_tied_head_is_stored_once(tmp_path):
    make_model().save_pretrained(tmp_path, max_shard_size="20KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert sum("word_embeddings" in name for name in index["weight_map"]) == 1
    assert not any("lm_head" in name for name in index["weight_map"])


@pytest.mark.parametrize(
    ("auto", "model_class"),
    [
        (AutoModel, GLMModel),
        (AutoModelForCausalLM, GLMForConditionalGeneration),
        (AutoModelForSeq2SeqLM, GLMForConditionalGeneration),
        (AutoModelForMultipleChoice, GLMForMultipleChoice),
        (AutoModelForSequenceClassification, GLMForSequenceClassification),
    ],
)
def test_auto_classes(tmp_path, auto, model_class):
    make_model(model_class).save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), GLMConfig)
    loaded = auto.from_pretrained(tmp_path)
    assert type(loaded) is model_class
    assert loaded.dtype == torch.float32
    assert type(auto.from_config(loaded.config)) is model_class
    assert auto.from_pretrained(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("device_map", ["auto", "cpu", {"": "cpu"}])
def test_device_maps(tmp_path, batch, device_map):
    model = make_model()
    model.save_pretrained(tmp_path)
    loaded = GLMForConditionalGeneration.from_pretrained(tmp_path, device_map=device_map)
    assert {weight.device.type for weight in loaded.parameters()} == {"cpu"}
    same_logits(loaded, model, batch)


def test_layers_on_two_devices(tmp_path, batch):
    """Parts on the disk: accelerate's hooks move hidden states and masks."""
    model = make_model()
    model.save_pretrained(tmp_path)
    parts = {"glm.word_embeddings": "cpu", "glm.transformer.position_embeddings": "cpu"}
    parts |= {"glm.transformer.block_position_embeddings": "cpu"}
    parts |= {"glm.transformer.layers.0": "cpu", "glm.transformer.layers.1": "disk"}
    parts |= {"glm.transformer.embedding_dropout": "cpu", "glm.transformer.final_layernorm": "cpu"}
    loaded = GLMForConditionalGeneration.from_pretrained(
        tmp_path, device_map=parts, offload_folder=str(tmp_path / "offload")
    )
    assert loaded.glm.transformer.layers[1].mlp.dense_h_to_4h.weight.device.type == "meta"
    same_logits(loaded, model, batch)


def test_copies(batch):
    model = make_model()
    same_logits(copy.deepcopy(model), model, batch, 0)
    same_logits(pickle.loads(pickle.dumps(model)), model, batch, 0)


def test_more_tokens(batch):
    model = make_model()
    before = model(**batch).logits
    model.resize_token_embeddings(VOCAB + 6)
    assert model.config.vocab_size == VOCAB + 6
    after = model(**batch).logits
    assert after.shape[-1] == VOCAB + 6
    torch.testing.assert_close(after[..., :VOCAB], before)


# Training


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_no_gradient(batch, reentrant):
    plain, saving = make_model().train(), make_model().train()
    saving.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert saving.is_gradient_checkpointing
    for model in (plain, saving):
        model(**batch).loss.backward()
    for (name, left), right in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad, msg=name)


def test_micro_batches_have_the_gradients_of_the_whole():
    """Examples with different numbers of predicted tokens: the mean is over the global batch."""
    examples = make_examples()
    whole, parts = make_model().train(), make_model().train()
    full = make_batch(examples)
    loss = whole(**full).loss
    loss.backward()
    items = (full["labels"] != -100).sum()
    losses = []
    for start in range(0, len(examples), 2):
        part = parts(**make_batch(examples[start : start + 2]), num_items_in_batch=items).loss
        part.backward()
        losses.append(part.item())
    assert sum(losses) == pytest.approx(loss.item(), rel=1e-5)
    for left, right in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad)


def train(model, tmp_path, **arguments):
    settings = {
        "output_dir": str(tmp_path),
        "max_steps": 60,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "remove_unused_columns": False,
    }
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**{**settings, **arguments}),
        train_dataset=make_examples(),
        data_collator=make_batch,
    )
    trainer.train()
    return trainer


def test_trainer_overfits_eight_examples(tmp_path, batch):
    model = make_model()
    assert model(**batch).loss > 2
    trainer = train(model, tmp_path)
    assert model.eval()(**batch).loss < 0.05
    predicted = batch["labels"] != -100
    assert torch.equal(model(**batch).logits.argmax(-1)[predicted], batch["labels"][predicted])
    one = make_examples()[0]
    answer = model.generate(one.input_ids[: one.prefix_length].tolist(), max_new_tokens=6)
    expected = one.labels[one.prefix_length :].tolist()
    assert answer[0, one.prefix_length + 1 :].tolist() == expected
    trainer.save_model(str(tmp_path / "saved"))
    same_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "saved"), model, batch, 0)


def test_trainers_gradient_accumulation_is_one_big_batch(tmp_path):
    models = [make_model(), make_model()]
    for model, (size, accumulated) in zip(models, [(8, 1), (2, 4)], strict=True):
        train(
            model,
            tmp_path,
            max_steps=3,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
            optim="sgd",
            max_grad_norm=0,
            seed=1,
        )
    for left, right in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-5)


# Programs around the model


@pytest.mark.slow
def test_compiled(batch):
    """A minute of compilation; the eager backend below checks the graph in every run."""
    model = make_model()
    with torch.no_grad():
        same_logits(torch.compile(model, fullgraph=True), model, batch)


@pytest.mark.parametrize("form", ["prefix", "dense", "cache"])
def test_one_graph_without_breaks(batch, form):
    model = make_model()
    inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
    if form == "prefix":
        inputs = batch
    elif form == "dense":
        inputs["attention_mask"] = torch.ones(8, 1, *[batch["input_ids"].shape[1]] * 2)
    else:
        inputs["use_cache"] = True
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        same_logits(compiled, model, inputs)


def test_lora(tmp_path, batch):
    """PEFT: train, save, load, merge; `TARGET_MODULES` names the layers it should touch."""
    peft = pytest.importorskip("peft")
    from glmkit.model import LORA_TARGET_MODULES

    base = make_model()
    base.save_pretrained(tmp_path / "base")
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_dropout=0.0, target_modules=LORA_TARGET_MODULES
    )
    model = peft.get_peft_model(base, settings).train()
    layers = {name.split(".lora_A")[0].split(".")[-1] for name, _ in model.named_parameters() if "lora_A" in name}  # fmt: skip
    assert layers == set(LORA_TARGET_MODULES)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    model.eval().save_pretrained(tmp_path / "adapter")

    fresh = GLMForConditionalGeneration.from_pretrained(tmp_path / "base")
    loaded = peft.PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()
    same_logits(loaded, model, batch, 1e-6)
    prompt = make_examples()[0].input_ids[: make_examples()[0].prefix_length].tolist()
    generated = loaded.generate(inputs=prompt, max_new_tokens=5)
    expected = model(**batch).logits
    merged = loaded.merge_and_unload()
    assert type(merged) is GLMForConditionalGeneration
    torch.testing.assert_close(merged(**batch).logits, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(merged.generate(prompt, max_new_tokens=5), generated)
    merged.save_pretrained(tmp_path / "merged")
    same_logits(GLMForConditionalGeneration.from_pretrained(tmp_path / "merged"), merged, batch, 0)
