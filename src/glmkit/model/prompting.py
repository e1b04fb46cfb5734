"""`model.generate`: transformers' generation on GLM's layout.

In: a list of ids (the tutorial's call), a tensor of prompts, or what
`tokenizer.build_inputs_for_generation` made. Out: transformers' generation output. The layout comes from
`blanks.layout`; the cache, sampling, beams, streamers and processors are transformers' own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, GenerationMixin
from transformers.cache_utils import Cache
from transformers.generation import GenerationMode, MaxLengthCriteria
from transformers.modeling_outputs import CausalLMOutputWithPast

from glmkit.blanks.layout import Piece, collate, find_masks, lay_out
from glmkit.blanks.media import check_media
from glmkit.errors import GenerationError
from glmkit.model.beams import beam_search_with_prompt, pad_after_end
from glmkit.special_tokens import FIRST_MEDIA_ID

logger = logging.getLogger(__name__)

CACHE = "cache" if hasattr(CausalLMOutputWithPast, "cache") else "past_key_values"
"""What transformers calls the cache in outputs and in `generate`: `cache` since 5.24, which needs Python 3.11."""


class GLMGenerationMixin(GenerationMixin):
    """Lets transformers' `generate` feed 2-D positions and GLM's mask."""

    def generate(
        self: Any,
        inputs: Any = None,
        *,
        prompt_in_length_penalty: bool = False,
        media_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Fills the first blank of each prompt; as transformers' `generate`, and more lenient in its input.

        Args:
            inputs: A list of ids, a list of such lists, or a tensor [B, S] (also as `input_ids=`). A prompt
                without a mask gets `[gMASK]` at its end, before a final end-of-text token; the start
                marker is added. Given `position_ids` and `generation_attention_mask` (as
                `tokenizer.build_inputs_for_generation` returns them), ids are taken as they are.
            prompt_in_length_penalty: Beam scores as in the original's library, which divided by the length
                of prompt and answer to the power of `length_penalty` (see `beams`). By default
                transformers 5 decides, which leaves the prompt out.
            media_embeds: [M, H], the rows that ids from `FIRST_MEDIA_ID` on mean, in all prompts; see `GLMModel.forward`.
            **kwargs: transformers' generation arguments (`max_new_tokens`, `max_length`, `do_sample`,
                `num_beams`, `streamer` …). Generation ends at `<|endofpiece|>` unless `eos_token_id` says
                otherwise.

        Returns:
            As transformers: int64 [B, prompt + new tokens], or a generation output object. Media are padding there.

        Raises:
            GenerationError: No prompt, an empty prompt, a model whose configuration lacks the ids needed, or ids of media
                without their rows.
        """
        ids = kwargs.pop("input_ids", None) if inputs is None else inputs
        if ids is None:
            if kwargs.get("inputs_embeds") is None:
                raise GenerationError(
                    "generate was given no prompt; pass a list or tensor of token ids"
                )
        elif kwargs.get("position_ids") is None:
            kwargs.pop("generation_attention_mask", None)
            prepared = self.prepare_prompts(ids, kwargs.pop("attention_mask", None))
            ids = prepared.pop("input_ids")
            kwargs.update(prepared)
        elif (mask := kwargs.get("generation_attention_mask")) is not None:
            # transformers wants to know the padding as a 2-D mask; a prompt's first row sees what is real.
            kwargs.setdefault("attention_mask", mask[:, 0, 0, : ids.shape[1] - 1].long())
            kwargs["attention_mask"] = torch.nn.functional.pad(
                kwargs["attention_mask"],
                (0, ids.shape[1] - kwargs["attention_mask"].shape[1]),
                value=1,
            )
        if ids is not None:
            check_media(ids, media_embeds, self.config.hidden_size)
        if media_embeds is not None and ids is not None:
            kwargs["media_embeds"] = media_embeds.to(self.device)
            kwargs["media_ids"] = ids
            # transformers' penalties look up the logits of every id that they see.
            ids = ids.masked_fill(ids >= FIRST_MEDIA_ID, self.config.pad_token_id or 0)
        if "cache" in kwargs:
            kwargs[CACHE] = kwargs.pop("cache")
        if prompt_in_length_penalty:
            kwargs["custom_generate"] = beam_search_with_prompt
        return super().generate(ids, **kwargs)

    def _validate_generation_mode(
        self: Any, generation_mode: Any, generation_config: Any, generation_mode_kwargs: Any
    ) -> None:
        """Refuses what would silently give wrong answers with 2-D positions and a two-way prompt."""
        transformers: Any = super()
        refused = {
            "assistant_model and prompt_lookup_num_tokens": generation_mode
            == GenerationMode.ASSISTED_GENERATION,
            "prefill_chunk_size": generation_config.prefill_chunk_size is not None,
            "guidance_scale": generation_config.guidance_scale not in (None, 1),
        }
        if names := [name for name, given in refused.items() if given]:
            raise GenerationError(
                f"GLM cannot generate with {', '.join(names)}: its prompt is read in one piece, in both "
                "directions, and its positions do not count on; leave the argument out"
            )
        transformers._validate_generation_mode(
            generation_mode, generation_config, generation_mode_kwargs
        )

    def _prepare_generated_length(  # type: ignore[override]
        self: Any, generation_config: GenerationConfig, **kwargs: Any
    ) -> GenerationConfig:
        """As transformers', but what is limited is the blank, by the table of block positions."""
        prompt = kwargs["input_ids_length"]
        default = generation_config.max_length
        transformers: Any = super()
        generation_config = transformers._prepare_generated_length(generation_config, **kwargs)
        if generation_config.max_new_tokens is None and kwargs["has_default_max_length"]:
            generation_config.max_length = prompt + default
        limit = self.config.max_sequence_length
        if self.config.block_position_encoding and generation_config.max_length > prompt + limit:
            logger.warning(
                "%d new tokens were asked for; the model has %d block positions, so it stops there",
                generation_config.max_length - prompt,
                limit,
            )
            generation_config.max_length = prompt + limit
        return generation_config

    def _get_stopping_criteria(self: Any, *args: Any, **kwargs: Any) -> Any:
        """As transformers', without its warning: prompt and blank may be longer together than either table of positions."""
        transformers: Any = super()
        criteria = transformers._get_stopping_criteria(*args, **kwargs)
        for one in criteria:
            if isinstance(one, MaxLengthCriteria):
                one.max_position_embeddings = None
        return criteria

    def _beam_search(  # type: ignore[override]
        self: Any, input_ids: torch.Tensor, *args: Any, generation_config: Any, **kwargs: Any
    ) -> Any:
        transformers: Any = super()
        output = transformers._beam_search(
            input_ids, *args, generation_config=generation_config, **kwargs
        )
        sequences = output if isinstance(output, torch.Tensor) else output.sequences
        pad_after_end(sequences, input_ids.shape[1], generation_config)
        return output

    def prepare_prompts(
        self: Any, ids: Any, attention_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Lays out raw prompts for generation, padded on the left.

        Args:
            ids: A list of ids, a list of such lists, or an int64 tensor [B, S].
            attention_mask: [B, S], 1 = real token, where `ids` is padded.

        Returns:
            `input_ids` [B, L] ending in the start marker, `position_ids` [B, 2, L], `attention_mask` [B, L]
            and `prefix_lengths` [B], on the model's device.

        Raises:
            GenerationError: As `generate`.
        """
        config = self.config
        if config.sop_token_id is None or config.mask_token_id is None:
            raise GenerationError(
                "this model's configuration does not know the ids of the start marker and the masks; "
                "use tokenizer.build_inputs_for_generation, or set config.sop_token_id, config.mask_token_id …"
            )
        examples = []
        for prompt in _prompt_lists(ids, attention_mask):
            if not prompt:
                raise GenerationError("a prompt is empty; give at least one token")
            if prompt[-1] == config.sop_token_id:
                prompt = prompt[:-1]
            mask_ids = [
                token
                for token in (config.mask_token_id, config.smask_token_id, config.gmask_token_id)
                if token is not None
            ]
            if not len(find_masks(prompt, mask_ids)):
                ends = int(prompt[-1] == config.eos_token_id and len(prompt) > 1)
                at = len(prompt) - ends
                prompt = [*prompt[:at], mask_ids[-1], *prompt[at:]]
            blank = Piece(int(find_masks(prompt, mask_ids)[0]), np.empty(0, np.int64), scored=False)
            if len(prompt) > config.max_sequence_length + 1:
                raise GenerationError(
                    f"a prompt has {len(prompt)} tokens, but the model has {config.max_sequence_length + 1} "
                    "positions; cut it on the left"
                )
            examples.append(lay_out(prompt, [blank], config.sop_token_id))
        pad = config.pad_token_id if config.pad_token_id is not None else 0
        batch = collate(examples, pad, side="left")
        del batch["labels"]
        # Every row's part A ends where the start marker stands, the last column.
        return {name: torch.from_numpy(array).to(self.device) for name, array in batch.items()}

    def prepare_inputs_for_generation(
        self: Any,
        input_ids: torch.Tensor,
        next_sequence_length: int | None = None,
        cache: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        prefix_lengths: torch.Tensor | None = None,
        generation_attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        media_embeds: torch.Tensor | None = None,
        media_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Returns the forward pass's arguments for the tokens that the cache has not seen."""
        total = input_ids.shape[1]
        count = total if next_sequence_length is None else next_sequence_length
        first = total - count
        assert position_ids is not None
        positions = _extended_positions(position_ids, total)[:, :, first:total]
        inputs: dict[str, Any] = {
            "input_ids": input_ids[:, first:].contiguous(),
            "position_ids": positions.contiguous(),
            "cache": past_key_values if cache is None else cache,
            "use_cache": kwargs.get("use_cache"),
        }
        for name in ("output_attentions", "output_hidden_states", "logits_to_keep"):
            if name in kwargs:
                inputs[name] = kwargs[name]
        if generation_attention_mask is not None:
            mask = _extended_mask(generation_attention_mask, total)
            inputs["attention_mask"] = mask[:, :, first:total, :total]
        else:
            inputs["attention_mask"] = attention_mask
            inputs["prefix_lengths"] = prefix_lengths
        if first == 0 and media_ids is not None:  # later tokens are none of them
            inputs["input_ids"] = torch.cat((media_ids, input_ids[:, media_ids.shape[1] :]), dim=1)
            inputs["media_embeds"] = media_embeds
        return inputs

    def _prepare_position_ids_for_generation(
        self: Any, inputs_tensor: torch.Tensor, model_kwargs: dict[str, Any]
    ) -> torch.Tensor:
        raise GenerationError(
            "generation needs position_ids; call generate with token ids, or with the output of "
            "tokenizer.build_inputs_for_generation"
        )

    @staticmethod
    def _expand_inputs_for_generation(  # type: ignore[override]
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.Tensor | None, dict[str, Any]]:
        """Repeats rows for beams; GLM's 3-D positions have the batch first, unlike transformers' own.

        The embeddings of media have no batch: all rows read the one table.
        """
        if expand_size == 1:
            return input_ids, model_kwargs
        expanded = {
            name: value.repeat_interleave(expand_size, dim=0)
            if isinstance(value, torch.Tensor) and value.dim() and name != "media_embeds"
            else value
            for name, value in model_kwargs.items()
        }
        if input_ids is not None:
            input_ids = input_ids.repeat_interleave(expand_size, dim=0)
        return input_ids, expanded

    def _update_model_kwargs_for_generation(
        self: Any,
        outputs: Any,
        model_kwargs: dict[str, Any],
        is_encoder_decoder: bool = False,
        num_new_tokens: int = 1,
    ) -> dict[str, Any]:
        positions = model_kwargs.pop("position_ids", None)
        model_kwargs = super()._update_model_kwargs_for_generation(
            outputs, model_kwargs, is_encoder_decoder, num_new_tokens
        )
        model_kwargs["position_ids"] = positions
        return model_kwargs


def _prompt_lists(ids: Any, attention_mask: torch.Tensor | None) -> list[list[int]]:
    """Returns the prompts as lists of ids, padding removed."""
    if isinstance(ids, torch.Tensor | np.ndarray):
        rows = np.atleast_2d(ids.cpu().numpy() if isinstance(ids, torch.Tensor) else ids)
        if attention_mask is None:
            return [row.tolist() for row in rows]
        real = np.atleast_2d(np.asarray(torch.as_tensor(attention_mask).cpu())) > 0
        return [row[keep].tolist() for row, keep in zip(rows, real, strict=True)]
    if not isinstance(ids, Sequence) or isinstance(ids, str):
        raise GenerationError(
            f"generate takes token ids (a list or tensor), not {type(ids).__name__}; encode the text first"
        )
    prompts = list(ids)
    if not prompts or isinstance(prompts[0], Integral):
        prompts = [prompts]
    return [[int(token) for token in prompt] for prompt in prompts]


def _extended_positions(position_ids: torch.Tensor, total: int) -> torch.Tensor:
    """Continues positions [B, 2, n] to `total` tokens: same position, block positions counting on."""
    missing = total - position_ids.shape[-1]
    if missing <= 0:
        return position_ids
    last = position_ids[:, :, -1:]
    step = torch.arange(1, missing + 1, device=last.device)
    more = torch.stack((torch.zeros_like(step), step))
    return torch.cat((position_ids, last + more), dim=-1)


def _extended_mask(mask: torch.Tensor, total: int) -> torch.Tensor:
    """Continues a mask [B, 1, n, n] to `total` tokens, each seeing what the last saw, and itself."""
    missing = total - mask.shape[-1]
    if missing <= 0:
        return mask
    size = mask.shape[-1]
    extended = torch.nn.functional.pad(mask, (0, missing, 0, missing))
    extended[:, :, size:, :size] = mask[:, :, -1:, :]
    extended[:, :, size:, size:] = torch.ones(missing, missing, device=mask.device).tril()
    return extended
