"""`glmkit.load`: a model and its tokenizer as one object that fills, writes and scores.

In: an embedded model's name, a folder, file or hub name. Out: `GLM`. Every method takes one text and returns one
result, or a list and returns a list; a batch gives what its texts give one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from glmkit.applications import preferring
from glmkit.applications.adapting import Adapting
from glmkit.applications.calibration import Calibration, load_calibrations
from glmkit.applications.chat_template import chat_template
from glmkit.applications.embeddings import embed
from glmkit.applications.heads import HEADS_NEED_IT, Head, is_classifier, load_head, stored_tasks
from glmkit.applications.labels import SENTIMENTS, as_records
from glmkit.applications.one_or_many import as_list, like
from glmkit.applications.poems import Poems
from glmkit.applications.preferring import Preference
from glmkit.applications.prompts import media_for_each, media_prompt
from glmkit.applications.tagging import Tagger, is_tagger, load_tagger
from glmkit.applications.understanding import Understanding
from glmkit.applications.writing import Writing
from glmkit.checkpoint import resolve
from glmkit.embedded import DEFAULT_MODEL
from glmkit.errors import ConfigError, GenerationError, UserError, require_torch
from glmkit.evaluation.perplexity import bits_per_character, perplexity, score_texts
from glmkit.generation import infill
from glmkit.generation.assistant import Assistant
from glmkit.generation.prompts import split_at_blanks
from glmkit.generation.results import Filled, Score
from glmkit.generation.settings import DecodingSettings
from glmkit.multimodal.reader import MediaReader, load_reader
from glmkit.native.loading import load_model
from glmkit.native.model import NativeModel, as_torch
from glmkit.runtime import choose_device, choose_dtype
from glmkit.tasks.task import Task, load_task
from glmkit.tokens.light import LightTokenizer, load_tokenizer

if TYPE_CHECKING:
    from glmkit.model import GLMForConditionalGeneration
    from glmkit.tokens.tokenizer import GLMTokenizer


class GLM(Writing, Understanding, Poems, Adapting):
    """A loaded GLM.

    Attributes:
        model: The `GLMForConditionalGeneration` in evaluation mode, or a `NativeModel` in its place.
        vocabulary: What encodes its texts: its `GLMTokenizer`, or until that is asked for a `LightTokenizer` in its place.
        calibrations: Name of a task -> what makes its probabilities mean what they say.
        tasks: Name -> task that the model was fine-tuned for.
        head: The classification head of the model's folder, or None.
        tagger: Its tagging head, or None.
        media: What reads images, sounds and clips (`multimodal.reader.MediaReader`), or None.
    """

    def __init__(
        self,
        model: GLMForConditionalGeneration | NativeModel,
        tokenizer: GLMTokenizer | LightTokenizer,
        calibrations: dict[str, Calibration] | None = None,
        tasks: dict[str, Task] | None = None,
        head: Head | None = None,
        tagger: Tagger | None = None,
        media: MediaReader | None = None,
    ):
        self.model: Any = model.eval()
        self.vocabulary: Any = tokenizer
        self.calibrations = dict(calibrations or {})
        self.tasks = dict(tasks or {})
        self.head = head
        self.tagger = tagger
        self.media = media

    @property
    def tokenizer(self) -> GLMTokenizer:
        """Its `GLMTokenizer`; made when first asked for, and used for everything from then on."""
        if isinstance(self.vocabulary, LightTokenizer):
            self.vocabulary = self.vocabulary.full()
        return self.vocabulary

    @tokenizer.setter
    def tokenizer(self, tokenizer: GLMTokenizer) -> None:
        self.vocabulary = tokenizer

    @overload
    def fill(  # type: ignore[overload-overlap]
        self,
        texts: str,
        *,
        images: Any = None,
        audios: Any = None,
        videos: Any = None,
        n: int | None = None,
        batch_size: int = 8,
        constraints: Any = None,
        negative_prompt: Any = None,
        prefer: Mapping[str, str] | None = None,
        candidates: int = 8,
        **settings: Any,
    ) -> Filled: ...
    @overload
    def fill(
        self,
        texts: Sequence[str],
        *,
        images: Any = None,
        audios: Any = None,
        videos: Any = None,
        n: int | None = None,
        batch_size: int = 8,
        constraints: Any = None,
        negative_prompt: Any = None,
        prefer: Mapping[str, str] | None = None,
        candidates: int = 8,
        **settings: Any,
    ) -> list[Filled]: ...
    def fill(
        self,
        texts: Any,
        *,
        images: Any = None,
        audios: Any = None,
        videos: Any = None,
        n: int | None = None,
        batch_size: int = 8,
        constraints: Any = None,
        negative_prompt: Any = None,
        prefer: Mapping[str, str] | None = None,
        candidates: int = 8,
        **settings: Any,
    ) -> Any:
        """Fills every `[MASK]` (a few words), `[sMASK]` (a sentence) and `[gMASK]` (to the end).

        Args:
            texts: A text or a list of texts. A text without a blank gets `[gMASK]` at its end.
            images: For one text an image, or a list of them: paths, bytes, `data:` URLs, PIL images (`multimodal.media.as_medium`);
                for a list of texts a list of such (or None). They stand where the text says `<|image|>`, or before it.
            audios: Likewise sounds, at `<|audio|>`: also (samples, rate).
            videos: Likewise clips, at `<|video|>`.
            n: Search for the n likeliest ways to fill all blanks of a text together; they are the result's
                `candidates`, with probabilities, and the likeliest is its text.
            batch_size: Texts decoded together.
            constraints: What blanks may contain (`generation.constraints`): for one text a constraint for all its
                blanks or a list of one (or None) for each; for a list of texts a list of such.
            negative_prompt: Another text with as many blanks, from which what is written is led away, `guidance_scale`
                (above 1) far; for a list of texts a list.
            prefer: Task -> label, such as {"sentiment": "positive"}: texts are drawn (`do_sample=True`), and the one kept
                that has the label most probably, as the model itself judges; the others are the result's `candidates`.
            candidates: How many texts are drawn with `prefer`.
            **settings: Fields of `DecodingSettings`: `max_new_tokens` (of each blank), `do_sample`,
                `temperature`, `top_p`, `top_k`, `num_beams`, `num_return_sequences`, `guidance_scale`, `seed` …

        Returns:
            `Filled` for each text: the text, its blanks in order, their scores, alternatives.

        Raises:
            GenerationError: Unknown or impossible settings, a text so long that a blank would be lost, constraints or a
                negative prompt that do not match, constraints that leave nothing, or a label that a task does not have.
            MediaError: Media that cannot be read, that the text does not name so, or that this model does not read.
            ConfigError: A task in `prefer` that does not exist.
        """
        texts = texts if isinstance(texts, str) else as_list(texts)
        options = {
            "batch_size": batch_size,
            "constraints": _for_each(texts, constraints),
            "negative_prompts": _for_each(texts, negative_prompt),
        }
        asked = self._with_media(texts, images, audios, videos)
        return like(texts, self._filled(asked, settings, options, prefer, candidates, n))

    def _with_media(self, texts: Any, images: Any, audios: Any, videos: Any) -> list[Any]:
        """Returns the texts as a list; those with media as prompts."""
        some = as_list(texts)
        given = media_for_each(texts, {"image": images, "audio": audios, "video": videos})
        positions = self.model.config.max_sequence_length
        return [
            media_prompt(self.vocabulary, text, media, self.media, positions) if media else text
            for text, media in zip(some, given, strict=True)
        ]

    def _filled(
        self,
        some: list[Any],
        settings: dict[str, Any],
        options: dict[str, Any],
        prefer: Mapping[str, str] | None,
        candidates: int,
        n: int | None = None,
    ) -> list[Filled]:
        """Returns the filled texts, chosen among several draws where labels are preferred."""
        if prefer is None:
            chosen = DecodingSettings.from_arguments(**settings)
            return infill.fill(self.model, self.vocabulary, some, chosen, n=n, **options)
        if n is not None:
            raise GenerationError(
                "n searches for the likeliest texts, prefer draws them; give one of them"
            )
        chosen = DecodingSettings.from_arguments(**{"do_sample": True, **settings})
        return preferring.fill(self, some, chosen, Preference(prefer, candidates), **options)

    @overload
    def generate(
        self,
        texts: str,
        *,
        images: Any = None,
        audios: Any = None,
        videos: Any = None,
        stream: Literal[False] = False,
        constraints: Any = None,
        negative_prompt: Any = None,
        prefer: Mapping[str, str] | None = None,
        candidates: int = 8,
        **settings: Any,
    ) -> str: ...
    @overload
    def generate(
        self,
        texts: str,
        *,
        images: Any = None,
        audios: Any = None,
        videos: Any = None,
        stream: Literal[True],
        constraints: Any = None,
        negative_prompt: Any = None,
        **settings: Any,
    ) -> Iterator[str]: ...
    @overload
    def generate(
        self,
        texts: Sequence[str],
        *,
        images: Any = None,
        audios: Any = None,
        videos: Any = None,
        stream: Literal[False] = False,
        constraints: Any = None,
        negative_prompt: Any = None,
        prefer: Mapping[str, str] | None = None,
        candidates: int = 8,
        **settings: Any,
    ) -> list[str]: ...
    def generate(
        self,
        texts: Any,
        *,
        images: Any = None,
        audios: Any = None,
        videos: Any = None,
        stream: bool = False,
        constraints: Any = None,
        negative_prompt: Any = None,
        prefer: Mapping[str, str] | None = None,
        candidates: int = 8,
        **settings: Any,
    ) -> Any:
        """Writes what follows a text, or what its only blank contains.

        Args:
            texts: A text or a list of texts, with at most one blank each; none means `[gMASK]` at the end.
            images: As in `fill`; so are `audios` and `videos`.
            audios: Sounds.
            videos: Clips.
            stream: For one text: return an iterator of pieces, as they are written.
            constraints: What is written, as in `fill`; so are `negative_prompt`, `prefer` and `candidates`.
            negative_prompt: A text from which what is written is led away.
            prefer: Task -> label that the whole text shall have.
            candidates: How many texts are drawn with `prefer`.
            **settings: As in `fill`.

        Returns:
            The continuation (without the prompt) as str, or pieces that join to it.

        Raises:
            GenerationError: As `fill`; a text with several blanks; a stream of several texts, of beams, or with `prefer`.
            ConfigError: As `fill`.
        """
        texts = texts if isinstance(texts, str) else as_list(texts)
        for text in as_list(texts):
            if len(split_at_blanks(self.vocabulary, text)) > 3:
                raise GenerationError(
                    "generate writes one continuation, but the text has several blanks; use fill"
                )
        asked = self._with_media(texts, images, audios, videos)
        if stream:
            chosen = DecodingSettings.from_arguments(**settings)
            if not isinstance(texts, str) or chosen.num_beams > 1 or prefer is not None:
                raise GenerationError(
                    "stream=True takes one text, num_beams=1 and no prefer: what is chosen at the end cannot be shown before"
                )
            return infill.stream(
                self.model, self.vocabulary, asked[0], chosen, constraints, negative_prompt
            )
        options = {
            "constraints": _for_each(texts, constraints),
            "negative_prompts": _for_each(texts, negative_prompt),
        }
        results = self._filled(asked, settings, options, prefer, candidates)
        return like(texts, [result.blanks[0] for result in results])

    def explain(
        self,
        texts: Any,
        *,
        images: Any = None,
        audios: Any = None,
        videos: Any = None,
        blanks: Sequence[Any] | None = None,
        task: str | Path | Task | None = None,
        labels: Sequence[str] | Mapping[str, str] | None = None,
        template: str | None = None,
        label: str | None = None,
        head: str | Path | Head | None = None,
        language: Any = None,
        methods: Sequence[str] | str | None = None,
        baseline: str = "mask",
        unit: Any = "word",
        top_k: int = 5,
        attention: bool = True,
        separator: str | None = None,
        progress: Callable[[], None] | None = None,
        **decoding: Any,
    ) -> Any:
        """Says why blanks are filled as they are, or with `task` or `labels` why a text has its label.

        Args:
            texts: A text or a list of texts; one without a blank gets `[gMASK]` at its end. With a task a text, a record
                or a list of them.
            images: As in `fill`; so are `audios` and `videos`. With a task they come into its fields of their kinds, if the record
                does not have them itself. The parts of a medium are evidence, too.
            audios: Sounds.
            videos: Clips.
            blanks: Contents to explain, one for each blank (for a list of texts a list of such lists); by default what
                the model writes.
            task: Explain a classification: a task of the catalog, the path of one's own, a `Task`.
            labels: In place of a task: labels, or label -> word, as in `classify`.
            template: With labels: how to ask.
            label: The label to explain; by default the likeliest.
            head: A folder with a classification head, used instead of the blank.
            language: Of the task's patterns, "zh" or "en".
            methods: Of "integrated_gradients", "ablation" and "attention_rollout"; by default all.
            baseline: What stands for a word that is not known: "mask", "pad" or "mean" (of the vocabulary).
            unit: "word": tokens of a word together; "token".
            top_k: Alternatives to each token.
            attention: Whether the attention maps are kept.
            separator: What stands between the examples of a prompt; by default empty lines, or else lines.
            progress: Called before each pass of the model; what it raises ends the work.
            **decoding: Where the model writes: fields of `DecodingSettings`, as in `fill`.

        Returns:
            `glmkit.explain.results.Explanation` for each text; it prints, `.to_dict()`, `.save("x.html")`, `.show()`.

        Raises:
            UserError: Settings or contents that do not exist or do not match.
            GenerationError, DataError, ConfigError: As `fill` and `classify`.
            MissingDependencyError: Without `glmkit[explain]`; "attention_rollout" alone does not need it, but torch.
        """
        require_torch("An explanation", "解释")
        from glmkit.explain import explaining

        chosen = explaining.Settings(
            explaining.METHODS if methods is None else methods,
            baseline,
            unit,
            top_k,
            attention,
            progress,
        )
        single = isinstance(texts, str | Mapping)
        if task is None and labels is None and head is None:
            _refuse({"label": label, "template": template, "language": language}, "is of a classification: give a task or labels with it")  # fmt: skip
            results = explaining.explain_texts(
                as_torch(self.model),
                self.vocabulary,
                self._with_media(texts, images, audios, videos),
                blanks=[blanks] if single else blanks,
                settings=chosen,
                separator=separator,
                decoding=DecodingSettings.from_arguments(**decoding),
            )
        else:
            _refuse({"blanks": blanks, **decoding}, "says how blanks are filled, and a label is not written into a text")  # fmt: skip
            results = self._labels_explained(
                texts,
                {"image": images, "audio": audios, "video": videos},
                self.task_of(task, labels, template, head),
                head,
                label=label,
                settings=chosen,
                language=language,
                contextual=labels is not None,
            )
        return results[0] if single else results

    def _labels_explained(
        self,
        texts: Any,
        given: Mapping[Any, Any],
        task: Task | None,
        head: str | Path | Head | None,
        **options: Any,
    ) -> list[Any]:
        """Returns why each text or record, with the media that are given, has its label; options of `explain_label`."""
        from glmkit.explain.explaining import explain_label

        meant, model, tokenizer, calibration, reader = self._classifier(task, head)
        some = as_list(texts)
        media = media_for_each(texts if isinstance(texts, str | Mapping) else some, given)
        return [
            explain_label(
                as_torch(model),
                tokenizer,
                one,
                meant,
                calibration=calibration,
                names=SENTIMENTS if meant.name == "sentiment" else None,
                reader=reader,
                **options,
            )
            for one in as_records(meant, some, media)
        ]

    @overload
    def score(self, texts: str) -> Score: ...  # type: ignore[overload-overlap]
    @overload
    def score(self, texts: Sequence[str]) -> list[Score]: ...
    def score(self, texts: Any) -> Any:
        """Returns the log-probability of each text, read left to right (no blanks, no context)."""
        return like(texts, score_texts(self.model, self.vocabulary, as_list(texts)))

    def perplexity(
        self, texts: str | Sequence[str], unit: Literal["token", "character", "byte"] = "token"
    ) -> float:
        """Returns the perplexity of texts per token, character or UTF-8 byte (comparable across vocabularies)."""
        return perplexity(self.model, self.vocabulary, as_list(texts), unit=unit)

    def bits_per_character(self, texts: str | Sequence[str]) -> float:
        """Returns the mean number of bits that the model needs for a character of the texts."""
        return bits_per_character(self.model, self.vocabulary, as_list(texts))

    @overload
    def embed(self, texts: str, *, batch_size: int = 16) -> np.ndarray: ...  # type: ignore[overload-overlap]
    @overload
    def embed(self, texts: Sequence[str], *, batch_size: int = 16) -> list[np.ndarray]: ...
    def embed(self, texts: Any, *, batch_size: int = 16) -> Any:
        """Returns a vector for each text, float32 of length 1: the mean of the final hidden states over its tokens.

        Every token sees the whole text. Dot products of vectors say how similar texts are in words and topic.

        Args:
            texts: A text or a list of texts, of any length.
            batch_size: Rows read together.
        """
        vectors = embed(self.model, self.vocabulary, as_list(texts), batch_size=batch_size)
        return like(texts, vectors)


def load(
    name_or_path: str | Path = DEFAULT_MODEL,
    *,
    device: str | None = None,
    dtype: str | None = None,
    quantization: Literal["int8", "int4"] | None = None,
    backend: Literal["native", "torch", "graphs"] | None = None,
    assistant_model: str | Path | GLM | None = None,
    num_assistant_tokens: int = 4,
    **options: Any,
) -> GLM:
    """Loads a GLM in any known format, with its tokenizer.

    On a CPU the native decoder (`glmkit.native`) runs it, where glmkit was installed with one; what that cannot do, torch does. On a
    GPU torch reads prompts and writes with passes captured as CUDA graphs (`glmkit.generation.graphs`).

    Args:
        name_or_path: "glm-mini", the model that comes with glmkit (no download), or a glmkit, hub-format or
            training folder, a training file, a hub name, or the folder of an adapter, which is merged into its base.
        device: "cpu", "cuda" …; by default the best one here.
        dtype: "float32", "bfloat16" or "float16"; by default bfloat16 on a GPU, float32 on a CPU.
        quantization: Weights of 8 or 4 bits on a CPU, of 8 on a GPU of NVIDIA or AMD; a folder that `glmkit convert --quantize` wrote
            needs no telling.
        backend: "native", "graphs" or "torch", instead of the fastest one that is here.
        assistant_model: A smaller model of the same vocabulary, which guesses the next tokens; this one checks them in one pass. What is
            written stays the same (`generation.assistant`). One loaded already may have settings of its own.
        num_assistant_tokens: Most tokens guessed at a step.
        **options: Passed to `GLMForConditionalGeneration.from_pretrained` (the model is on torch then); `tokenizer=` names a folder with
            the vocabulary where the weights' folder (a training folder) has none.

    Raises:
        CheckpointError: No such checkpoint, or one that cannot be read.
        TokenizerError: No vocabulary there.
        ConfigError: A device, number type, quantization, backend or attention that does not exist here, an option that weights stored
            quantized do not take, an assistant of another vocabulary.
        GenerationError: `num_assistant_tokens` below 1.
        MissingDependencyError: Torch is needed and not installed, or PEFT for an adapter.
    """
    place = choose_device(device)
    path = resolve(name_or_path)
    vocabulary = options.pop("tokenizer", None)
    tokenizer = load_tokenizer(path if vocabulary is None else vocabulary)
    tasks = stored_tasks(path)
    with_head = len(tasks) == 1 and is_classifier(path)
    with_tags = len(tasks) == 1 and is_tagger(path)
    if with_head or with_tags:
        require_torch(*HEADS_NEED_IT)
    model = load_model(
        path,
        device=place,
        dtype=choose_dtype(dtype, place),
        quantization=quantization,
        backend="torch" if (with_head or with_tags) and backend is None else backend,
        **options,
    )
    _complete(model.config, tokenizer)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = chat_template(load_task("dialogue"))
    if assistant_model is not None:
        model.assistant = _assistant(
            assistant_model, tokenizer, num_assistant_tokens, device, dtype
        )
    head = load_head(path, model, shared=True) if with_head else None
    tagger = load_tagger(path, model, shared=True) if with_tags else None
    return GLM(
        model, tokenizer, load_calibrations(path), tasks, head, tagger, load_reader(path, place)
    )


def _assistant(
    given: str | Path | GLM, tokenizer: Any, num_tokens: int, device: Any, dtype: Any
) -> Assistant:
    """Returns what guesses for a model with a tokenizer."""
    glm = given if isinstance(given, GLM) else load(given, device=device, dtype=dtype)
    own, other = tokenizer.get_vocab(), glm.vocabulary.get_vocab()
    if own != other or tokenizer.special_ids != glm.vocabulary.special_ids:
        different = sum(own.get(token) != place for token, place in other.items())
        raise ConfigError(
            f"assistant_model: its vocabulary of {len(other):,} tokens is not the model's of {len(own):,}: {different:,} of its tokens "
            "are not there, or have another id. Both must have one vocabulary, as the models of one family have"
        )
    return Assistant(glm.model, num_tokens)


def _complete(config: Any, tokenizer: GLMTokenizer | LightTokenizer) -> None:
    """Tells a configuration that knows no vocabulary (a training folder's) the ids that generation needs."""
    fields = {f"{name}_token_id": value for name, value in asdict(tokenizer.special_ids).items()}
    del fields["block_token_id"]
    for name, value in {**fields, "num_tokens": len(tokenizer)}.items():
        if getattr(config, name) is None:
            setattr(config, name, value)


def _refuse(arguments: Mapping[str, Any], why: str) -> None:
    """Complains about arguments that were given and say nothing here."""
    for name, value in arguments.items():
        if value is not None:
            raise UserError(f"{name}={value!r} {why}, or leave it out")


def _for_each(texts: Any, given: Any) -> Any:
    """Returns what is given for texts as a list with one item for each."""
    return [given] if isinstance(texts, str) and given is not None else given
