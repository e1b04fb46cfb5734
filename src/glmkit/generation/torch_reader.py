"""A torch model as a `Reader` (`generation.reading`): part A and all nodes on one cache.

In: prompts, then nodes of trees of contents. Out: their hidden states.

Shapes: B prompts, Q nodes read now, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from glmkit.blanks.media import check_media, one_table
from glmkit.generation.prompts import Prompt
from glmkit.generation.reading import part_a_inputs


class BlankReader:
    """A `Reader` on a torch model: all nodes in one pass, on a cache, each seeing its own path.

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
        inputs = part_a_inputs(model, ids, specials, side="left")
        self._part_a = inputs["attention_mask"] > 0
        self._cache = DynamicCache(config=model.config)
        with torch.inference_mode():
            model.glm(**inputs, media_embeds=media, cache=self._cache, use_cache=True)

    @torch.inference_mode()
    def read(self, tokens: np.ndarray, positions: np.ndarray, sees: np.ndarray) -> torch.Tensor:
        """See `Reader`."""
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
