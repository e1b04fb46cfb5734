"""Dialogue: messages -> the next reply, one blank after the history.

In: a model, conversations as lists of `{"role", "content"}`. Out: replies. How a conversation is written down is said
in `tasks/catalog/dialogue.yaml` alone, the file that training reads. What a user writes cannot restructure the prompt:
a message is one line, and special tokens in it are plain text.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from glmkit.applications import defaults
from glmkit.applications.prompts import question_prompt
from glmkit.errors import GenerationError, nearest
from glmkit.generation import infill
from glmkit.generation.constraints import Constraint, shapes
from glmkit.generation.prompts import Prompt
from glmkit.generation.settings import DecodingSettings
from glmkit.multimodal.media import Medium, as_medium
from glmkit.multimodal.messages import read_parts
from glmkit.tasks.encoding import encode_question
from glmkit.tasks.rendering import Question, language_of, question, speaker_of
from glmkit.tasks.task import Task, load_task

logger = logging.getLogger(__name__)

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Conversation:
    """A conversation that has been checked.

    Attributes:
        system: The system message, on one line.
        turns: What was said, on one line each; the last one is the user's, the others alternate.
        media: For each turn those at its markers; empty where there are none at all.
    """

    system: str
    turns: tuple[str, ...]
    media: tuple[tuple[Medium, ...], ...] = ()


def chat(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Any],
    settings: DecodingSettings,
    *,
    batch_size: int = 8,
    constraint: Constraint | None = None,
    reader: Any = None,
) -> list[str]:
    """Returns the reply to each conversation.

    Args:
        model: A `GLMForConditionalGeneration` in evaluation mode.
        tokenizer: Its `GLMTokenizer`.
        conversations: As `read_conversation` takes them.
        settings: How tokens are chosen.
        batch_size: Conversations answered together.
        constraint: What a reply may contain.
        reader: What reads media (`multimodal.reader.MediaReader`), or None.

    Raises:
        GenerationError: As `read_conversation` and `conversation_prompt`; a constraint that leaves nothing.
        MediaError: Media that cannot be read, or the model reads none.
    """
    prompts, chosen = prepare(model, tokenizer, conversations, settings, constraint, reader)
    limits = [constraint] * len(prompts)
    filled = infill.fill(
        model, tokenizer, prompts, chosen, batch_size=batch_size, constraints=limits
    )
    return [one.blanks[0] for one in filled]


def stream_chat(
    model: Any,
    tokenizer: Any,
    conversation: Any,
    settings: DecodingSettings,
    constraint: Constraint | None = None,
    reader: Any = None,
) -> Iterator[str]:
    """Returns the reply in pieces as they are written; joined and stripped they are what `chat` returns."""
    [prompt], chosen = prepare(model, tokenizer, [conversation], settings, constraint, reader)
    return infill.stream(model, tokenizer, prompt, chosen, constraint)


def usual_settings(constraint: Constraint | None) -> dict[str, Any]:
    """Returns the settings that a reply has where no others are given."""
    return defaults.SHAPED_CHAT if shapes(constraint) else defaults.CHAT


def prepare(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Any],
    settings: DecodingSettings,
    constraint: Constraint | None = None,
    reader: Any = None,
) -> tuple[list[Prompt], DecodingSettings]:
    """Returns the prompt of each conversation's next reply, and the settings with which the replies are written.

    A constraint that says what the whole reply is says where it ends, too: there are no stop strings then.

    Raises:
        GenerationError: As `read_conversation` and `conversation_prompt`.
    """
    task, positions = load_task("dialogue"), model.config.max_sequence_length
    # Training rows hold the history and the reply together.
    room = positions - min(settings.max_new_tokens, positions // 4)
    prompts = [
        conversation_prompt(tokenizer, read_conversation(one), task, room, reader)
        for one in conversations
    ]
    return prompts, settings if shapes(constraint) else with_stops(settings, task)


def read_conversation(messages: Any) -> Conversation:
    """Checks a conversation.

    Args:
        messages: What the user says, or a list of `{"role": "system" | "user" | "assistant", "content": str}`: perhaps
            a system message, then user and assistant in turn, the user last. A content may also be a list of parts, texts and
            media (`multimodal.messages.read_parts`).

    Raises:
        GenerationError: Says which message is wrong, and how.
        MediaError: A part of another form.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, Sequence) or not messages:
        raise GenerationError(
            'messages must be a text or a list of {"role": …, "content": …} that is not empty; '
            f"given was {messages!r:.80}"
        )
    pairs = [_role_and_text(number, message) for number, message in enumerate(messages)]
    system = pairs.pop(0)[1] if pairs[0][0] == "system" else ""
    for number, (role, *_) in enumerate(reversed(pairs)):
        expected = ("user", "assistant")[number % 2]
        if role != expected:
            place = len(messages) - 1 - number
            raise GenerationError(
                f"messages[{place}] has the role {role!r}, where {expected!r} belongs: a conversation is perhaps a "
                "system message, then user and assistant in turn, and the last message is the user's. "
                "Join messages that one side sent in a row"
            )
    if not pairs:
        raise GenerationError("there is only a system message; add what the user says")
    media = tuple(tuple(some) for _, _, some in pairs)
    return Conversation(system, tuple(text for _, text, _ in pairs), media if any(media) else ())


