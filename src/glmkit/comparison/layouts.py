"""The same text and the same questions, as each family of models reads and predicts them.

In: ids. Out: `Example`s, so that one collator, one trainer and one measure serve all families. GLM's come from
`blanks.layout`; the others' are here, with the block position always 0. Knows no model and no text.

| | GLM | BERT | GPT |
|---|---|---|---|
| reads | part A from both sides, part B from the left | all from both sides | all from the left |
| a blank of n tokens | one mask, written in part B, ended by the model | n masks, all predicted at once | one mask, then written behind the text, ended by the model |
| what follows a text | `[gMASK]`, written in part B | one mask at a time at the end | written behind the text |

Sources: BERT's 15 % and 80/10/10 are of Devlin et al. (arXiv 1810.04805), section 3.1; a blank written behind the text that
it was taken from, for a model that reads from the left alone, is of Donahue et al. (arXiv 2005.05339).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from glmkit.blanks.layout import IGNORE_INDEX, Example, Piece, lay_out
from glmkit.special_tokens import SpecialTokenIds

MASKED_SHARE = 0.15
MASK_PROB, RANDOM_PROB = 0.8, 0.1
"""What BERT's chosen tokens become: the mask, another token; the rest stay as they are."""


@dataclass(frozen=True)
class Question:
    """A text with one part taken out.

    Attributes:
        left: int64 [l], what is before it, `[CLS]` first.
        answer: int64 [n], the part.
        right: int64 [r], what is behind it, or None where the text ends with the answer.
    """

    left: np.ndarray
    answer: np.ndarray
    right: np.ndarray | None = None


class Layout(Protocol):
    """How a family lays out questions."""

    writes_in_order: bool
    """Whether a blank is written token by token, and its end is the model's choice; otherwise all at once, given its length."""

    def training(self, question: Question, rng: np.random.Generator) -> Example:
        """Returns a question to learn from; its labels are of the answer alone."""

    def scoring(self, question: Question) -> list[Example]:
        """Returns examples whose labels, together, are the answer's tokens, each once, without an end."""

    def next_token(self, question: Question, written: np.ndarray) -> Example:
        """Returns an example with one label, which is where the answer's next token is predicted; its value means nothing."""


class PeerLayout(Layout, Protocol):
    """Also how it lays out text to pretrain on; GLM's samples are made by `blanks.objectives`."""

    def pretraining(self, ids: np.ndarray, rng: np.random.Generator) -> Example | None:
        """Returns a sample of plain text, or None where it is too short."""


def layout_of(family: str, specials: SpecialTokenIds, num_tokens: int) -> Layout:
    """Returns the layout of "glm", "bert" or "gpt"."""
    return GLMLayout(specials) if family == "glm" else peer_layout(family, specials, num_tokens)


def peer_layout(family: str, specials: SpecialTokenIds, num_tokens: int) -> PeerLayout:
    """Returns the layout of "bert" or "gpt"."""
    return BERTLayout(specials, num_tokens) if family == "bert" else GPTLayout(specials)


def reading(ids: np.ndarray) -> Example:
    """Returns a text [n] to be read and not predicted: part A to GLM."""
    return lay_out(ids, [], 0)


class GLMLayout:
    """See the module."""

    writes_in_order = True

    def __init__(self, specials: SpecialTokenIds):
        self._specials = specials

    def training(self, question: Question, rng: np.random.Generator) -> Example:
        end = None if question.right is None else self._specials.eop
        return self._laid_out(question, Piece(len(question.left), question.answer, end))

    def scoring(self, question: Question) -> list[Example]:
        return [self._laid_out(question, Piece(len(question.left), question.answer))]

    def next_token(self, question: Question, written: np.ndarray) -> Example:
        # The token behind those written, whatever it is: the label is not read.
        return _last_only(
            self._laid_out(question, Piece(len(question.left), np.append(written, 0)))
        )

    def _laid_out(self, question: Question, piece: Piece) -> Example:
        right = question.right
        mask = self._specials.gmask if right is None else self._specials.mask
        part_a = np.concatenate((question.left, [mask], [] if right is None else right))
        return lay_out(part_a, [piece], self._specials.sop)


