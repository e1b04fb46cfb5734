"""The published tokenizers' two input builders, with their original signatures.

In: what a call of the tokenizer returned (one text or a padded batch). Out: a `BatchEncoding` of torch tensors
that `model.generate(**inputs)` and `model(**inputs)` take. The work is done by `blanks.prompts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchEncoding

from glmkit.blanks.prompts import generation_inputs, multiple_choice_inputs
from glmkit.errors import GenerationError


class GLMInputsMixin:
    """Adds `build_inputs_for_generation` and `build_inputs_for_multiple_choice` to a tokenizer."""

    def build_inputs_for_generation(
        self: Any,
        model_input: BatchEncoding,
        max_gen_length: int = 512,
        targets: str | Sequence[str] | Sequence[Sequence[int]] | None = None,
        padding: bool = False,
    ) -> BatchEncoding:
        """Appends the start marker (or the targets) to encoded prompts; the first mask is the blank.

        Args:
            model_input: `tokenizer(texts, padding=…)`, with B prompts of S tokens.
            max_gen_length: Places for the blank's contents, in tokens.
            targets: For training, the contents: one text (or list of ids) for each prompt.
            padding: With targets, pad them to `max_gen_length` instead of to the longest.

        Returns:
            Without targets `input_ids` [B, S+1], `position_ids` [B, 2, S+G], `generation_attention_mask`
            [B, 1, S+G, S+G]; with targets `input_ids` [B, S+G], `position_ids`, `attention_mask` and
            `labels` [B, S+G] (not shifted, -100 where nothing is predicted). All torch int64.

        Raises:
            GenerationError: A prompt has no mask token, or the number of targets does not fit.
        """
        input_ids, attention_mask = _prompt_arrays(model_input)
        target_ids = None
        if targets is not None:
            texts: Any = [targets] if isinstance(targets, str) else targets
            target_ids = [
                self(text, add_special_tokens=False)["input_ids"] if isinstance(text, str) else text
                for text in texts
            ]
        batch = generation_inputs(
            input_ids,
            attention_mask,
            mask_ids=self.mask_token_ids,
            sop=self.sop_token_id,
            eop=self.eop_token_id,
            pad=self.pad_token_id,
            max_gen_length=max_gen_length,
            targets=target_ids,
            padding=padding,
        )
        return BatchEncoding({name: torch.from_numpy(array) for name, array in batch.items()})

    def build_inputs_for_multiple_choice(
        self: Any,
        model_input: BatchEncoding,
        choices: Sequence[Sequence[str] | Sequence[Sequence[int]]],
        max_length: int | None = None,
    ) -> BatchEncoding:
        """Puts every choice behind its prompt, each blind to the others, to be scored in one pass.

        Args:
            model_input: `tokenizer(texts, padding=…)`, with B prompts.
            choices: For each prompt a list of choices, as texts or lists of ids.
            max_length: Longest row allowed, in tokens.

        Returns:
            `input_ids` [B, L], `position_ids` [B, 2, L], `attention_mask` [B, 1, L, L], and the nested lists
            `choice_ids` and `choice_indices` (one int64 tensor for each choice), as
            `GLMForMultipleChoice.forward` takes them.

        Raises:
            GenerationError: No `[MASK]`, an empty choice, or rows longer than `max_length`.
        """
        input_ids, attention_mask = _prompt_arrays(model_input)
        choice_ids = [
            [
                self(choice, add_special_tokens=False)["input_ids"]
                if isinstance(choice, str)
                else choice
                for choice in prompt_choices
            ]
            for prompt_choices in choices
        ]
        batch, indices = multiple_choice_inputs(
            input_ids,
            attention_mask,
            choice_ids,
            mask_id=self.mask_token_id,
            sop=self.sop_token_id,
            max_length=max_length,
        )
        encoding: dict[str, Any] = {name: torch.from_numpy(array) for name, array in batch.items()}
        encoding["choice_ids"] = [
            [torch.tensor(choice, dtype=torch.long) for choice in row] for row in choice_ids
        ]
        encoding["choice_indices"] = [[torch.from_numpy(array) for array in row] for row in indices]
        return BatchEncoding(encoding)


def _prompt_arrays(model_input: BatchEncoding) -> tuple[np.ndarray, np.ndarray]:
    """Returns int64 [B, S] ids and attention mask of encoded prompts, from lists, arrays or tensors."""
    try:
        input_ids = np.asarray(model_input["input_ids"], dtype=np.int64)
        attention_mask = np.asarray(
            model_input.get("attention_mask", np.ones_like(input_ids)), dtype=np.int64
        )
    except ValueError as error:
        raise GenerationError(
            "the encoded prompts have different lengths; encode them with padding=True"
        ) from error
    return np.atleast_2d(input_ids), np.atleast_2d(attention_mask)
