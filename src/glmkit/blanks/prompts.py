"""The two batch forms of the published hub code, built from the layout.

In: a padded batch of encoded prompts. Out: the tensors that the original's `build_inputs_for_generation` and
`build_inputs_for_multiple_choice` return, as NumPy arrays, equal to them element by element. Positions of
these forms count padding, as the original's do; glmkit's own batches come from `layout.collate`, where
padding changes no answer.

Shapes: B prompts, S tokens of a padded prompt, G places of part B.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glmkit.attention_rule import may_attend
from glmkit.blanks.layout import IGNORE_INDEX, Batch, Piece, find_masks, lay_out
from glmkit.errors import GenerationError


def generation_inputs(
    input_ids: np.ndarray,
    attention_mask: np.ndarray,
    *,
    mask_ids: Sequence[int],
    sop: int,
    eop: int,
    pad: int,
    max_gen_length: int,
    targets: Sequence[Sequence[int]] | None = None,
    padding: bool = False,
) -> Batch:
    """Builds inputs that fill the first blank of each prompt.

    Args:
        input_ids: int64 [B, S], padded prompts.
        attention_mask: int64 [B, S], 1 = real token.
        mask_ids: Ids of the mask tokens of any kind.
        sop: Id of `<|startofpiece|>`.
        eop: Id of `<|endofpiece|>`.
        pad: Id that fills up part B.
        max_gen_length: Places of part B, in tokens.
        targets: The blanks' contents; part B then holds them, for training.
        padding: With targets, pad part B to `max_gen_length` instead of to the longest target.

    Returns:
        Without targets: `input_ids` [B, S+1] (ending in the start marker), `position_ids` [B, 2, S+G] and
        `generation_attention_mask` [B, 1, S+G, S+G] (1 = may attend), with G = `max_gen_length`.
        With targets: `input_ids` [B, S+G], `position_ids` [B, 2, S+G], `attention_mask` [B, 1, S+G, S+G]
        and `labels` [B, S+G].

    Raises:
        GenerationError: A prompt has no mask token, or there is not one target for each prompt.
    """
    first_masks = [_first_mask(row, mask_ids) for row in input_ids]
    if targets is None:
        places = max_gen_length
        pieces = [Piece(mask, np.empty(0, np.int64), scored=False) for mask in first_masks]
    else:
        if len(targets) != len(input_ids):
            raise GenerationError(
                f"{len(targets)} targets were given for {len(input_ids)} prompts; give one for each"
            )
        ended = [[*target, eop][:max_gen_length] for target in targets]
        places = max_gen_length if padding else max(map(len, ended))
        pieces = [
            Piece(mask, np.asarray(target, np.int64))
            for mask, target in zip(first_masks, ended, strict=True)
        ]
    examples = [lay_out(row, [piece], sop) for row, piece in zip(input_ids, pieces, strict=True)]

    n_rows, width = input_ids.shape
    positions = np.zeros((n_rows, 2, width + places), np.int64)
    positions[:, 0, :width], positions[:, 0, width:] = np.arange(width), np.c_[first_masks]
    positions[:, 1, width:] = np.arange(1, places + 1)
    mask = _prefix_mask(attention_mask, places)
    if targets is None:
        return {
            "input_ids": np.stack([example.input_ids for example in examples]),
            "position_ids": positions,
            "generation_attention_mask": mask,
        }
    ids = np.full((n_rows, width + places), pad, np.int64)
    labels = np.full((n_rows, width + places), IGNORE_INDEX, np.int64)
    for row, example in enumerate(examples):
        ids[row, : len(example)] = example.input_ids
        labels[row, : len(example)] = example.labels
        # The original shifts after padding: where there is room, the last token is read too (never scored).
        ids[row, len(example) : len(example) + 1] = example.labels[-1]
    return {
        "input_ids": ids,
        "position_ids": positions,
        "attention_mask": mask,
        "labels": labels,
    }


def multiple_choice_inputs(
    input_ids: np.ndarray,
    attention_mask: np.ndarray,
    choices: Sequence[Sequence[Sequence[int]]],
    *,
    mask_id: int,
    sop: int,
    max_length: int | None = None,
) -> tuple[Batch, list[list[np.ndarray]]]:
    """Builds inputs in which every choice of a prompt follows it in one row, blind to the other choices.

    Args:
        input_ids: int64 [B, S], padded prompts.
        attention_mask: int64 [B, S], 1 = real token.
        choices: For each prompt, the token ids of each of its choices.
        mask_id: Id of `[MASK]`; the choices take the place of the first one.
        sop: Id of `<|startofpiece|>`.
        max_length: Longest row allowed, in tokens.

    Returns:
        `input_ids` [B, L], `position_ids` [B, 2, L], `attention_mask` [B, 1, L, L] (rows of padding see
        nothing), and for each prompt and choice the indices (int64) whose logits predict the choice's tokens.

    Raises:
        GenerationError: No mask, an empty choice, a number of choices that does not fit, or a row that is
            longer than `max_length`.
    """
    if len(choices) != len(input_ids):
        raise GenerationError(
            f"choices for {len(choices)} prompts were given, but there are {len(input_ids)} prompts"
        )
    rows, indices = [], []
    for prompt, visible, prompt_choices in zip(input_ids, attention_mask, choices, strict=True):
        if not all(len(choice) for choice in prompt_choices):
            raise GenerationError("a choice has no tokens; leave out empty choices")
        mask_index = _first_mask(prompt, [mask_id])
        pieces = [Piece(mask_index, np.asarray(choice)) for choice in prompt_choices]
        example = lay_out(prompt, pieces, sop)
        branch = np.repeat(
            np.arange(len(pieces) + 1), [len(prompt), *(len(choice) for choice in prompt_choices)]
        )
        index = np.arange(len(example))
        in_part_b = branch > 0
        mask = may_attend(
            query_index=index[:, None],
            key_index=index,
            key_in_part_b=in_part_b,
            key_is_visible=np.where(
                in_part_b, branch[:, None] == branch, np.r_[visible > 0, in_part_b[len(prompt) :]]
            ),
        )
        rows.append((example, mask))
        indices.append([np.flatnonzero(branch == number) for number in range(1, len(pieces) + 1)])
    length = max(len(example) for example, _ in rows)
    if max_length is not None and length > max_length:
        raise GenerationError(
            f"prompt and choices need {length} tokens, more than max_length={max_length}; shorten the prompt"
        )
    batch = {
        "input_ids": np.zeros((len(rows), length), np.int64),
        "position_ids": np.zeros((len(rows), 2, length), np.int64),
        "attention_mask": np.zeros((len(rows), 1, length, length), np.int64),
    }
    for number, (example, mask) in enumerate(rows):
        n = len(example)
        batch["input_ids"][number, :n] = example.input_ids
        batch["position_ids"][number, :, :n] = example.position_ids
        batch["position_ids"][number, :, n:] = example.position_ids[:, -1:]
        batch["attention_mask"][number, 0, :n, :n] = mask
    return batch, indices


def _first_mask(row: np.ndarray, mask_ids: Sequence[int]) -> int:
    masks = find_masks(row, mask_ids)
    if not len(masks):
        raise GenerationError(
            "Cannot find mask token in the input: mark the blank with [MASK], [sMASK] or [gMASK] "
            "(RoBERTa vocabulary: <mask>)"
        )
    return int(masks[0])


def _prefix_mask(attention_mask: np.ndarray, places: int) -> np.ndarray:
    """Returns int64 [B, 1, S+G, S+G]: prompts see their real tokens, part B those and its own left side."""
    n_rows, width = attention_mask.shape
    index = np.arange(width + places)
    visible = np.concatenate((attention_mask > 0, np.ones((n_rows, places), bool)), axis=1)
    mask = may_attend(
        query_index=index[:, None],
        key_index=index,
        key_in_part_b=index >= width,
        key_is_visible=visible[:, None, :],
    )
    return mask[:, None].astype(np.int64)
