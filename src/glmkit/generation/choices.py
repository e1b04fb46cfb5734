"""Scoring given contents of a blank: the log-probability of each, in one or two forward passes a batch.

In: prompts with one blank each, and choices. Out: what `fill` would say of each choice if it wrote it, to rounding.
Part A is read once a prompt, beginnings that choices share are read once too (`blanks.choices`); neither the other
choices nor the company in a batch change a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from glmkit.blanks.batches import by_length
from glmkit.blanks.choices import ChoiceTree, build_tree
from glmkit.errors import GenerationError
from glmkit.generation.prompts import Prompt, build_prompt, split_at_blanks
from glmkit.generation.reading import log_probabilities, make_reader
from glmkit.tokens.blanked import encode_content

NODES = 512
"""Nodes of each tree that are read at once."""


def score_choices(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str | Prompt],
    choices: Sequence[Any],
    *,
    batch_size: int = 8,
) -> list[np.ndarray]:
    """Returns for each prompt the log-probability of each choice as the contents of its blank.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode.
        tokenizer: Its `GLMTokenizer`.
        prompts: Texts (or `Prompt`s) with one blank; a text without one gets `[gMASK]` at its end.
        choices: A list of texts for all prompts, or a list of such lists, one for each prompt. A choice may be given
            as token ids in place of a text; an empty one is an empty blank.
        batch_size: Prompts read together; prompts of similar length share a batch.

    Returns:
        float64 [choices] for each prompt, in nats, the end marker included.

    Raises:
        ConfigError: A batch of less than one prompt.
        GenerationError: A prompt with several blanks, no choices, a choice longer than the model's block positions, a
            number of lists that does not fit, or as `build_prompt`.
    """
    prepared = [_prompt(model, tokenizer, prompt) for prompt in prompts]
    lists = _lists(choices, len(prepared))
    encoded = [
        [content_ids(model, tokenizer, prompt, choice) for choice in some]
        for prompt, some in zip(prepared, lists, strict=True)
    ]
    specials = tokenizer.special_ids
    results: list[np.ndarray] = [np.empty(0)] * len(prepared)
    for chosen in by_length([len(prompt.ids) for prompt in prepared], batch_size):
        trees = [build_tree(encoded[index], specials.sop) for index in chosen]
        scores = _score_trees(model, [prepared[index] for index in chosen], trees, specials)
        for index, some in zip(chosen, scores, strict=True):
            results[index] = some
    return results


def content_ids(model: Any, tokenizer: Any, prompt: Prompt, choice: Any) -> list[int]:
    """Returns the ids of a choice (a text, or ids) as the contents of a prompt's blank, without its end marker.

    Raises:
        GenerationError: It is longer than the model's block positions.
    """
    ids = choice
    if isinstance(choice, str):
        mask = int(prompt.ids[prompt.mask_indices[0]])
        ids = encode_content(tokenizer, prompt.parts[0], mask, choice)
    limit = model.config.max_sequence_length - 1
    if len(ids) > limit:
        raise GenerationError(
            f"a choice has {len(ids)} tokens, but a blank of this model holds {limit}; shorten it"
        )
    return list(map(int, ids))


def _score_trees(
    model: Any, prompts: Sequence[Prompt], trees: Sequence[ChoiceTree], specials: Any
) -> list[np.ndarray]:
    """Returns for each prompt float64 [choices]."""
    reader = make_reader(model, prompts, specials)
    longest = max(map(len, trees))
    sees = [tree.visibility() for tree in trees]
    # One value for each node: the log-probability of its token after its parent; and of an end after it.
    steps = [np.zeros(len(tree)) for tree in trees]
    ends = [np.zeros(len(tree)) for tree in trees]
    for start in range(0, longest, NODES):
        stop = min(start + NODES, longest)
        tokens = np.full((len(trees), stop - start), specials.sop, np.int64)
        positions = np.zeros((len(trees), 2, stop - start), np.int64)
        visible = np.zeros((len(trees), stop - start, stop), bool)
        for row, (prompt, tree) in enumerate(zip(prompts, trees, strict=True)):
            here = slice(start, min(stop, len(tree)))
            count = max(0, here.stop - start)
            tokens[row, :count] = tree.tokens[here]
            positions[row, :, :count] = tree.positions(int(prompt.mask_indices[0]))[:, here]
            visible[row, :count, : here.stop] = sees[row][here, : here.stop]
        hidden = reader.read(tokens, positions, visible)
        for row, tree in enumerate(trees):
            _take(model, hidden[row], tree, start, specials.eop, steps[row], ends[row])
    return [
        _along_paths(tree, step)[tree.ends] + end[tree.ends]
        for tree, step, end in zip(trees, steps, ends, strict=True)
    ]


def _take(
    model: Any,
    hidden: Any,
    tree: ChoiceTree,
    start: int,
    eop: int,
    steps: np.ndarray,
    ends: np.ndarray,
) -> None:
    """Writes what the states [Q, H] of the nodes from `start` on say of their children and of the end."""
    stop = min(start + len(hidden), len(tree))
    if start >= stop:
        return
    children = np.flatnonzero((tree.parents >= start) & (tree.parents < stop))
    last = np.unique(tree.ends[(tree.ends >= start) & (tree.ends < stop)])
    rows = np.concatenate((tree.parents[children], last)) - start
    wanted = np.concatenate((tree.tokens[children], np.full(len(last), eop)))
    values = log_probabilities(model, hidden[: stop - start], rows, wanted)
    steps[children], ends[last] = values[: len(children)], values[len(children) :]


def _along_paths(tree: ChoiceTree, steps: np.ndarray) -> np.ndarray:
    """Returns float64 [n]: the sums of `steps` from the root to each node."""
    sums = steps.copy()
    for node, parent in enumerate(tree.parents.tolist()):
        if parent >= 0:
            sums[node] += sums[parent]
    return sums


def _prompt(model: Any, tokenizer: Any, prompt: str | Prompt) -> Prompt:
    if not isinstance(prompt, Prompt):
        if len(split_at_blanks(tokenizer, prompt)) > 3:
            raise GenerationError(
                f"choices fill one blank, but the text has several: {prompt[:80]!r}. Leave one blank in it, and write "
                "out the others"
            )
        prompt = build_prompt(tokenizer, prompt, model.config.max_sequence_length)
    if len(prompt.mask_indices) != 1:
        raise GenerationError(
            f"choices fill one blank, but the prompt has {len(prompt.mask_indices)}"
        )
    return prompt


def _lists(choices: Sequence[Any], num_prompts: int) -> list[Sequence[Any]]:
    """Returns a list of choices for each prompt."""
    if isinstance(choices, str) or not all(isinstance(one, str | Sequence) for one in choices):
        raise GenerationError("choices must be a list of texts, or one such list for each prompt")
    shared = any(isinstance(one, str) for one in choices)
    lists = [choices] * num_prompts if shared else list(choices)
    if len(lists) != num_prompts:
        raise GenerationError(
            f"choices were given for {len(lists)} prompts, but there are {num_prompts}"
        )
    if not all(len(some) for some in lists):
        raise GenerationError("there are no choices to score; give at least one for each prompt")
    return lists
