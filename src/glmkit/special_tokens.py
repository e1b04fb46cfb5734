"""The one table of GLM's special tokens, and the ids that a vocabulary gives them.

Names are those of the published vocabularies. Which of them a vocabulary has differs: BERT's and
RoBERTa's know one mask only; `[dBLOCK]` appears in pretraining alone.
Source: shared special-token table of the original tokenizers (THUDM/GLM, `data_utils/tokenization.py`).
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

SOP = "<|startofpiece|>"
"""Starts every blank in part B."""
EOP = "<|endofpiece|>"
"""Ends every blank in part B."""
EOS = "<|endoftext|>"
CLS = "[CLS]"
SEP = "[SEP]"
MASK = "[MASK]"
"""A short span (token objective)."""
SMASK = "[sMASK]"
"""One or more whole sentences (sentence objective)."""
GMASK = "[gMASK]"
"""Long text to the end of the document (document objective)."""
DBLOCK = "[dBLOCK]"
"""Replaces some of part B's inputs in pretraining, never written by a user."""

MASKS = (MASK, SMASK, GMASK)

IMAGE = "<|image|>"
"""Stands in a text where a picture is; `<|audio|>` and `<|video|>` likewise. No vocabulary has them."""
AUDIO = "<|audio|>"
VIDEO = "<|video|>"

MEDIA_MARKERS = {"image": IMAGE, "audio": AUDIO, "video": VIDEO}
"""Kind of a medium -> how a text names its place."""

MEDIA_MARKER = re.compile("|".join(map(re.escape, MEDIA_MARKERS.values())))
"""Finds the places of media in a text."""

FIRST_MEDIA_ID = 1 << 24
"""Ids from here on are no tokens: id - FIRST_MEDIA_ID is a row of the embeddings that are given beside the ids."""


@dataclass(frozen=True)
class SpecialTokenIds:
    """Ids of the special tokens in one vocabulary; `smask`, `gmask` fall back to `mask` where absent.

    Attributes:
        cls: Starts a text.
        eos: Ends a text.
        pad: Fills up batches; often equal to `eos`, so never recognise padding by its id.
        sop: Starts a blank's contents in part B.
        eop: Ends a blank's contents in part B.
        mask: A blank of the token objective.
        smask: A blank of the sentence objective.
        gmask: A blank of the document objective.
        block: Replaces inputs of part B in pretraining, or None where the vocabulary has no such token.
    """

    cls: int
    eos: int
    pad: int
    sop: int
    eop: int
    mask: int
    smask: int
    gmask: int
    block: int | None = None

    @property
    def masks(self) -> tuple[int, ...]:
        """The distinct mask ids, in the order mask, smask, gmask."""
        return tuple(dict.fromkeys((self.mask, self.smask, self.gmask)))


PUBLISHED = {
    "chinese": SpecialTokenIds(
        cls=50002, eos=50000, pad=50000, sop=50006, eop=50007, mask=50003, smask=50008, gmask=50009, block=50010
    ),
    "gpt2": SpecialTokenIds(
        cls=50259, eos=50256, pad=50256, sop=50257, eop=50258, mask=50260, smask=50264, gmask=50263, block=50265
    ),
    "bert": SpecialTokenIds(cls=101, eos=102, pad=0, sop=30522, eop=30523, mask=103, smask=103, gmask=103),
    "roberta": SpecialTokenIds(
        cls=0, eos=2, pad=1, sop=50265, eop=50266, mask=50264, smask=50264, gmask=50264
    ),
}  # fmt: skip
"""Ids in the four published vocabularies, as recorded from the original tokenizers."""

PUBLISHED_SIZES = {"chinese": 50010, "gpt2": 50265, "bert": 30524, "roberta": 50267}
"""Tokens of the published vocabularies that a tokenizer can decode; a model's rows above are padding."""

_TOKENIZER_CLASSES = {
    "GLMChineseTokenizer": "chinese",
    "GLMGPT2Tokenizer": "gpt2",
    "GLMBertTokenizer": "bert",
    "GLMRobertaTokenizer": "roberta",
}


def published_kind(folder: Path) -> str | None:
    """Returns which published vocabulary lies in `folder`: a key of `PUBLISHED`, or None.

    The tokenizer class named in `tokenizer_config.json` decides; without it, the vocabulary files.
    """
    config_file = folder / "tokenizer_config.json"
    if config_file.is_file():
        name = json.loads(config_file.read_text(encoding="utf-8")).get("tokenizer_class")
        if name in _TOKENIZER_CLASSES:
            return _TOKENIZER_CLASSES[name]
        if name is not None:
            return None
    if (folder / "cog-pretrain.model").is_file():
        return "chinese"
    if (folder / "vocab.txt").is_file():
        return "bert"
    if (folder / "merges.txt").is_file() and (folder / "vocab.json").is_file():
        vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        return "roberta" if "<mask>" in vocab else "gpt2"
    return None


def special_token_fields(folder: Path) -> dict[str, int]:
    """Returns configuration fields for the published vocabulary that lies in `folder`, or nothing."""
    kind = published_kind(folder) if folder.is_dir() else None
    if kind is None:
        return {}
    ids = asdict(PUBLISHED[kind])
    del ids["block"]
    return {
        "num_tokens": PUBLISHED_SIZES[kind],
        **{f"{name}_token_id": value for name, value in ids.items()},
    }
