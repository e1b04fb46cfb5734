"""Pieces of a growing text: whole characters, nothing that a stop string takes back, joined they are the text."""

from __future__ import annotations

from glmkit.generation.pieces import TextPieces
from glmkit.generation.stopping import StopStrings


def sent(grown: list[str], *stop: str, strip: bool = False, finished: bool = False) -> list[str]:
    pieces = TextPieces(StopStrings(None, stop), strip=strip)
    found = [pieces.add(text, finished and text is grown[-1]) for text in grown]
    return [*found, pieces.rest(grown[-1])]


def test_characters_are_whole_and_a_space_waits_for_what_follows():
    assert sent(["a", "a�", "a好", "a好 ", "a好 b"]) == ["a", "", "好", "", " b", ""]
    assert sent(["a", "a�"]) == ["a", "", "�"]  # it stays half: the text has it so too


def test_the_beginning_of_a_stop_string_waits():
    assert sent(["好", "好<", "好<e", "好<ex"], "<end>") == ["好", "", "", "<ex", ""]
    assert sent(["好", "好<", "好"], "<end>", finished=True) == ["好", "", "", ""]


def test_stripped_pieces_join_to_the_stripped_text():
    grown = [" ", " a", " a\n", " a\n b", " a\n b "]
    assert "".join(sent(grown)) == " a\n b "
    assert sent(grown, strip=True) == ["", "a", "", "\n b", "", ""]
    # White space before the text may be the beginning of a stop string, and is not lost on the way.
    assert sent(["\n", "\nB"], "\nB:", strip=True) == ["", "", "B"]
