"""One objective and seed -> a pretrained model, by the trainer, the stream and the checkpoints of `glmkit pretrain`.

In: a checked `PretrainConfig`, the family. Out: its report; `model/` in the run's folder. Families differ in the layout of a
sample and in the network; texts, their order, rows, steps, optimizer and schedule are the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import TrainingArguments, set_seed

from glmkit.blanks.packing import Slot
from glmkit.comparison.layouts import PeerLayout, peer_layout
from glmkit.comparison.models import MODELS, build_peer
from glmkit.config import to_values
from glmkit.errors import CheckpointError
from glmkit.model.loading import quiet_unless_terminal
from glmkit.tokens.store import TokenStore
from glmkit.tokens.tokenizer import GLMTokenizer
from glmkit.training.building import model_config
from glmkit.training.data import PretrainingStream, Sample
from glmkit.training.logs import Progress, RunLog
from glmkit.training.pretrain import pretrain, train_and_held_out
from glmkit.training.report import PretrainReport
from glmkit.training.settings import PretrainConfig
from glmkit.training.trainer import GLMTrainer


def pretrain_family(
    config: PretrainConfig, family: str, progress: Progress | None = None
) -> PretrainReport:
    """Pretrains, or goes on, or returns the report of a finished run.

    Args:
        config: Checked.
        family: One of `models.MODELS`.
        progress: For a progress bar.

    Raises:
        ConfigError, CheckpointError, TrainingStopped: As `training.pretrain.pretrain`.
    """
    if family == "glm":
        return pretrain(config, progress=progress)

    def build(
        config: PretrainConfig, progress: Progress | None, args: TrainingArguments
    ) -> GLMTrainer:
        return _build_trainer(family, config, progress, args)

    return pretrain(config, progress=progress, build=build)


def load_pretrained(family: str, folder: Any) -> Any:
    """Returns the float32 model of a finished run, on the CPU."""
    with quiet_unless_terminal(False):
        return MODELS[family].from_pretrained(folder, dtype="float32", attn_implementation="sdpa")


class PeerStream(PretrainingStream):
    """A `PretrainingStream` whose samples another family's layout makes.

    Args:
        layout: Of the family.
        family: Its name, under which losses are logged.
        *args: As `PretrainingStream`.
        **options: As `PretrainingStream`.
    """

    def __init__(self, layout: PeerLayout, family: str, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.layout, self.family = layout, family
        self.objective_names = (family,)

    def _make(self, slot: Slot, rng: np.random.Generator) -> Sample | None:
        ids = self.store.tokens(slot.start, slot.stop)
        if slot.needs_cls:
            ids = np.concatenate(([self.specials.cls], ids))
        example = self.layout.pretraining(ids, rng)
        return None if example is None else Sample(self.family, example, slot.text)


class PeerTrainer(GLMTrainer):
    """A `GLMTrainer` of a model whose head has weights of its own name, tied to the embedding."""

    def _set_weights(self, model: Any, weights: dict[str, Any]) -> None:
        found = model.load_state_dict(weights, strict=False)
        lacking = set(found.missing_keys) - set(model.all_tied_weights_keys)
        if lacking or found.unexpected_keys:
            raise CheckpointError(
                f"the checkpoint holds another model; missing: {sorted(lacking)}, unexpected: {found.unexpected_keys}"
            )
        model.tie_weights()


def _build_trainer(
    family: str,
    config: PretrainConfig,
    progress: Progress | None,
    args: TrainingArguments,
) -> GLMTrainer:
    """Returns the trainer of a peer, nothing trained yet."""
    set_seed(args.seed)
    tokenizer = GLMTokenizer.from_pretrained(config.data.folder / "tokenizer")
    model = build_peer(family, model_config(config, tokenizer))
    specials = tokenizer.special_ids
    layout = peer_layout(family, specials, len(tokenizer))

    def stream(split: str, **options: Any) -> PeerStream:
        return PeerStream(
            layout,
            family,
            TokenStore.open(config.data.folder / split),
            specials,
            config.objectives,
            **options,
        )

    train, held_out = train_and_held_out(config, args, stream)
    log = RunLog(config.output_dir, progress, to_values(config))
    return PeerTrainer(model, args, train, held_out, tokenizer, [log])
