"""Stop strings: a blank is what the model would have written, cut before the first of them, whatever the tokens are."""

from __future__ import annotations

import pytest
from generation_samples import TEXTS, recompute

from glmkit.errors import GenerationError
from glmkit.generation.infill import fill, stream
from glmkit.generation.settings import DecodingSettings
from glmkit.generation.stopping import StopStrings

LENGTH = 10


def first_blank(glm, text: str) -> str:
    return fill(*glm, [text], DecodingSettings(max_new_tokens=LENGTH))[0].blanks[0]


def stop_inside(written: str) -> str:
    """Three characters from the middle of a text; tokens of several characters begin and end elsewhere."""
    middle = len(written) // 2
    return written[middle : middle + 3]


@pytest.mark.parametrize("text", TEXTS)
def test_a_blank_ends_before_the_first_stop_string(glm, text: str):
    written = first_blank(glm, text)
    stop = stop_inside(written)
    settings = DecodingSettings(max_new_tokens=LENGTH, stop=("never written", stop))
    cut = fill(*glm, [text], settings)[0]
    assert cut.blanks[0] == written.split(stop)[0].strip()
    assert cut.finished[0]


def test_a_batch_is_cut_as_its_texts_are_one_by_one(glm):
    stop = tuple(stop_inside(first_blank(glm, text)) for text in TEXTS)
    settings = DecodingSettings(max_new_tokens=LENGTH, stop=stop)
    together = fill(*glm, TEXTS, settings, batch_size=5)
    alone = [fill(*glm, [text], settings)[0] for text in TEXTS]
    assert [one.blanks for one in together] == [one.blanks for one in alone]
    assert any(len(one.blanks) > 1 and all(one.finished) for one in together)


def test_later_blanks_see_nothing_of_the_stop_string(glm):
    """The second blank is what it is when the text is laid out with the first one's cut contents, from scratch."""
    model, tokenizer = glm
    text, settings = TEXTS[0], DecodingSettings(max_new_tokens=LENGTH)
    first, second = recompute(model, tokenizer, text, settings)
    for kept, through in ((4, 8), (3, 4), (0, 2)):  # tokens before, and through, the stop string
        before, all_of_it = (
            tokenizer.decode(first[:count], skip_special_tokens=True) for count in (kept, through)
        )
        stop = all_of_it[len(before) :]
        cut = fill(model, tokenizer, [text], DecodingSettings(max_new_tokens=LENGTH, stop=stop))[0]
        assert cut.blanks[0] == before.strip()
        expected = recompute(model, tokenizer, text, settings, given=(first[:kept],))[1]
        written = tokenizer.decode(expected, skip_special_tokens=True)
        assert cut.blanks[1] == written.split(stop)[0].strip()


@pytest.mark.parametrize("text", [TEXTS[1], TEXTS[4]])
def test_a_stream_never_shows_a_part_of_a_stop_string(glm, text: str):
    written = first_blank(glm, text)
    stop = written[len(written) // 2 :][:6]
    settings = DecodingSettings(max_new_tokens=LENGTH, stop=(stop,))
    pieces = list(stream(*glm, text, settings))
    cut = fill(*glm, [text], settings)[0]
    assert "".join(pieces).strip() == cut.blanks[0]
    # A stop string that only begins to be written is text in the end.
    unfinished = DecodingSettings(max_new_tokens=LENGTH, stop=(written[-2:] + "…never",))
    assert "".join(stream(*glm, text, unfinished)).strip() == written


def test_beams_end_at_stop_strings(glm):
    settings = {"max_new_tokens": LENGTH, "num_beams": 3, "num_return_sequences": 3}
    free = fill(*glm, TEXTS[:2], DecodingSettings(**settings))
    stop = tuple(stop_inside(one.blanks[0]) for one in free)
    searched = fill(*glm, TEXTS[:2], DecodingSettings(**settings, stop=stop))
    assert any(one.finished[0] for one in searched)
    for one in searched:
        texts = [text for options in one.alternatives for text, _ in options]
        assert not any(string in text for string in stop for text in texts)


def test_cuts_within_a_token(glm):
    """A token that holds the stop string's start is split: its beginning stays, as ids of its own."""
    _, tokenizer = glm
    tokens = tokenizer("hello world again", add_special_tokens=False)["input_ids"]
    cut = StopStrings(tokenizer, ["orld"]).cut(tokens)
    assert cut is not None
    assert cut.text == "hello w"
    assert tokenizer.decode([*tokens[: cut.kept], *cut.rest]) == "hello w"
    assert StopStrings(tokenizer, ["word"]).cut(tokens) is None


def test_what_is_held_back_is_the_longest_beginning_of_a_stop_string():
    stop = StopStrings(None, ["abab!", "甲："])
    for text, length in (("", 0), ("x", 0), ("xab", 2), ("xaba", 3), ("ababab", 4), ("你甲", 1)):
        assert stop.held_back(text) == length


@pytest.mark.parametrize("stop", ["", ["a", ""], [1], 3, None])
def test_what_is_no_stop_string_is_refused(stop):
    with pytest.raises(GenerationError, match="stop=.* must be a string or a list of strings"):
        DecodingSettings(stop=stop)
