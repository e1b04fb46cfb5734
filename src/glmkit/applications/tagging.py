"""Names, words and other spans of a text, by a model that was fine-tuned to tag: a head over every token, read at every unit.

In: texts. Out: `Tagging`s. Texts are cut and encoded as in training, and of all paths of tags the likeliest allowed one counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmkit.applications.heads import HEADS_NEED_IT, stored_tasks
from glmkit.blanks.batches import by_length
from glmkit.checkpoint import read_config, resolve
from glmkit.errors import ConfigError, GenerationError, require_torch
from glmkit.generation.arrays import log_probabilities, reading
from glmkit.generation.reading import part_a_inputs
from glmkit.generation.results import Span, Tagging
from glmkit.tasks.tagging import decode_tags, encode_tagged, tag_names
from glmkit.tasks.task import Task

if TYPE_CHECKING:
    from glmkit.model import GLMForConditionalGeneration, GLMForTokenClassification
    from glmkit.tokens.tokenizer import GLMTokenizer


@dataclass(frozen=True)
class Tagger:
    """A model that tags, and what it was trained to find.

    Attributes:
        model: A `GLMForTokenClassification` in evaluation mode.
        tokenizer: Its `GLMTokenizer`.
        task: With the labels, and how long its samples were.
    """

    model: GLMForTokenClassification
    tokenizer: GLMTokenizer
    task: Task


def is_tagger(folder: str | Path) -> bool:
    """Returns whether a folder holds a tagging head."""
    return "GLMForTokenClassification" in (read_config(resolve(folder)).get("architectures") or [])


def load_tagger(
    folder: str | Path, backbone: GLMForConditionalGeneration, *, shared: bool = False
) -> Tagger:
    """Loads the tagger of a folder.

    Args:
        folder: What `glmkit finetune` wrote for a task of the kind tagging.
        backbone: The model beside which it works: its device and number type are taken.
        shared: Whether the backbone was loaded from the same folder, so that its weights are the tagger's.

    Raises:
        ConfigError: The folder has no tagging head, does not say what its tags mean, or has other tags than its task.
        CheckpointError: The weights cannot be read.
    """
    require_torch(*HEADS_NEED_IT)
    from glmkit.model import GLMForTokenClassification
    from glmkit.model.adapters import load_merged
    from glmkit.tokens.tokenizer import GLMTokenizer

    path = resolve(folder)
    tasks = [task for task in stored_tasks(path).values() if task.kind == "tagging"]
    if not is_tagger(path) or len(tasks) != 1:
        raise ConfigError(
            f"{folder} holds no tagging head with its task (tasks/*.yaml). Train one with: glmkit finetune MODEL ner --data FILE"
        )
    model = load_merged(GLMForTokenClassification, path, dtype=backbone.dtype)
    if shared:
        model.glm = backbone.glm
    named: Any = model.config.id2label
    if [str(named[number]) for number in range(model.num_labels)] != tag_names(tasks[0]):
        raise ConfigError(
            f"the tagging head in {folder} has other tags than its task: {list(named.values())}"
        )
    tokenizer = GLMTokenizer.from_pretrained(path)
    return Tagger(model.to(backbone.device).eval(), tokenizer, tasks[0])


def tag(tagger: Tagger, texts: Sequence[str], *, batch_size: int = 16) -> list[Tagging]:
    """Returns the spans of each text.

    Args:
        tagger: What tags.
        texts: Of any length; long ones are read in windows, as in training.
        batch_size: Windows read together.

    Raises:
        GenerationError: A text that is no string.
    """
    model, task, specials = tagger.model, tagger.task, tagger.tokenizer.special_ids
    limit = min(
        model.config.max_sequence_length, task.max_length or model.config.max_sequence_length
    )
    asked = []
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise GenerationError(f"text {number + 1} is {type(text).__name__}, not a string")
        windows = encode_tagged(task, text, None, tagger.tokenizer, limit)
        asked += [(number, one) for one in windows]
    found: list[list[Span]] = [[] for _ in texts]
    for indices in by_length([len(one.part_a) for _, one in asked], batch_size):
        chosen = [asked[index] for index in indices]
        inputs = part_a_inputs(model, [one.part_a for _, one in chosen], specials)
        with reading(model):
            scores = log_probabilities(model(**inputs).logits)
        for (number, one), row in zip(chosen, scores, strict=True):
            for (begin, end, label), score in decode_tags(task, one.units, row[one.places]):
                found[number].append(Span(label, texts[number][begin:end], begin, end, score))
    return [
        Tagging(text, sorted(spans, key=lambda one: one.start))
        for text, spans in zip(texts, found, strict=True)
    ]
