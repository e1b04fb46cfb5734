"""Both lessons, descriptions and questions, for a GLM whose encoders stay as they are: minutes on a GPU, an hour and a half on a CPU.

    python recipes/multimodal/lessons.py small data encoders runs/multimodal/model --minutes 5 --processes 14  # a GPU
    python recipes/multimodal/lessons.py small data encoders runs/multimodal/model --minutes 85                # two cores
    python recipes/multimodal/lessons.py glm-mini data encoders runs/eyes/model --only image --lora 16 --minutes 5

In: a GLM, the media and questions of `make_data.py` and `describe.py`, the encoders of `pretrain_encoders.py`. Out: a multimodal model or adapter,
written at each evaluation; given in the GLM's place it learns on, with the encoders that it has.
`glmkit finetune` with scratch-dense.yaml and scratch.yaml learns the same. Here every medium goes through its encoder once, everything lies on
the device, and a step, weights' update and all, is one captured CUDA graph: so small a model spends its time on launches, and needs many steps
to learn where things are from each other. On a CPU, which has nothing to launch, each kind of medium has a pass of its own, no longer than its
longest row.

Shapes: N questions, B of a step, L tokens of a row, A tokens of the longest answer, n media, P features of one, D their width.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from decoded import Decoded, decode

from glmkit import GLMForConditionalGeneration, GLMTokenizer
from glmkit.blanks.layout import IGNORE_INDEX, collate
from glmkit.checkpoint import new_folder, resolve
from glmkit.checkpoint.adapters import ADAPTER_CONFIG, base_of, is_adapter
from glmkit.checkpoint.configs import read_json
from glmkit.model.adapters import add_lora, load_merged, save_adapter, set_adapter_weights
from glmkit.multimodal.building import SMALL, build_media
from glmkit.multimodal.configuration import MediumConfig
from glmkit.multimodal.media import KINDS
from glmkit.multimodal.modeling import GLMForMultimodalGeneration, load_media
from glmkit.runtime import has_fast_bfloat16
from glmkit.special_tokens import FIRST_MEDIA_ID
from glmkit.tasks.encoding import decode_sample, encode_record
from glmkit.tasks.records import read_questions
from glmkit.tasks.rendering import expand
from glmkit.tasks.task import load_task
from glmkit.training.building import choose_attention
from glmkit.training.finetune_trainer import read_weights

LENGTH = 128
"""Most tokens of a row."""

DENSE_EVERY = 5
"""Of so many steps one is of descriptions, after those that are of nothing else."""

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

ROWS = "384" if DEVICE.type == "cuda" else "60"
"""Questions of a step: a GPU takes many in the time of few; on a CPU few leave time for more steps, and more is learnt in an hour."""

WINDOW = 4
"""On a CPU so many batches' questions are sorted by length and dealt out again, which leaves a third of the padding."""

WARMUP_STEPS, DECAY = 300, 0.3
"""Steps in which the rate rises, and the share of the run at whose end it has fallen to nothing."""

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Questions:
    """Questions about the media of one kind.

    Attributes:
        tensors: int64 `input_ids` [N, L], `position_ids` [N, 2, L], `prefix_lengths` [N]; `places` [N, A] of predicted tokens, and
            `targets` [N, A], `IGNORE_INDEX` where an answer is shorter; `medium` [N]; `length` [N] of rows without their padding.
        asked: What each asks for.
    """

    tensors: Tensors
    asked: np.ndarray

    def __len__(self) -> int:
        return len(self.asked)

    def to(self, device: torch.device) -> Questions:
        return Questions({name: one.to(device) for name, one in self.tensors.items()}, self.asked)


# -- reading


