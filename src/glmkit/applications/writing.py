"""The methods of `GLM` that write: `chat`."""

from __future__ import annotations

from typing import Any

from glmkit.applications import defaults, dialogue
from glmkit.errors import GenerationError
from glmkit.generation.settings import DecodingSettings


class Writing:
    """What a loaded GLM writes.

    Attributes:
        model: The `GLMForConditionalGeneration`, in evaluation mode.
        tokenizer: Its `GLMTokenizer`.
    """

    model: Any
    tokenizer: Any

    def chat(
        self, messages: Any, *, stream: bool = False, batch_size: int = 8, **settings: Any
    ) -> Any:
        """Returns the reply to a conversation, or the replies to several.

        Args:
            messages: What the user says; or a list of `{"role": "system" | "user" | "assistant", "content": str}`, the
                user's last; or a list of such texts and lists. The earliest turns give way where they do not fit.
            stream: For one conversation: return an iterator of pieces, as they are written.
            batch_size: Conversations answered together.
            **settings: As in `fill`.

        Returns:
            The reply as str, or pieces that join to it; a list for several conversations.

        Raises:
            GenerationError: As `fill`; roles that are unknown or out of order; no messages; a stream of several.
        """
        chosen = DecodingSettings.from_arguments(**{**defaults.CHAT, **settings})
        several = isinstance(messages, list) and any(
            isinstance(one, str | list) for one in messages
        )
        if stream:
            if several or chosen.num_beams > 1:
                raise GenerationError("stream=True takes one conversation and num_beams=1")
            return dialogue.stream_chat(self.model, self.tokenizer, messages, chosen)
        conversations = messages if several else [messages]
        replies = dialogue.chat(
            self.model, self.tokenizer, conversations, chosen, batch_size=batch_size
        )
        return replies if several else replies[0]
