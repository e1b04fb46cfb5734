"""What a preparation does to each text, as the `data.steps` section of a recipe. Values only; checks itself."""

from __future__ import annotations

from dataclasses import dataclass, field, fields


@dataclass
class LanguageSettings:
    """Keeps texts of some languages only; off while `keep` is empty.

    Attributes:
        keep: ISO 639-1 codes, such as `[zh, en]`.
        min_probability: What py3langid must give the most likely language, in [0, 1].
        min_han_share: A text whose letters are Han characters to this share, and no kana, is `zh`; such texts
            need no model, which is unsure of classical Chinese and of short lines.
    """

    keep: list[str] = field(default_factory=list)
    min_probability: float = 0.5
    min_han_share: float = 0.5


@dataclass
class QualitySettings:
    """Drops what reads like no text; the rules of Gopher (arXiv 2112.11446, A.1.1) for Chinese and English alike.

    A unit is a Han character, a kana or a word. Shares are of the characters that are not blank, unless said
    otherwise. The value None turns a rule off.

    Attributes:
        enabled: Use these rules.
        min_units: Shorter texts are "too few words".
        max_units: Longer texts are "too many words".
        min_letter_share: Letters (Han characters among them): fewer is a table or code.
        max_symbol_share: `#`, `|`, `…`, currency, arrows and other symbols.
        max_digit_share: Digits.
        min_punctuation_share: Of texts over `long_units`: less is a menu or a list of key words.
        max_punctuation_share: Punctuation of any kind.
        min_word_length: Mean length of the words, of texts that are mostly words, in characters.
        max_word_length: The same, upper end.
        max_bullet_lines: Share of the lines that begin with a list mark, of texts with three lines or more.
        max_ellipsis_lines: Share of the lines that end with `…` or `...`, of such texts.
        min_ended_lines: Share of the lines that end as sentences do, of texts with over `many_lines` lines.
        max_boilerplate_lines: Share of the lines that are short and hold a phrase of web page furniture (zh, en).
        max_repeated_lines: Share of the lines that stood in the text before.
        max_repeated_line_characters: Share of the text's characters in such lines.
        max_top_ngrams: n -> share of the letters that the most frequent n-gram makes up; n is in words, and of
            mostly Han texts in two characters.
        max_repeated_ngrams: n -> share of the letters that lie in an n-gram which stood in the text before. (Gopher
            has 0.15 for 5; in Chinese Wikipedia this hits biographies, which name the same offices again and again.)
        long_units: Statistics of a few words say little: rules on n-grams and on the least punctuation apply
            to texts longer than this.
        many_lines: Rules on lines that end as sentences apply to texts with more lines.
        min_han_latin_share: Share of the letters that are Han, kana or Latin; 0 allows every script.
        min_stop_words: How many different ones of eight common English words a text of mostly words must have;
            0 turns the rule off, as a corpus with other Latin languages needs.
    """

    enabled: bool = False
    min_units: int | None = 10
    max_units: int | None = 200_000
    min_letter_share: float | None = 0.6
    max_symbol_share: float | None = 0.1
    max_digit_share: float | None = 0.3
    min_punctuation_share: float | None = 0.005
    max_punctuation_share: float | None = 0.3
    min_word_length: float | None = 3.0
    max_word_length: float | None = 10.0
    max_bullet_lines: float | None = 0.9
    max_ellipsis_lines: float | None = 0.3
    min_ended_lines: float | None = 0.12
    max_boilerplate_lines: float | None = 0.3
    max_repeated_lines: float | None = 0.3
    max_repeated_line_characters: float | None = 0.2
    max_top_ngrams: dict[int, float] = field(default_factory=lambda: {2: 0.2, 3: 0.18, 4: 0.16})
    max_repeated_ngrams: dict[int, float] = field(default_factory=lambda: {5: 0.20, 10: 0.10})
    long_units: int = 50
    many_lines: int = 10
    min_han_latin_share: float = 0.0
    min_stop_words: int = 0

    def __post_init__(self) -> None:
        """Turns the keys into numbers, as a setting on the command line or in JSON cannot."""
        for name in ("max_top_ngrams", "max_repeated_ngrams"):
            given = getattr(self, name)
            if all(str(size).isdigit() for size in given):
                setattr(self, name, {int(size): share for size, share in given.items()})


