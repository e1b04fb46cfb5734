"""Beam scores as the original GLM's library divided them: by the whole length, prompt included.

In: transformers' beam search and its helpers. Out: `beam_search_with_prompt`, which `generate` takes as
`custom_generate`. The original ran on transformers 4.25 to 4.27, which divided a beam's log-probability by
(prompt + generated tokens) ** length_penalty, an end token not counted; transformers 5 leaves the prompt
out and counts the end token.

Shapes: B prompts, N beams, K candidates a step (K ≥ 2N).
"""

from __future__ import annotations

import copy
from typing import Any

import torch

_FINISHED = ("sequences", "beam_scores", "beam_indices", "is_sent_finished")


def beam_search_with_prompt(model: Any, *args: Any, generation_config: Any, **kwargs: Any) -> Any:
    """Runs transformers' beam search with the original's scores; takes and returns what that does.

    The model is not changed: the search runs on a shallow copy that shares its weights and hooks.
    """
    scores = _PromptScores(model, generation_config._eos_token_tensor)
    searcher = copy.copy(model)
    searcher._update_finished_beams = scores.update
    searcher._check_early_stop_heuristic = lambda **_: scores.improvable
    return searcher._beam_search(*args, generation_config=generation_config, **kwargs)


def pad_after_end(sequences: torch.Tensor, prompt_length: int, generation_config: Any) -> None:
    """Fills what follows each row's end token with padding, in place.

    transformers' beam search fills with the end token where the pad id is 0 (BERT's): it reads 0 as unset.
    """
    ends, pad = generation_config._eos_token_tensor, generation_config._pad_token_tensor
    if ends is not None and pad is not None:
        answers = sequences[:, prompt_length:]
        ended = torch.isin(answers, ends).long()
        answers[ended.cumsum(dim=1) - ended > 0] = pad


class _PromptScores:
    """Two helpers of transformers' beam search with the numbers of its version 4.25.

    Attributes:
        improvable: bool [B, 1], whether running beams could still beat a prompt's finished ones.
    """

    def __init__(self, model: Any, ends: torch.Tensor | None):
        self.model = model
        self.ends = ends
        self.improvable: torch.Tensor | None = None

    def update(self, **state: Any) -> tuple[torch.Tensor, ...]:
        """Adds a step's candidates to the finished beams: those that ended, then those cut by the length limit.

        Of the candidates [B, K], best first, the N best may end; the N best that did not end run on.
        """
        length, penalty = state["cur_len"], state["length_penalty"]
        log_probs, max_length = state["topk_log_probs"], state["sequences"].shape[-1]
        last = state["topk_running_sequences"][:, :, length]
        ended = torch.zeros_like(last, dtype=torch.bool)
        if self.ends is not None:
            ended = torch.isin(last, self.ends)
        running = ~ended & ((~ended).cumsum(dim=1) <= state["num_beams"])
        stopped = state["next_token_hits_stopping_criteria"]
        for candidates in (ended & state["top_num_beam_mask"], running):
            finished = self.model._update_finished_beams(
                **{
                    **state,
                    "topk_log_probs": log_probs / torch.where(ended, length, length + 1) ** penalty,
                    "length_penalty": 0.0,
                    "next_token_hits_stopping_criteria": stopped & candidates,
                    "top_num_beam_mask": torch.ones_like(state["top_num_beam_mask"]),
                }
            )
            state.update(zip(_FINISHED, finished, strict=True))
            self.improvable = self.model._check_early_stop_heuristic(
                is_early_stop_heuristic_unsatisfied=state["is_early_stop_heuristic_unsatisfied"],
                running_beam_scores=log_probs,
                beam_scores=state["beam_scores"],
                is_sent_finished=state["is_sent_finished"],
                cur_len=length,
                max_length=max_length,
                decoder_prompt_len=0,
                early_stopping=state["early_stopping"],
                length_penalty=penalty,
            )
            state["is_early_stop_heuristic_unsatisfied"] = self.improvable
        return finished
