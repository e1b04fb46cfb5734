"""The method of `GLM` that writes poems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

from glmkit.applications.one_or_many import as_list, like
from glmkit.applications.poetry.writing import Wishes, write_poems
from glmkit.generation.results import Poem


class Poems:
    """What a loaded GLM writes in verse.

    Attributes:
        model: The `GLMForConditionalGeneration`, in evaluation mode.
        vocabulary: What encodes its texts: its `GLMTokenizer`, or the `LightTokenizer` that stands for it.
    """

    model: Any
    vocabulary: Any

    @overload
    def poem(self, titles: str = "", form: str = "七言绝句", **options: Any) -> Poem: ...  # type: ignore[overload-overlap]
    @overload
    def poem(self, titles: Sequence[str], form: str = "七言绝句", **options: Any) -> list[Poem]: ...
    def poem(
        self,
        titles: Any = "",
        form: str = "七言绝句",
        *,
        first_line: str | None = None,
        acrostic: str | None = None,
        keywords: str | Sequence[str] | None = None,
        author: str | None = None,
        rhyme: Literal["modern", "pingshui"] | str = "modern",
        rhyme_with: str | None = None,
        tones: bool = True,
        candidates: int = 4,
        seed: int | None = None,
        **settings: Any,
    ) -> Any:
        """Writes a poem of a form; length, line breaks, tones and rhymes are kept by constraint, whatever the model.

        Args:
            titles: A title or a list of titles; an empty one is 无题, or the tune's name.
            form: 五言绝句, 七言绝句, 五言律诗, 七言律诗 or a tune (浣溪沙 …); `glmkit poem --list` shows all, with English names.
            first_line: The first verse, or several whole ones.
            acrostic: What the verses, or the lines, begin with (藏头).
            keywords: Words that join the title; candidates that contain more of them are preferred.
            author: Whose style to follow.
            rhyme: The sounds: "modern" (today's Mandarin, 中华新韵) or "pingshui" (Tang and Song, 平水韵).
            rhyme_with: A character; the (first) rhyme is of its group.
            tones: False keeps length, line breaks and rhyme alone.
            candidates: How many poems to draw for each title; the likeliest is kept.
            seed: Makes the result repeatable.
            **settings: Fields of `DecodingSettings`, by default `do_sample=True, temperature=0.8, top_p=0.9`.

        Returns:
            A `Poem` for a title, a list for a list.

        Raises:
            GenerationError: No such form, something given that does not fit it, settings that cannot be kept, or a
                vocabulary without single Chinese characters.
        """
        wishes = Wishes(
            form=form,
            first_line=first_line,
            acrostic=acrostic,
            keywords=keywords,
            author=author,
            rhyme=rhyme,
            rhyme_with=rhyme_with,
            tones=tones,
            candidates=candidates,
            seed=seed,
        )
        poems = write_poems(self.model, self.vocabulary, as_list(titles), wishes, **settings)
        return like(titles, poems)
