"""A `Runner` for GPUs: a static cache of keys and values, and decode steps captured once as CUDA graphs and played again.

In: a `GLMForConditionalGeneration` on a GPU. Out: a runner that answers as `TorchRunner` does, and that can choose the likeliest
token where the logits are. All that is read, prompts (`prefill`) or later a token or a few for each sequence (`steps`), is one flat
list of tokens, each with its row and its place there, so that no sequence waits for a longer one and one graph for each
number of tokens (1, 2, 4 …; of prompts eight between each two of these) does for all. Prompts with media are read as `TorchRunner`
reads them, and so are all where Triton is not. Without a GPU the same steps run uncaptured, which is how they are tested.

Shapes: T tokens of a step, V vocabulary.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from glmkit.errors import GenerationError
from glmkit.generation import prefill
from glmkit.generation.captured import BARRED, Workspace
from glmkit.generation.rows import Row
from glmkit.generation.runner import Answer, Feed, Runner
from glmkit.generation.steps import TRIED, Stepper, likeliest, triton_kernels
from glmkit.generation.torch_runner import TorchRunner, split_logits
from glmkit.model.int8 import Int8Linear, has_int8
from glmkit.special_tokens import FIRST_MEDIA_ID

logger = logging.getLogger(__name__)

LARGEST = 512
"""Most tokens of a step; more are read as part A is."""


class GraphRunner(TorchRunner):
    """`TorchRunner`, with steps that are captured. With its last sequence it gives its workspace back for others."""

    chooses = True

    def __init__(self, decoder: GraphDecoder):
        super().__init__(decoder.model)
        self._decoder = decoder
        self._workspace: Workspace | None = None
        self._free: list[Row] = []  # of `_rows`, those without a sequence

    def open(self) -> int:
        """Returns the handle of a new, empty sequence."""
        if self._workspace is None:
            self._workspace = self._decoder.take()
            self._cache = self._workspace.rows
        if not self._free:
            return super().open()
        row = min(self._free, key=lambda one: one.place)
        self._free.remove(row)
        self._opened += 1
        self._sequences[self._opened] = row
        return self._opened

    def close(self, sequence: int) -> None:
        """Forgets a sequence. Its row stays empty until another takes it: a step finds rows wherever they are."""
        row = self._sequences.pop(sequence)
        self._rows[row.place] = Row(row.place)
        self._free.append(self._rows[row.place])
        if not self._sequences and self._workspace is not None:
            self._rows, self._free = [], []
            self._workspace.rest()
            if self._workspace.usable:
                self._decoder.give_back(self._workspace)
            else:
                self._workspace.discard()
            self._workspace = None

    def truncate(self, sequence: int, length: int) -> None:
        """Forgets all but the first `length` tokens; touches no tensor."""
        super().truncate(sequence, length)
        ahead = None if self._workspace is None else self._workspace.ahead
        if ahead is not None and sequence in ahead.sequences:
            self._workspace.ahead = None  # type: ignore[union-attr]

    def forward(self, feeds: Sequence[Feed]) -> list[Any]:
        """Reads each feed: prompts as `TorchRunner` does, later tokens in one step.

        Raises:
            GenerationError: An id or a position that the model's tables do not have; ids of media without their rows; no
                memory is left on the device. No sequence has grown then.
        """
        config = self.model.config
        limits = config.vocab_size, config.max_sequence_length
        for feed in feeds:
            _check(feed, *limits)
        if len({id(one) for feed in feeds for one in feed.barred or ()}) > BARRED:
            feeds = [replace(feed, barred=None) for feed in feeds]  # logits for all
        try:
            return super().forward(feeds)
        except torch.OutOfMemoryError as error:
            if self._workspace is not None:
                self._workspace.usable = False  # it goes on wanting what there is not
            self._decoder.free()
            raise GenerationError(self._no_memory()) from error

    def _passes(
        self, feeds: Sequence[Feed], rows: Sequence[Row]
    ) -> Iterator[tuple[list[int], Iterable[Answer]]]:
        short = [i for i, feed in enumerate(feeds) if not feed.prefix and feed.media is None]
        if sum(len(feeds[i].ids) for i in short) > LARGEST:
            short = []
        chosen = set(short)
        if self._decoder.reads_prompts:
            prompts = [i for i, feed in enumerate(feeds) if i not in chosen and feed.media is None]
            chosen.update(prompts)
            for group in _passes_of(prompts, [len(feed.ids) for feed in feeds]):
                yield group, self._read([feeds[i] for i in group], [rows[i] for i in group])
        rest = [i for i in range(len(feeds)) if i not in chosen]
        if rest and self._workspace is not None:
            self._workspace.ahead = None  # rows may change their places
        for group, answers in super()._passes([feeds[i] for i in rest], [rows[i] for i in rest]):
            yield [rest[i] for i in group], answers
        if short:
            alone = len(short) == len(feeds)
            yield short, self._step([feeds[i] for i in short], [rows[i] for i in short], alone)

    def _step(self, feeds: Sequence[Feed], rows: Sequence[Row], alone: bool) -> Iterator[Answer]:
        """Reads the tokens of all feeds at once; where they go on, `alone`, the next step is begun before their answers are known."""
        workspace, counts = self._workspace, [len(feed.ids) for feed in feeds]
        assert workspace is not None
        longest = max(row.length + count for row, count in zip(rows, counts, strict=True))
        workspace.rows.reserve(len(self._rows), longest)
        step = workspace.step(sum(counts), longest)
        barred = workspace.barred_rows(feeds, everywhere=True)
        ends = np.cumsum(counts)
        columns = np.empty((6, ends[-1]), np.int64)
        for column, name in enumerate(("ids", "positions", "blocks")):
            columns[column] = [*chain.from_iterable(getattr(feed, name) for feed in feeds)]
        columns[3] = np.repeat([row.place for row in rows], counts)
        begins = [row.length for row in rows] - (ends - counts)
        columns[4] = np.repeat(begins, counts) + np.arange(ends[-1])
        columns[5] = barred
        if len(counts) < ends[-1]:
            workspace.ahead, begun, order = None, step.begin(columns), np.arange(ends[-1])
        else:
            sequences = [feed.sequence for feed in feeds]
            begun, order = workspace.begin(step, columns, sequences)
            going = [i for i, feed in enumerate(feeds) if feed.goes_on]
            if alone and going and not any(feed.goes_on is None for feed in feeds):
                workspace.go_ahead(step, begun, order[going], columns[:, going], [sequences[i] for i in going])  # fmt: skip
        places = [order[end - feed.num_logits : end].tolist() for feed, end in zip(feeds, ends.tolist(), strict=True)]  # fmt: skip
        return _answers(feeds, places, begun.logits, begun.chosen)

    def _read(self, feeds: Sequence[Feed], rows: Sequence[Row]) -> Iterator[Answer]:
        """Reads prompts, or whatever else is long, at once."""
        workspace, counts = self._workspace, [len(feed.ids) for feed in feeds]
        assert workspace is not None
        longest = max(row.length + count for row, count in zip(rows, counts, strict=True))
        workspace.rows.reserve(len(self._rows), longest)
        work = workspace.prompts(sum(counts), len(feeds), sum(feed.num_logits for feed in feeds))
        logits, best = work(feeds, rows, workspace.barred_rows(feeds, everywhere=False))
        return _answers(feeds, _places(feeds), logits, best.cpu().numpy())

    def _answers(self, feeds: Sequence[Feed], logits: torch.Tensor) -> Iterable[Answer]:
        assert self._workspace is not None
        best = None
        if any(feed.barred for feed in feeds):
            which = self._workspace.barred_rows(feeds, everywhere=False)
            best = likeliest(
                logits, self._workspace.barred, torch.tensor(which, device=logits.device)
            ).cpu().numpy()  # fmt: skip
        return _answers(feeds, _places(feeds), logits, best)

    def _no_memory(self) -> str:
        rows, capacity = self._workspace.rows.size if self._workspace else (0, 0)
        config = self.model.config
        size = 2 * config.num_layers * config.hidden_size * _dtype(self.model).itemsize * rows * capacity  # fmt: skip
        return (
            f"the GPU has no memory left: the cache of {len(self._sequences)} texts was to have {rows} rows of {capacity} tokens, "
            f"{size / 2**30:.1f} GiB beside the weights; lower batch_size, max_new_tokens or (in an engine) max_batch and max_tokens"
        )


def _passes_of(places: Sequence[int], counts: Sequence[int]) -> Iterator[list[int]]:
    """Yields places in groups of no more than `prefill.LARGEST` tokens, or of one."""
    group: list[int] = []
    for place in places:
        if group and sum(counts[one] for one in group) + counts[place] > prefill.LARGEST:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _places(feeds: Sequence[Feed]) -> list[range]:
    """Returns where the logits of each feed are among those of all that are wanted."""
    ends = np.cumsum([feed.num_logits for feed in feeds]).tolist()
    return [range(end - feed.num_logits, end) for feed, end in zip(feeds, ends, strict=True)]


def _check(feed: Feed, vocabulary: int, limit: int) -> None:
    """Refuses what would end in an error of the device, after which it computes nothing any more."""
    if min(feed.ids) < 0 or max(feed.ids) >= vocabulary:
        for one in feed.ids:
            if one < 0 or vocabulary <= one < FIRST_MEDIA_ID:  # `check_media` sees to the others
                raise GenerationError(f"the id {one} in a vocabulary of {vocabulary}")
    for name, some in (("position", feed.positions), ("block position", feed.blocks)):
        if min(some) < 0 or max(some) > limit:
            raise GenerationError(
                f"the {name} {max(some) if max(some) > limit else min(some)}; this model's tables end at {limit}: cut the text"
            )


def _answers(
    feeds: Sequence[Feed],
    places: Sequence[Sequence[int]],
    logits: torch.Tensor,
    best: np.ndarray | None,
) -> Iterator[Answer]:
    """Yields for each feed logits or likeliest tokens at its places; waits for the device, and copies what is needed alone."""
    tokens, values = ([], []) if best is None else best.tolist()
    wanting = [i for i, feed in enumerate(feeds) if not feed.barred]
    rows = [place for i in wanting for place in places[i]]
    taken = iter(())  # type: Iterator[np.ndarray]
    if wanting:
        some = logits if rows == [*range(len(logits))] else logits[rows]
        taken = iter(split_logits(some, [len(places[i]) for i in wanting]))
    for feed, where in zip(feeds, places, strict=True):
        if feed.barred:
            yield [(int(tokens[place]), values[place]) for place in where]
        else:
            yield next(taken)


def _tensors(model: Any) -> Iterator[torch.Tensor]:
    """Yields a model's weights, past what makes `parameters` and attributes of modules slow: this is done for each runner."""
    glm = model.glm._modules
    transformer = glm["transformer"]._modules
    modules = [glm["word_embeddings"], *(one for name, one in transformer.items() if name != "layers")]  # fmt: skip
    for layer in transformer["layers"]._modules.values():
        parts = layer._modules
        modules += parts["input_layernorm"], parts["post_attention_layernorm"], *_linears(layer)
    for module in modules:
        yield from module._parameters.values()
        yield from module._buffers.values()


