"""What `bench_generate.py` measures: the same shape, random weights, in glmkit and in its peers.

A contender is made once in a process of its own, which answers on standard output what it is asked on standard input, one JSON
object a line: {"do": "decode", "batch": 8, "prompt": 128, "new": 128}, {"do": "prefill", "tokens": 512}, {"do": "memory"}. Peers run
GPT-2 of the same sizes, because none of them runs GLM; no weight is a trained one, and the time does not depend on them. "glm-mini"
is the embedded model, whose weights are trained.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {
    # layers, hidden, heads, vocabulary, positions
    "large": (24, 1024, 16, 50048, 1024),
    "smoke": (2, 64, 4, 1000, 1024),
}

GLMKIT = ("torch", "float32", "bfloat16", "int8", "int4")
TRANSFORMERS = ("float32", "bfloat16")
CTRANSLATE2 = ("float32", "int8")
OPENVINO = ("float32", "int8", "int4")
LLAMA = {"float32": "F32", "bfloat16": "BF16", "int8": "Q8_0", "int4": "Q4_0", "int4_k": "Q4_K_M"}

CONTENDERS = (
    *(f"glmkit {name}" for name in GLMKIT),
    *(f"llama.cpp {name}" for name in LLAMA),
    *(f"openvino {name}" for name in OPENVINO),
    *(f"ctranslate2 {name}" for name in CTRANSLATE2),
    *(f"transformers {name}" for name in TRANSFORMERS),
    "original float32",
)


class Glmkit:
    """glmkit's engine, choosing tokens as `glm.fill` does."""

    def __init__(self, kind: str, shape: tuple[int, ...], threads: int):
        import torch

        from glmkit.checkpoint.quantized import NativeWeights
        from glmkit.model import GLMForConditionalGeneration

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        config = glm_config(shape)
        model: Any = GLMForConditionalGeneration(config).eval()
        if kind != "torch":
            # Through a file, as a user has it: what is mapped is read when it is used.
            folder = tempfile.TemporaryDirectory()
            NativeWeights.of(config, model.state_dict(), kind).save(Path(folder.name))
            del model
            os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
            os.execv(
                sys.executable,
                [
                    sys.executable,
                    __file__,
                    "glmkit stored",
                    json.dumps([shape, folder.name]),
                ],
            )
        self.model, self.vocabulary = model, shape[3]

    @classmethod
    def stored(cls, shape: tuple[int, ...], folder: str) -> Glmkit:
        """Goes on in a process that has held neither the weights in float32 nor torch."""
        from glmkit.checkpoint.quantized import NativeWeights
        from glmkit.native.model import NativeModel

        self = cls.__new__(cls)
        self.model = NativeModel(architecture(shape), NativeWeights.load(Path(folder)))
        self.shape, self.folder, self.vocabulary = shape, folder, shape[3]
        return self

    def start(self, prompt: int) -> float:
        """Seconds from a new process, which imports and maps these weights, to its first token after a prompt."""
        asked = json.dumps([self.shape, self.folder, prompt])
        start = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, __file__, "glmkit start", asked], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            written = process.stdout.readline()
            seconds = time.perf_counter() - start
        assert written == b"written\n"
        return seconds

    def _engine(self, batch: int, prompt: int, new: int) -> Any:
        from glmkit.generation.decoding import TokenChooser
        from glmkit.generation.engine import Engine
        from glmkit.generation.prompts import Prompt
        from glmkit.generation.request import Request
        from glmkit.generation.runner import make_runner
        from glmkit.generation.settings import DecodingSettings

        engine = Engine(make_runner(self.model), 1, 1024, max_batch=batch)
        chooser = TokenChooser(DecodingSettings(max_new_tokens=new), [0], [0], self.vocabulary)
        for ids in random_ids(self.vocabulary, batch, prompt):
            engine.submit(Request(Prompt(ids, ["", ""], np.array([prompt - 2])), chooser))
        return engine

    def decode(self, batch: int, prompt: int, new: int) -> float:
        """Seconds for `new` tokens of each of `batch` texts, after their prompts."""
        engine = self._engine(batch, prompt, new + 1)
        engine.step()
        start = time.perf_counter()
        for _ in range(new):
            engine.step()
        return time.perf_counter() - start

    def prefill(self, tokens: int) -> float:
        """Seconds until the first token after a prompt."""
        engine = self._engine(1, tokens, 1)
        start = time.perf_counter()
        engine.step()
        return time.perf_counter() - start


