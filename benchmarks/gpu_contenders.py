"""What `bench_generate_gpu.py` measures: models of one shape on one device, with random weights made there, and its ceilings.

A contender answers `write(batch, prompt, new)`: the seconds from prompts to `new` tokens of each text, greedy, with the device's
work waited for. glmkit's go through the engine as `glm.fill` does; transformers' are GPT-2 and Llama in `generate`. Llama's MLP has
three matrices; its width is chosen so that it has as many weights.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch

SHAPES = {
    # layers, hidden, heads, vocabulary, positions
    "tiny": (2, 64, 4, 1000, 1024),
    "large": (24, 1024, 16, 50048, 1024),
    "2b": (36, 2048, 32, 50048, 1024),
    "10b": (48, 4096, 64, 50048, 1024),
}


def synchronize(device: str) -> None:
    """Waits for the device."""
    if device != "cpu":
        torch.cuda.synchronize()


def made_on(device: str, dtype: torch.dtype, build: Any) -> Any:
    """Returns what `build` returns, with random weights that were never anywhere else."""
    with torch.device("meta"):
        model = build()
    model = model.to(dtype).to_empty(device=device)
    with torch.inference_mode(False), torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.02)
            else:
                weight.fill_(float("norm" in name or "ln_" in name) if name.endswith("weight") else 0.0)  # fmt: skip
    return model.eval()


class Glmkit:
    """glmkit's engine, choosing tokens as `glm.fill` does.

    Args:
        shape: A row of `SHAPES`.
        device: "cuda" or "cpu".
        kind: "graphs", "torch", or "int8" (graphs, of weights of 8 bits); with " one" behind, `one_kernel` is tried too.
        dtype: Number type.
        triton: Whether Triton's kernels are tried.
    """

    def __init__(
        self, shape: tuple[int, ...], device: str, kind: str, dtype: Any, triton: bool = True
    ):
        from generate_contenders import glm_config

        from glmkit.generation.graphs import GraphDecoder
        from glmkit.generation.steps import TRIED
        from glmkit.generation.torch_runner import TorchRunner
        from glmkit.model import GLMForConditionalGeneration
        from glmkit.model.int8 import to_int8

        self.device, self.vocabulary, self.positions = device, shape[3], shape[4]
        self.model = made_on(device, dtype, lambda: GLMForConditionalGeneration(glm_config(shape)))
        kind, _, more = kind.partition(" ")
        if kind == "int8":
            self.model = to_int8(self.model, device)
        gpu = device != "cpu"
        self.decoder = (
            None
            if kind == "torch"
            else GraphDecoder(
                self.model,
                captures=gpu,
                use_triton=gpu and triton,
                tried=("early", "one") if more else TRIED,
            )
        )
        self.make_runner = (
            self.decoder.make_runner if self.decoder else lambda: TorchRunner(self.model)
        )

    def write(self, batch: int, prompt: int, new: int) -> float:
        """See the module; the last token of a prompt is the start marker."""
        from glmkit.generation.decoding import TokenChooser
        from glmkit.generation.engine import Engine
        from glmkit.generation.prompts import Prompt
        from glmkit.generation.request import Request
        from glmkit.generation.settings import DecodingSettings

        settings = DecodingSettings(max_new_tokens=new, min_new_tokens=new)
        chooser = TokenChooser(settings, [0], [1], self.vocabulary)
        draw = np.random.default_rng(batch)
        synchronize(self.device)
        start = time.perf_counter()
        engine = Engine(self.make_runner(), 1, self.positions, max_batch=batch)
        tickets = [
            engine.submit(
                Request(
                    Prompt(draw.integers(2, self.vocabulary, prompt - 1), ["", ""], np.array([prompt - 2])),
                    chooser,
                )
            )
            for _ in range(batch)
        ]  # fmt: skip
        for _ in engine.run():
            pass
        synchronize(self.device)
        seconds = time.perf_counter() - start
        for ticket in tickets:
            if ticket.error is not None:
                raise ticket.error
            assert len(ticket.samples[0][0].tokens) == new
        return seconds

    def step_seconds(self, tokens: int) -> float | None:
        """Returns what the captured step of so many tokens takes on the device by itself, or None if there is none."""
        steps = [
            step
            for workspace in (self.decoder._idle if self.decoder else [])
            for (size, _), step in workspace._steps.items()
            if size == tokens and step._graph is not None
        ]
        return replayed(steps[0]._graph) if steps else None

    def prompt_seconds(self) -> float | None:
        """Returns what the pass over prompts that was captured last takes on the device by itself, or None if there is none."""
        passes = [
            one
            for workspace in (self.decoder._idle if self.decoder else [])
            for one in workspace._prompts.values()
        ]
        return replayed(passes[-1]._graph) if passes else None

    def facts(self) -> dict[str, Any]:
        """Returns with whose operations is computed: of Triton's which kernels, and for how many tokens' matrices."""
        stepper = self.decoder._stepper if self.decoder else None
        if stepper is None:
            return {}
        used = {"triton": stepper.kernels, "prefill": stepper.prefill, "int8": stepper.int8}
        return {**{name: one is not None for name, one in used.items()}, "ways": stepper.ways}

    def free(self) -> None:
        """Gives back what is kept for the next call."""
        if self.decoder is not None:
            self.decoder.free()


class Transformers:
    """A model of transformers in `generate`."""

    def __init__(
        self, shape: tuple[int, ...], device: str, kind: str, dtype: Any, cache: str = "dynamic"
    ):
        import transformers

        layers, hidden, heads, vocabulary, positions = shape
        if kind == "gpt2":
            config: Any = transformers.GPT2Config(n_layer=layers, n_embd=hidden, n_head=heads, vocab_size=vocabulary, n_positions=positions, bos_token_id=0, eos_token_id=0)  # fmt: skip
            kind_of_model: Any = transformers.GPT2LMHeadModel
        else:
            config = transformers.LlamaConfig(
                num_hidden_layers=layers,
                hidden_size=hidden,
                num_attention_heads=heads,
                num_key_value_heads=heads,
                intermediate_size=round(8 * hidden / 3 / 64) * 64,
                vocab_size=vocabulary,
                max_position_embeddings=positions,
                tie_word_embeddings=True,
            )
            kind_of_model = transformers.LlamaForCausalLM
        self.device, self.cache = device, cache
        self.model = made_on(device, dtype, lambda: kind_of_model(config))
        self.model.tie_weights()
        _fill_buffers(self.model, config, device)
        self.model.generation_config.eos_token_id = None
        self.model.generation_config.pad_token_id = 0

    def write(self, batch: int, prompt: int, new: int) -> float:
        """See the module."""
        vocabulary = self.model.config.vocab_size
        draw = torch.Generator().manual_seed(batch)
        ids = torch.randint(2, vocabulary, (batch, prompt), generator=draw).to(self.device)
        mask = torch.ones_like(ids)
        more: dict[str, Any] = {}
        if self.cache != "dynamic":  # it compiles by itself unless told not to
            more = {"cache_implementation": "static", "disable_compile": self.cache != "compiled"}
        synchronize(self.device)
        start = time.perf_counter()
        with torch.inference_mode():
            written = self.model.generate(ids, attention_mask=mask, max_new_tokens=new, do_sample=False, **more)  # fmt: skip
        synchronize(self.device)
        seconds = time.perf_counter() - start
        assert written.shape == (batch, prompt + new), written.shape
        return seconds

    def free(self) -> None:
        """Keeps nothing."""


def _fill_buffers(model: Any, config: Any, device: str) -> None:
    """Computes what a model made on the meta device has beside its weights (inverse frequencies, causal masks)."""
    for module in model.modules():
        names = [name for name, _ in module.named_buffers(recurse=False)]
        if names and "inv_freq" in names:
            made = type(module)(config).to(device)
            for name in names:
                setattr(module, name, getattr(made, name))
        elif "bias" in names:  # GPT-2's causal mask
            size = module.bias.shape[-1]
            module.bias = torch.ones(size, size, dtype=torch.bool, device=device).tril().view(1, 1, size, size)  # fmt: skip


def replayed(graph: Any, times: int = 20) -> float:
    """Returns the median seconds of a CUDA graph on the device."""
    found = []
    for _ in range(times):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / 1e3)
    return statistics.median(found)


def _timed(device: str, work: Any, times: int) -> float:
    """Returns the least seconds of a piece of work on the device."""
    work()
    best = float("inf")
    for _ in range(times):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def ceilings(device: str, dtype: torch.dtype) -> dict[str, float]:
    """Returns what the device reaches: GB/s read and written while copying, TFLOP/s of a large product of matrices."""
    gpu = device != "cpu"
    source = torch.ones(2**30 if gpu else 2**24, dtype=torch.int16, device=device)
    target = torch.empty_like(source)
    copying = _timed(device, lambda: target.copy_(source), 10)
    size = 8192 if gpu else 256
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    multiplying = _timed(device, lambda: left @ right, 10)
    return {
        "copy_gb_s": 2 * source.nbytes / copying / 1e9,
        "matmul_tflop_s": 2 * size**3 / multiplying / 1e12,
    }


def matrices(model: Any) -> dict[str, dict[str, float]]:
    """Returns the GB/s at which all layers' matrices of a kind are read for one vector: by Triton's kernel, and by torch."""
    from glmkit.generation import kernels
    from glmkit.generation.steps import PlainKernels

    found: dict[str, dict[str, float]] = {}
    layers = model.glm.transformer.layers
    chosen: dict[str, Any] = {
        "qkv": [one.attention.query_key_value for one in layers],
        "dense": [one.attention.dense for one in layers],
        "up": [one.mlp.dense_h_to_4h for one in layers],
        "down": [one.mlp.dense_4h_to_h for one in layers],
    }
    for name, some in chosen.items():
        vector = torch.randn(1, some[0].in_features, device="cuda").to(some[0].weight.dtype)
        for who, where in (("triton", kernels), ("torch", PlainKernels)):

            def run(where: Any = where, some: Any = some, vector: Any = vector) -> list[Any]:
                return [where.matvec(vector, one.weight, one.bias) for one in some]

            with torch.inference_mode():
                run()
                torch.cuda.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    run()
            size = sum(one.weight.nbytes for one in some)
            found.setdefault(name, {})[who] = size / replayed(graph, 5) / 1e9
    return found
