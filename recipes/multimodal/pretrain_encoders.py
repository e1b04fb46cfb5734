"""Encoders that see and hear before a GLM asks them: trained on what each place of a picture, each moment of a sound contains.

    python recipes/multimodal/pretrain_encoders.py DATA FOLDER image [PROCESSES]
    python recipes/multimodal/pretrain_encoders.py DATA FOLDER audio [PROCESSES]

Reads `{image,audio}.{train,valid,heldout}.jsonl` of `make_data.py`; writes FOLDER/image and FOLDER/audio as checkpoints of transformers, with which
`media.image.encoder=FOLDER/image` begins. An encoder that learns through a GLM's answers alone gets one word of gradient for a whole picture:
after 1,700 steps of descriptions shapes and timbres were still at chance. Here every cell and every frame has its own targets; the linear
heads that tell them are thrown away. Pictures take some 5 minutes of one core or half a minute of a GPU, sounds a quarter of an hour
or a minute; PROCESSES decode the media.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from decoded import decode
from encoders import save_encoder
from scenes import COLOURS, PIXELS, SHAPES
from sounds import INTERVALS, PITCHES, SECONDS, TIMBRES
from torch import nn

from glmkit.multimodal.building import SMALL
from glmkit.multimodal.configuration import GLMMediaConfig
from glmkit.multimodal.modeling import GLMMediaModel
from glmkit.runtime import has_fast_bfloat16

EPOCHS = {"image": 5, "audio": 4}
BATCH = 64
LEARNING_RATE = 2e-3
HEARD_OFTEN = 4
"""Spoken digits, a third of the sounds, have one target each and not one for each frame: they weigh so much more."""

Targets = dict[str, np.ndarray]
SIZES, TEMPOS, PITCH_NAMES = ("small", "big"), tuple(INTERVALS), tuple(PITCHES)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# -- pictures: a target for each cell of the encoder's grid


def cells(scene: dict[str, Any], grid: int) -> Targets:
    """Returns what the cell of each shape's centre holds, [cells] each, -1 (or nan) where there is none."""
    side = PIXELS / grid
    found = {name: np.full(grid * grid, -1) for name in ("colour", "shape", "size")}
    place = np.full((grid * grid, 2), np.nan, np.float32)
    for one in scene["shapes"]:
        column, row = int(one["x"] / side), int(one["y"] / side)
        cell = row * grid + column
        found["colour"][cell] = list(COLOURS).index(one["colour"])
        found["shape"][cell] = SHAPES.index(one["shape"])
        found["size"][cell] = SIZES.index(one["size"])
        place[cell] = one["x"] / side - column - 0.5, one["y"] / side - row - 0.5
    return {**found, "there": (found["shape"] >= 0).astype(np.int64), "place": place}


def mirrored(values: torch.Tensor, targets: dict[str, torch.Tensor]) -> None:
    """Mirrors half of a batch of pictures, in place: every shape is its own mirror image, turned a little otherwise."""
    grid = round(targets["there"].shape[1] ** 0.5)
    half = len(values) // 2
    values[:half] = values[:half].flip(-1)
    for target in targets.values():
        target[:half] = target[:half].unflatten(1, (grid, grid)).flip(2).flatten(1, 2)
    targets["place"][:half, :, 0] *= -1


# -- sounds: a target for each frame, and of spoken digits for the whole


def frames(sound: dict[str, Any], count: int, seconds: float) -> Targets:
    """Returns what each frame holds, [frames]; of a digit what all of the sound says, [1]."""
    names = ("pitch", "timbre", "tempo", "number", "digit", "language")
    found = {name: np.full(1 if name in ("digit", "language") else count, -1) for name in names}
    # Octaves from 700 Hz, and from 0.3 seconds between beeps.
    place = np.full((count, 2), np.nan, np.float32)
    if sound["type"] == "digit":
        found["digit"][:] = sound["digit"]
        found["language"][:] = ("zh", "en").index(sound["spoken_language"])
        return {**found, "there": np.full(count, -1), "place": place}
    middle = (np.arange(count) + 0.5) * seconds / count - sound["start"]
    beep = np.floor(middle / sound["interval"]).astype(int)
    within = (middle - beep * sound["interval"] < sound["length"]) & (beep >= 0)
    within &= beep < sound["count"]
    if sound["pitch"]:
        found["pitch"][within] = PITCH_NAMES.index(sound["pitch"])
    found["timbre"][within] = TIMBRES.index(sound["timbre"])
    found["number"][within] = beep[within]
    later = within & (beep > 0)
    if sound["tempo"]:
        found["tempo"][later] = TEMPOS.index(sound["tempo"])
    place[within, 0] = np.log2(np.array(sound["notes"]) / 700)[beep[within]]
    place[later, 1] = np.log2(sound["interval"] / 0.3)
    return {**found, "there": within.astype(np.int64), "place": place}