class Mini:
    """glm-mini, as `glmkit.load()` gives it."""

    def __init__(self) -> None:
        import glmkit

        self.glm = glmkit.load()
        self.poem()

    def first(self) -> float:
        """Seconds to the first token of an answer."""
        start = time.perf_counter()
        self.glm.generate("人工智能的未来是[gMASK]", max_new_tokens=1)
        return time.perf_counter() - start

    def poem(self) -> float:
        """Seconds for a poem of four lines of seven characters."""
        start = time.perf_counter()
        self.glm.poem("春日")
        return time.perf_counter() - start


class Generating:
    """A library that only generates: what comes after the first token is a difference of two runs."""

    def _generate(self, batch: int, prompt: int, new: int) -> float:
        """Seconds for `new` tokens of each of `batch` texts, their prompts included."""
        raise NotImplementedError

    def decode(self, batch: int, prompt: int, new: int) -> float:
        """See `Glmkit.decode`."""
        return self._generate(batch, prompt, new + 1) - self._generate(batch, prompt, 1)

    def prefill(self, tokens: int) -> float:
        """See `Glmkit.prefill`."""
        return self._generate(1, tokens, 1)


class Original(Generating):
    """The code that is published beside the checkpoints: `modeling_glm` and `configuration_glm` are the interpreter's modules.

    Its cache is passed on by transformers 4.25; later ones compute the whole text for every token.
    """

    def __init__(self, kind: str, shape: tuple[int, ...], threads: int):
        import torch
        from configuration_glm import GLMConfig  # type: ignore[import-not-found]
        from modeling_glm import GLMForConditionalGeneration  # type: ignore[import-not-found]

        torch.set_num_threads(threads)
        layers, hidden, heads, vocabulary, positions = shape
        config = GLMConfig(
            num_layers=layers,
            hidden_size=hidden,
            num_attention_heads=heads,
            vocab_size=vocabulary,
            max_sequence_length=positions,
            output_predict=True,
        )
        self.torch = torch
        self.model = GLMForConditionalGeneration(config).to(getattr(torch, kind)).eval()
        self.vocabulary = vocabulary

    def _generate(self, batch: int, prompt: int, new: int) -> float:
        torch, length = self.torch, prompt + new
        ids = torch.from_numpy(random_ids(self.vocabulary, batch, prompt))
        # As its tokenizer's `build_inputs_for_generation`: the last token of the prompt begins part B.
        place = torch.arange(length)
        positions = torch.stack((place.clamp(max=prompt - 2), (place - prompt + 2).clamp(min=0)))
        mask = torch.ones(length, length, dtype=torch.long).tril()
        mask[:, : prompt - 1] = 1
        start = time.perf_counter()
        with torch.inference_mode():
            written = self.model.generate(
                ids,
                position_ids=positions.expand(batch, -1, -1),
                generation_attention_mask=mask.expand(batch, 1, -1, -1),
                max_length=length,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        seconds = time.perf_counter() - start
        assert written.shape[1] == length
        return seconds


class Transformers(Generating):
    """GPT-2's `generate`."""

    def __init__(self, kind: str, shape: tuple[int, ...], threads: int):
        import torch

        torch.set_num_threads(threads)
        self.torch, self.model = torch, gpt2(shape).to(getattr(torch, kind))
        self.model.generation_config.eos_token_id = None

    def _generate(self, batch: int, prompt: int, new: int) -> float:
        ids = self.torch.randint(2, self.model.config.vocab_size, (batch, prompt))
        mask = self.torch.ones_like(ids)
        start = time.perf_counter()
        with self.torch.inference_mode():
            self.model.generate(ids, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=0)  # fmt: skip
        return time.perf_counter() - start


class CTranslate2(Generating):
    """CTranslate2's generator on a converted GPT-2."""

    def __init__(self, kind: str, shape: tuple[int, ...], threads: int):
        import ctranslate2

        self.vocabulary = shape[3]
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "gpt2"), Path(folder, "ct2")
            save_gpt2(shape, source)
            ctranslate2.converters.TransformersConverter(str(source)).convert(
                str(target), quantization=kind
            )
            self.generator = ctranslate2.Generator(
                str(target), device="cpu", intra_threads=threads, compute_type=kind
            )

    def _generate(self, batch: int, prompt: int, new: int) -> float:
        texts = [[f"t{i}" for i in ids] for ids in random_ids(self.vocabulary, batch, prompt)]
        start = time.perf_counter()
        self.generator.generate_batch(
            texts,
            max_length=new,
            min_length=new,
            sampling_topk=1,
            include_prompt_in_result=False,
            max_batch_size=batch,
        )
        return time.perf_counter() - start