class GPTLayout:
    """See the module."""

    writes_in_order = True

    def __init__(self, specials: SpecialTokenIds):
        self._specials = specials

    def pretraining(self, ids: np.ndarray, rng: np.random.Generator) -> Example | None:
        return _flat(ids[:-1], ids[1:]) if len(ids) > 1 else None

    def training(self, question: Question, rng: np.random.Generator) -> Example:
        end = [] if question.right is None else [self._specials.eop]
        return self._written(question, np.concatenate((question.answer, end)))

    def scoring(self, question: Question) -> list[Example]:
        return [self._written(question, question.answer)]

    def next_token(self, question: Question, written: np.ndarray) -> Example:
        return _last_only(self._written(question, np.append(written, 0)))

    def _written(self, question: Question, answer: np.ndarray) -> Example:
        before = question.left
        if question.right is not None:
            before = np.concatenate(
                (before, [self._specials.mask], question.right, [self._specials.sop])
            )
        answer = answer.astype(np.int64)
        labels = np.full(len(before) + len(answer) - 1, IGNORE_INDEX)
        labels[len(before) - 1 :] = answer
        return _flat(np.concatenate((before, answer[:-1])), labels)


class BERTLayout:
    """See the module.

    Args:
        specials: Ids of the special tokens.
        num_tokens: Of the vocabulary, from which a wrong token is drawn.
    """

    writes_in_order = False

    def __init__(self, specials: SpecialTokenIds, num_tokens: int):
        self._specials, self._num_tokens = specials, num_tokens

    def pretraining(self, ids: np.ndarray, rng: np.random.Generator) -> Example | None:
        ends = (self._specials.cls, self._specials.eos)
        places = np.flatnonzero(~np.isin(ids, ends))
        if not len(places):
            return None
        count = max(1, round(MASKED_SHARE * len(places)))
        chosen = rng.permutation(places)[:count]
        read, labels = ids.astype(np.int64), np.full(len(ids), IGNORE_INDEX)
        labels[chosen] = ids[chosen]
        drawn = rng.random(count)
        wrong = rng.integers(0, self._num_tokens, count)
        becomes = np.where(drawn < MASK_PROB + RANDOM_PROB, wrong, ids[chosen])
        read[chosen] = np.where(drawn < MASK_PROB, self._specials.mask, becomes)
        return _flat(read, labels)

    def training(self, question: Question, rng: np.random.Generator) -> Example:
        if question.right is not None:
            return self.scoring(question)[0]
        # One mask at the end, as when it writes: which of the answer's tokens is hidden is drawn.
        return self._at(question, int(rng.integers(len(question.answer))))

    def scoring(self, question: Question) -> list[Example]:
        if question.right is None:
            return [self._at(question, index) for index in range(len(question.answer))]
        return [self._masked(question, question.answer[:0])]

    def next_token(self, question: Question, written: np.ndarray) -> Example:
        if question.right is not None:
            example = self._masked(question, written)
            keep = np.arange(len(example)) == len(question.left) + len(written)
            return _flat(example.input_ids, np.where(keep, example.labels, IGNORE_INDEX))
        return self._ending(np.concatenate((question.left, written)), 0)

    def _at(self, question: Question, index: int) -> Example:
        before = np.concatenate((question.left, question.answer[:index]))
        return self._ending(before, int(question.answer[index]))

    def _ending(self, before: np.ndarray, label: int) -> Example:
        labels = np.full(len(before) + 1, IGNORE_INDEX)
        labels[-1] = label
        return _flat(np.append(before, self._specials.mask), labels)

    def _masked(self, question: Question, written: np.ndarray) -> Example:
        """Returns the text with what is written of the answer, and masks for the rest of it."""
        assert question.right is not None
        left = np.concatenate((question.left, written))
        rest = question.answer[len(written) :]
        masks = np.full(len(rest), self._specials.mask)
        labels = np.full(
            len(question.left) + len(question.answer) + len(question.right), IGNORE_INDEX
        )
        labels[len(left) : len(left) + len(rest)] = rest
        return _flat(np.concatenate((left, masks, question.right)), labels)


def _flat(input_ids: np.ndarray, labels: np.ndarray) -> Example:
    """Returns an example whose positions count from 0 and which has no part B."""
    places = np.arange(len(input_ids))
    return Example(
        input_ids=np.asarray(input_ids, np.int64),
        position_ids=np.stack((places, np.zeros_like(places))),
        labels=np.asarray(labels, np.int64),
        prefix_length=len(input_ids),
    )


def _last_only(example: Example) -> Example:
    """Returns the example with its last label alone."""
    labels = np.full(len(example), IGNORE_INDEX)
    labels[-1] = example.labels[-1]
    return Example(example.input_ids, example.position_ids, labels, example.prefix_length)