def paths_of(data: Path, kind: str, split: str) -> list[Path]:
    lines = (data / f"{kind}.{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [data / json.loads(line)[kind] for line in lines]


def read(
    source: Path, paths: Sequence[Path], tokenizer: GLMTokenizer, rows: int, processes: int
) -> Questions:
    """Returns the questions of a file about some media, encoded as `glmkit finetune` encodes them.

    Args:
        source: JSON lines.
        paths: Of the media, in their order; what is asked about others is left out.
        tokenizer: The model's.
        rows: That one medium takes.
        processes: That read.
    """
    index = {str(path): number for number, path in enumerate(paths)}
    job = partial(_read_part, source, index, tokenizer, rows, processes)
    with get_context("fork").Pool(processes) as pool:
        found = [one for part in pool.map(job, range(processes)) for one in part]
    asked, media, examples = zip(*found, strict=True)
    batch = collate(examples, tokenizer.special_ids.pad)
    predicted = batch["labels"] != IGNORE_INDEX
    longest = int(predicted.sum(1).max())
    places = np.argsort(~predicted, axis=1, kind="stable")[:, :longest]
    targets = np.take_along_axis(batch["labels"], places, 1)
    arrays = {name: batch[name] for name in ("input_ids", "position_ids", "prefix_lengths")} | {
        "places": np.where(targets == IGNORE_INDEX, 0, places),
        "targets": targets,
        "medium": np.array(media),
        "length": np.array([len(example) for example in examples]),
    }
    return Questions({k: torch.from_numpy(v) for k, v in arrays.items()}, np.array(asked))


def _read_part(
    source: Path, index: dict[str, int], tokenizer: GLMTokenizer, rows: int, parts: int, part: int
) -> list[tuple[str, int, Any]]:
    """Returns what every question of a part asks for, the number of its medium, and its example."""
    task, found = load_task("multimodal"), []
    for number, (record, where) in enumerate(read_questions(task, source)):
        for one in expand(task, record, where) if number % parts == part else ():
            ids, media, _ = encode_record(task, one, tokenizer, LENGTH, where, lambda _: rows)
            if ids is not None and (medium := index.get(str(media[0].source))) is not None:
                found.append((str(one["kind"]), medium, decode_sample(ids, tokenizer.special_ids)))
    return found


# -- the model


@dataclass
class Learner:
    """A model, what its encoders made of all media, and how it learns."""

    model: Any
    features: dict[str, Tensors]
    optimizer: torch.optim.Optimizer
    device: torch.device
    bf16: bool = False

    @property
    def base(self) -> Any:
        """The GLM with its media, whatever wraps it."""
        wraps = hasattr(self.model, "get_base_model")
        return self.model.get_base_model() if wraps else self.model

    def logits(self, parts: Mapping[str, tuple[str, Tensors]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns logits [B, A, V] at the places of answers, and the targets [B, A].

        Args:
            parts: Kind of medium -> (split, questions of a step).
        """
        table, batch, first = [], defaultdict(list), 0
        length = max(one["input_ids"].shape[1] for _, one in parts.values())
        answer = max(one["targets"].shape[1] for _, one in parts.values())
        for kind, (split, one) in parts.items():
            tower = self.base.media.towers[kind]
            made = self.features[f"{kind}.{split}"]
            times = made["times"][one["medium"]] if "times" in made else None
            table.append(
                tower.rows_of(made["features"][one["medium"]].float(), times).flatten(0, 1)
            )
            ids = one["input_ids"]
            begins = first + tower.rows * torch.arange(len(ids), device=ids.device)[:, None]
            first += tower.rows * len(ids)
            ids = torch.where(ids >= FIRST_MEDIA_ID, ids + begins, ids)
            batch["input_ids"].append(F.pad(ids, (0, length - ids.shape[1])))
            batch["position_ids"].append(F.pad(one["position_ids"], (0, length - ids.shape[1])))
            batch["prefix_lengths"].append(one["prefix_lengths"])
            missing = answer - one["targets"].shape[1]
            batch["places"].append(F.pad(one["places"], (0, missing)))
            batch["targets"].append(F.pad(one["targets"], (0, missing), value=IGNORE_INDEX))
        whole = {name: torch.cat(some) for name, some in batch.items()}
        places, targets = whole.pop("places"), whole.pop("targets")
        kind_of_device = self.device.type
        with torch.autocast(kind_of_device, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            hidden = self.base.glm(**whole, media_embeds=torch.cat(table), use_cache=False)
            picked = hidden.last_hidden_state.gather(
                1, places[..., None].expand(-1, -1, hidden.last_hidden_state.shape[-1])
            )
            return self.base.lm_head(picked), targets

    def update(self, parts: Mapping[str, tuple[str, Tensors]]) -> torch.Tensor:
        """Takes a step; returns the loss, a mean over the answers' tokens."""
        tokens = sum((one["targets"] != IGNORE_INDEX).sum() for _, one in parts.values())
        apart = [{kind: one} for kind, one in parts.items()]
        found = []
        for some in [parts] if self.device.type == "cuda" else apart:
            logits, targets = self.logits(some)
            loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum")
            (loss / tokens).backward()
            found.append(loss.detach())
        learning = self.optimizer.param_groups[0]["params"]
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        self.optimizer.step()
        return torch.stack(found).sum() / tokens

    def set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    @torch.inference_mode()
    def right(self, kind: str, split: str, questions: Questions) -> dict[str, float]:
        """Returns the share of answers that are written as they should be, greedily and to the character, by what is asked.

        An answer whose every token is the likeliest after those before it is the one that greedy decoding writes.
        """
        self.model.eval()
        right = []
        for some in torch.arange(len(questions), device=self.device).split(512):
            one = {name: values[some] for name, values in questions.tensors.items()}
            logits, targets = self.logits({kind: (split, one)})
            right.append(((logits.argmax(-1) == targets) | (targets == IGNORE_INDEX)).all(1).cpu())
        self.model.train()
        found = torch.cat(right).numpy()
        return {
            str(asked): round(float(found[questions.asked == asked].mean()), 3)
            for asked in np.unique(questions.asked)
        }


class Lesson:
    """Steps of one lesson, with questions about every kind of medium; on a GPU a captured graph.

    Args:
        learner: Who learns.
        questions: Kind of medium -> questions.
        rows: Of a step, kind of medium -> how many.
    """

    def __init__(
        self, learner: Learner, questions: Mapping[str, Questions], rows: Mapping[str, int]
    ):
        self.learner, self.questions, self.rows = learner, questions, rows
        self.chosen = {
            kind: torch.zeros(count, dtype=torch.int64, device=learner.device)
            for kind, count in self.rows.items()
        }
        self.orders = {kind: self._indices(kind) for kind in questions}
        self.graph: Any = None
        self.loss = torch.zeros((), device=learner.device)

    def _indices(self, kind: str) -> Iterator[torch.Tensor]:
        """Yields indices of questions for ever: all of them in random order, again and again."""
        questions, rows = self.questions[kind], self.rows[kind]
        lengths = questions.tensors["length"]
        while True:
            order = torch.randperm(max(len(questions), rows), device=lengths.device)
            order %= len(questions)
            if lengths.device.type == "cuda":
                parts = order.split(rows)
            else:
                windows = order.split(WINDOW * rows)
                parts = [part for one in windows for part in one[lengths[one].argsort()].split(rows)]  # fmt: skip
                parts = [parts[number] for number in torch.randperm(len(parts))]
            yield from (part for part in parts if len(part) == rows)

    def _parts(self) -> dict[str, tuple[str, Tensors]]:
        chosen = {
            kind: {name: one[self.chosen[kind]] for name, one in some.tensors.items()}
            for kind, some in self.questions.items()
        }
        if self.learner.device.type != "cuda":  # A captured step's shapes stay as they are.
            for one in chosen.values():
                longest = int(one["length"].max())
                for name in ("input_ids", "position_ids"):
                    one[name] = one[name][..., :longest]
        return {kind: ("train", one) for kind, one in chosen.items()}

    def step(self) -> None:
        for kind, order in self.orders.items():
            self.chosen[kind].copy_(next(order))
        if self.graph is not None:
            self.graph.replay()
            return
        self.learner.optimizer.zero_grad(set_to_none=True)
        self.loss = self.learner.update(self._parts())

    def capture(self) -> None:
        """Captures a step, on a GPU; the three before it are steps like any other."""
        if self.learner.device.type != "cuda":
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        self.learner.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.loss = self.learner.update(self._parts())
        self.graph = graph


# -- putting it together


@torch.inference_mode()
def encoded(media: Any, kind: str, decoded: Decoded, device: torch.device) -> Tensors:
    """Returns what the encoder makes of media: half-precision `features` [n, P, D], of clips [n, F, P, D] and `times` [n, F]."""
    encoder = (media.towers[kind].encoder or media.towers["image"].encoder).to(device).eval()
    found = []
    for start in range(0, len(decoded), 256):
        values = torch.from_numpy(np.asarray(decoded.values[start : start + 256])).to(device)
        one = encoder(values.flatten(0, 1).float() if kind == "video" else values.float())
        found.append((one.unflatten(0, values.shape[:2]) if kind == "video" else one).half())
    made = {"features": torch.cat(found)}
    if decoded.times is not None:
        made["times"] = torch.from_numpy(decoded.times).to(device)
    return {name: one.clone() for name, one in made.items()}


def rate_of(step: int, share: float, rate: float) -> float:
    """Returns the rate of a step when a share of the run has passed: up, constant, down."""
    return rate * min(1.0, (step + 1) / WARMUP_STEPS, (1.0 - share) / DECAY)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def teach(
    model: Annotated[str, typer.Argument(help="The GLM: a folder or name.")],
    data: Annotated[Path, typer.Argument(help="What make_data.py and describe.py wrote.")],
    encoders: Annotated[Path, typer.Argument(help="What pretrain_encoders.py wrote.")],
    out: Annotated[Path, typer.Argument(help="Folder of the model or adapter; it is made.")],
    minutes: Annotated[float, typer.Option(min=0.01, help="Ends after so long.")] = 60.0,
    steps: Annotated[int, typer.Option(min=1, help="Ends after so many steps.")] = 1_000_000,
    rows: Annotated[
        str, typer.Option(help="Questions of a step; or of each kind, with commas.")
    ] = ROWS,
    learning_rate: Annotated[float, typer.Option(help="The highest.")] = 1.5e-3,
    dense: Annotated[
        float, typer.Option(help="Share of the run that has descriptions alone.")
    ] = 0.25,
    bf16: Annotated[bool, typer.Option(help="Matrix products in bfloat16.")] = has_fast_bfloat16(
        DEVICE
    ),
    lora: Annotated[int, typer.Option(min=0, help="Rank of an adapter; 0: everything learns.")] = 0,
    only: Annotated[str, typer.Option(help="Kinds of media, with commas.")] = ",".join(KINDS),
    processes: Annotated[int, typer.Option(min=1, help="Processes that read and decode.")] = 2,
    valid: Annotated[int, typer.Option(min=1, help="Media of each kind in evaluations.")] = 500,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Teaches a GLM to describe media and to answer questions about them, its encoders frozen."""
    torch.manual_seed(seed)
    kinds = only.split(",")
    shares = shares_of(rows, kinds)
    adapter = resolve(model) if is_adapter(resolve(model)) else None
    base = model if adapter is None else base_of(adapter)
    glm = load_merged(GLMForConditionalGeneration, resolve(base), dtype="float32")
    glm.name_or_path = base
    tokenizer = GLMTokenizer.from_pretrained(resolve(base))
    media = load_media(resolve(model)) or build_media(settings_of(kinds, encoders), kinds, glm)
    glm.set_attn_implementation(choose_attention(glm.config, DEVICE, LENGTH, bf16))
    begun = time.monotonic()

    def say(text: str) -> None:
        typer.echo(f"{time.monotonic() - begun:6.1f} s  {text}")

    questions: dict[str, dict[str, Questions]] = defaultdict(dict)
    decoded = {}
    for kind in kinds:
        for split in ("train", "valid", "heldout"):
            paths = paths_of(data, kind, split)
            paths = paths if split == "train" else paths[:valid]
            decoded[f"{kind}.{split}"] = decode(media, kind, paths, processes)
            sources = {split: f"{kind}.{split}.jsonl"}
            if split == "train":
                sources["dense"] = f"{kind}.dense.train.jsonl"
            for name, source in sources.items():
                questions[name][kind] = read(data / source, paths, tokenizer, media.rows(kind), processes)  # fmt: skip
        say(f"{kind}: {len(questions['train'][kind]):,} questions, {len(questions['dense'][kind]):,} descriptions")  # fmt: skip
    questions = {name: {kind: one.to(DEVICE) for kind, one in some.items()} for name, some in questions.items()}  # type: ignore[assignment]  # fmt: skip
    features = {name: encoded(media, name.partition(".")[0], one, DEVICE) for name, one in decoded.items()}  # fmt: skip
    say("every medium has gone through its encoder")

    whole = GLMForMultimodalGeneration.of(glm, media)
    if adapter is not None:
        lora = read_json(adapter / ADAPTER_CONFIG)["r"]
    wrapped = add_lora(whole, rank=lora) if lora else whole
    if adapter is not None:
        set_adapter_weights(wrapped, read_weights(adapter))
    media.train_parts(("projector",))
    wrapped.to(DEVICE).train()
    learning = [one for one in wrapped.parameters() if one.requires_grad]
    on_gpu = DEVICE.type == "cuda"
    rate: Any = torch.tensor(0.0, device=DEVICE) if on_gpu else 0.0
    optimizer = torch.optim.AdamW(learning, lr=rate, weight_decay=0.05, fused=True, capturable=on_gpu)  # fmt: skip
    learner = Learner(wrapped, features, optimizer, DEVICE, bf16)
    describe, answer = (Lesson(learner, questions[name], shares) for name in ("dense", "train"))
    describe.capture()
    answer.capture()
    say(f"{sum(one.numel() for one in learning):,} weights learn")

    started, step, next_look = time.monotonic(), 0, 0.1
    while True:
        share = max(step / steps, (time.monotonic() - started) / (60 * minutes))
        if share >= 1:
            break
        learner.set_rate(rate_of(step, share, learning_rate))
        lesson = describe if share < dense or step % DENSE_EVERY == 0 else answer
        lesson.step()
        step += 1
        if share >= next_look:
            losses = f"losses {float(describe.loss):.3f}, {float(answer.loss):.3f}"
            scores = " ".join(f"{kind} {learner.right(kind, 'valid', one)}" for kind, one in questions["valid"].items())  # fmt: skip
            say(f"step {step:,}: {losses}; {scores}")
            save(wrapped, tokenizer, out)
            next_look += 0.15
    save(wrapped, tokenizer, out)
    for split in ("valid", "heldout"):
        for kind, one in questions[split].items():
            say(f"{step:,} steps, {kind}, {split}: {learner.right(kind, split, one)}")
    say(f"written to {out}")


def shares_of(rows: str, kinds: Sequence[str]) -> dict[str, int]:
    """Returns how many questions of a step are about each kind: as many about each, or as many as are said.

    Raises:
        BadParameter: Neither one number nor one for each kind, or one below 1.
    """
    found = [int(one) for one in rows.split(",") if one.isascii() and one.isdigit()]
    each = [found[0] // len(kinds)] * len(kinds) if len(found) == 1 else found
    if len(found) != rows.count(",") + 1 or len(each) != len(kinds) or min(each) < 1:
        raise typer.BadParameter(
            f"--rows {rows}: one number (at least {len(kinds)}), or {len(kinds)} with commas, for {', '.join(kinds)}"
        )
    return dict(zip(kinds, each, strict=True))


def settings_of(kinds: Sequence[str], encoders: Path) -> dict[str, MediumConfig]:
    """Returns how new media are read: by the encoders of `pretrain_encoders.py`."""
    # Frames are seen by the encoder of pictures.
    own = {kind: str(encoders / kind) for kind in kinds if kind != "video"}
    return {kind: replace(SMALL[kind], encoder=own.get(kind, {})) for kind in kinds}


def save(model: Any, tokenizer: GLMTokenizer, out: Path) -> None:
    """Writes a model or adapter, whole or not at all."""
    with new_folder(out, overwrite=True) as folder:
        if hasattr(model, "get_base_model"):
            save_adapter(model, folder)
        else:
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    app()
