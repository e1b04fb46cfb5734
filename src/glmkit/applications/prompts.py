"""A task's question -> the prompt that a model was trained on, id by id.

In: what `tasks.rendering.question` made of a record. Out: a `Prompt` for `generation`. What looks like a blank or
another special token in the record's texts is plain text.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from glmkit.blanks.layout import find_masks
from glmkit.generation.prompts import Prompt
from glmkit.tasks.encoding import encode_question
from glmkit.tasks.rendering import Question


def question_prompt(asked: Question, tokenizer: Any) -> Prompt:
    """Returns the prompt of a question; it may be longer than the model's positions."""
    ids = np.asarray(encode_question(asked, tokenizer)[0], np.int64)
    return Prompt(ids, [asked.before, asked.after], find_masks(ids, tokenizer.special_ids.masks))