@dataclass
class NearDuplicateSettings:
    """Keeps one of several texts that say nearly the same (MinHash, through datatrove's on-disk buckets).

    Two texts whose sets of n-grams agree to the share s meet in a bucket with the probability
    1 - (1 - s^hashes_per_bucket)^buckets: with the defaults a half at s = 0.68, 92 % at 0.8.

    Attributes:
        enabled: Use it.
        ngram: Units in a shingle, where a unit is a word, a kana or a Han character.
        buckets: Number of buckets.
        hashes_per_bucket: Hashes that must agree in one of them.
        seed: Of the hash functions.
    """

    enabled: bool = False
    ngram: int = 5
    buckets: int = 14
    hashes_per_bucket: int = 8
    seed: int = 1


@dataclass
class DecontaminationSettings:
    """Drops texts that hold a passage of an evaluation text; off while `against` is empty.

    Attributes:
        against: Files, folders and globs with the evaluation texts, read as corpora are.
        text_field: The field, or several, each a text by itself, or a template; see `glmkit.corpus.records`.
        ngram: Length of a passage in words (GPT-3 and its followers use 13).
        han_ngram: Length of a passage of mostly Han characters, in characters; 13 of them are often only a name.
        min_units: An evaluation text shorter than a passage counts whole, unless it is shorter than this.
    """

    against: list[str] = field(default_factory=list)
    text_field: str | None = None
    ngram: int = 13
    han_ngram: int = 20
    min_units: int = 10


@dataclass
class Steps:
    """What happens to each text, in this order.

    Attributes:
        normalise: One spelling of characters and white space, see `glmkit.corpus.normalise`.
        simplify: Traditional characters become simplified ones (OpenCC, by phrases).
        min_chars: Shorter texts are dropped.
        language: Which languages stay.
        quality: Which texts read like text.
        decontamination: No passages of evaluation texts.
        mask_personal: E-mail and IP addresses, telephone and identity card numbers are overwritten.
        duplicates: Of equal texts one stays.
        near_duplicates: Of nearly equal texts one stays.
        examples: So many dropped texts of each reason are written to `dropped.jsonl`.
    """

    normalise: bool = True
    simplify: bool = False
    min_chars: int = 1
    language: LanguageSettings = field(default_factory=LanguageSettings)
    quality: QualitySettings = field(default_factory=QualitySettings)
    decontamination: DecontaminationSettings = field(default_factory=DecontaminationSettings)
    mask_personal: bool = False
    duplicates: bool = True
    near_duplicates: NearDuplicateSettings = field(default_factory=NearDuplicateSettings)
    examples: int = 0


def check(steps: Steps) -> list[str]:
    """Returns what is wrong with the settings, a line each."""
    wrong = []
    if steps.min_chars < 0:
        wrong.append(f"min_chars={steps.min_chars} (at least 0)")
    if steps.examples < 0:
        wrong.append(f"examples={steps.examples} (at least 0)")
    shares = [("language", one) for one in ("min_probability", "min_han_share")]
    shares += [
        ("quality", one.name)
        for one in fields(QualitySettings)
        if one.name.endswith(("_share", "_lines", "_characters")) and one.name != "many_lines"
    ]
    for section, name in shares:
        value = getattr(getattr(steps, section), name)
        if value is not None and not 0 <= value <= 1:
            wrong.append(f"{section}.{name}={value} (a share, 0 to 1)")
    for name in ("max_top_ngrams", "max_repeated_ngrams"):
        for size, share in getattr(steps.quality, name).items():
            if not isinstance(size, int) or size < 1 or not 0 <= share <= 1:
                wrong.append(f"quality.{name}={{{size!r}: {share!r}}} (a number of units: a share)")
    for section, names in (
        ("near_duplicates", ("ngram", "buckets", "hashes_per_bucket")),
        ("decontamination", ("ngram", "han_ngram", "min_units")),
    ):
        for name in names:
            if getattr(getattr(steps, section), name) < 1:
                wrong.append(
                    f"{section}.{name}={getattr(getattr(steps, section), name)} (at least 1)"
                )
    for code in steps.language.keep:
        if len(code) != 2 or not code.islower():
            wrong.append(f"language.keep={code!r} (two small letters, as in zh)")
    return wrong
