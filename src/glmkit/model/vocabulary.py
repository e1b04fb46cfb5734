"""More rows for a model's vocabulary: each new token begins as the mean of the old tokens of its word.

In: a model, how many rows it shall have, and for each new id its old ids. Out: the same model, grown. The LM head is the
word embedding, so it grows along. Knows no tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from glmkit.model.modeling import GLMPreTrainedModel


@torch.no_grad()
def extend_embeddings(
    model: GLMPreTrainedModel, rows: int, sources: Mapping[int, Sequence[int]]
) -> None:
    """Gives a model at least `rows` embedding rows, and each new token the mean of its old tokens' rows.

    Args:
        model: Any GLM; it keeps what rows it has, and `config.vocab_size` follows.
        rows: Rows that are needed, padding included.
        sources: For each new id, ids below the old number of tokens.
    """
    if rows > model.config.vocab_size:
        model.resize_token_embeddings(rows, mean_resizing=False)
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    table = embedding.weight
    old = table.detach().clone()
    for index, ids in sources.items():
        table[index] = old[list(ids)].float().mean(0).to(table.dtype)
