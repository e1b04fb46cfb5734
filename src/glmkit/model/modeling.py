"""The GLM Transformer and its heads, as transformers models.

In: the batch fields of `blanks.layout` as tensors. Out: hidden states, logits, loss. One file, read from
top to bottom: attention, MLP, layer, stack, heads. Knows no text and no tokenizer; generation is in
`model/prompting.py`, reading of checkpoints in `checkpoint/`.

Shapes: B rows, S tokens of a row, P cached tokens, K = P + S keys, H hidden, N heads, D = H / N, V vocabulary,
T predicted tokens of the whole batch.

Sources: GLM paper (arXiv 2103.10360); THUDM/GLM `model/modeling_glm.py` and `mpu/transformer.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    MultipleChoiceModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from glmkit.blanks.layout import IGNORE_INDEX
from glmkit.errors import ConfigError, UserError
from glmkit.model.attention_names import ATTENTION, check_attended
from glmkit.model.auto import register
from glmkit.model.configuration import GLMConfig
from glmkit.model.loading import GLMLoadableModel
from glmkit.model.loss import head_loss
from glmkit.model.masks import additive_mask, block_mask, dense_visibility, mask_fields
from glmkit.model.prompting import CACHE, GLMGenerationMixin
from glmkit.model.virtual_tokens import in_front
from glmkit.special_tokens import FIRST_MEDIA_ID

KERNELS = {"gelu_new": "gelu_pytorch_tanh"}
"""Activations whose name in transformers is written out in five operations -> the same formula as one kernel."""


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float = 1.0,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(QKᵀ / √D) V, written out so that the attention map [B, N, S, K] can be looked at.

    Source: paper section 2.3 / "Attention Is All You Need", equation 1. Softmax is in float32.
    """
    scores = torch.matmul(query, key.transpose(-1, -2)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    context = torch.matmul(F.dropout(weights, p=dropout, training=module.training), value)
    return context.transpose(1, 2), weights


def output_projection(width: int, hidden: int) -> nn.Linear:
    """Returns the Linear that ends a branch beside the residual stream; its initial weights are smaller.

    A plain Linear with a mark: libraries that put others in the place of Linears (bitsandbytes) pass over classes of their own.
    """
    linear = nn.Linear(width, hidden)
    linear.ends_branch = True  # type: ignore[assignment]
    return linear


class GLMAttention(nn.Module):
    """Multi-head self-attention with one fused projection: rows all Q, then all K, then all V."""

    is_causal = False
    """The mask says it all; SDPA must never add a causal one of its own."""

    def __init__(self, config: GLMConfig, layer_index: int):
        super().__init__()
        self.config = config
        self.layer_index = layer_index
        self.head_size = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_size**-0.5
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = output_projection(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.output_dropout_prob)

    def forward(
        self,
        hidden: torch.Tensor,
        attention_mask: Any,
        cache: Cache | None,
        virtual_key: torch.Tensor | None = None,
        virtual_value: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the output [B, S, H] and, with eager attention, the map [B, N, S, M + K].

        `virtual_key` and `virtual_value` [1, N, M, D] stand in front of all keys and never enter the cache.
        """
        batch, length, width = hidden.shape
        query, key, value = (
            part.view(batch, length, -1, self.head_size).transpose(1, 2)
            for part in self.query_key_value(hidden).split(width, dim=-1)
        )
        if cache is not None:
            key, value = cache.update(key, value, self.layer_index)
        if virtual_key is not None and virtual_value is not None:
            key, value = in_front(virtual_key, key), in_front(virtual_value, value)
        name = self.config._attn_implementation
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention)
        attended = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.config.attention_dropout_prob if self.training else 0.0,
            scaling=self.scaling,
        )
        if name not in ATTENTION:
            check_attended(attended, name, (batch, length, query.shape[1], self.head_size))
        context, weights = attended
        context = context.reshape(batch, length, width)
        return self.dropout(self.dense(context)), weights


class GLMMLP(nn.Module):
    """FFN(x) = act(x W1 + b1) W2 + b2."""

    def __init__(self, config: GLMConfig):
        super().__init__()
        assert config.intermediate_size is not None
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.intermediate_size)
        self.dense_4h_to_h = output_projection(config.intermediate_size, config.hidden_size)
        self.act = ACT2FN[KERNELS.get(config.hidden_act, config.hidden_act)]
        self.dropout = nn.Dropout(config.output_dropout_prob)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[B, S, H] -> [B, S, H]."""
        return self.dropout(self.dense_4h_to_h(self.act(self.dense_h_to_4h(hidden))))


class GLMLayer(GradientCheckpointingLayer):
    """A pre-LayerNorm layer: x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, config: GLMConfig, layer_index: int):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.attention = GLMAttention(config, layer_index)
        self.post_attention_layernorm = nn.LayerNorm(
            config.hidden_size, eps=config.layernorm_epsilon
        )
        self.mlp = GLMMLP(config)

    def forward(
        self,
        hidden: torch.Tensor,
        attention_mask: Any,
        cache: Cache | None = None,
        *virtual: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the residual stream [B, S, H] and, with eager attention, the map [B, N, S, M + K]."""
        normed = self.input_layernorm(hidden)
        attended, weights = self.attention(normed, attention_mask, cache, *virtual)
        hidden = hidden + attended
        return hidden + self.mlp(self.post_attention_layernorm(hidden)), weights


def embed(words: nn.Embedding, ids: Any, media: torch.Tensor | None) -> torch.Tensor:
    """Returns [B, S, H]: the words' embeddings and, where ids are `FIRST_MEDIA_ID` and above, rows of `media` [M, H]."""
    if media is None or not len(media):
        return words(ids)
    place = (ids - FIRST_MEDIA_ID).clamp(min=0)
    is_medium = ids >= FIRST_MEDIA_ID
    read = words(ids.masked_fill(is_medium, 0))
    return torch.where(is_medium[..., None], media.to(read.dtype)[place], read)


class GLMTransformer(nn.Module):
    """Position tables, layers and the final LayerNorm; names as in the published weights."""

    def __init__(self, config: GLMConfig):
        super().__init__()
        rows = config.max_sequence_length + 1
        self.position_embeddings = nn.Embedding(rows, config.hidden_size)
        if config.block_position_encoding:
            self.block_position_embeddings = nn.Embedding(rows, config.hidden_size)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout_prob)
        self.layers = nn.ModuleList(GLMLayer(config, index) for index in range(config.num_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)


class GLMPreTrainedModel(GLMLoadableModel):
    """What all GLM models share: configuration class, initialisation, loading of every known format."""

    config_class = GLMConfig
    base_model_prefix = "glm"
    supports_gradient_checkpointing = True
    _no_split_modules = ["GLMLayer"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """N(0, 0.02); output projections N(0, 0.02 / √(2·layers)) (THUDM/GLM `mpu/transformer.py`)."""
        if isinstance(module, nn.Linear):
            ends_branch = getattr(module, "ends_branch", False)
            config = self.config
            std = config.output_initializer_range if ends_branch else config.initializer_range
            init.normal_(module.weight, mean=0.0, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)


class GLMModel(GLMPreTrainedModel):
    """Tokens and 2-D positions -> hidden states.

    Attributes:
        virtual_tokens: None, or what gives each layer's keys and values of M learned tokens in front of part A
            (`virtual_tokens`); no position and no cache knows of them.
    """

    def __init__(self, config: GLMConfig):
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.transformer = GLMTransformer(config)
        self.virtual_tokens: Any = None
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.word_embeddings = value  # type: ignore[assignment]

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        prefix_lengths: torch.Tensor | None = None,
        segment_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        past_key_values: Cache | None = None,
        media_embeds: torch.Tensor | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """Runs the stack.

        Args:
            input_ids: int64 [B, S]; or `inputs_embeds` [B, S, H] in its place.
            position_ids: int64 [B, 2, S], position and block position; by default 0, 1, 2 … and 0.
            attention_mask: See `masks.mask_fields`; in short, 4-D [B, 1, S, K] (1 = may attend), 2-D [B, K]
                (1 = real token), a separator, or None (causal unless `prefix_lengths` is given).
            prefix_lengths: int64 [B], tokens of part A.
            segment_ids: int64 [B, S], the samples of packed rows (0 = padding).
            inputs_embeds: [B, S, H] instead of `input_ids`.
            cache: Keys and values of P earlier tokens, extended in place (`past_key_values` is its old name).
            use_cache: Whether to return a cache; off in training and by default where none is given.
            output_hidden_states: Whether to return the embedding sum and each layer's output.
            output_attentions: Whether to return attention maps (eager attention only).
            past_key_values: Older name of `cache`.
            media_embeds: [M, H], what stands where ids are `FIRST_MEDIA_ID` and above: images, sounds, clips (`multimodal`).

        Returns:
            `last_hidden_state` [B, S, H] after the final LayerNorm, `cache` (`past_key_values` before transformers 5.24),
            `hidden_states` (num_layers + 1 tensors before it), `attentions` (num_layers tensors [B, N, S, K]).

        Raises:
            UserError: Neither or both of ids and embeddings, positions of a wrong shape, or a mask form that
                does not exist.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise UserError("give either input_ids or inputs_embeds, and not both")
        if inputs_embeds is None:
            inputs_embeds = embed(self.word_embeddings, input_ids, media_embeds)
        batch, length = inputs_embeds.shape[:2]
        cache = past_key_values if cache is None else cache
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        past = cache.get_seq_length() if cache is not None else 0
        position_ids = self._positions(position_ids, batch, length, past, inputs_embeds.device)
        virtual = [] if self.virtual_tokens is None else self.virtual_tokens(self)
        count = virtual[0][0].shape[2] if virtual else 0
        mask = self._mask(
            attention_mask, prefix_lengths, segment_ids, position_ids, inputs_embeds, cache, count
        )

        transformer = self.transformer
        hidden = inputs_embeds + transformer.position_embeddings(position_ids[:, 0])
        if self.config.block_position_encoding:
            hidden = hidden + transformer.block_position_embeddings(position_ids[:, 1])
        hidden = transformer.embedding_dropout(hidden)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions and self.config._attn_implementation != "eager":
            raise ConfigError(
                f"attention maps need eager attention, this model uses {self.config._attn_implementation!r}; "
                'load it with attn_implementation="eager"'
            )
        all_hidden, all_weights = [hidden], []
        for number, layer in enumerate(transformer.layers):
            hidden, weights = layer(hidden, mask, cache, *(virtual[number] if virtual else ()))
            if output_hidden_states:
                all_hidden.append(hidden)
            if output_attentions:
                all_weights.append(weights[..., count:])  # of the tokens that are there
        return BaseModelOutputWithPast(
            last_hidden_state=transformer.final_layernorm(hidden),
            hidden_states=tuple(all_hidden) if output_hidden_states else None,
            attentions=tuple(all_weights) if output_attentions else None,
            **{CACHE: cache if use_cache or use_cache is None else None},  # type: ignore[arg-type]
        )

    def _positions(
        self,
        position_ids: torch.Tensor | None,
        batch: int,
        length: int,
        past: int,
        device: torch.device,
    ) -> torch.Tensor:
        if position_ids is None:
            positions = torch.arange(length, device=device) + past
            position_ids = torch.stack((positions, torch.zeros_like(positions)))
            position_ids = position_ids.expand(batch, 2, length)
        if position_ids.shape[1:] != (2, length):
            raise UserError(
                f"position_ids have the shape {list(position_ids.shape)}; "
                f"needed is [{batch}, 2, {length}]: position and block position of each token"
            )
        limit = self.config.max_sequence_length
        # Looking at values would wait for a GPU; there, torch's own check of the table speaks.
        readable = device.type == "cpu" and not torch.compiler.is_compiling()
        if readable and (largest := int(position_ids.max())) > limit:
            raise UserError(
                f"the batch has the position {largest}; this model's tables end at {limit}: "
                "cut the text on the left"
            )
        return position_ids

    def _mask(
        self,
        attention_mask: torch.Tensor | None,
        prefix_lengths: torch.Tensor | None,
        segment_ids: torch.Tensor | None,
        position_ids: torch.Tensor,
        embeddings: torch.Tensor,
        cache: Cache | None,
        virtual: int,
    ) -> Any:
        batch, length = embeddings.shape[:2]
        past = cache.get_seq_length() if cache is not None else 0
        keys = cache.get_mask_sizes(length, 0)[0] if cache is not None else length
        fields = mask_fields(
            attention_mask=attention_mask,
            prefix_lengths=prefix_lengths,
            segment_ids=segment_ids,
            block_positions=position_ids[:, 1],
            batch_size=batch,
            query_length=length,
            past_length=past,
        )
        if self.config._attn_implementation == "flex_attention":
            return block_mask(fields, batch, length, past, keys, virtual)
        visible = dense_visibility(fields, batch, length, past, keys)
        if virtual:
            visible = F.pad(visible, (virtual, 0), value=True)
        return additive_mask(visible, embeddings.dtype)


@dataclass
class GLMOutput(CausalLMOutputWithPast):
    """What `GLMForConditionalGeneration` returns.

    Attributes:
        token_losses: float32 [T] without gradient, the loss of each predicted token of the batch, row by row; None
            without labels.
    """

    token_losses: torch.Tensor | None = None


class GLMForConditionalGeneration(GLMGenerationMixin, GLMPreTrainedModel):
    """GLM with its language-model head: the word embedding, transposed, without bias."""

    accepts_loss_kwargs = True
    """Trainer passes `num_items_in_batch`: the loss is a mean over the global batch."""

    def __init__(self, config: GLMConfig):
        super().__init__(config)
        self.glm = GLMModel(config)
        if config.eop_token_id is not None:
            # A blank ends at its own marker; config.eos_token_id ends a text.
            self.generation_config.eos_token_id = config.eop_token_id
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.glm.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.glm.word_embeddings = value  # type: ignore[assignment]

    def get_output_embeddings(self) -> None:
        """None: the head is the word embedding itself, so that resizing it resizes both."""

    def lm_head(self, hidden: torch.Tensor) -> torch.Tensor:
        """[…, H] -> logits […, V]."""
        return F.linear(hidden, self.glm.word_embeddings.weight)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        prefix_lengths: torch.Tensor | None = None,
        segment_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_logits: bool | None = None,
        **kwargs: Any,
    ) -> GLMOutput:
        """Returns logits and, where labels are given, the loss.

        Args:
            input_ids: int64 [B, S]; this and all arguments that are not named here are as in `GLMModel.forward`.
            labels: int64 [B, S], not shifted: the logits at i predict labels[i]; -100 is not predicted.
            logits_to_keep: Number of last positions to compute logits for (0 = all), or their indices.
            num_items_in_batch: Predicted tokens of the global batch; the loss is the sum over this
                micro-batch divided by it. By default the mean over this batch's predicted tokens.
            return_logits: Whether to return logits along with a loss. By default they are left out in
                training mode, where only the T predicted tokens go through the head, and returned otherwise.
            **kwargs: `output_hidden_states`, `output_attentions`.

        Returns:
            `loss` (float32), `logits` [B, S, V] or None, `token_losses` float32 [T] or None, and `cache`, `hidden_states`,
            `attentions` as in `GLMModel.forward`.
        """
        outputs = self.glm(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=attention_mask,
            prefix_lengths=prefix_lengths,
            segment_ids=segment_ids,
            inputs_embeds=inputs_embeds,
            cache=cache,
            use_cache=use_cache,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        if return_logits is None:
            return_logits = labels is None or not self.training
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        if isinstance(logits_to_keep, int) and logits_to_keep == 0:
            keep = slice(None)
        logits = self.lm_head(hidden[:, keep]) if return_logits else None
        loss = token_losses = None
        if labels is not None:
            predicted = labels != IGNORE_INDEX
            loss, token_losses = head_loss(
                hidden[predicted],
                self.glm.word_embeddings.weight,
                labels[predicted],
                num_items_in_batch,
            )
        return GLMOutput(
            loss=loss,
            logits=logits,
            token_losses=token_losses,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: getattr(outputs, CACHE)},
        )


class GLMForMultipleChoice(GLMPreTrainedModel):
    """Scores choices by the log-probability of their tokens at the mask (paper section 2.4, cloze)."""

    def __init__(self, config: GLMConfig):
        super().__init__(config)
        self.glm = GLMModel(config)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        choice_ids: list[list[torch.Tensor]],
        choice_indices: list[list[torch.Tensor]],
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> MultipleChoiceModelOutput:
        """Scores what `tokenizer.build_inputs_for_multiple_choice` built.

        Args:
            input_ids: int64 [B, S].
            position_ids: int64 [B, 2, S].
            attention_mask: int64 [B, 1, S, S]; choices do not see each other.
            choice_ids: For each row and choice its token ids.
            choice_indices: For each row and choice the places whose logits predict them.
            labels: int64 [B], the right choice.
            **kwargs: As in `GLMModel.forward`.

        Returns:
            `logits` float32 [B, C]: sums of log-probabilities, not normalised by length; rows with fewer
            than C choices are filled up with minus infinity. `loss`: cross-entropy over the choices.
        """
        outputs = self.glm(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=attention_mask,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        n_choices = max(len(row) for row in choice_ids)
        scores = hidden.new_full((len(choice_ids), n_choices), -torch.inf, dtype=torch.float32)
        for row, (ids, indices) in enumerate(zip(choice_ids, choice_indices, strict=True)):
            places = torch.cat([index.to(hidden.device) for index in indices])
            tokens = torch.cat([choice.to(hidden.device) for choice in ids])
            logits = F.linear(hidden[row, places], self.glm.word_embeddings.weight)
            nll = F.cross_entropy(logits.float(), tokens, reduction="none")
            sizes = [len(choice) for choice in ids]
            scores[row, : len(ids)] = torch.stack([-part.sum() for part in nll.split(sizes)])
        loss = None if labels is None else F.cross_entropy(scores, labels)
        return MultipleChoiceModelOutput(
            loss=loss,
            logits=scores,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def classifier_dropout(config: GLMConfig) -> nn.Dropout:
    """Returns the dropout of a head: `config.classifier_dropout`, or that of the layers' outputs."""
    probability = config.classifier_dropout
    return nn.Dropout(config.output_dropout_prob if probability is None else probability)


def all_part_a(given: torch.Tensor) -> torch.Tensor:
    """Returns int64 [B]: the prefix lengths of ids [B, S] or embeddings [B, S, H] that are part A throughout."""
    return torch.full((given.shape[0],), given.shape[1], device=given.device)


class GLMForSequenceClassification(GLMPreTrainedModel):
    """A classification head: pooled token -> dropout -> dense -> tanh -> dropout -> out_proj."""

    def __init__(self, config: GLMConfig):
        super().__init__(config)
        self.num_labels: int = config.num_labels or 2
        self.glm = GLMModel(config)
        self.dropout = classifier_dropout(config)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Classifies texts read with bidirectional attention.

        Args:
            input_ids: int64 [B, S]; positions and embeddings too are as in `GLMModel.forward`.
            attention_mask: int64 [B, S], 1 = real token; by default all are real. Other forms as in
                `GLMModel.forward` are passed on.
            labels: int64 [B] (classes), float [B] (num_labels = 1) or float [B, C] (several labels).
            **kwargs: As in `GLMModel.forward`.

        Returns:
            `logits` [B, C] and the loss that `config.problem_type` or the labels' type asks for.
        """
        if attention_mask is None:
            given = input_ids if input_ids is not None else inputs_embeds
            assert given is not None
            attention_mask = torch.ones(given.shape[:2], dtype=torch.long, device=given.device)
            kwargs.setdefault("prefix_lengths", all_part_a(given))
        outputs = self.glm(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        pooled = self._pool(outputs.last_hidden_state, attention_mask)
        logits = self.out_proj(self.dropout(torch.tanh(self.dense(self.dropout(pooled)))))
        return SequenceClassifierOutput(
            loss=None if labels is None else self._loss(logits, labels),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _pool(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """[B, S, H] -> [B, H] by `config.pool_token`; padding on either side does not count."""
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        real = (
            attention_mask > 0
            if attention_mask.shape == hidden.shape[:2]
            else torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        )
        if self.config.pool_token == "mean":
            weights = real.to(hidden.dtype)
            return torch.einsum("bsh,bs->bh", hidden, weights) / weights.sum(1, keepdim=True)
        if self.config.pool_token == "last":
            return hidden[rows, real.shape[1] - 1 - real.flip(1).long().argmax(1)]
        return hidden[rows, real.long().argmax(1)]

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.config.problem_type == "regression" or self.num_labels == 1:
            return F.mse_loss(logits.squeeze(-1).float(), labels.float())
        if labels.is_floating_point():
            return F.binary_cross_entropy_with_logits(logits.float(), labels)
        return F.cross_entropy(logits.float(), labels)


class GLMForTokenClassification(GLMPreTrainedModel):
    """A tag for each token, read with bidirectional attention: dropout -> tag_proj."""

    def __init__(self, config: GLMConfig):
        super().__init__(config)
        self.num_labels: int = config.num_labels or 2
        self.glm = GLMModel(config)
        self.dropout = classifier_dropout(config)
        self.tag_proj = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        prefix_lengths: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """Tags the tokens of part A.

        Args:
            input_ids, position_ids, inputs_embeds: As in `GLMModel.forward`.
            attention_mask: int64 [B, S], 1 = real token; by default all are real.
            prefix_lengths: int64 [B]; by default all of a row is part A.
            labels: int64 [B, S]; -100 is not counted.
            **kwargs: As in `GLMModel.forward`.

        Returns:
            `logits` [B, S, C]; with labels `loss`, their mean cross-entropy.
        """
        given = input_ids if input_ids is not None else inputs_embeds
        assert given is not None
        if prefix_lengths is None:
            prefix_lengths = all_part_a(given)
        outputs = self.glm(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=attention_mask,
            prefix_lengths=prefix_lengths,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        logits = self.tag_proj(self.dropout(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            flat = logits.float().flatten(0, 1)
            loss = F.cross_entropy(flat, labels.flatten(), ignore_index=IGNORE_INDEX)
        return TokenClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


register(globals().__getitem__)
