"""BERT and GPT-2 as transformers has them, in a GLM's size and reading GLM's batches.

In: a `GLMConfig`, packed batches (`input_ids`, `position_ids`, `segment_ids`, `labels`). Out: hidden states, logits, losses.
The classes add no weights: a saved folder is one of `BertForMaskedLM` or `GPT2LMHeadModel`.

Shapes: B rows, L tokens of a row, H hidden, V vocabulary, T predicted tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from glmkit.blanks.layout import IGNORE_INDEX
from glmkit.model.configuration import GLMConfig
from glmkit.model.loading import quiet_unless_terminal
from glmkit.model.modeling import GLMForConditionalGeneration, GLMOutput


class _Packed:
    """What both peers share: the loss of the predicted tokens of a packed batch."""

    accepts_loss_kwargs = True

    def states(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, segment_ids: torch.Tensor
    ) -> torch.Tensor:
        """Returns the last hidden states [B, L, H]; samples of a row do not see each other."""
        raise NotImplementedError

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """[…, H] -> logits […, V]."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        segment_ids: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
        **_: Any,
    ) -> GLMOutput:
        """Returns `loss` and `token_losses` [T] as `GLMForConditionalGeneration` does; labels are not shifted."""
        hidden = self.states(input_ids, position_ids, segment_ids)
        predicted = labels != IGNORE_INDEX
        logits = self.head(hidden[predicted]).float()
        losses = F.cross_entropy(logits, labels[predicted], reduction="none")
        count = max(1, len(losses)) if num_items_in_batch is None else num_items_in_batch
        return GLMOutput(loss=losses.sum() / count, token_losses=losses.detach())

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As transformers', without its progress bar."""
        with quiet_unless_terminal(False):
            super().save_pretrained(*args, **kwargs)  # type: ignore[misc]


class PackedBert(_Packed, BertForMaskedLM):
    """transformers' `BertForMaskedLM`."""

    def states(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, segment_ids: torch.Tensor
    ) -> torch.Tensor:
        outputs = self.bert(
            input_ids,
            attention_mask=_visible(segment_ids)[:, None],
            position_ids=position_ids[:, 0],
        )
        return outputs.last_hidden_state

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.cls(hidden)


class PackedGPT2(_Packed, GPT2LMHeadModel):
    """transformers' `GPT2LMHeadModel`."""

    def states(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, segment_ids: torch.Tensor
    ) -> torch.Tensor:
        outputs = self.transformer(
            input_ids,
            attention_mask=_visible(segment_ids).tril()[:, None],
            position_ids=position_ids[:, 0],
            use_cache=False,
        )
        return outputs.last_hidden_state

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.lm_head(hidden)


MODELS: dict[str, Any] = {
    "glm": GLMForConditionalGeneration,
    "bert": PackedBert,
    "gpt": PackedGPT2,
}
"""Family -> class."""


def states(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Returns the last hidden states [B, L, H] of a model of any family; `labels` are not looked at."""
    fields = {
        name: batch[name] for name in ("input_ids", "position_ids", "segment_ids") if name in batch
    }
    if isinstance(model, GLMForConditionalGeneration):
        return model.glm(**fields).last_hidden_state
    return model.states(**fields)


def logits(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Returns float32 logits […, V] of hidden states of a model of any family."""
    is_glm = isinstance(model, GLMForConditionalGeneration)
    return (model.lm_head(hidden) if is_glm else model.head(hidden)).float()


def build_peer(family: str, config: GLMConfig) -> Any:
    """Returns a new BERT or GPT-2 of a GLM's layers, width, heads, positions, vocabulary, activation and dropout.

    Args:
        family: "bert" or "gpt".
        config: Of the GLM.
    """
    shared: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "num_attention_heads": config.num_attention_heads,
        "initializer_range": config.initializer_range,
        "pad_token_id": config.pad_token_id,
        # `StepFlops` reads these two.
        "num_layers": config.num_layers,
        "intermediate_size": config.intermediate_size,
    }
    made: Any
    if family == "bert":
        made = BertConfig(
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            max_position_embeddings=config.max_sequence_length + 1,
            hidden_act=config.hidden_act,
            hidden_dropout_prob=config.output_dropout_prob,
            attention_probs_dropout_prob=config.attention_dropout_prob,
            type_vocab_size=1,
            **shared,
        )
    else:
        made = GPT2Config(
            n_embd=config.hidden_size,
            n_layer=config.num_layers,
            n_positions=config.max_sequence_length + 1,
            n_inner=config.intermediate_size,
            activation_function=config.hidden_act,
            embd_pdrop=config.embedding_dropout_prob,
            attn_pdrop=config.attention_dropout_prob,
            resid_pdrop=config.output_dropout_prob,
            bos_token_id=config.cls_token_id,
            eos_token_id=config.eos_token_id,
            **shared,
        )
    made._attn_implementation = "sdpa"  # takes a mask for each pair of tokens
    return MODELS[family](made)


def _visible(segment_ids: torch.Tensor) -> torch.Tensor:
    """[B, L] -> bool [B, L, L]: who is of the same sample; padding sees itself, or its softmax would be of nothing."""
    same = (segment_ids[:, :, None] == segment_ids[:, None, :]) & (segment_ids[:, None, :] > 0)
    own = torch.eye(segment_ids.shape[1], dtype=torch.bool, device=segment_ids.device)
    return same | own
