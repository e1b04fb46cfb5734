"""Small folders in the formats of the published tokenizers, made on the spot."""

from __future__ import annotations

import io
import json
from pathlib import Path

SENTENCES = [
    "今天天气很好。我们去公园散步吧！",
    "北京是中国的首都，清华大学位于北京。",
    "The quick brown fox jumps over the lazy dog.",
    "A language model fills blanks<n>and writes text.",
]


def gpt2_folder(folder: Path, **config: object) -> Path:
    """Writes a byte-level vocabulary with two merges, and GPT-2's class name."""
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = [*sorted(ByteLevel.alphabet()), "he", "ll", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\nh e\nl l\n", encoding="utf-8")
    settings = {"tokenizer_class": "GLMGPT2Tokenizer", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def bert_folder(folder: Path) -> Path:
    """Writes a small WordPiece vocabulary and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "##s", "好"]
    (folder / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    return folder


def chinese_folder(folder: Path) -> Path:
    """Trains a small SentencePiece model of the published one's type and settings."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3),
        model_writer=model,
        vocab_size=120,
        model_type="bpe",
        user_defined_symbols=["<n>"],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cog-pretrain.model").write_bytes(model.getvalue())
    return folder
