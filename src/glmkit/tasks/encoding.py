"""A task's sample as a document of a token store, and back.

In: a question, encoded within a limit of tokens. Out: one sequence of ids, part A + `<|startofpiece|>` +
answer + `<|endofpiece|>`, that a `TokenStore` keeps like any other document; an `Example` when it is read. A text
never contains `<|startofpiece|>`, so the two kinds of store cannot be taken for each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glmkit.blanks.layout import Example, Piece, find_masks, lay_out
from glmkit.blanks.objectives import hide
from glmkit.blanks.spans import draw_span_lengths, token_spans
from glmkit.errors import DataError, MediaError
from glmkit.multimodal.media import Medium
from glmkit.special_tokens import MEDIA_MARKER, SpecialTokenIds
from glmkit.tasks.rendering import Question, kept_around, question, text_of
from glmkit.tasks.task import Task
from glmkit.tokens.blanked import encode_content, encode_pieces, encode_plain, mask_ids
from glmkit.tokens.store import TokenStore

CountRows = Callable[[Medium], int]
"""How many rows of embeddings a medium takes."""


def encode_question(
    asked: Question, tokenizer: Any, count_rows: CountRows | None = None
) -> tuple[list[int], list[int]]:
    """Returns part A's ids with `[CLS]` and end of text, as prompts have them, and the answer's.

    Args:
        asked: The question.
        tokenizer: A `GLMTokenizer`.
        count_rows: Of its media, whose places are ids from `FIRST_MEDIA_ID` on.

    Raises:
        MediaError: The question has media, and `count_rows` is None: the model reads none.
    """
    ids = tokenizer.special_ids
    runs = rows_of(asked.media, count_rows)
    body = encode_pieces(tokenizer, [asked.before, asked.mask, asked.after], runs)
    return [ids.cls, *body, ids.eos], encode_answer(asked, tokenizer, asked.answer)


def rows_of(media: Sequence[Medium], count_rows: CountRows | None) -> list[int]:
    """Returns how many rows each medium takes.

    Raises:
        MediaError: There are media, and the model reads none.
    """
    if media and count_rows is None:
        raise MediaError(
            f"{media[0].name} was given to a model that reads no media; train one with `glmkit finetune MODEL multimodal`"
        )
    return [count_rows(one) for one in media] if count_rows is not None else []


def encode_answer(asked: Question, tokenizer: Any, answer: str) -> list[int]:
    """Returns the ids of an answer to a question, as `encode_question` has them."""
    return encode_content(tokenizer, asked.before, mask_ids(tokenizer)[asked.mask], answer)


def encode_record(
    task: Task,
    record: Mapping[str, Any],
    tokenizer: Any,
    max_length: int,
    where: str,
    count_rows: CountRows | None = None,
    **options: Any,
) -> tuple[np.ndarray | None, tuple[Medium, ...], bool]:
    """Returns a record as a sample for a store, shortened where it does not fit.

    Args:
        task: The task.
        record: One record (of a conversation, one with `history` and `reply`; see `rendering.questions`).
        tokenizer: A `GLMTokenizer`.
        max_length: Places that the sample may take in a row, in tokens.
        where: `file:line`, for messages.
        count_rows: As for `encode_question`.
        **options: `pattern` and `language`, as for `rendering.question`.

    Returns:
        int64 ids (see `encode_sample`), or None where the answer is empty or no shortening makes it fit; the media, in the
        order in which the ids count their rows; and whether the record was shortened. The answer is never shortened.
    """

    def encode(one: Mapping[str, Any]) -> Attempt:
        asked = question(task, one, where, **options)
        part_a, answer = encode_question(asked, tokenizer, count_rows)
        return Attempt(part_a, len(answer) + 1, answer, asked.answer, asked.media)

    found, shortened = fit_record(task, record, tokenizer, max_length, encode)
    if found is None or not found.contents:
        return None, (), shortened
    ids = encode_sample(found.part_a, found.contents, tokenizer.special_ids)
    return ids, found.media, shortened


class Attempt(NamedTuple):
    """One way to encode a record.

    Attributes:
        part_a: Ids.
        places: What part B takes, in tokens.
        contents: Of part B, as the caller needs it.
        answer: The answer's text, which shortening may have to keep.
        media: In the order in which part A counts their rows.
    """

    part_a: list[int]
    places: int
    contents: Any
    answer: str
    media: tuple[Medium, ...] = ()


def fit_record(
    task: Task,
    record: Mapping[str, Any],
    tokenizer: Any,
    max_length: int,
    encode: Callable[[Mapping[str, Any]], Attempt],
) -> tuple[Attempt | None, bool]:
    """Returns a record encoded within `max_length` tokens, or None, and whether it was shortened.

    Args:
        task: Says which field gives way.
        record: One record.
        tokenizer: A `GLMTokenizer`.
        max_length: Of part A and part B together, in tokens.
        encode: Encodes the record, and again with a shorter text in that field.
    """
    field, keep = (task.shorten.field, task.shorten.keep) if task.shorten else ("", "start")
    text, shortened = text_of(record.get(field)), False
    marked = bool(task.media)  # the places of media stay, whatever is cut around them
    found = encode(record)
    kept = kept_around(task, record, found.answer, "the record")
    room = max_length - found.places
    while len(found.part_a) > room:
        words = MEDIA_MARKER.sub("", text) if marked else text
        if not words or room < 8:
            return None, shortened
        # The text's tokens are about evenly long; a little less than what should fit, and again if it does not.
        tokens = len(encode_plain(tokenizer, words))
        fitting = tokens - (len(found.part_a) - room)
        length = int(len(words) * min(0.98, 0.98 * max(0, fitting) / max(1, tokens)))
        start, end = _cut(words, length, keep, kept)
        text = _with_places(text, start, end) if marked else words[start:end]
        shortened = True
        if keep == "answer" and kept in text_of(record[field]) and kept not in text:
            return None, True  # no room for the answer's own words
        found = encode({**record, field: text})
    return found, shortened


def _cut(text: str, length: int, keep: str, answer: str) -> tuple[int, int]:
    """Returns where `length` characters of a text are: its start, its end, or what is around the answer."""
    if keep == "end":
        return len(text) - length, len(text)
    found = text.find(answer) if keep == "answer" else -1
    if found < 0:
        return 0, length
    begin = found + len(answer) // 2 - length // 2
    begin = max(0, min(begin, len(text) - length))
    return begin, begin + length


def _with_places(text: str, start: int, end: int) -> str:
    """Returns a part of a text, all media's places in it; these do not count in `start` and `end`."""
    kept, place = "", 0
    for number, piece in enumerate(re.split(f"({MEDIA_MARKER.pattern})", text)):
        if number % 2:
            kept += piece
            continue
        kept += piece[max(0, start - place) : max(0, end - place)]
        place += len(piece)
    return kept