def _linears(layer: Any) -> tuple[Any, ...]:
    attention, mlp = (layer._modules[name]._modules for name in ("attention", "mlp"))
    return attention["query_key_value"], attention["dense"], mlp["dense_h_to_4h"], mlp["dense_4h_to_h"]  # fmt: skip


def _dtype(model: Any) -> torch.dtype:
    """Returns the number type of activations, also where weights have 8 bits."""
    return model.glm.transformer.position_embeddings.weight.dtype


class GraphDecoder:
    """Makes a model's runners and keeps what they leave behind, so that the next one need not capture again.

    Weights are read where they are: what changes in them is seen. If they are put elsewhere, all is captured anew.

    Args:
        model: A `GLMForConditionalGeneration`.
        captures: Whether steps are captured; by default on a GPU.
        use_triton: Whether Triton's kernels are tried; by default on a GPU.
        tried: As `steps.TRIED`.
    """

    def __init__(
        self,
        model: Any,
        *,
        captures: bool | None = None,
        use_triton: bool | None = None,
        tried: Sequence[str] = TRIED,
    ):
        self.model, self._tried = model, tried
        self._captures, self._use_triton = captures, use_triton
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Workspace] = []
        self._stepper: Stepper | None = None
        self._weights: tuple[Any, ...] = ()
        self._said: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy of the model begins without graphs."""
        return {"model": self.model, "_captures": self._captures, "_use_triton": self._use_triton, "_tried": self._tried}  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def make_runner(self) -> Runner:
        """Returns a runner without sequences, a `TorchRunner` where the model cannot be captured (said once in the log)."""
        reason = why_not(self.model, captures=self._captures is not False)
        if reason is None:
            return GraphRunner(self)
        if reason != self._said:
            logger.info("generating without CUDA graphs: %s", reason)
            self._said = reason
        return TorchRunner(self.model)

    def take(self) -> Workspace:
        """Returns a workspace that nobody uses."""
        weights = tuple((one.data_ptr(), one.dtype) for one in _tensors(self.model))
        with self._lock:
            if self._stepper is None or weights != self._weights:
                self._discard()
                self._weights, self._stepper = weights, self._make_stepper()
            if self._idle:
                return self._idle.pop()
            return Workspace(self._stepper, self._captured)

    @property
    def _captured(self) -> bool:
        return self.model.device.type == "cuda" if self._captures is None else self._captures

    @property
    def reads_prompts(self) -> bool:
        """Whether prompts are read as one list of tokens too."""
        return self._stepper is not None and self._stepper.prefill is not None

    def give_back(self, workspace: Workspace) -> None:
        """Takes a workspace that is not used any more."""
        with self._lock:
            if workspace.stepper is self._stepper:
                self._idle.append(workspace)
                return
        workspace.discard()

    def free(self) -> None:
        """Gives the memory of workspaces that nobody uses back."""
        with self._lock:
            self._discard()

    def _discard(self) -> None:
        while self._idle:
            self._idle.pop().discard()

    def _make_stepper(self) -> Stepper:
        model, use, config = self.model, self._use_triton, self.model.config
        sizes = (config.num_attention_heads, config.hidden_size // config.num_attention_heads, config.hidden_act)  # fmt: skip
        if use is None:
            use = model.device.type == "cuda"

        def kernels(name: str) -> Any:
            return triton_kernels(name, model.device, _dtype(model), sizes) if use else None

        steps = kernels("kernels")
        # Without Triton reading prompts asks the device for numbers, which cannot be captured and is no faster.
        plain = None if self._captured else prefill.PlainPrefill
        return Stepper(
            model,
            steps,
            None if use and steps is None else kernels("prefill_kernels") or plain,
            kernels("int8_kernels") if steps is not None and has_int8(model) else None,
            self._tried,
        )


def release(model: Any) -> None:
    """Gives back the memory that a model's last calls left for the next: the cache of keys and values, captured steps."""
    decoder = getattr(getattr(model, "make_runner", None), "__self__", None)
    if isinstance(decoder, GraphDecoder):
        decoder.free()


def why_not(model: Any, captures: bool = True) -> str | None:
    """Returns why a model's steps cannot be captured, or None if they can; without `captures`, why there are no such steps."""
    if model.training:
        return "the model is in training mode; call model.eval()"
    if model.glm.virtual_tokens is not None:
        return "it has an adapter's virtual tokens"
    if model.config._attn_implementation == "eager":
        return "it was loaded with attn_implementation='eager'"
    devices = {tensor.device for tensor in _tensors(model)}
    if len(devices) > 1 or hasattr(model, "hf_device_map"):
        return f"its weights are on {len(devices)} devices"
    for layer in model.glm.transformer.layers:
        for one in _linears(layer):
            if type(one) not in (nn.Linear, Int8Linear):
                return f"its layers have {type(one).__name__} in the place of Linear (an adapter, quantization)"
    if captures and next(iter(devices)).type != "cuda":
        return f"CUDA graphs are for GPUs of NVIDIA or AMD, the model is on {next(iter(devices))}"
    return None


def on_this_machine() -> str:
    """Returns with whose operations GPUs here write by captured steps."""
    triton = importlib.util.find_spec("triton") is not None
    return f"on GPUs, {'kernels of Triton' if triton else 'operations of torch (Triton is not installed)'}"