class Llama:
    """llama.cpp on a GGUF of GPT-2, through its C interface; the likeliest token is found with NumPy."""

    def __init__(self, kind: str, shape: tuple[int, ...], threads: int):
        import ctypes

        import llama_cpp

        self.api, self.vocabulary = llama_cpp, shape[3]
        self.kept = tempfile.TemporaryDirectory()
        plain, path = Path(self.kept.name, "f32.gguf"), Path(self.kept.name, "model.gguf")
        write_gguf(shape, plain)
        if kind == "float32":
            path = plain
        else:
            options = llama_cpp.llama_model_quantize_default_params()
            options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{LLAMA[kind]}")
            options.pure = kind == "int4"  # in every layer
            options.nthread = threads
            failed = llama_cpp.llama_model_quantize(
                str(plain).encode(), str(path).encode(), ctypes.byref(options)
            )
            if failed:
                raise RuntimeError(f"llama.cpp cannot quantize to {kind}")
            plain.unlink()
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch, options.n_seq_max = 8192, 2048, 512, 8
        options.n_threads = options.n_threads_batch = threads
        options.kv_unified = True
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        self.batch = llama_cpp.llama_batch_init(2048, 0, 8)

    def _read(self, tokens: list[tuple[int, int, int, bool]]) -> None:
        """Tokens as (id, position, sequence, whether logits are wanted)."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for place, (token, position, sequence, wanted) in enumerate(tokens):
            batch.token[place], batch.pos[place] = token, position
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
            batch.logits[place] = wanted
        if self.api.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")

    def _likeliest(self, place: int) -> int:
        pointer = self.api.llama_get_logits_ith(self.context, place)
        return int(np.ctypeslib.as_array(pointer, (self.vocabulary,)).argmax())

    def decode(self, batch: int, prompt: int, new: int) -> float:
        """See `Glmkit.decode`."""
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        following = []
        for sequence, ids in enumerate(random_ids(self.vocabulary, batch, prompt).tolist()):
            self._read([(one, i, sequence, i == prompt - 1) for i, one in enumerate(ids)])
            following.append(self._likeliest(prompt - 1))
        start = time.perf_counter()
        for step in range(new):
            self._read([(one, prompt + step, row, True) for row, one in enumerate(following)])
            following = [self._likeliest(row) for row in range(batch)]
        return time.perf_counter() - start

    def prefill(self, tokens: int) -> float:
        """See `Glmkit.prefill`."""
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        [ids] = random_ids(self.vocabulary, 1, tokens).tolist()
        start = time.perf_counter()
        self._read([(one, i, 0, i == tokens - 1) for i, one in enumerate(ids)])
        self._likeliest(tokens - 1)
        return time.perf_counter() - start


class OpenVINO:
    """OpenVINO on a GPT-2 built from its operations: keys and values as state, fused attention, weights compressed by NNCF."""

    def __init__(self, kind: str, shape: tuple[int, ...], threads: int):
        import nncf
        import openvino

        self.vocabulary = shape[3]
        model = openvino_gpt2(shape)
        if kind == "int8":
            model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
        elif kind == "int4":  # in every layer
            model = nncf.compress_weights(
                model, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=32, ratio=1.0, all_layers=True
            )  # fmt: skip
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

    def _read(self, ids: np.ndarray, first: int) -> np.ndarray:
        """Ids [batch, n] at positions from `first` on; returns the likeliest tokens [batch, 1]."""
        positions = np.tile(np.arange(first, first + ids.shape[1]), (len(ids), 1))
        beams = np.arange(len(ids), dtype=np.int32)
        found = self.request.infer({"ids": ids, "positions": positions, "beams": beams})
        return next(iter(found.values()))[:, -1].argmax(-1)[:, None]

    def decode(self, batch: int, prompt: int, new: int) -> float:
        """See `Glmkit.decode`."""
        self.request.reset_state()
        following = self._read(random_ids(self.vocabulary, batch, prompt), 0)
        start = time.perf_counter()
        for step in range(new):
            following = self._read(following, prompt + step)
        return time.perf_counter() - start

    def prefill(self, tokens: int) -> float:
        """See `Glmkit.prefill`."""
        self.request.reset_state()
        ids = random_ids(self.vocabulary, 1, tokens)
        start = time.perf_counter()
        self._read(ids, 0)
        return time.perf_counter() - start


def random_ids(vocabulary: int, batch: int, count: int) -> np.ndarray:
    """Returns prompts, int64 [batch, count], the same each time and for every contender.

    By hand: `numpy.random` brings 7 MB of libraries, which would count as a contender's memory.
    """
    ids = np.arange(1, batch * count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (ids >> np.uint64(33)).astype(np.int64).reshape(batch, count) % (vocabulary - 2) + 2


def openvino_gpt2(shape: tuple[int, ...]) -> Any:
    """Returns GPT-2 of the shape with random weights as an OpenVINO model: ids, positions, beams -> logits after the last token."""
    import openvino
    from openvino import opset6
    from openvino import opset13 as op

    layers, hidden, heads, vocabulary, positions = shape
    draw, size = np.random.default_rng(0), hidden // heads

    def number(*values: int) -> Any:
        return op.constant(np.array(values if len(values) > 1 else values[0]))

    def random(*sizes: int) -> Any:
        return op.constant(draw.standard_normal(sizes, np.float32) * np.float32(0.02))

    def constant(value: float) -> Any:
        return op.constant(np.full(hidden, value, np.float32))

    def norm(x: Any) -> Any:
        y = op.mvn(x, op.constant(np.array([-1])), True, 1e-5, "inside_sqrt")
        return op.add(op.multiply(y, constant(1)), constant(0))

    def linear(x: Any, rows: int, columns: int) -> Any:
        bias = op.constant(np.zeros(rows, np.float32))
        return op.add(op.matmul(x, random(rows, columns), False, True), bias)

    def length(x: Any, axis: int) -> Any:
        return op.gather(op.shape_of(x), number(axis), number(0))

    def by_heads(x: Any) -> Any:
        return op.transpose(op.reshape(x, number(0, 0, heads, size), True), number(0, 2, 1, 3))

    ids, places = (op.parameter([-1, -1], np.int64, name=name) for name in ("ids", "positions"))
    beams = op.parameter([-1], np.int32, name="beams")
    words = random(vocabulary, hidden)
    x = op.add(
        op.gather(words, ids, number(0)), op.gather(random(positions, hidden), places, number(0))
    )
    batch = op.unsqueeze(length(ids, 0), number(0))
    empty = op.broadcast(op.constant(np.float32(0)), op.concat([batch, number(heads, 0, size)], 0))
    sinks = []
    for layer in range(layers):
        parts = op.split(linear(norm(x), 3 * hidden, hidden), number(2), 3).outputs()
        query, *new = map(by_heads, parts)
        kept = []
        for name, values in zip(("keys", "values"), new, strict=True):
            variable, form = f"{name}.{layer}", openvino.PartialShape([-1, heads, -1, size])
            past = opset6.read_value(empty, variable, openvino.Type.f32, form)
            grown = op.concat([op.gather(past, beams, number(0)), values], 2)
            sinks.append(opset6.assign(grown, variable))
            kept.append(grown)
        read, all_read = length(query, 2), length(kept[0], 2)
        rows = op.add(op.range(number(0), read, number(1), "i64"), op.subtract(all_read, read))
        columns = op.range(number(0), all_read, number(1), "i64")
        seen = op.less_equal(op.unsqueeze(columns, number(0)), op.unsqueeze(rows, number(1)))
        mask = op.select(seen, op.constant(np.float32(0)), op.constant(np.float32(-1e9)))
        mask = op.unsqueeze(op.unsqueeze(mask, number(0)), number(0))
        context = op.transpose(
            op.scaled_dot_product_attention(query, *kept, mask), number(0, 2, 1, 3)
        )
        context = op.reshape(context, number(0, 0, hidden), True)
        x = op.add(x, linear(context, hidden, hidden))
        wide = op.gelu(linear(norm(x), 4 * hidden, hidden), "erf")
        x = op.add(x, linear(wide, hidden, 4 * hidden))
    one = [op.constant(np.array([value])) for value in (-1, 2**31, 1, 1)]  # the last token
    logits = op.matmul(norm(op.slice(x, *one)), words, False, True)
    return openvino.Model([op.result(logits)], sinks, [ids, places, beams], "gpt2")


def glm_config(shape: tuple[int, ...]) -> Any:
    """Returns transformers' configuration of a GLM of the shape."""
    from glmkit.model import GLMConfig

    return GLMConfig.from_architecture(architecture(shape))


