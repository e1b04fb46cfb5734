"""Two texts -> how alike they are: exact match and F1 as CMRC 2018 counts them, ROUGE, BLEU, chrF.

Chinese is compared by characters, other languages by words; what is Chinese is decided by the reference. ROUGE is
rouge-score's and BLEU and chrF are sacrebleu's: only the choice of tokens is made here.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from glmkit.errors import missing_dependency
from glmkit.tasks.hiding import HAN
from glmkit.tasks.rendering import CHINESE_SHARE

_UNIT = re.compile(rf"[{HAN}]|[^\W_{HAN}]+(?:['’][^\W_{HAN}]+)*")
_HAN = re.compile(f"[{HAN}]")


def is_chinese(text: str) -> bool:
    """Returns whether Chinese characters are `CHINESE_SHARE` of a text's letters or more."""
    letters = sum(map(str.isalpha, text))
    return bool(letters) and len(_HAN.findall(text)) >= CHINESE_SHARE * letters


def units(text: str) -> list[str]:
    """Returns the units of comparison, in lower case: Chinese characters one by one, other words and numbers whole.

    Punctuation, symbols and spaces are gone.
    """
    return _UNIT.findall(text.lower())


def normalise(text: str) -> str:
    """Returns a text in lower case without punctuation and symbols; spaces stay only between words."""
    kept = "".join(c if unicodedata.category(c)[0] not in "PSZC" else " " for c in text.lower())
    return re.sub(rf"(?<=[{HAN}]) | (?=[{HAN}])", "", " ".join(kept.split()))


def exact_match(prediction: str, reference: str) -> float:
    """Returns 1.0 where two texts are equal but for case, punctuation and spaces, else 0.0."""
    return float(normalise(prediction) == normalise(reference))


def f1(prediction: str, reference: str) -> float:
    """Returns the F1 of the longest run of units that two texts share.

    Precision is the run's share of the prediction, recall its share of the reference. Two texts without any unit
    are equal (1.0). Source: the evaluation of CMRC 2018 (Cui et al. 2019, arXiv 1810.07366).
    """
    predicted, right = units(prediction), units(reference)
    if not predicted or not right:
        return float(predicted == right)
    shared = longest_shared_run(predicted, right)
    return 2 * shared / (len(predicted) + len(right))


def token_f1(prediction: str, reference: str) -> float:
    """Returns the F1 of the units that two texts share, in whatever order; English articles do not count.

    Source: the evaluation of SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250), which ReCoRD takes over.
    """
    predicted, right = (
        Counter(one for one in units(text) if one not in ("a", "an", "the"))
        for text in (prediction, reference)
    )
    if not predicted or not right:
        return float(predicted == right)
    return 2 * (predicted & right).total() / (predicted.total() + right.total())


def longest_shared_run(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Returns the length of the longest run of neighbours that two sequences share."""
    longest = 0
    ending = [0] * (len(other) + 1)  # of the run that ends at each place of `other`
    for item in one:
        before = 0
        for place, candidate in enumerate(other, 1):
            before, ending[place] = ending[place], before + 1 if item == candidate else 0
            longest = max(longest, ending[place])
    return longest


@lru_cache
def rouge_scorer(kind: str) -> Callable[[str, str], float]:
    """Returns the F1 of "rouge1", "rouge2" or "rougeL" as a function of a prediction and a reference.

    Chinese by characters, other languages by stemmed words (rouge-score's own tokens).

    Raises:
        MissingDependencyError: rouge-score is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise missing_dependency("rouge-score", "ROUGE", "evaluate") from error

    chinese = RougeScorer([kind], tokenizer=_Units())
    english = RougeScorer([kind], use_stemmer=True)

    def score(prediction: str, reference: str) -> float:
        scorer = chinese if is_chinese(reference) else english
        return float(scorer.score(reference, prediction)[kind].fmeasure)

    return score


class _Units:
    """The tokenizer that rouge-score asks for."""

    def tokenize(self, text: str) -> list[str]:
        return units(text)


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns sacrebleu's corpus BLEU (0 to 100): "zh" tokens where the references are Chinese, else "13a".

    Raises:
        MissingDependencyError: sacrebleu is not installed.
    """
    return float(
        _sacrebleu()
        .corpus_bleu(list(predictions), _columns(references), tokenize=_bleu_tokens(references))
        .score
    )


def sentence_bleu(references: Sequence[Sequence[str]]) -> Callable[[str, Sequence[str]], Any]:
    """Returns what counts the n-grams of one example as `bleu` of all `references` does: a sacrebleu `BLEUScore`."""
    scorer = _sacrebleu().BLEU(tokenize=_bleu_tokens(references), effective_order=True)
    return lambda prediction, right: scorer.sentence_score(prediction, list(right))


def bleu_of_counts(counts: list[int], totals: list[int], size: int, reference_size: int) -> float:
    """Returns BLEU of sums over examples: n-grams found, n-grams there are, lengths."""
    scorer = _sacrebleu().BLEU
    return float(
        scorer.compute_bleu(counts, totals, size, reference_size, smooth_method="exp").score
    )


def _bleu_tokens(references: Sequence[Sequence[str]]) -> str:
    return "zh" if is_chinese("".join(one[0] for one in references)) else "13a"


def chrf(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns sacrebleu's corpus chrF (0 to 100), which needs no tokens.

    Raises:
        MissingDependencyError: sacrebleu is not installed.
    """
    return float(_sacrebleu().corpus_chrf(list(predictions), _columns(references)).score)


def _sacrebleu() -> Any:
    try:
        import sacrebleu
    except ImportError as error:
        raise missing_dependency("sacrebleu", "BLEU and chrF", "evaluate") from error
    return sacrebleu


def _columns(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Returns references by their number, as sacrebleu wants them; None where an example has fewer."""
    most = max(map(len, references))
    return [[one[n] if n < len(one) else None for one in references] for n in range(most)]