CLASSES = {
    "image": {"colour": len(COLOURS), "shape": len(SHAPES), "size": 2, "there": 2},
    "audio": {"pitch": 3, "timbre": len(TIMBRES), "tempo": len(TEMPOS), "number": 4, "digit": 10, "language": 2, "there": 2},
}  # fmt: skip
OF_ALL = ("digit", "language")


class Learner(nn.Module):
    """An encoder and a linear head for each target."""

    def __init__(self, kind: str):
        super().__init__()
        medium = SMALL[kind]
        config = GLMMediaConfig(hidden_size=128, media={kind: medium}, initializer_range=0.08)
        self.media: Any = GLMMediaModel(config)
        self.encoder: Any = self.media.towers[kind].encoder
        if kind == "audio":
            # A hundred moments are few: in bfloat16 on a CPU SDPA takes longer (`glmkit.training.building.SHORT_ROW`).
            self.encoder.model.set_attn_implementation("eager")
        self.kind, width = kind, self.encoder.width
        self.heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in CLASSES[kind].items()})
        self.place = nn.Linear(width, 2)

    def forward(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns for each target logits [n, P, classes] (of the whole [n, 1, classes]), and `place` [n, P, 2]."""
        features = self.encoder(values)
        whole = features.mean(1, keepdim=True)
        told = {name: head(whole if name in OF_ALL else features) for name, head in self.heads.items()}  # fmt: skip
        return {**told, "place": self.place(features)}

    def loss(self, values: torch.Tensor, targets: dict[str, torch.Tensor]) -> torch.Tensor:
        told = self(values)
        known = ~targets["place"].isnan()
        loss = 4 * F.mse_loss(told["place"][known], targets["place"][known])
        for name in self.heads:
            some = targets[name].flatten()
            if (some >= 0).any():
                weight = HEARD_OFTEN if name in OF_ALL else 1
                loss = loss + weight * F.cross_entropy(told[name].flatten(0, 1), some, ignore_index=-1)  # fmt: skip
        return loss


def prepared(
    learner: Learner, data: Path, split: str, processes: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Returns what the encoder reads (half precision), and all targets."""
    kind, grid = learner.kind, learner.encoder.grid
    lines = records(data / f"{kind}.{split}.jsonl")
    target_of: Callable[[Any], Targets] = (
        partial(cells, grid=grid[0])
        if kind == "image"
        else partial(frames, count=grid[0], seconds=SECONDS)
    )
    truth = [target_of(one["scene"]) for one in lines]
    values = decode(learner.media, kind, [data / one[kind] for one in lines], processes).values
    targets = {name: torch.from_numpy(np.stack([one[name] for one in truth])) for name in truth[0]}
    return torch.from_numpy(values), targets


def batches(count: int, epochs: int, device: torch.device) -> Iterator[torch.Tensor]:
    for _ in range(epochs):
        order = torch.randperm(count).to(device)
        yield from (part for part in order.split(BATCH) if len(part) == BATCH)


@torch.inference_mode()
def accuracy(
    learner: Learner, values: torch.Tensor, targets: dict[str, torch.Tensor]
) -> dict[str, float]:
    """Returns the share of right answers at the places where there is something to tell."""
    learner.eval()
    told = learner(values.float())
    learner.train()
    found = {}
    for name in learner.heads:
        known = targets[name] >= 0
        if known.any():
            right = told[name].argmax(-1)[known] == targets[name][known]
            found[name] = round(float(right.float().mean()), 3)
    return found


def main() -> None:
    if len(sys.argv) not in (4, 5) or sys.argv[3] not in CLASSES:
        sys.exit(__doc__)
    data, target, kind = Path(sys.argv[1]), Path(sys.argv[2]) / sys.argv[3], sys.argv[3]
    processes = int(sys.argv[4]) if len(sys.argv) == 5 else 1
    torch.manual_seed(0)
    learner: Any = Learner(kind)
    sides = [prepared(learner, data, split, processes) for split in ("train", "valid", "heldout")]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learner.to(device)
    (values, targets), valid, held_out = (
        (one.to(device), {name: some.to(device) for name, some in truth.items()})
        for one, truth in sides
    )
    steps, bf16 = EPOCHS[kind] * (len(values) // BATCH), has_fast_bfloat16(device)
    optimizer = torch.optim.AdamW(learner.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    begun = time.process_time()
    for step, part in enumerate(batches(len(values), EPOCHS[kind], device), start=1):
        batch = values[part].float()
        some = {name: one[part] for name, one in targets.items()}
        if kind == "image":
            mirrored(batch, some)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = learner.loss(batch, some)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == steps:
            seconds = time.process_time() - begun
            sys.stderr.write(f"{step}/{steps}  loss {loss.item():.3f}  {accuracy(learner, *valid)}  {seconds:.0f} s\n")  # fmt: skip
    sys.stderr.write(f"held-out combinations: {accuracy(learner, *held_out)}\n")
    save_encoder(learner.media.cpu(), kind, target)


if __name__ == "__main__":
    main()