def architecture(shape: tuple[int, ...]) -> Any:
    """Returns the architecture of a GLM of the shape."""
    from glmkit.checkpoint.architecture import Architecture

    layers, hidden, heads, vocabulary, positions = shape
    return Architecture(
        num_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        vocab_size=vocabulary,
        max_sequence_length=positions,
        hidden_act="gelu",
    )


def gpt2(shape: tuple[int, ...]) -> Any:
    """Returns a GPT-2 of the shape with random weights."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    layers, hidden, heads, vocabulary, positions = shape
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=layers,
        n_embd=hidden,
        n_head=heads,
        vocab_size=vocabulary,
        n_positions=positions,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config).eval()


def save_gpt2(shape: tuple[int, ...], folder: Path) -> None:
    """Saves it with a vocabulary of the words t0, t1 and so on."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    gpt2(shape).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(shape[3])}, unk_token="t1"))
    PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="t0", eos_token="t0", unk_token="t1"
    ).save_pretrained(folder)


def write_gguf(shape: tuple[int, ...], path: Path) -> None:
    """Writes GPT-2 of the shape for llama.cpp, in float32."""
    import gguf

    layers, hidden, heads, vocabulary, positions = shape
    draw = np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(path), "gpt2")
    writer.add_block_count(layers)
    writer.add_context_length(positions)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(4 * hidden)
    writer.add_head_count(heads)
    writer.add_layer_norm_eps(1e-5)
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("no_vocab")

    def random(name: str, *sizes: int) -> None:
        writer.add_tensor(name, draw.standard_normal(sizes, np.float32) * np.float32(0.02))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(hidden, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(hidden, np.float32))

    random("token_embd.weight", vocabulary, hidden)
    random("position_embd.weight", positions, hidden)
    norm("output_norm")
    for layer in range(layers):
        name = f"blk.{layer}."
        norm(f"{name}attn_norm")
        norm(f"{name}ffn_norm")
        sizes = {
            "attn_qkv": (3 * hidden, hidden),
            "attn_output": (hidden, hidden),
            "ffn_up": (4 * hidden, hidden),
            "ffn_down": (hidden, 4 * hidden),
        }
        for part, (rows, columns) in sizes.items():
            random(f"{name}{part}.weight", rows, columns)
            writer.add_tensor(f"{name}{part}.bias", np.zeros(rows, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


KINDS = {
    "glmkit": Glmkit,
    "llama.cpp": Llama,
    "openvino": OpenVINO,
    "ctranslate2": CTranslate2,
    "transformers": Transformers,
    "original": Original,
}


def answer(contender: Any) -> None:
    """Does what standard input asks, until it ends."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        kind = asked.pop("do")
        if kind == "memory":
            status = dict(
                line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
            )
            # Of this program alone, unlike getrusage's, which counts what ran before execv.
            value: Any = int(status["VmHWM"].split()[0]) * 1024 / 1e6
        else:
            value = getattr(contender, kind)(**asked)
        print(json.dumps({"value": value}), flush=True)


def main() -> None:
    """Makes the contender that the arguments name: NAME SHAPE THREADS."""
    if sys.argv[1] == "glmkit stored":
        shape, folder = json.loads(sys.argv[2])
        try:
            answer(Glmkit.stored(tuple(shape), folder))
        finally:
            shutil.rmtree(folder)
        return
    if sys.argv[1] == "glmkit start":
        shape, folder, prompt = json.loads(sys.argv[2])
        Glmkit.stored(tuple(shape), folder).prefill(prompt)
        print("written", flush=True)
        return
    name, shape, threads = sys.argv[1:]
    if name == "glm-mini":
        answer(Mini())
        return
    package, kind = name.split(" ", 1)
    answer(KINDS[package](kind, SHAPES[shape], int(threads)))


if __name__ == "__main__":
    main()
