"""What a blank may contain, said in plain values: those of the command's options, of a server's fields -> one constraint.

In: choices, an expression, a schema, a grammar, words, limits; everything given is kept at once. Out: a constraint, or None where nothing
is said. Knows no files and no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from glmkit.generation.constraints import All, Choices, Constraint, Length
from glmkit.generation.grammar import Grammar, JsonSchema, Regex
from glmkit.generation.words import Exclude, Include


@dataclass(frozen=True)
class Control:
    """What one blank may contain.

    Attributes:
        choices: What the blank may be.
        regex: Expression that all of it matches.
        json_schema: Schema of the JSON that it is (or the schema's JSON; True is any JSON).
        grammar: Of which it is a sentence, in Lark.
        include: Words that it holds.
        exclude: Words that it does not hold.
        min_characters: Fewest characters.
        max_characters: Most characters.
        min_lines: Fewest lines.
        max_lines: Most lines.
    """

    choices: Sequence[str] = ()
    regex: str | None = None
    json_schema: Mapping[str, Any] | str | bool | None = None
    grammar: str | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    min_characters: int = 0
    max_characters: int | None = None
    min_lines: int = 0
    max_lines: int | None = None

    def constraint(self, tokenizer: Any) -> Constraint | None:
        """Returns the constraint that all of it is kept, or None where nothing is said.

        Args:
            tokenizer: A `GLMTokenizer`.

        Raises:
            GenerationError: What no text of this vocabulary can be.
            MissingDependencyError: An expression, schema or grammar without `glmkit[control]`.
        """
        found: list[Any] = []
        if self.choices:
            found.append(Choices.of_texts(tokenizer, self.choices))
        if self.regex is not None:
            found.append(Regex(tokenizer, self.regex))
        if self.json_schema is not None:
            found.append(JsonSchema(tokenizer, self.json_schema))
        if self.grammar is not None:
            found.append(Grammar(tokenizer, self.grammar))
        if self.include:
            found.append(Include(tokenizer, self.include))
        if self.exclude:
            found.append(Exclude(tokenizer, self.exclude))
        if self.min_characters or self.max_characters is not None:
            found.append(Length(tokenizer, self.min_characters, self.max_characters, "characters"))
        if self.min_lines or self.max_lines is not None:
            found.append(Length(tokenizer, self.min_lines, self.max_lines, "lines"))
        if len(found) < 2:
            return found[0] if found else None
        return All(*found)


NAMES = tuple(field.name for field in fields(Control))
"""The names of what can be said."""
