"""A GLM of random weights with a small vocabulary of its own, to learn pictures and sounds from nothing.

    python recipes/multimodal/small_glm.py DATA FOLDER [WIDTH] [LAYERS]

A million weights, as they are (128, 4), learn on a CPU.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from glmkit import GLMConfig, GLMForConditionalGeneration
from glmkit.tasks.rendering import speaker_of
from glmkit.tasks.task import load_task
from glmkit.tokens.train import train_tokenizer
from glmkit.training.building import padded_rows, special_fields, tokenizer_rows

EVERY = 4
"""The vocabulary is learnt from every fourth medium."""


def texts(data: Path) -> Iterator[str]:
    """Yields the questions and answers as the task asks them."""
    task = load_task("multimodal")
    for source in sorted(data.glob("*.train.jsonl")):
        for number, line in enumerate(source.read_text(encoding="utf-8").splitlines()):
            for one in json.loads(line)["questions"] if number % EVERY == 0 else ():
                asks, answers = (speaker_of(task, one["language"], n) for n in range(2))
                yield f"{asks}{one['question']}\n{answers}{one['answer']}"


def main() -> None:
    if len(sys.argv) not in (3, 4, 5):
        sys.exit(__doc__)
    width, layers = (int(n) for n in (*sys.argv[3:], *("128", "4")[len(sys.argv) - 3 :]))
    tokenizer = train_tokenizer(texts(Path(sys.argv[1])), vocab_size=1024, kind="bpe")
    torch.manual_seed(0)
    config = GLMConfig(
        vocab_size=padded_rows(tokenizer_rows(tokenizer)),
        hidden_size=width,
        num_layers=layers,
        num_attention_heads=width // 32,
        max_sequence_length=192,
        initializer_range=0.9 * width**-0.5,  # with 0.02 attention of a narrow model sees nothing
        embedding_dropout_prob=0.0,
        attention_dropout_prob=0.0,
        output_dropout_prob=0.0,
        **special_fields(tokenizer),
    )
    GLMForConditionalGeneration(config).save_pretrained(sys.argv[2])
    tokenizer.save_pretrained(sys.argv[2])


if __name__ == "__main__":
    main()
