"""Prompts with rows of embeddings: rows that are words' embeddings give exactly what the words give, in every way of decoding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from glmkit.blanks.media import one_table
from glmkit.errors import GenerationError
from glmkit.generation.choices import score_choices
from glmkit.generation.constraints import Choices
from glmkit.generation.infill import draw, fill, make_chooser, make_engine, stream
from glmkit.generation.prompts import Prompt
from glmkit.generation.request import Request
from glmkit.generation.runner import Feed
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.spans import SpanSearch
from glmkit.generation.torch_runner import TorchRunner
from glmkit.special_tokens import FIRST_MEDIA_ID
from media_samples import as_media, prompt_of
from understanding_samples import CONTEXT, random_glm

TEXTS = [
    "好吃，[MASK]足，量[MASK]。",
    "The room was [MASK] and the staff were friendly.",
    f"{CONTEXT}\n问：门在哪里？\n答： [MASK]",
    "很快，很快，很快，[MASK]",
    "菜都[gMASK]",
]
NEGATIVE = ["[MASK]点了[MASK]！", None, "[MASK]", "总的来说[MASK]", None]
SETTINGS = {
    "greedy": {},
    "sampling": {"do_sample": True, "temperature": 1.5, "top_k": 20, "seed": 3},
    "prompt lookup": {"prompt_lookup_num_tokens": 4},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "repetition": {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
}


@pytest.fixture(scope="module")
def glm():
    glm = random_glm()
    glm.model.eval()
    return glm


@pytest.fixture(scope="module")
def mixed(glm) -> list[Prompt]:
    """Every second text has media, one of them nothing else but its mask; two read the same table."""
    found = [prompt_of(glm, text) for text in TEXTS]
    for number, share in ((0, 0.5), (2, 0.3), (4, 1.0)):
        found[number] = as_media(glm, TEXTS[number], number, share)
    return found


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("guided", [False, True])
def test_filling(glm, mixed, name: str, guided: bool):
    options = {"max_new_tokens": 6, **SETTINGS[name]}
    words: list = [None if one is None else prompt_of(glm, one) for one in NEGATIVE]
    media: list = [None if one is None else as_media(glm, one, 7) for one in NEGATIVE]
    if guided:
        options["guidance_scale"] = 2.0
        keep = [place for place, one in enumerate(NEGATIVE) if one is not None]
    else:
        keep, words, media = range(len(TEXTS)), [None] * len(TEXTS), [None] * len(TEXTS)
    settings = DecodingSettings(**options)
    found, expected = (
        fill(
            glm.model,
            glm.tokenizer,
            [prompts[place] for place in keep],
            settings,
            batch_size=3,
            negative_prompts=[others[place] for place in keep],
        )
        for prompts, others in ((mixed, media), (TEXTS, words))
    )
    assert found == expected


@pytest.mark.parametrize("guided", [False, True])
def test_the_n_likeliest_and_many_drawn(glm, mixed, guided: bool):
    limit = Choices.of_texts(glm.tokenizer, ["好", "很好", "味道", "room"])
    others, media = (["[MASK]了[MASK]！"], [as_media(glm, "[MASK]了[MASK]！")]) if guided else (None, None)  # fmt: skip
    scale = {"guidance_scale": 3.0} if guided else {}
    likeliest, drawn = DecodingSettings(**scale), DecodingSettings(do_sample=True, max_new_tokens=5, **scale)  # fmt: skip
    results = []
    for prompt, against in ((mixed[0], media), (TEXTS[0], others)):
        [best] = fill(glm.model, glm.tokenizer, [prompt], likeliest, n=3, constraints=[limit], negative_prompts=against)  # fmt: skip
        some = draw(glm.model, glm.tokenizer, [prompt], drawn, [[1, 2, 3, 4, 5]], batch_size=3, negative_prompts=against)  # fmt: skip
        results.append((best, some))
    assert results[0] == results[1]


def test_a_stream(glm, mixed):
    settings = DecodingSettings(max_new_tokens=8)
    pieces = [
        list(stream(glm.model, glm.tokenizer, prompt, settings, None, against))
        for prompt, against in ((mixed[2], as_media(glm, "点[MASK]")), (TEXTS[2], "点[MASK]"))
    ]
    assert pieces[0] == pieces[1]
    assert "".join(pieces[0])


def test_choices_and_spans(glm, mixed):
    texts = ["米兰市", "It is in Milan", "", "米兰"]
    single = [1, 2, 3, 4]
    found = score_choices(glm.model, glm.tokenizer, [mixed[one] for one in single], texts)
    expected = score_choices(glm.model, glm.tokenizer, [TEXTS[one] for one in single], texts)
    np.testing.assert_array_equal(found, expected)
    prompts = mixed[2], prompt_of(glm, TEXTS[2])
    spans = [SpanSearch(glm.model, glm.tokenizer, one, CONTEXT, 4).best(3) for one in prompts]
    assert spans[0] == spans[1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3, "num_return_sequences": 2},
        {"use_cache": False},
        {"prompt_in_length_penalty": True, "num_beams": 2},
    ],
)
def test_transformers_generate(glm, mixed, options):
    """Raw ids of prompts of different lengths, which read one table."""
    prompts = [mixed[0], mixed[2]]
    ids, table = one_table([one.ids for one in prompts], [one.embeddings for one in prompts])
    plain = [prompt_of(glm, TEXTS[number]).ids.tolist() for number in (0, 2)]
    settings = {"max_new_tokens": 5, "do_sample": False, **options}
    found = glm.model.generate([list(one) for one in ids], media_embeds=table, **settings)
    expected = glm.model.generate(plain, **settings)
    assert torch.equal(found[:, -5:], expected[:, -5:])
    # Penalties look up every id of the prompt: media count as padding.
    penalties = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2}
    penalized = glm.model.generate(
        [list(one) for one in ids], media_embeds=table, **settings, **penalties
    )
    assert int(penalized.max()) < glm.model.config.vocab_size
    assert (penalized[:, :-5] == glm.tokenizer.pad_token_id).sum() >= len(table) - 2
    with pytest.raises(GenerationError, match="there are 0"):
        glm.model.generate([list(one) for one in ids], **settings)


def test_random_rows_matter(glm):
    """What is given is read: other rows, other logits; and rows may have gradients and other number types."""
    prompt = as_media(glm, TEXTS[2])
    settings = DecodingSettings(max_new_tokens=4)
    rows = torch.nn.Parameter(torch.randn(prompt.embeddings.shape).double())
    changed, again = (
        fill(glm.model, glm.tokenizer, [one], settings)[0]
        for one in (replace(prompt, embeddings=rows), replace(prompt, embeddings=rows.float()))
    )
    assert changed == again
    assert changed.scores != fill(glm.model, glm.tokenizer, [prompt], settings)[0].scores


def test_rows_that_are_missing_or_of_another_model(glm):
    prompt = as_media(glm, TEXTS[2])
    count = len(prompt.embeddings)
    with pytest.raises(GenerationError, match=f"row {count - 1} .* there are {count - 1};"):
        replace(prompt, embeddings=prompt.embeddings[:-1])
    with pytest.raises(GenerationError, match="there are 0"):
        replace(prompt, embeddings=None)
    empty = replace(prompt_of(glm, TEXTS[0]), embeddings=prompt.embeddings[:0])
    assert fill(glm.model, glm.tokenizer, [empty], DecodingSettings(max_new_tokens=2))
    for wrong in (prompt.embeddings[None], prompt.embeddings.long(), prompt.embeddings.numpy()):
        with pytest.raises(GenerationError, match="needed is a floating tensor"):
            replace(prompt, embeddings=wrong)
    narrow = replace(prompt, embeddings=prompt.embeddings[:, 1:])
    settings, beams = DecodingSettings(), DecodingSettings(num_beams=2)
    two_masks = replace(narrow, mask_indices=np.array([1, 2]))
    for read in (
        lambda: fill(glm.model, glm.tokenizer, [narrow], settings),
        lambda: fill(glm.model, glm.tokenizer, [narrow], settings, n=2),
        lambda: fill(glm.model, glm.tokenizer, [narrow], beams),
        lambda: score_choices(glm.model, glm.tokenizer, [narrow], ["a"]),
        lambda: fill(glm.model, glm.tokenizer, TEXTS[:1], settings, negative_prompts=[two_masks]),
    ):  # fmt: skip
        with pytest.raises(GenerationError, match=r"needed is a floating tensor \[rows, 32\]"):
            read()


def test_a_bad_table_ends_its_own_request_alone(glm, mixed):
    settings = DecodingSettings(max_new_tokens=3)
    engine = make_engine(glm.model, glm.tokenizer)
    chooser = make_chooser(glm.model, glm.tokenizer, settings)
    narrow = replace(mixed[2], embeddings=mixed[2].embeddings[:, 1:])
    good, bad = (engine.submit(Request(one, chooser)) for one in (mixed[0], narrow))
    list(engine.run())
    assert good.error is None
    assert all(blank.tokens for blank in good.samples[0])
    assert isinstance(bad.error, GenerationError)


def test_a_refused_pass_reads_nothing(glm):
    runner = TorchRunner(glm.model)
    one, other = runner.open(), runner.open()
    with pytest.raises(GenerationError, match="row 2"):
        runner.forward(
            [Feed(one, [5, 6], [0, 1], [0, 0], 2), Feed(other, [FIRST_MEDIA_ID + 2], [0], [0])]
        )
    assert (runner.length(one), runner.length(other)) == (0, 0)


def test_the_same_table_of_several_prompts_is_held_once():
    table, second = torch.randn(3, 4), torch.randn(2, 4)
    rows = [[1, FIRST_MEDIA_ID + 2], [FIRST_MEDIA_ID], [7], [FIRST_MEDIA_ID + 1, 5], [FIRST_MEDIA_ID + 1]]  # fmt: skip
    ids, joined = one_table(rows, [table, second, None, second, table])
    assert joined.shape == (5, 4)
    first = FIRST_MEDIA_ID
    assert ids == [[1, first + 2], [first + 3], [7], [first + 4, 5], [first + 1]]
    assert one_table([[1]], [None]) == ([[1]], None)
