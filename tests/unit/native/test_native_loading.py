"""What `glmkit.load` returns: the native decoder where it is, torch where it is not, the same answers from both."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from native_samples import random_model
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import glmkit
from conftest import golden_folder
from glmkit.blanks.layout import Piece, collate, lay_out
from glmkit.checkpoint import write_files
from glmkit.checkpoint.configs import normalize_config
from glmkit.checkpoint.naming import plain_names
from glmkit.checkpoint.quantized import FILE, NativeWeights
from glmkit.checkpoint.reading import map_weights
from glmkit.cli.main import build_app
from glmkit.errors import CheckpointError, ConfigError, GenerationError
from glmkit.model import GLMForConditionalGeneration
from glmkit.model.convert import convert
from glmkit.native import library, loading
from glmkit.native.library import NativeError
from glmkit.native.loading import load_model
from glmkit.native.model import NativeModel
from glmkit.native.quantizing import quantize
from glmkit.native.runner import NativeRunner

TEXTS = [
    "北京是[MASK]的首都，[MASK]。",
    "今天天气很好，我们[gMASK]",
    "The capital of France is [MASK].",
]


@pytest.fixture(scope="module")
def folder():
    return golden_folder("tiny-chinese").path


@pytest.fixture(scope="module", params=["float32", "int8", "int4"])
def pair(request, folder, tmp_path_factory):
    """A GLM on the native decoder, and the same weights on torch."""
    if (reason := library.why_not()) is not None:
        pytest.skip(reason)
    if request.param == "float32":
        return glmkit.load(folder), glmkit.load(folder, backend="torch")
    target = tmp_path_factory.mktemp("quantized") / request.param
    quantize(folder, target, request.param)
    return glmkit.load(target), glmkit.load(target, backend="torch")


@pytest.mark.parametrize("layout", ["whole", "shards", "hub"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_safetensors_are_read_without_torch_and_give_the_same_bits(layout, stored, tmp_path):
    model = random_model(vocab_size=77, hidden_size=40, num_attention_heads=5).to(stored)
    size = "20KB" if layout == "shards" else "1GB"
    model.save_pretrained(tmp_path, max_shard_size=size)
    assert (len([*tmp_path.glob("*.safetensors")]) > 1) == (layout == "shards")
    if layout == "hub":  # the published names and fields
        state = load_file(tmp_path / "model.safetensors")
        (tmp_path / "model.safetensors").unlink()
        config = normalize_config(json.loads((tmp_path / "config.json").read_text()))
        write_files(tmp_path, "hub", config, plain_names(state))
        save_file({f"glm.{name}": one for name, one in plain_names(state).items()}, tmp_path / "model.safetensors")  # fmt: skip
        (tmp_path / "pytorch_model.bin").unlink()
    config, arrays = map_weights(tmp_path)
    assert (config.vocab_size, config.hidden_size, config.num_attention_heads) == (77, 40, 5)
    for dtype, quantization in (("float32", None), ("bfloat16", None), ("float32", "int8"), ("float32", "int4")):  # fmt: skip
        found = load_model(tmp_path, device="cpu", dtype=dtype, quantization=quantization)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loading, "map_weights", lambda path: None)
            by_torch = load_model(tmp_path, device="cpu", dtype=dtype, quantization=quantization)
        expected = by_torch.weights._arrays()
        assert found.weights._arrays().keys() == expected.keys()
        for name, array in found.weights._arrays().items():
            assert np.array_equal(array, expected[name]), (dtype, quantization, name)


def test_packed_weights_do_not_lie_in_the_file(tmp_path):
    """Position tables did: a model whose file was written anew beneath it computed with what was there then, or crashed."""
    random_model().save_pretrained(tmp_path)
    config, mapped = map_weights(tmp_path)
    for array in NativeWeights.of(config, mapped, "float32")._arrays().values():
        assert not any(np.may_share_memory(array, one) for one in mapped.values())


def test_what_is_not_plain_is_left_to_torch(tmp_path):
    """Heads, adapters, pickles, weights that do not fit, damage: what is wrong with them the other way says."""
    model = random_model()
    model.save_pretrained(tmp_path)
    assert map_weights(tmp_path) is not None
    weights, state = tmp_path / "model.safetensors", load_file(tmp_path / "model.safetensors")
    whole = weights.read_bytes()

    def left() -> bool:
        found = map_weights(tmp_path) is None
        weights.write_bytes(whole)
        return found

    save_file({**state, "dense.weight": torch.zeros(2, 64)}, weights)
    assert left()
    save_file({name: one for name, one in state.items() if "final" not in name}, weights)
    assert left()
    name = "glm.transformer.final_layernorm.bias"
    save_file({**state, name: torch.zeros(65)}, weights)
    assert left()
    save_file({**state, name: torch.zeros(64).double()}, weights)
    assert left()
    save_file({**state, name: torch.zeros(64, dtype=torch.int8)}, weights)
    assert left()
    save_file({**state, "lm_head.weight": state["glm.word_embeddings.weight"].clone()}, weights)
    assert not left()  # the tied head
    weights.write_bytes(whole[:-7])
    assert left()
    (tmp_path / "adapter_config.json").write_text("{}")
    assert left()
    (tmp_path / "adapter_config.json").unlink()
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert left()
    (tmp_path / "model.safetensors.index.json").unlink()
    assert not left()
    weights.unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert map_weights(tmp_path) is None


def test_each_runs_where_it_says(pair):
    native, on_torch = pair
    assert isinstance(native.model, NativeModel)
    assert isinstance(on_torch.model, GLMForConditionalGeneration)
    assert "torch_model" not in vars(native.model)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_sample": True, "seed": 3, "top_k": 5},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.0, "min_new_tokens": 4},
        {"n": 3},
    ],
)
def test_fills_as_torch_does(pair, settings):
    native, on_torch = pair
    found, expected = (glm.fill(TEXTS, max_new_tokens=9, **settings) for glm in pair)
    exact = native.model.weights.quantization == "float32"
    for one, other in zip(found, expected, strict=True):
        if exact:
            assert one.blanks == other.blanks
            assert one.scores == pytest.approx(other.scores, abs=1e-4)
            for ways, others in zip(one.alternatives, other.alternatives, strict=True):
                assert [text for text, _ in ways] == [text for text, _ in others]
        else:  # the weights are the same, activations are rounded: a near tie may fall otherwise
            assert len(one.blanks) == len(other.blanks)
    assert "torch_model" not in vars(native.model)


def test_scores_and_reads_as_torch_does(pair):
    tolerance = 1e-5 if pair[0].model.weights.quantization == "float32" else 0.03
    native, on_torch = ([one.log_probability for one in glm.score(TEXTS)] for glm in pair)
    assert native == pytest.approx(on_torch, rel=tolerance)
    assert pair[0].perplexity(TEXTS) == pytest.approx(pair[1].perplexity(TEXTS), rel=5 * tolerance)
    texts = ["很好", "不好，很差"]
    native, on_torch = (glm.classify(texts, labels=["好", "差"]) for glm in pair)
    for one, other in zip(native, on_torch, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=0.05)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_with_padding_is_read_natively(pair, side, monkeypatch):
    native, on_torch = pair
    monkeypatch.setattr(
        NativeModel, "torch_model", property(lambda self: pytest.fail("torch was asked"))
    )
    ids = native.tokenizer.special_ids
    examples = [
        lay_out(
            [ids.cls, 40 + n, ids.mask, 50, 60 + n][: 3 + n], [Piece(2, [70, 71, 72][:n])], ids.sop
        )
        for n in range(1, 3)
    ]
    arrays = collate(examples, ids.pad, side=side)
    del arrays["labels"]
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    with torch.inference_mode():
        found, expected = native.model(**batch).logits, on_torch.model(**batch).logits
        states = native.model.glm(**batch).last_hidden_state
    assert np.array_equal(native.model(**arrays).logits, found.numpy())
    assert np.array_equal(native.model.glm(**arrays).last_hidden_state, states.numpy())
    assert np.array_equal(native.model.lm_head(states.numpy()), native.model.lm_head(states))
    real = batch["attention_mask"].bool()
    tolerance = 1e-4 if native.model.weights.quantization == "float32" else 0.05
    assert float((found - expected)[real].abs().max()) <= tolerance * float(
        expected[real].abs().max()
    )


def test_arrays_that_the_decoder_does_not_read_are_refused(pair):
    model = pair[0].model
    ids, positions = np.full((1, 4), 5), np.zeros((1, 2, 4), np.int64)
    holes = {"attention_mask": np.array([[1, 0, 1, 1]]), "prefix_lengths": np.array([4])}
    for more in ({"segment_ids": np.ones((1, 4))}, holes, {"attention_mask": holes["attention_mask"][:, :3]}):  # fmt: skip
        for call in (model, model.glm):
            with pytest.raises(GenerationError, match="arrays with .*the native decoder reads"):
                call(input_ids=ids, position_ids=positions, **more)
    assert model(input_ids=ids, position_ids=positions).logits.dtype == np.float32


def test_what_the_decoder_does_not_do_torch_does(folder):
    if (reason := library.why_not()) is not None:
        pytest.skip(reason)
    glm, on_torch = glmkit.load(folder), glmkit.load(folder, backend="torch")
    ids = torch.tensor([glm.tokenizer.encode("你好", add_special_tokens=True)])
    with torch.inference_mode():
        found, expected = (
            one.model(input_ids=ids, output_hidden_states=True).hidden_states
            for one in (glm, on_torch)
        )
    assert len(found) == glm.model.config.num_layers + 1
    assert torch.equal(found[-1], expected[-1])
    assert sum(one.numel() for one in glm.model.parameters()) == glm.model.config.num_parameters
    logits = glm.model(
        input_ids=ids, position_ids=torch.zeros(1, 2, ids.shape[1], dtype=torch.long)
    ).logits
    assert logits.requires_grad
    states = torch.ones(1, 2, glm.model.config.hidden_size, requires_grad=True)
    assert glm.model.lm_head(states).requires_grad
    assert torch.allclose(
        glm.model.lm_head(states.detach()), on_torch.model.lm_head(states), atol=1e-4
    )
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = glm.model.no_such_thing
    hidden = {"output_hidden_states": True, "return_dict_in_generate": True, "max_new_tokens": 2}
    found, expected = (one.model.generate(ids[0].tolist(), **hidden) for one in (glm, on_torch))
    assert torch.equal(found.hidden_states[1][-1], expected.hidden_states[1][-1])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_beams": 3, "num_return_sequences": 2},
        {"num_beams": 2, "prompt_in_length_penalty": True},
    ],
)
def test_generates_as_torch_does_and_reads_a_prompt_once(pair, monkeypatch, settings):
    native, on_torch = pair
    monkeypatch.setattr(
        NativeModel, "torch_model", property(lambda self: pytest.fail("torch was asked"))
    )
    prompts, fed = [[1, 5, 7, 9, 11], [3, 4, 5, 6, 7, 8, 9, 10]], []
    forward = NativeRunner.forward
    monkeypatch.setattr(
        NativeRunner, "forward", lambda self, feeds: fed.append(feeds) or forward(self, feeds)
    )
    found = native.model.generate(prompts, max_new_tokens=6, **settings)
    assert [len(feeds) for feeds in fed] == [2] + [2 * settings.get("num_beams", 1)] * 5
    assert all(len(feed.ids) == 1 for feeds in fed[1:] for feed in feeds)
    assert not native.model.decoder.cache_bytes
    if native.model.weights.quantization == "float32":
        assert torch.equal(found, on_torch.model.generate(prompts, max_new_tokens=6, **settings))


def test_without_the_native_decoder_torch_gives_the_same_weights(
    folder, tmp_path, monkeypatch, caplog
):
    quantize(folder, tmp_path / "q", "int8")
    monkeypatch.setenv(library.OFF, "0")
    with caplog.at_level(logging.WARNING):
        glm = glmkit.load(tmp_path / "q")
    assert isinstance(glm.model, GLMForConditionalGeneration)
    assert "turned off (GLMKIT_NATIVE=0); weights of int8 are unpacked" in caplog.text
    caplog.clear()
    assert isinstance(glmkit.load(folder).model, GLMForConditionalGeneration)
    assert not caplog.text
    with pytest.raises(NativeError, match="turned off"):
        glmkit.load(folder, backend="native")


def test_wrong_wishes_say_what_there_is(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"no quantization 'int3'; there are int8, int4"):
        glmkit.load(folder, quantization="int3")
    with pytest.raises(
        ConfigError, match=r"no backend 'torhc'; there are native, torch.*did you mean 'torch'"
    ):
        glmkit.load(folder, backend="torhc")
    with pytest.raises(ConfigError, match="backend='graphs' is for GPUs .* the device is cpu"):
        glmkit.load(folder, device="cpu", backend="graphs")
    quantize(folder, tmp_path / "q", "int8")
    with pytest.raises(CheckpointError):
        quantize(folder, tmp_path / "q", "int8")
    (tmp_path / "q" / FILE).write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="Quantize the model again"):
        glmkit.load(tmp_path / "q")


def test_a_quantized_folder_is_a_model_like_any_other(folder, tmp_path):
    first = quantize(folder, tmp_path / "int8", "int8")
    again = quantize(tmp_path / "int8", tmp_path / "again", "int8")
    assert again.source_bytes == (tmp_path / "int8" / FILE).stat().st_size
    assert again.target_bytes == first.target_bytes
    assert again.relative_change < 1e-5 < first.relative_change
    if library.why_not() is None:
        fewer = glmkit.load(tmp_path / "int8", quantization="int4")
        assert fewer.model.weights.quantization == "int4"
    read = GLMForConditionalGeneration.from_pretrained(tmp_path / "int8")
    same = glmkit.load(tmp_path / "int8", backend="torch").model
    assert read.dtype == torch.float32
    for name, weight in same.state_dict().items():
        assert torch.equal(read.state_dict()[name], weight)
    back = convert(tmp_path / "int8", tmp_path / "plain", "glmkit", dtype="bfloat16")
    assert (back.dtype, back.max_abs_difference) == ("bfloat16", pytest.approx(0, abs=1e-3))
    assert not (tmp_path / "plain" / FILE).exists()


def test_the_command_writes_what_load_reads(folder, tmp_path):
    app, run = build_app(), CliRunner().invoke
    done = run(app, ["convert", str(folder), str(tmp_path / "q"), "--quantize", "int4"])
    assert done.exit_code == 0, done.output
    assert "13.5 MB ->" in done.output
    assert (tmp_path / "q" / "cog-pretrain.model").is_file()
    assert not list((tmp_path / "q").glob("*.bin"))
    done = run(
        app, ["fill", "北京是[MASK]", "-m", str(tmp_path / "q"), "--json", "--max-new-tokens", "3"]
    )
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.output)["blanks"]) == 1
    done = run(
        app, ["fill", "北京是[MASK]", "-m", str(folder), "--dtype", "int8", "--max-new-tokens", "3"]
    )
    assert done.exit_code == 0, done.output
    assert "native decoder" in run(app, ["info"]).output


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_an_assistant_guesses_and_the_text_stays(folder, backend):
    """The model itself with fewer bits guesses: by name, loaded, in the command, with stop strings and drawn."""
    if (reason := library.why_not()) is not None:
        pytest.skip(reason)
    alone = glmkit.load(folder, backend=backend)
    helper = glmkit.load(folder, quantization="int8")
    helped = glmkit.load(folder, backend=backend, assistant_model=helper, num_assistant_tokens=4)
    for settings in (
        {},
        {"do_sample": True, "temperature": 0.2, "seed": 5},
        {"repetition_penalty": 1.2},
    ):
        found, expected = (glm.fill(TEXTS, max_new_tokens=12, **settings) for glm in (helped, alone))  # fmt: skip
        assert [one.blanks for one in found] == [one.blanks for one in expected]
    assert "".join(helped.generate(TEXTS[1], max_new_tokens=9, stream=True)) == alone.generate(
        TEXTS[1], max_new_tokens=9
    )


def test_the_command_takes_an_assistant_of_the_same_vocabulary(folder):
    run = CliRunner().invoke
    command = ["generate", TEXTS[1], "--model", str(folder), "--max-new-tokens", "6"]
    alone = run(build_app(), command)
    helped = run(build_app(), [*command, "--assistant-model", str(folder)])
    assert helped.exit_code == 0
    assert helped.output == alone.output
    with pytest.raises(ConfigError, match="its vocabulary of 10,240 tokens is not the model's of"):
        glmkit.load(folder, assistant_model="glm-mini")


def test_weights_stored_quantized_take_an_attention_and_no_other_option(folder, tmp_path):
    """They were left out without a word: a misspelt argument too."""
    quantize(folder, tmp_path / "int8", "int8")
    model = glmkit.load(tmp_path / "int8", device="cpu", attn_implementation="eager").model
    assert model.config._attn_implementation == "eager"
    with pytest.raises(ConfigError, match="devise: .* has weights of int8, which take no such"):
        glmkit.load(tmp_path / "int8", devise="cpu")
    with pytest.raises(ConfigError, match="'egaer'; did you mean 'eager'"):
        glmkit.load(tmp_path / "int8", device="cpu", attn_implementation="egaer")
