"""Overwrites what identifies a person: e-mail and IP addresses (datatrove), telephone and identity card numbers."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from glmkit.errors import missing_dependency

EMAIL, IP, PHONE, ID_CARD = "email@example.com", "192.0.2.1", "<phone>", "<id>"
"""What is written in their place; the addresses are reserved for examples (RFC 2606, RFC 5737)."""

_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CARD = re.compile(r"(?<![0-9A-Za-z])[1-8]\d{5}(?:19|20)\d\d(?:0[1-9]|1[0-2])\d{5}[\dXx](?![0-9A-Za-z])")  # fmt: skip
_PHONES = re.compile(
    r"""(?<![0-9A-Za-z_.+-])(?:
        (?:(?:\+|00)86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}      # Chinese mobile
      | (?:(?:\+|00)86[- ]?)?\(?0\d{2,3}\)?[- ]\d{7,8}          # Chinese land line with its area
      | [48]00-\d{3}-?\d{4}                                    # Chinese service numbers
      | \+[1-9]\d{0,2}(?:[-. ]?\(?\d{1,4}\)?){2,5}              # international
      | (?:1[-. ])?(?:\(\d{3}\)\ ?|\d{3}[-.])\d{3}[-.]\d{4}    # North America
    )(?![0-9A-Za-z_-]|\.\d)""",
    re.VERBOSE,
)
_DIGIT = re.compile(r"\d")


class PersonalMask:
    """Returns texts in which such data is overwritten; the rest is untouched. Idempotent."""

    def __init__(self) -> None:
        _addresses()

    def __call__(self, text: str) -> str:
        """Returns the text without e-mail addresses, public IP addresses, telephone and identity card numbers."""
        has_digits = _DIGIT.search(text) is not None
        if has_digits or "@" in text:
            text = _addresses().format(text)
        if has_digits:
            text = _ID_CARD.sub(_mask_id_card, text)
            text = _PHONES.sub(_mask_phone, text)
        return text


def is_id_card(number: str) -> bool:
    """Says whether the last of 18 digits is the check digit of the others (GB 11643-1999, ISO 7064 MOD 11-2)."""
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, number[:17], strict=True))
    return "10X98765432"[total % 11] == number[17].upper()


def _mask_id_card(match: re.Match[str]) -> str:
    return ID_CARD if is_id_card(match[0]) else match[0]


def _mask_phone(match: re.Match[str]) -> str:
    return PHONE if len(_DIGIT.findall(match[0])) >= 9 else match[0]


@lru_cache(maxsize=1)
def _addresses() -> Any:
    try:
        from datatrove.pipeline.formatters import PIIFormatter
    except ImportError as error:
        raise missing_dependency("datatrove", "Masking personal data", "corpus") from error
    formatter = PIIFormatter(email_replacement=EMAIL, ip_replacement=IP)
    # Chinese has no spaces: with Unicode word boundaries `邮箱foo.bar@qq.com` would keep its `foo.`.
    formatter.emails_replacer.regex = re.compile(formatter.emails_replacer.regex.pattern, re.ASCII)
    whole = rf"(?<![\d.])(?:{formatter.ip_replacer.regex.pattern})(?!\.?\d)"
    formatter.ip_replacer.regex = re.compile(whole)
    return formatter
