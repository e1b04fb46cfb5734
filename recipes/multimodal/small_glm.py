"""A GLM of 2 million random weights with glm-mini's vocabulary, to learn pictures and sounds from nothing on a CPU.

python recipes/multimodal/small_glm.py FOLDER
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
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    tokenizer = train_tokenizer(texts(Path(sys.argv[1])), vocab_size=1024, kind="bpe")
    torch.manual_seed(0)
    config = GLMConfig(
        vocab_size=padded_rows(tokenizer_rows(tokenizer)),
        hidden_size=128,
        num_layers=4,
        num_attention_heads=4,
        max_sequence_length=192,
        initializer_range=0.08,  # about width^-0.5: with 0.02 attention of so narrow a model begins by seeing nothing
        embedding_dropout_prob=0.0,
        attention_dropout_prob=0.0,
        output_dropout_prob=0.0,
        **special_fields(tokenizer),
    )
    GLMForConditionalGeneration(config).save_pretrained(sys.argv[2])
    tokenizer.save_pretrained(sys.argv[2])


if __name__ == "__main__":
    main()
