"""transformers' generation on a runner: its search chooses tokens, the native decoder reads them.

In: what `generate` takes. Out: what it returns. Rows of a batch that are alike (the beams of a prompt) are read once and forked;
when beams change places their sequences follow. It has no weights and knows nothing of how the decoder computes.

Shapes: B rows, L tokens of a row, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from glmkit.generation.runner import Runner, follow
from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.native.reading import row_feed

ARGUMENTS = frozenset(
    (
        *("input_ids", "position_ids", "attention_mask", "prefix_lengths", "media_embeds"),
        *("max_length", "max_new_tokens", "min_new_tokens", "eos_token_id", "pad_token_id"),
        *("do_sample", "temperature", "top_k", "top_p", "num_return_sequences"),
        *("num_beams", "length_penalty", "early_stopping", "prompt_in_length_penalty"),
        *("repetition_penalty", "no_repeat_ngram_size", "suppress_tokens"),
        *("logits_processor", "stopping_criteria", "streamer"),
        *("output_scores", "return_dict_in_generate"),
    )
)
"""What `generate` may be told here, `use_cache=True` aside; anything else may need what the decoder does not do."""


class GeneratingModel(GLMForConditionalGeneration):
    """The outside of a GLM, without weights, for transformers' generation; a `RunnerCache` reads in its place."""

    def __init__(self, config: GLMConfig):
        with torch.device("meta"):
            super().__init__(config)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where tokens and logits are."""
        return torch.device("cpu")

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        cache: RunnerCache,
        attention_mask: torch.Tensor | None = None,
        prefix_lengths: torch.Tensor | None = None,
        media_embeds: torch.Tensor | None = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Returns logits [B, 1, V] after the last token of each row."""
        batch = {"input_ids": input_ids, "position_ids": position_ids, "media_embeds": media_embeds}
        if not cache.sequences:
            batch |= {"attention_mask": attention_mask, "prefix_lengths": prefix_lengths}
        return CausalLMOutputWithPast(logits=cache.read(batch)[:, None])


class RunnerCache(Cache):
    """Sequences of a runner, as transformers' generation hands a cache around.

    Attributes:
        sequences: Handle of each row; none before the first pass.
    """

    def __init__(self, runner: Runner):
        super().__init__(layers=[])
        self._runner = runner
        self.sequences: list[int] = []

    def read(self, batch: dict[str, Any]) -> torch.Tensor:
        """Reads what is new of each row; returns logits [B, V]."""
        size = len(batch["input_ids"])
        if self.sequences:
            feeds = [row_feed(batch, row, self.sequences[row], 1) for row in range(size)]
            return torch.from_numpy(np.concatenate(self._runner.forward(feeds)))
        fields = [
            batch[name]
            for name in ("input_ids", "position_ids", "attention_mask", "prefix_lengths")
            if batch[name] is not None
        ]
        alike = [tuple(tuple(one[row].flatten().tolist()) for one in fields) for row in range(size)]
        parents = [alike.index(one) for one in alike]
        first = {row: self._runner.open() for row in dict.fromkeys(parents)}
        feeds = [row_feed(batch, row, sequence, 1) for row, sequence in first.items()]
        logits = dict(zip(first, self._runner.forward(feeds), strict=True))
        places = list(first)
        self.sequences = follow(
            self._runner, list(first.values()), [places.index(one) for one in parents]
        )
        return torch.from_numpy(np.concatenate([logits[one] for one in parents]))

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Lets row i go on from what row `beam_idx[i]` has read."""
        self.sequences = follow(self._runner, self.sequences, beam_idx.tolist())
