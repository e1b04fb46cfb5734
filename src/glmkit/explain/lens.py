"""What each layer would write, and what the model might have written in place of each token.

In: hidden states of all layers. Out: `Lens` and `Step`s. A layer's state goes through the final LayerNorm and the tied
head as if the layers above it were not there; at the last layer these are the model's own probabilities.

Source: the logit lens, nostalgebraist 2020 ("interpreting GPT: the logit lens").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from glmkit.explain.results import Lens, Step
from glmkit.explain.rows import Rows
from glmkit.explain.units import token_text


@torch.no_grad()
def layer_log_probabilities(
    model: Any, hidden: Sequence[torch.Tensor], row: int, places: np.ndarray
) -> torch.Tensor:
    """Returns float32 [L + 1, K, V]: each layer's log-probabilities of what follows some places of a row."""
    where = torch.from_numpy(places)
    states = torch.stack([one[row, where] for one in hidden])
    norm = model.glm.transformer.final_layernorm
    return torch.stack([model.lm_head(norm(one)).float().log_softmax(-1) for one in states])


def lens_and_steps(
    model: Any,
    tokenizer: Any,
    hidden: Sequence[torch.Tensor],
    rows: Rows,
    content: int,
    top_k: int,
) -> tuple[Lens, tuple[Step, ...]]:
    """Returns what the layers say of a content's tokens (in the first row), and the alternatives to each.

    Args:
        model: A `GLMForConditionalGeneration`.
        tokenizer: Its `GLMTokenizer`.
        hidden: What `attention.read_with_maps` returns.
        rows: The rows.
        content: Index of the content.
        top_k: Alternatives to each token.
    """
    asked = rows.predictions
    chosen = asked.of(content)
    tokens = asked.tokens[chosen]
    found = layer_log_probabilities(model, hidden, 0, asked.places[chosen]).exp()
    known = found[..., : len(tokenizer)]  # rows above the vocabulary are padding
    written = found[:, torch.arange(len(tokens)), torch.from_numpy(tokens)].double().cpu().numpy()
    best = known.max(-1)
    names = [token_text(tokenizer, token) for token in tokens.tolist()]
    lens = Lens(
        tokens=tuple(names),
        probabilities=written,
        top=tuple(
            tuple(
                (token_text(tokenizer, token), share) for token, share in zip(*layer, strict=True)
            )
            for layer in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ),
    )
    likeliest = known[-1].topk(min(top_k, known.shape[-1]))
    steps = tuple(
        Step(
            token=name,
            probability=float(written[-1, number]),
            alternatives=tuple(
                (token_text(tokenizer, token), share)
                for token, share in zip(
                    likeliest.indices[number].tolist(),
                    likeliest.values[number].tolist(),
                    strict=True,
                )
            ),
        )
        for number, name in enumerate(names)
    )
    return lens, steps
