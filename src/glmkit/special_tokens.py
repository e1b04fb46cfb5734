"""The one table of GLM's special tokens, and the ids that a vocabulary gives them.

Names are those of the published vocabularies. Which of them a vocabulary has differs: BERT's and
RoBERTa's know one mask only; `[dBLOCK]` appears in pretraining alone.
Source: shared special-token table of the original tokenizers (THUDM/GLM, `data_utils/tokenization.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

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
