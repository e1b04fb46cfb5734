"""Records in the formats in which benchmarks are published -> flat records, one for each question.

In: one record as SuperGLUE, CLUE, SQuAD and others publish it. Out: what a task's patterns read. A `view` in a task's
file names one of these functions; users' own files may name it too. Knows no task and no model.

Sources of the formats: SuperGLUE (arXiv 1905.00537), CLUE (arXiv 2004.05986), SQuAD (arXiv 1606.05250), LAMBADA (arXiv
1606.06031), WikiText (arXiv 1609.07843). What is done with them follows PET (arXiv 2009.07118) and the GLM paper.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from glmkit.errors import DataError
from glmkit.tasks.media_records import conversations

Record = Mapping[str, Any]
View = Callable[[Record], Iterator[dict[str, Any]]]

PUNCTUATION = ".,;:!?。，；：！？"
OTHER_GAP = "____"
"""Stands for the gaps that are not asked for."""


class Unfolded(dict[str, Any]):
    """A flat record; `unfold` leaves it as it is."""


def unfold(view: str, record: Record, where: str) -> list[Unfolded]:
    """Returns the flat records that a published record makes.

    Args:
        view: A name in `VIEWS`.
        record: A record as it is published.
        where: `file:line`, for messages.

    Raises:
        DataError: The record is not in that format.
    """
    if isinstance(record, Unfolded):
        return [record]
    try:
        return [Unfolded(one) for one in VIEWS[view](record)]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        shown = json.dumps(
            record, ensure_ascii=False, default=lambda one: f"a {type(one).__name__}"
        )
        guide = "multimodal" if view == "media" else "benchmarks"
        raise DataError(
            f"{where}: this is no record of the published format {view!r} ({reason}).\n  record: {shown[:200]}\n"
            f"See docs/guides/{guide}.md for the formats, or write a task of your own without the view."
        ) from error


def squad(record: Record) -> Iterator[dict[str, Any]]:
    """A whole file of SQuAD or CMRC 2018, an article, a paragraph; or one question that is flat already.

    A question without an answer gets an empty one.
    """
    if "data" in record or "paragraphs" in record:
        for part in record.get("data") or record["paragraphs"]:
            yield from squad(part)
    elif "qas" in record:
        for asked in record["qas"]:
            yield from squad({**asked, "context": record["context"]})
    else:
        yield {**record, "answers": _texts(record["answers"]) or [""]}


def entailment(record: Record) -> Iterator[dict[str, Any]]:
    """CB and RTE; the hypothesis becomes a question, without its full stop."""
    yield {**record, "hypothesis": _bare(record["hypothesis"])}


def copa(record: Record) -> Iterator[dict[str, Any]]:
    """COPA; `joint` is the word between premise and choice, choices go on in its sentence."""
    joints = {"cause": " because", "effect": ", so"}
    choices = (_bare(record[name]) for name in ("choice1", "choice2"))
    first, second = (one[:1].lower() + one[1:] for one in choices)
    premise = _bare(record["premise"])
    yield {**record, "premise": premise, "choice1": first, "choice2": second, "joint": joints[record["question"]]}  # fmt: skip


def multirc(record: Record) -> Iterator[dict[str, Any]]:
    """MultiRC: each answer of each question by itself; `question_id` keeps those of a question together."""
    passage = record["passage"]
    for number, asked in enumerate(passage["questions"]):
        for answer in asked["answers"]:
            yield {
                "text": passage["text"],
                "question": _bare(asked["question"]),
                "answer": answer["text"],
                "label": answer.get("label"),
                "question_id": f"{record.get('idx')}-{asked.get('idx', number)}",
            }


def record_entities(record: Record) -> Iterator[dict[str, Any]]:
    """ReCoRD: each query with the passage's entities; several mentions may be right."""
    if "qas" not in record:
        shared = {"passage": record["passage"], "entities": record["entities"]}
        queries = [{"query": record["query"], "answers": record["answers"]}]
    else:
        text = record["passage"]["text"]
        # Ends are inclusive there.
        found = [text[one["start"] : one["end"] + 1] for one in record["passage"]["entities"]]
        shared, queries = {"passage": text, "entities": found}, record["qas"]
    passage = shared["passage"].replace("\n@highlight\n", "\n- ")
    for asked in queries:
        before, after = asked["query"].split("@placeholder", 1)
        yield {
            "passage": passage,
            "before": before,
            "after": after,
            "entities": list(dict.fromkeys(shared["entities"])),
            "answers": _texts(asked["answers"]),
        }


def wsc(record: Record) -> Iterator[dict[str, Any]]:
    """WSC; the pronoun stands between asterisks, the noun that it may mean is `noun`."""
    target = record["target"]
    text = _mark_word(record["text"], target["span2_index"], target["span2_text"])
    yield {**record, "text": text, "pronoun": target["span2_text"], "noun": target["span1_text"]}


def wsc_nouns(record: Record) -> Iterator[dict[str, Any]]:
    """WSC with `candidates`, other nouns of the text: true records alone, whose noun competes with these."""
    others = [one["text"] if isinstance(one, Mapping) else one for one in record["candidates"]]
    if str(record["label"]).lower() == "true":
        for one in wsc(record):
            nouns = {noun.lower(): noun for noun in (*reversed(others), one["noun"])}
            yield {**one, "nouns": list(reversed(nouns.values()))}


