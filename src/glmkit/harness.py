"""A GLM for EleutherAI's lm-evaluation-harness: its tasks, its prompts, its metrics; GLM's own layout.

In: a `GLM`, or what `glmkit.load` loads. Out: an `lm_eval.api.model.LM`. A context is part A, bidirectional, and what is
scored or written after it is the contents of its blank: `[gMASK]` at the context's end, or the one blank that the
context has itself (`[MASK]`, `[sMASK]`, `[gMASK]`), as in `GLM.generate`. Knows no task.

    from glmkit.harness import HarnessModel
    lm_eval.simple_evaluate(model=HarnessModel("runs/mini/model"), tasks=["lambada_openai"])
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from glmkit.api import GLM, load
from glmkit.blanks.layout import Example, Piece, lay_out
from glmkit.embedded import DEFAULT_MODEL
from glmkit.errors import ConfigError, GenerationError, missing_dependency
from glmkit.evaluation.provenance import facts_of
from glmkit.evaluation.scoring import label_scores, text_log_probabilities
from glmkit.generation import infill
from glmkit.generation.prompts import Prompt, build_prompt, split_at_blanks
from glmkit.generation.settings import DecodingSettings
from glmkit.tokens.blanked import encode_content, mask_ids

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError as error:
    raise missing_dependency("lm-eval", "the evaluation harness", "harness") from error

BATCH_SIZE = 16
"""Rows at a time where the harness does not say, or says `auto`."""

MAX_GEN_TOKS = 256
"""Tokens written where the task does not say, the harness' own default."""

LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""How a task may say it; the first one counts."""


@register_model("glmkit")
class HarnessModel(LM):
    """A GLM as the harness wants it.

    Args:
        pretrained: A loaded `GLM`, or a folder or hub name.
        mask: The blank that a context without one gets at its end: "gMASK", "MASK" or "sMASK".
        end: Whether the end of the blank counts in `loglikelihood`: then it is the probability of this and nothing
            more, which `generation.choices.score_choices` gives; without it the text may go on, as a left-to-right
            model's may.
        batch_size: Rows at a time.
        max_batch_size: Not used; the harness gives it.
        device: As `glmkit.load`, for a folder or hub name.
        dtype: Likewise.

    Raises:
        ConfigError: An unknown mask, a batch size that is no number.
        CheckpointError: As `glmkit.load`.
    """

    def __init__(
        self,
        pretrained: GLM | str | Path = DEFAULT_MODEL,
        *,
        mask: str = "gMASK",
        end: bool = False,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ):
        super().__init__()
        glm = pretrained if isinstance(pretrained, GLM) else load(pretrained, device=device, dtype=dtype)  # fmt: skip
        self.glm, self.model, self.tokenizer = glm, glm.model, glm.tokenizer
        self.mask = f"[{mask.strip('[]')}]"
        if self.mask not in mask_ids(self.tokenizer):
            raise ConfigError(f"mask={mask!r} is not one of gMASK, MASK, sMASK")
        self.end = end
        self.batch_size = _batch_size(batch_size)
        self._device = self.model.device
        self._name = pretrained if isinstance(pretrained, str | Path) else type(glm.model).__name__

    def loglikelihood(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
        """Returns for each (context, continuation) its log-probability in nats, and whether greedy decoding writes it.

        Raises:
            GenerationError: A context with several blanks, or a continuation longer than a blank of this model.
        """
        examples = [self._example(*request.args) for request in requests]
        ids = self.tokenizer.special_ids
        ends = {ids.eop, ids.eos}
        names = self.tokenizer.textless_ids - ends
        padding = range(len(self.tokenizer), self.model.config.vocab_size)
        scored = label_scores(
            self.model,
            examples,
            ids.pad,
            forbidden=sorted({*names, *padding}),
            batch_size=self.batch_size,
        )
        found = [(float(values.sum()), bool(best.all())) for values, best in scored]
        for request, one in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, one)
        return found

    def loglikelihood_rolling(self, requests: list[Any], **_: Any) -> list[float]:
        """Returns the log-probability in nats of each text, read left to right, in windows where it is long."""
        texts = [request.args[0] for request in requests]
        scored = text_log_probabilities(
            self.model, self.tokenizer, texts, batch_size=self.batch_size
        )
        found = [float(values.sum()) for _, values in scored]
        for request, one in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, one)
        return found

    def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
        """Returns what is written after each context, up to the strings of `until`.

        Raises:
            GenerationError: A context with several blanks, or settings that glmkit does not have.
        """
        found = [""] * len(requests)
        groups: dict[DecodingSettings, list[int]] = {}
        for index, request in enumerate(requests):
            settings = self.settings(request.args[1])
            groups.setdefault(settings, []).append(index)
        for settings, indices in groups.items():
            prompts = [self._prompt(requests[index].args[0]) for index in indices]
            filled = infill.fill(
                self.model, self.tokenizer, prompts, settings, batch_size=self.batch_size
            )
            for index, one in zip(indices, filled, strict=True):
                found[index] = one.blanks[0]
                self.cache_hook.add_partial("generate_until", requests[index].args, found[index])
        return found

    def settings(self, arguments: Mapping[str, Any]) -> DecodingSettings:
        """Returns a task's `generation_kwargs` as decoding settings; temperature 0 is greedy, as in the harness.

        Raises:
            GenerationError: A setting that is unknown or impossible.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        until = given.pop("until", ())
        limits = [given.pop(name) for name in LIMITS if name in given]
        sample = bool(given.pop("do_sample", given.get("temperature", 0) > 0))
        if not sample or given.get("temperature") == 0:
            sample = False
            for name in ("temperature", "top_p", "top_k"):
                given.pop(name, None)
        known = {field.name for field in fields(DecodingSettings)}
        given["num_beams"] = given.get("num_beams", 1)
        unknown = sorted(set(given) - known)
        if unknown:
            raise GenerationError(
                f"generation_kwargs: glmkit has no {', '.join(unknown)}; take them out of the task"
            )
        most = self.model.config.max_sequence_length - 1
        return DecodingSettings(
            **given,
            do_sample=sample,
            max_new_tokens=min(int(limits[0]) if limits else MAX_GEN_TOKS, most),
            stop=tuple(one for one in ([until] if isinstance(until, str) else until) if one),
        )

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Returns messages as one text, the answer's blank at its end."""
        write = partial(self.tokenizer.apply_chat_template, chat_history, tokenize=False)
        return str(write(add_generation_prompt=add_generation_prompt))

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Returns the template that `apply_chat_template` uses; a model has one."""
        return str(self.tokenizer.chat_template or "") if chat_template else None

    @property
    def tokenizer_name(self) -> str:
        """Names the vocabulary, for the harness' caches."""
        return str(self._name).replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """Returns what the harness writes down of the model."""
        facts = facts_of(self.model)
        return {
            "model_num_parameters": facts["parameters"],
            "model_dtype": str(self.model.dtype),
            "model_fingerprint": facts["weights_fingerprint"],
            "blank": self.mask,
            "end_counts": self.end,
        }

    def _prompt(self, context: str) -> Prompt:
        """Returns part A of a context; one that is too long loses its beginning."""
        pieces = split_at_blanks(self.tokenizer, context)
        if len(pieces) > 3:
            raise GenerationError(
                f"a context of the harness has {len(pieces) // 2} blanks, but one is filled: {context[-80:]!r}. Examples "
                "of a task whose question has a blank keep theirs open: ask with num_fewshot=0, or write the task's "
                "question without a blank"
            )
        text = context if len(pieces) == 3 else context + self.mask
        return build_prompt(self.tokenizer, text, self.model.config.max_sequence_length)

    def _example(self, context: str, continuation: str) -> Example:
        """Lays out a context and its continuation as training lays out a blank and its contents."""
        ids = self.tokenizer.special_ids
        # The space between the two stands before the blank, or begins its contents, as the vocabulary has it.
        content = continuation.lstrip()
        if len(split_at_blanks(self.tokenizer, context)) == 1:
            context += continuation[: len(continuation) - len(content)]
        prompt = self._prompt(context)
        place = int(prompt.mask_indices[0])
        tokens = encode_content(self.tokenizer, prompt.parts[0], int(prompt.ids[place]), content)
        most = self.model.config.max_sequence_length - 1
        if len(tokens) > most:
            raise GenerationError(
                f"a continuation has {len(tokens)} tokens, but a blank of this model holds {most}: {content[:80]!r}"
            )
        piece = Piece(place, np.asarray(tokens, np.int64), ids.eop if self.end else None)
        return lay_out(prompt.ids, [piece], ids.sop)


