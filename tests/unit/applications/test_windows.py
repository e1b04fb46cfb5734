"""Windows cover a text, fit, overlap as asked, and end where sentences do."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from glmkit.applications.windows import sentences, windows
from glmkit.tokens.blanked import encode_plain
from understanding_samples import CONTEXT, random_glm


def test_sentences_of_both_languages():
    parts = [CONTEXT[a:b] for a, b in sentences(CONTEXT)]
    assert parts[0] == "凯旋门位于意大利米兰市古城堡旁。"
    assert parts[-1] == "It is in Milan, near the old castle."
    assert [("v1.5 is out. Yes.")[a:b] for a, b in sentences("v1.5 is out. Yes.")] == [
        "v1.5 is out. ",
        "Yes.",
    ]
    assert ["他说：“走吧！”然后走了。"[a:b] for a, b in sentences("他说：“走吧！”然后走了。")] == [
        "他说：“走吧！”",
        "然后走了。",
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["好。", "很长的一句话，", "a b. ", "\n", "x" * 30, "！", "😀"]),
        max_size=40,
    ),
    st.integers(1, 40),
    st.integers(0, 20),
)
def test_windows_cover_fit_and_advance(pieces: list[str], limit: int, overlap: int):
    tokenizer, text = random_glm().tokenizer, "".join(pieces)
    found = windows(tokenizer, text, limit, overlap)
    assert found[0][0] == 0
    assert found[-1][1] == len(text)
    for (a, b), (c, d) in zip(found, found[1:], strict=False):
        assert a < c <= b < d
    if not overlap:
        assert "".join(text[a:b] for a, b in found) == text
    for a, b in found:
        assert b - a <= 1 or len(encode_plain(tokenizer, text[a:b])) <= limit


def test_windows_overlap_by_whole_sentences():
    tokenizer = random_glm().tokenizer
    text = "".join(f"第{number}句话在这里。" for number in range(30))
    size = len(encode_plain(tokenizer, "第11句话在这里。"))
    found = windows(tokenizer, text, 5 * size, overlap=2 * size)
    assert all(text[a:b].startswith("第") and text[a:b].endswith("。") for a, b in found)
    assert all(c < b for (_, b), (c, _) in zip(found, found[1:], strict=False))
