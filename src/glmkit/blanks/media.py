"""Rows of embeddings beside ids: what the model reads where ids are `FIRST_MEDIA_ID` and above (images, sounds, clips).

In: rows of ids, each with a table of its own or none. Out: ids of a whole pass and the one table that they mean; or an error
before anything is computed. What the rows show it does not know. A table is a torch tensor; where there is none torch is not imported.

Shapes: M rows of a table, H hidden.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from glmkit.errors import GenerationError
from glmkit.special_tokens import FIRST_MEDIA_ID

if TYPE_CHECKING:
    import torch


def check_media(ids: Any, table: torch.Tensor | None, width: int | None = None) -> None:
    """Refuses ids that mean rows which are not there, and a table that a model cannot read.

    Args:
        ids: Whole numbers: a sequence, an array or a tensor of any shape.
        table: [M, H], the rows given.
        width: H of the model; by default any.

    Raises:
        GenerationError: What is wrong, and what is needed.
    """
    if table is not None:
        loaded: Any = sys.modules.get("torch")  # without it nothing is a tensor
        is_tensor = loaded is not None and isinstance(table, loaded.Tensor)
        good = is_tensor and table.dim() == 2 and table.is_floating_point()
        if not good or (width is not None and table.shape[1] != width):
            shape = list(table.shape) if is_tensor else type(table).__name__
            raise GenerationError(
                f"the embeddings of media are {getattr(table, 'dtype', '')} {shape}; needed is a floating tensor "
                f"[rows, {width or 'hidden size'}], as wide as the model's hidden states"
            )
    rows = 0 if table is None else len(table)
    highest = int(ids.max()) if hasattr(ids, "max") and len(ids) else max(ids, default=0)
    if highest >= FIRST_MEDIA_ID + rows:
        raise GenerationError(
            f"the prompt reads row {highest - FIRST_MEDIA_ID} of the embeddings of its media, and there are {rows}; give "
            "the embeddings of all images, sounds and clips along with its ids"
        )


def one_table(
    rows: Sequence[Any], tables: Sequence[torch.Tensor | None], device: Any = "cpu"
) -> tuple[list[Any], torch.Tensor | None]:
    """Returns the ids of several rows as one table has them, and that table on a device, or None where no row has one.

    Args:
        rows: Ids of each row, a sequence or an array, checked (`check_media`).
        tables: What each row's ids mean; the same one given several times is held once.
        device: Where the model computes.
    """
    starts: dict[int, int] = {}
    parts: list[Any] = []
    shifted: list[Any] = []
    for ids, table in zip(rows, tables, strict=True):
        if table is not None and id(table) not in starts:
            starts[id(table)] = sum(map(len, parts))
            parts.append(table)
        start = 0 if table is None else starts[id(table)]
        if start:
            ids = [one + start if one >= FIRST_MEDIA_ID else one for one in ids]
        shifted.append(ids)
    return shifted, joined(parts, device) if parts else None


def joined(parts: Sequence[torch.Tensor], device: Any = None) -> torch.Tensor:
    """Returns tables one below the other, on a device; by default where they are."""
    import torch

    found = [part.detach().to(device) for part in parts]
    return torch.cat(found) if len(found) > 1 else found[0]
