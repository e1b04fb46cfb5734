"""Small GLMs with random weights, and the reference that quantized activations are compared with."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from glmkit.checkpoint.quantized import WORDS, NativeWeights
from glmkit.model import GLMConfig, GLMForConditionalGeneration
from glmkit.native.runner import NativeDecoder, NativeRunner


def random_model(seed: int = 0, **fields) -> GLMForConditionalGeneration:
    """Weights large enough that every part of the model matters."""
    torch.manual_seed(seed)
    sizes = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 1000}
    config = GLMConfig(**{"max_sequence_length": 128, **sizes, **fields})
    model = GLMForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model


def native(model: GLMForConditionalGeneration, quantization: str, threads: int = 1) -> NativeRunner:
    return runner_of(model, model.state_dict(), quantization, threads)


def runner_of(
    model: GLMForConditionalGeneration, state, quantization: str, threads: int = 1
) -> NativeRunner:
    weights = NativeWeights.of(model.config, state, quantization)
    return NativeRunner(NativeDecoder(model.config, weights, threads))


def sample(model: GLMForConditionalGeneration, prefix: int, written: int, seed: int = 0):
    """Ids, positions and block positions of a part A and of one blank's tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(model.config.vocab_size, (prefix + written,), generator=generator)
    positions = torch.cat((torch.arange(prefix), torch.full((written,), prefix // 2)))
    blocks = torch.cat((torch.zeros(prefix, dtype=torch.long), torch.arange(1, written + 1)))
    return ids, positions, blocks


def feed(
    sequence: int,
    tokens,
    start: int,
    end: int,
    prefix: int = 0,
    num_logits: int | None = None,
    media: torch.Tensor | np.ndarray | None = None,
):
    parts = [part[start:end].tolist() for part in tokens]
    count = end - start if num_logits is None else num_logits
    return SimpleNamespace(
        sequence=sequence,
        ids=parts[0],
        positions=parts[1],
        blocks=parts[2],
        prefix=prefix,
        num_logits=count,
        media=media,
    )


def wild_numbers(rows: int, columns: int) -> np.ndarray:
    """Float32 [rows, columns] of which many are far from the others, or zero: bfloat16 has strays at all places."""
    draw = np.random.default_rng(0)
    numbers = draw.normal(size=(rows, columns)) * 2.0 ** draw.integers(-20, 21, (rows, columns))
    numbers *= draw.random((rows, columns)) < 0.9
    numbers[5, :3] = -0.0, 3e-39, -1e-40  # no exponent
    return numbers.astype(np.float32)


def wild_products() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For 1 to 40 rows: what the native decoder's head makes of such a matrix of bfloat16, what it is, and what its error is measured by."""
    model = random_model(num_layers=1, hidden_size=200, vocab_size=333)
    words = torch.from_numpy(wild_numbers(333, 200))
    model.glm.word_embeddings.weight.data.copy_(words)
    decoder, draw = native(model, "bfloat16", threads=2)._decoder, np.random.default_rng(0)
    words, found = words.bfloat16().double().numpy(), []
    for count in range(1, 41):
        states = draw.normal(size=(count, 200)).astype(np.float32)
        sizes = np.abs(states).astype(float) @ np.abs(words).T
        found.append((decoder.head(states), states.astype(float) @ words.T, sizes))
    return found


def scores(vocabulary: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits [8, V] of all kinds, and what is barred in each row."""
    draw = np.random.default_rng(vocabulary)
    logits = draw.normal(scale=4, size=(8, vocabulary)).astype(np.float32)
    barred = [draw.random(vocabulary - place) < place / 8 for place in range(6)]
    barred += [np.ones(vocabulary, bool), np.zeros(vocabulary, bool)]
    logits[1, ::3] = logits[1].max() + 1  # many are the largest
    logits[2, 5] = np.nan
    barred[2][5] = True
    logits[3, 6] = np.nan
    barred[3][:3], barred[3][-1] = True, False
    logits[5] = 1e4 * logits[5]
    logits[7, 4] = np.nan
    return logits, barred


def reference(
    model: GLMForConditionalGeneration, tokens, prefix: int, media: torch.Tensor | None = None
) -> np.ndarray:
    """Logits [T, V] of the torch model."""
    ids, positions, blocks = tokens
    with torch.no_grad():
        logits = model(
            input_ids=ids[None],
            position_ids=torch.stack((positions, blocks))[None],
            prefix_lengths=torch.tensor([prefix]),
            media_embeds=media,
        ).logits
    return logits[0].numpy()


def as_understood(
    model: GLMForConditionalGeneration, quantization: str | NativeWeights
) -> GLMForConditionalGeneration:
    """A torch model that computes what the native decoder should: its weights, and activations rounded as it rounds them.

    With int8 and int4 weights the input of each matrix is int8 with one scale for each 64 or 32 numbers.
    """
    weights = quantization
    if isinstance(quantization, str):
        weights = NativeWeights.of(model.config, model.state_dict(), quantization)
    copy = GLMForConditionalGeneration(model.config).eval()
    copy.load_state_dict(weights.state_dict(), strict=False)
    copy.tie_weights()
    groups = {
        name: {"int8": 64, "int4": 32}.get(one.format) for name, one in weights.matrices.items()
    }

    def rounded(x: torch.Tensor, group: int) -> torch.Tensor:
        width = x.shape[-1]
        full = torch.nn.functional.pad(x, (0, -width % 64)).unflatten(-1, (-1, group))
        scale = full.abs().amax(-1, keepdim=True) / 127
        steps = torch.where(scale > 0, (full / scale).round(), 0)
        return (steps * scale).flatten(-2)[..., :width]

    modules = dict(copy.named_modules())
    for name, group in groups.items():
        if group is None:
            continue
        if name == WORDS:
            copy.lm_head = lambda x, group=group: F.linear(
                rounded(x, group), copy.glm.word_embeddings.weight
            )
        else:
            modules[name.removesuffix(".weight")].register_forward_pre_hook(
                lambda module, inputs, group=group: (rounded(inputs[0], group),)
            )
    return copy