def _batch_size(given: int | str | None) -> int:
    if given is None or str(given).startswith("auto"):
        return BATCH_SIZE
    if not str(given).isdigit() or not int(given):
        raise ConfigError(f"batch_size={given!r} must be a number of rows, at least 1, or auto")
    return int(given)


def evaluate(
    model: HarnessModel,
    tasks: Sequence[str],
    *,
    include_path: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    chat: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Runs the harness on tasks and returns its results, samples included.

    Args:
        model: The model.
        tasks: Names of tasks or groups that the harness has, or YAML files of tasks.
        include_path: A folder with more tasks.
        num_fewshot: Examples before each question; by default what the task says.
        limit: At most so many questions of a task.
        chat: Whether contexts are turns of a conversation.
        **options: Passed to `lm_eval.simple_evaluate`.

    Raises:
        ConfigError: A task that the harness does not know, or a file that defines none.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    files = [Path(one) for one in tasks if one.endswith((".yaml", ".yml"))]
    folders = {str(path.resolve().parent) for path in files}
    folders |= {str(include_path)} if include_path else set()
    # The harness' own tasks are thousands of files, read only where one of them may be meant.
    manager = TaskManager(
        include_path=sorted(folders) or None, include_defaults=len(files) < len(tasks)
    )
    names = [_name_in(Path(one)) if Path(one) in files else one for one in tasks]
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown or not names:
        raise ConfigError(
            f"the harness has no task {', '.join(map(repr, unknown)) or '(none named)'}; `lm-eval ls tasks` lists its "
            "tasks, and a folder (--include-path) or a YAML file adds your own"
        )
    results = simple_evaluate(
        model=model,
        tasks=names,
        task_manager=manager,
        num_fewshot=num_fewshot,
        limit=limit,
        apply_chat_template=chat,
        # A hundred thousand resamples, the harness' default, cost minutes for a third digit of a standard error.
        **{"bootstrap_iters": 1000, **options},
    )
    assert results is not None  # rank 0
    return dict(results)


def table(results: Mapping[str, Any]) -> str:
    """Returns the harness' own table of results, in Markdown."""
    from lm_eval.utils import make_table

    return str(make_table(results))


def _name_in(path: Path) -> str:
    """Returns the name of the task or group that a YAML file defines.

    Raises:
        ConfigError: There is no such file, or it names none.
    """
    if not path.is_file():
        raise ConfigError(f"there is no task file {path}")
    found = re.search(r"^(?:task|group):[ '\"]*([^'\"\s]+)", path.read_text("utf-8"), re.MULTILINE)
    if not found:
        raise ConfigError(f"{path} has no line `task: NAME`, which the harness needs")
    return found[1]
