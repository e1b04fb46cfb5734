"""The vocabulary of glm-mini: python recipes/glm-mini/vocabulary.py TEXTS.jsonl FOLDER."""

import sys

from glmkit.tokens.train import train_from_files

VOCAB_SIZE = 10_240
ALL = 20_000_000
"""Characters to learn from: more than there are."""

if __name__ == "__main__":
    print(train_from_files([sys.argv[1]], sys.argv[2], VOCAB_SIZE, max_characters=ALL))  # noqa: T201
