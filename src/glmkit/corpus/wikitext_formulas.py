"""TeX of simple formulas -> plain text, so that a sentence keeps what it says about `x` or `a/b`.

Letters, signs, indices, fractions and roots are written out; anything harder gives nothing. Pure.
"""

from __future__ import annotations

import re
import unicodedata

MAX_CHARS = 120
"""Of the result: longer formulas are no part of a sentence."""

_SIGNS = {
    "times": "×", "cdot": "·", "div": "÷", "pm": "±", "mp": "∓", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥",
    "ne": "≠", "neq": "≠", "approx": "≈", "equiv": "≡", "sim": "∼", "to": "→", "rightarrow": "→", "mapsto": "↦",
    "Rightarrow": "⇒", "leftrightarrow": "↔", "in": "∈", "notin": "∉", "subset": "⊂", "subseteq": "⊆",
    "cup": "∪", "cap": "∩", "emptyset": "∅", "infty": "∞", "forall": "∀", "exists": "∃", "neg": "¬",
    "wedge": "∧", "land": "∧", "vee": "∨", "lor": "∨", "partial": "∂", "nabla": "∇", "circ": "∘", "sum": "∑",
    "prod": "∏", "int": "∫", "ldots": "…", "dots": "…", "cdots": "…", "angle": "∠", "perp": "⊥", "mid": "|",
    "hbar": "ħ", "ell": "ℓ", "prime": "′", "degree": "°", "quad": " ", "qquad": " ", "varepsilon": "ε",
    "varphi": "φ", "sin": "sin", "cos": "cos", "tan": "tan", "log": "log", "ln": "ln", "exp": "exp",
    "lim": "lim", "max": "max", "min": "min", "arg": "arg", "det": "det", "dim": "dim", "gcd": "gcd", "Pr": "Pr",
}  # fmt: skip
_ACCENTS = {
    "bar": "\u0304", "overline": "\u0304", "hat": "\u0302", "widehat": "\u0302", "tilde": "\u0303",
    "widetilde": "\u0303", "vec": "\u20d7", "dot": "\u0307", "ddot": "\u0308",
}  # fmt: skip
"""Command -> the combining character behind the letter."""
_BRACES = "\x02\x03"
"""Stand for the braces that are shown."""

_DRESS = re.compile(
    r"\\(?:displaystyle|textstyle|scriptstyle|left|right|big|Big|mathbb|mathbf|mathrm|mathit|mathcal|mathsf|"
    r"boldsymbol|operatorname|textrm|textit|textbf|text|rm|bf|it|limits|nolimits)(?![a-zA-Z])|\\[,;:! ]"
)
_ACCENT = re.compile(rf"\\({'|'.join(_ACCENTS)})\s*(?:\{{\s*(\w)\s*\}}|(\w))")
_INNERMOST = r"\{([^{}\\]*)\}"
_FRACTION = re.compile(rf"\\[dt]?frac\s*{_INNERMOST}\s*{_INNERMOST}")
_ROOT = re.compile(rf"\\sqrt\s*{_INNERMOST}")
_COMMAND = re.compile(r"\\([a-zA-Z]+)\s*")
_INDEX = re.compile(rf"([_^]){_INNERMOST}")
_GROUP = re.compile(_INNERMOST)


def plain_formula(tex: str) -> str:
    """Returns a formula as text, such as `α ≤ x^2/(n+1)`; an empty string for one that is not simple."""
    tex = tex.replace("~", " ").replace(r"\{", _BRACES[0]).replace(r"\}", _BRACES[1])
    text = _COMMAND.sub(_sign, _DRESS.sub("", tex))
    text = _ACCENT.sub(lambda m: (m[2] or m[3]) + _ACCENTS[m[1]], text)
    before = None
    while text != before:  # from the inside out
        before = text
        text = _FRACTION.sub(lambda m: f"{_closed(m[1])}/{_closed(m[2])}", text)
        text = _ROOT.sub(lambda m: f"√{_closed(m[1])}", text)
        text = _INDEX.sub(lambda m: m[1] + _index(m[2]), text)
        if "\\" not in text:
            text = _GROUP.sub(r"\1", text)
    text = " ".join(text.split())
    if len(text) > MAX_CHARS or re.search(r"[\\{}&]", text):
        return ""
    return text.replace(_BRACES[0], "{").replace(_BRACES[1], "}")


def _closed(part: str) -> str:
    part = part.strip()
    return part if re.fullmatch(r"[\w.′∘∞\u0302-\u0308\u20d7]*", part) else f"({part})"


def _index(part: str) -> str:
    part = part.strip()
    return part if len(part) == 1 or part.isdigit() else f"({part})"


def _sign(match: re.Match[str]) -> str:
    name = match[1]
    if name in _SIGNS:
        return _SIGNS[name] + (" " if match[0][-1].isspace() else "")
    case = "CAPITAL" if name[0].isupper() else "SMALL"
    try:
        letter = unicodedata.lookup(f"GREEK {case} LETTER {name.upper()}")
    except KeyError:
        return match[0]
    return letter + (" " if match[0][-1].isspace() else "")