def encode_sample(
    part_a: np.ndarray | list[int], answer: np.ndarray | list[int], specials: SpecialTokenIds
) -> np.ndarray:
    """Returns int64 [part A + answer + 2]: what a store keeps. `part_a` has one mask token."""
    return np.concatenate((part_a, [specials.sop], answer, [specials.eop])).astype(np.int64)


def decode_sample(
    ids: np.ndarray,
    specials: SpecialTokenIds,
    rng: np.random.Generator | None = None,
    *,
    max_hidden: int = 0,
    mean_length: float = 3,
) -> Example:
    """Returns the example that `encode_sample` encoded; it takes `sample_sizes` places.

    Args:
        ids: A sample as a store keeps it.
        specials: Ids of the special tokens.
        rng: Draws which words of the question are hidden.
        max_hidden: Spans of the question that are hidden too, at most; each takes two more places. The answer is written
            first, from what is left of the question.
        mean_length: Of these spans, in tokens.

    Raises:
        DataError: The ids are no sample of a task.
    """
    starts = np.flatnonzero(ids == specials.sop)
    masks = find_masks(ids, specials.masks)
    if len(starts) != 1 or len(masks) != 1 or masks[0] > starts[0] or ids[-1] != specials.eop:
        raise DataError(
            f"a sample of {len(ids)} tokens with {len(masks)} mask tokens and {len(starts)} start markers is no sample "
            "of a task. Prepare the data with: glmkit prepare --task NAME"
        )
    start, asked = int(starts[0]), int(masks[0])
    question, answer = ids[:start], ids[start + 1 : -1]
    if not max_hidden or rng is None:
        return lay_out(question, [Piece(asked, answer, specials.eop)], specials.sop)
    lengths = draw_span_lengths(rng, max_hidden, mean_length, max(1, len(question) // 8))
    spans = token_spans(
        question,
        rng,
        cls=specials.cls,
        eos=specials.eos,
        ratio=1.0,
        mean=mean_length,
        longest=len(question),
        lengths=lengths,
    )
    # The blank that is asked for stays, with a word on either side.
    spans = rng.permutation(spans[(spans[:, 1] < asked) | (spans[:, 0] > asked + 1)])
    spans[spans[:, 0] > asked] += len(answer) - 1
    return hide(
        np.concatenate((question[:asked], answer, question[asked + 1 :])),
        np.concatenate(([[asked, asked + len(answer)]], spans)),
        mask=np.array([question[asked], *[specials.mask] * len(spans)]),
        sop=specials.sop,
        end=specials.eop,
    )


def sample_sizes(store: TokenStore) -> np.ndarray:
    """Returns int64 [documents]: the places that each sample of a store takes in a row."""
    return np.diff(store.offsets) - 1  # the end marker is predicted, never read


def open_task_store(
    folder: str | Path, specials: SpecialTokenIds, tokenizer_fingerprint: str | None = None
) -> TokenStore:
    """Opens a store of a task's samples.

    Raises:
        DataError: No store is there, it was made with another tokenizer, it is empty, or it holds texts instead of samples.
    """
    store = TokenStore.open(folder, tokenizer_fingerprint)
    if not len(store):
        raise DataError(f"{store.folder} is empty; give the task more records.")
    if specials.sop not in store.document(0):
        raise DataError(
            f"{store.folder} holds texts, not the samples of a task. Prepare labelled data with: glmkit prepare DATA "
            "--task NAME -o DIR --tokenizer T"
        )
    return store
