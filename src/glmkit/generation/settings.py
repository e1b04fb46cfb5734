"""How tokens are chosen: decoding settings under transformers' names, checked where they are given."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from glmkit.errors import GenerationError, nearest


@dataclass(frozen=True)
class DecodingSettings:
    """Settings of one decoding call; names and meanings are those of transformers' `GenerationConfig`.

    Attributes:
        max_new_tokens: Most tokens of one blank.
        min_new_tokens: Fewest tokens of one blank.
        do_sample: Draw tokens instead of taking the likeliest.
        temperature: Divides the logits before drawing.
        top_k: Draw among the k likeliest tokens (0 = all).
        top_p: Draw among the likeliest tokens that together reach this probability.
        num_beams: Beams; above 1 blanks are searched one after the other.
        num_return_sequences: Alternatives to report for each blank (at most `num_beams`, without sampling).
        length_penalty: Exponent of the length by which beam scores are divided.
        repetition_penalty: Above 1 makes tokens of this blank less likely to come again.
        no_repeat_ngram_size: No n-gram of this size comes twice in a blank (0 = off).
        stop: Strings before which a blank ends; they are not part of it.
        guidance_scale: How far a text is led away from a prompt that is given against it (1 = not at all; 1.5 where None).
        prompt_lookup_num_tokens: Tokens guessed from the text at each step and checked together (0 = off; greedy alone).
        seed: Seed of every text's own random stream; None draws one from NumPy's global stream (`np.random.seed`).
    """

    max_new_tokens: int = 128
    min_new_tokens: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    num_beams: int = 1
    num_return_sequences: int = 1
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    stop: tuple[str, ...] = ()
    guidance_scale: float | None = None
    prompt_lookup_num_tokens: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        stop: Any = self.stop
        if isinstance(
            stop, list | tuple | str
        ):  # one string, or a list: what transformers' stop_strings takes
            object.__setattr__(self, "stop", (stop,) if isinstance(stop, str) else tuple(stop))
        self._check_types()
        problems = [
            f"{name}={getattr(self, name)!r} must be {allowed}"
            for name, allowed, good in (
                ("max_new_tokens", "at least 1", self.max_new_tokens >= 1),
                ("min_new_tokens", "between 0 and max_new_tokens", 0 <= self.min_new_tokens <= self.max_new_tokens),
                ("temperature", "1e-6 or more (do_sample=False is greedy)", self.temperature >= 1e-6),
                ("top_k", "0 (off) or more", self.top_k >= 0),
                ("top_p", "in (0, 1]", 0 < self.top_p <= 1),
                ("num_beams", "at least 1", self.num_beams >= 1),
                ("num_return_sequences", "between 1 and num_beams", 1 <= self.num_return_sequences <= self.num_beams),
                ("repetition_penalty", "above 0", self.repetition_penalty > 0),
                ("no_repeat_ngram_size", "0 (off) or more", self.no_repeat_ngram_size >= 0),
                ("guidance_scale", "above 0", self.guidance_scale is None or self.guidance_scale > 0),
                ("prompt_lookup_num_tokens", "0 (off) or more", self.prompt_lookup_num_tokens >= 0),
                ("stop", "a string or a list of strings that are not empty", _are_strings(self.stop)),
                ("seed", "from -2**63 to 2**63 - 1", self.seed is None or -(2**63) <= self.seed < 2**63),
            )
            if not good
        ]  # fmt: skip
        if self.do_sample and self.num_beams > 1:
            problems.append("do_sample=True cannot be combined with num_beams above 1")
        if self.prompt_lookup_num_tokens and (self.do_sample or self.num_beams > 1):
            problems.append(
                "prompt_lookup_num_tokens checks guesses against the likeliest token; it cannot be combined with "
                "do_sample=True or num_beams above 1: set it to 0"
            )
        if not self.do_sample and (self.temperature, self.top_k, self.top_p) != (1.0, 0, 1.0):
            problems.append("temperature, top_k and top_p need do_sample=True")
        if problems:
            raise GenerationError("decoding settings: " + "; ".join(problems))

    def _check_types(self) -> None:
        wrong = [
            f"{field.name}={value!r} must be {allowed}"
            for field in fields(self)
            for kind, allowed, fits in _TYPES
            if str(field.type).removesuffix(" | None") == kind
            and not (fits(value := getattr(self, field.name)) or value is field.default is None)
        ]
        if wrong:
            raise GenerationError("decoding settings: " + "; ".join(wrong))

    def longest(self, max_positions: int) -> int:
        """Returns the most tokens of a blank of a model that has so many positions (`max_sequence_length`)."""
        return min(self.max_new_tokens, max_positions - 1)

    @classmethod
    def from_arguments(cls, **arguments: Any) -> DecodingSettings:
        """Returns settings from keyword arguments.

        Raises:
            GenerationError: An unknown name, or values that are not allowed.
        """
        known = [field.name for field in fields(cls)]
        for name in arguments:
            if name not in known:
                raise GenerationError(
                    f"unknown decoding setting {name!r}; there are {', '.join(known)}{nearest(name, known)}"
                )
        return cls(**arguments)


_TYPES = (
    ("int", "a whole number", lambda value: isinstance(value, Integral)),
    ("float", "a finite number", lambda value: isinstance(value, Real) and math.isfinite(value)),
    ("bool", "True or False", lambda value: isinstance(value, bool)),
)
"""Annotation -> what is allowed."""


def _are_strings(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) and one for one in value)
