"""A GLM of 2 million random weights with glm-mini's vocabulary, to learn pictures and sounds from nothing on a CPU.

python recipes/multimodal/small_glm.py FOLDER
"""

from __future__ import annotations

import sys

import torch

from glmkit import GLMConfig, GLMForConditionalGeneration, GLMTokenizer
from glmkit.training.building import padded_rows, special_fields, tokenizer_rows


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    tokenizer = GLMTokenizer.from_pretrained("glm-mini")
    torch.manual_seed(0)
    config = GLMConfig(
        vocab_size=padded_rows(tokenizer_rows(tokenizer)),
        hidden_size=128,
        num_layers=4,
        num_attention_heads=4,
        max_sequence_length=192,
        embedding_dropout_prob=0.0,
        attention_dropout_prob=0.0,
        output_dropout_prob=0.0,
        **special_fields(tokenizer),
    )
    GLMForConditionalGeneration(config).save_pretrained(sys.argv[1])
    tokenizer.save_pretrained(sys.argv[1])


if __name__ == "__main__":
    main()
