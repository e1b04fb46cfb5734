"""Part A read once, then possible contents of its blank, in as many steps as one likes, on the same cache.

In: a model and prompts, then nodes of trees of contents. Out: hidden states of the nodes. Scoring of given choices and
the search among many (`choices`, `spans`) stand on it.

Shapes: B prompts, S tokens of the longest part A, Q nodes read now, F nodes read before, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from glmkit.blanks.layout import collate, lay_out
from glmkit.generation.prompts import Prompt
from glmkit.model.media import check_media, one_table

LOGIT_ROWS = 512
"""Nodes whose logits [512, V] are held at once."""


class BlankReader:
    """A batch of prompts whose part A has been read.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode.
        prompts: B prompts with one blank each.
        specials: The tokenizer's `special_ids`.

    Raises:
        GenerationError: Embeddings of media that are not as wide as the model.
    """

    def __init__(self, model: Any, prompts: Sequence[Prompt], specials: Any):
        self.model = model
        for one in prompts:
            check_media(one.ids, one.embeddings, model.config.hidden_size)
        tables = [one.embeddings for one in prompts]
        ids, media = one_table([one.ids for one in prompts], tables, model.device)
        inputs = part_a_inputs(ids, specials, model.device, side="left")
        self._part_a = inputs["attention_mask"] > 0
        self._cache = DynamicCache(config=model.config)
        with torch.inference_mode():
            model.glm(**inputs, media_embeds=media, cache=self._cache, use_cache=True)

    @torch.inference_mode()
    def read(self, tokens: np.ndarray, positions: np.ndarray, sees: np.ndarray) -> torch.Tensor:
        """Reads more nodes and returns their hidden states [B, Q, H].

        Args:
            tokens: int64 [B, Q].
            positions: int64 [B, 2, Q], position and block position.
            sees: bool [B, Q, F + Q], which nodes of part B each one sees (itself among them), in the order in which
                they were read. All see part A.
        """
        device, queries = self.model.device, tokens.shape[1]
        part_a = self._part_a[:, None, None].expand(-1, 1, queries, -1)
        part_b = torch.from_numpy(sees).to(device)[:, None]
        return self.model.glm(
            input_ids=torch.from_numpy(tokens).to(device),
            position_ids=torch.from_numpy(positions).to(device),
            attention_mask=torch.cat((part_a, part_b), -1).float(),
            cache=self._cache,
            use_cache=True,
        ).last_hidden_state


def part_a_inputs(
    rows: Sequence[Any], specials: Any, device: torch.device | str, side: str = "right"
) -> dict[str, torch.Tensor]:
    """Returns what a model takes to read texts that are part A throughout: fields of `layout.collate` as tensors.

    Args:
        rows: Ids of each text, B of them, a sequence or an array.
        specials: The tokenizer's `special_ids`.
        device: Where the model computes.
        side: Where rows are filled up, "right" or "left".
    """
    batch = collate([lay_out(row, [], specials.sop) for row in rows], specials.pad, side=side)
    del batch["labels"]
    return {name: torch.from_numpy(array).to(device) for name, array in batch.items()}


@torch.inference_mode()
def log_probabilities(
    model: Any, hidden: torch.Tensor, rows: np.ndarray, tokens: np.ndarray
) -> np.ndarray:
    """Returns float64 [n]: the log-probability (nats) of `tokens[i]` after the state `hidden[rows[i]]`.

    Args:
        model: The model whose head it is.
        hidden: [N, H].
        rows: int64 [n].
        tokens: int64 [n].
    """
    result = np.empty(len(rows))
    for start in range(0, len(hidden), LOGIT_ROWS):
        here = np.flatnonzero((rows >= start) & (rows < start + LOGIT_ROWS))
        scores = model.lm_head(hidden[start : start + LOGIT_ROWS]).float().log_softmax(-1)
        chosen = scores[torch.from_numpy(rows[here] - start), torch.from_numpy(tokens[here])]
        result[here] = chosen.double().cpu().numpy()
    return result