def conversation_prompt(
    tokenizer: Any, conversation: Conversation, task: Task, max_tokens: int, reader: Any = None
) -> Prompt:
    """Returns the prompt of the next reply, within `max_tokens` tokens.

    The earliest turns are left out first, a whole one at a time; the system message and the last turn stay. A last
    turn that is too long by itself loses its beginning, with a warning.

    Raises:
        GenerationError: The system message leaves no room for what the user says.
    """
    turns = conversation.turns
    count_rows = None if reader is None else reader.count_rows

    def asked(first: int, last_length: int | None = None) -> Question:
        kept = list(turns[first:])
        if last_length is not None:
            kept[-1] = kept[-1][len(kept[-1]) - last_length :]
        media = conversation.media[first:]
        return _question(Conversation(conversation.system, tuple(kept), media), task)

    # Counted, and not yet encoded: media of turns that are left out cost nothing.
    def size(first: int, last_length: int | None = None) -> int:
        return len(encode_question(asked(first, last_length), tokenizer, count_rows)[0])

    def smallest(low: int, high: int, fits: Any) -> int:
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle + 1, high)
        return low

    first = smallest(0, len(turns) - 1, lambda first: size(first) <= max_tokens)
    smallest_size = size(first)
    if smallest_size <= max_tokens:
        return question_prompt(asked(first), tokenizer, reader)
    if conversation.media and conversation.media[-1]:
        raise GenerationError(
            f"the last message has {smallest_size} tokens with its media; the model reads {max_tokens} here. Shorten it, or "
            "give fewer media"
        )
    length = len(turns[-1])
    cut = smallest(0, length, lambda cut: size(first, length - cut) <= max_tokens)
    if cut == length:
        raise GenerationError(
            f"the system message has {len(conversation.system)} characters, which leaves no room for what the user "
            f"says in the {max_tokens} tokens that the model reads here; shorten it"
        )
    logger.warning("a message of %d characters was cut to its last %d", length, length - cut)
    return question_prompt(asked(first, length - cut), tokenizer, reader)


def with_stops(settings: DecodingSettings, task: Task) -> DecodingSettings:
    """Returns the settings with stop strings that keep the model from speaking for the user."""
    assert task.turns is not None
    markers = [marker.strip() for some in task.turns.speakers.values() for marker in some]
    # A Chinese marker stands for nothing else; "A:" may be a part of a sentence, so it counts at a line's start only.
    stops = [f"\n{one}" if one.isascii() else one for one in markers if one]
    return replace(settings, stop=(*settings.stop, *stops))


def _question(conversation: Conversation, task: Task) -> Question:
    """Returns what is asked by a conversation as it is, whatever its length."""
    assert task.turns is not None
    turns = conversation.turns
    language = language_of(task, {task.turns.field: list(turns)})
    # Counted from the end, the user always has the first speaker's place and the reply the second's.
    first = (len(turns) + 1) % 2
    lines = [
        speaker_of(task, language, first + number) + said
        for number, said in enumerate((*turns, ""))
    ]
    if conversation.system:
        lines.insert(0, conversation.system)
    record = {task.turns.field: list(turns), "history": "\n".join(lines), "reply": ""}
    asked = question(task, record, "messages", language=language)
    return replace(asked, media=tuple(one for some in conversation.media for one in some))


def _role_and_text(number: int, message: Any) -> tuple[str, str, list[Medium]]:
    """Returns the role and the text, on one line, of one message, and its media."""
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        raise GenerationError(
            f'messages[{number}] must be {{"role": …, "content": …}}; given was {message!r:.80}'
        )
    role, content = message["role"], message["content"]
    allowed = ROLES if number == 0 else ROLES[1:]
    if role not in allowed:
        raise GenerationError(
            f"messages[{number}] has the role {role!r}; allowed there: {', '.join(allowed)}"
            f"{nearest(str(role), ROLES)}"
        )
    if not isinstance(content, str | list):
        raise GenerationError(
            f"messages[{number}]: content must be a string or a list of parts, not {type(content).__name__}"
        )
    where = f"messages[{number}].content"
    text, given = read_parts(content, where)
    if given and role != "user":
        raise GenerationError(f"{where} has media; only what the user says may have any")
    media = [as_medium(kind, one, where=where) for kind, one in given]
    return role, " ".join(text.splitlines()).strip(), media