def agreed(record: Record) -> Iterator[dict[str, Any]]:
    """CMNLI and OCNLI, without the records on whose label the annotators did not agree ("-")."""
    if record["label"] != "-":
        yield {**record, "sentence2": _bare(record["sentence2"])}


def cluewsc(record: Record) -> Iterator[dict[str, Any]]:
    """CLUEWSC2020: the pronoun between asterisks, the noun between number signs, as in the authors' code."""
    target, text = record["target"], record["text"]
    marks = [
        (target["span1_index"], target["span1_text"], "#"),
        (target["span2_index"], target["span2_text"], "*"),
    ]
    for at, span, mark in sorted(marks, reverse=True):
        if text[at : at + len(span)] != span:
            raise ValueError(f"{span!r} is not at place {at} of the text")
        text = text[:at] + mark + span + mark + text[at + len(span) :]
    yield {**record, "text": text, "pronoun": target["span2_text"], "noun": target["span1_text"]}


def csl(record: Record) -> Iterator[dict[str, Any]]:
    """CSL; the keywords in one line."""
    yield {**record, "keyword": "、".join(_texts(record["keyword"]))}


def c3(record: Record) -> Iterator[dict[str, Any]]:
    """C3: each question of a text or dialogue (`context`), flat or under `questions`."""
    for asked in record.get("questions", [record]):
        lines = record["context"]
        context = lines if isinstance(lines, str) else "\n".join(lines)
        yield {**asked, "context": context, "choice": list(asked["choice"])}


def chid(record: Record) -> Iterator[dict[str, Any]]:
    """ChID: each gap of each paragraph, with the ten idioms.

    `answers` says which: tag -> number, as in CLUE's file of answers; or `{"candidate_id": [...]}` in the order of gaps.
    """
    contents = [record["content"]] if isinstance(record["content"], str) else record["content"]
    answers, number = record["answers"], 0
    for text in contents:
        for gap in _IDIOM.finditer(text):
            listed = answers.get("candidate_id")
            yield {
                "before": _IDIOM.sub(OTHER_GAP, text[: gap.start()]),
                "after": _IDIOM.sub(OTHER_GAP, text[gap.end() :]),
                "candidates": list(record["candidates"]),
                "label": int(answers[gap.group()] if listed is None else listed[number]),
            }
            number += 1


def last_word(record: Record) -> Iterator[dict[str, Any]]:
    """LAMBADA: the text without its last word, and that word."""
    context, word = record["text"].strip().rsplit(None, 1)
    yield {**record, "context": context, "word": word}


def wikitext(record: Record) -> Iterator[dict[str, Any]]:
    """WikiText: the text as people write it, and how many `words` it had as published."""
    yield {**record, "text": _untokenize(record["text"]), "words": len(record["text"].split())}


VIEWS: dict[str, View] = {
    "agreed": agreed,
    "c3": c3,
    "chid": chid,
    "cluewsc": cluewsc,
    "copa": copa,
    "csl": csl,
    "entailment": entailment,
    "last_word": last_word,
    "media": conversations,
    "multirc": multirc,
    "record": record_entities,
    "squad": squad,
    "wikitext": wikitext,
    "wsc": wsc,
    "wsc_nouns": wsc_nouns,
}
"""Name of a published format -> what makes flat records of it."""

_IDIOM = re.compile(r"#idiom\d*#")


def _bare(text: str) -> str:
    """Returns a sentence without its final punctuation."""
    return text.strip().rstrip(PUNCTUATION).rstrip()


def _texts(values: Any) -> list[str]:
    """Returns the different texts of a list, of records with `text`, or of `{"text": [...]}`."""
    if isinstance(values, Mapping):
        values = values["text"]
    texts = (one["text"] if isinstance(one, Mapping) else one for one in values)
    return list(dict.fromkeys(str(one) for one in texts))


def _mark_word(text: str, index: int, span: str) -> str:
    """Returns a text with a word between asterisks; the published index may be one off."""
    words = list(re.finditer(r"\S+", text))
    pattern = re.compile(rf"(?<!\w){re.escape(span)}(?!\w)", re.IGNORECASE)
    for near in (index, index - 1, index + 1):
        if 0 <= near < len(words):
            found = pattern.search(text, words[near].start())
            if found and found.start() < words[near].end():
                return f"{text[: found.start()]}*{found.group()}*{text[found.end() :]}"
    raise ValueError(f"{span!r} is not word {index} of the text")


_SPACING = [
    (re.compile(r" @([-,.])@ "), r"\1"),
    (re.compile(r" ([.,:;!?)\]}]|n't|'(?:s|t|re|ve|ll|d|m))(?=\s|$)"), r"\1"),
    (re.compile(r"([(\[{]) "), r"\1"),
    (re.compile(r'" ([^"\n]*?) "'), r'"\1"'),
    (re.compile(r"(?<==) (?==)"), ""),
    (re.compile(r" *\n *"), "\n"),
]


def _untokenize(text: str) -> str:
    """Returns a text of WikiText without the spaces and marks of its tokenization."""
    for pattern, replacement in _SPACING:
        text = pattern.sub(replacement, text)
    return text.strip()
