"""The methods of `GLM` that write: `article`, `chat`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glmkit.applications import defaults, dialogue
from glmkit.applications.article import Request, write_article
from glmkit.errors import GenerationError
from glmkit.generation.settings import DecodingSettings


class Writing:
    """What a loaded GLM writes.

    Attributes:
        model: The `GLMForConditionalGeneration`, in evaluation mode.
        vocabulary: What encodes its texts: its `GLMTokenizer`, or the `LightTokenizer` that stands for it.
        media: What reads images, sounds and clips, or None.
    """

    model: Any
    vocabulary: Any
    media: Any

    def article(
        self,
        texts: Any,
        *,
        outline: Sequence[str] = (),
        max_characters: int = 600,
        min_characters: int = 0,
        stream: bool = False,
        **settings: Any,
    ) -> Any:
        """Writes an article of a title, or goes on with a beginning, as far as it is to be and not as the model reads.

        Args:
            texts: A title (one short line that does not end a sentence), a beginning, or a text with blanks (`[sMASK]`
                for a sentence) to be filled and nothing else; or a list of such, written one after the other.
            outline: Headings; under each a paragraph is written that knows the later ones.
            max_characters: Most characters to be written; the last sentence is whole.
            min_characters: Where the model ends sooner it begins a new paragraph.
            stream: For one text: return an iterator of pieces (sentences), as they are written.
            **settings: As in `fill`; by default tokens are drawn (`do_sample`, `temperature`, `top_p`, `seed`).
                `no_repeat_ngram_size` counts over the whole article.

        Returns:
            The article as str, what was given included, or pieces that join to it; a list for a list.

        Raises:
            GenerationError: As `fill`; impossible lengths; a stream of several texts; beams.
        """
        if settings.get("do_sample") is False:  # greedy: the defaults of drawing do not apply
            settings = {"temperature": 1.0, "top_p": 1.0, **settings}
        chosen = DecodingSettings.from_arguments(**{**defaults.ARTICLE, **settings})
        if stream and not isinstance(texts, str):
            raise GenerationError("stream=True takes one text")
        several = isinstance(texts, list | tuple)
        headings = (outline,) if isinstance(outline, str) else tuple(outline)
        requests = [
            Request(text, headings, max_characters, min_characters)
            for text in (texts if several else [texts])
        ]
        pieces = [
            write_article(self.model, self.vocabulary, request, chosen) for request in requests
        ]
        if stream:
            return pieces[0]
        articles = ["".join(some).rstrip() for some in pieces]
        return articles if several else articles[0]

    def chat(
        self,
        messages: Any,
        *,
        stream: bool = False,
        batch_size: int = 8,
        constraints: Any = None,
        **settings: Any,
    ) -> Any:
        """Returns the reply to a conversation, or the replies to several.

        Args:
            messages: What the user says; or a list of `{"role": "system" | "user" | "assistant", "content": str}`, the
                user's last; or a list of such texts and lists. The earliest turns give way where they do not fit. A content may
                also be a list of parts: `{"type": "text", "text": …}`, `{"type": "image", "image": path, bytes …}` and likewise
                "audio" and "video", or as chat APIs have them (`multimodal.messages.read_parts`).
            stream: For one conversation: return an iterator of pieces, as they are written.
            batch_size: Conversations answered together.
            constraints: What each reply may contain: one constraint (`generation.constraints`).
            **settings: As in `fill`.

        Returns:
            The reply as str, or pieces that join to it; a list for several conversations.

        Raises:
            MediaError: Media that cannot be read, or a model that reads none.
            GenerationError: As `fill`; roles that are unknown or out of order; no messages; a stream of several.
        """
        chosen = DecodingSettings.from_arguments(
            **{**dialogue.usual_settings(constraints), **settings}
        )
        several = isinstance(messages, list) and any(
            isinstance(one, str | list) for one in messages
        )
        if stream:
            if several or chosen.num_beams > 1:
                raise GenerationError("stream=True takes one conversation and num_beams=1")
            return dialogue.stream_chat(
                self.model, self.vocabulary, messages, chosen, constraints, self.media
            )
        conversations = messages if several else [messages]
        replies = dialogue.chat(
            self.model,
            self.vocabulary,
            conversations,
            chosen,
            batch_size=batch_size,
            constraint=constraints,
            reader=self.media,
        )
        return replies if several else replies[0]
