"""TeX of simple formulas -> plain text, so that a sentence keeps what it says about `x` or `a/b`.

Letters, signs, indices, fractions and roots are written out; anything harder gives nothing. Pure.
"""

from __future__ import annotations

import re
import unicodedata

MAX_CHARS = 80
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
    "lim": "lim", "max": "max", "min": "min",
}  # fmt: skip
_BRACES = "\x02\x03"
"""Stand for the braces that are shown."""

_DRESS = re.compile(
    r"\\(?:displaystyle|textstyle|scriptstyle|left|right|big|Big|mathbb|mathbf|mathrm|mathit|mathcal|mathsf|"
    r"boldsymbol|operatorname|textrm|textit|textbf|text|rm|bf|it|limits|nolimits)(?![a-zA-Z])|\\[,;:! ]"
)
_INNERMOST = r"\{([^{}\\]*)\}"
_FRACTION = re.compile(rf"\\[dt]?frac\s*{_INNERMOST}\s*{_INNERMOST}")
_ROOT = re.compile(rf"\\sqrt\s*{_INNERMOST}")
_COMMAND = re.compile(r"\\([a-zA-Z]+)\s*")
_GROUP = re.compile(rf"([_^]?){_INNERMOST}")


def plain_formula(tex: str) -> str:
    """Returns a formula as text, such as `α ≤ x^2/(n+1)`; an empty string for one that is not simple."""
    tex = tex.replace("~", " ").replace(r"\{", _BRACES[0]).replace(r"\}", _BRACES[1])
    text = _COMMAND.sub(_sign, _DRESS.sub("", tex))
    before = None
    while text != before:  # from the inside out
        before = text
        text = _FRACTION.sub(lambda m: f"{_closed(m[1])}/{_closed(m[2])}", text)
        text = _ROOT.sub(lambda m: f"√{_closed(m[1])}", text)
        if "\\" not in text:
            text = _GROUP.sub(lambda m: m[1] + (_index(m[2]) if m[1] else m[2]), text)
    text = " ".join(text.split())
    if len(text) > MAX_CHARS or re.search(r"[\\{}&]", text):
        return ""
    return text.replace(_BRACES[0], "{").replace(_BRACES[1], "}")


def _closed(part: str) -> str:
    part = part.strip()
    return part if re.fullmatch(r"[\w.′∘∞]*", part) else f"({part})"


def _index(part: str) -> str:
    part = part.strip()
    return part if len(part) == 1 or part.isdigit() else f"({part})"


def _sign(match: re.Match[str]) -> str:
    name = match[1]
    if name in _SIGNS:
        spaced = name in ("sin", "cos", "tan", "log", "ln", "exp", "lim", "max", "min")
        return _SIGNS[name] + (" " if spaced and match[0][-1].isspace() else "")
    case = "CAPITAL" if name[0].isupper() else "SMALL"
    try:
        return unicodedata.lookup(f"GREEK {case} LETTER {name.upper()}")
    except KeyError:
        return match[0]
