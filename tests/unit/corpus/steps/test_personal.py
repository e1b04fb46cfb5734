"""Masking: what identifies a person goes, other numbers stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("datatrove")

from glmkit.corpus.steps.personal import PersonalMask, is_id_card

MASK = PersonalMask()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("写信到邮箱foo.bar@qq.com吧", "写信到邮箱email@example.com吧"),
        ("mail jane_doe+x@mail.example.co.uk.", "mail email@example.com."),
        ("电话13812345678，或138-1234-5678", "电话<phone>，或<phone>"),
        ("手机：+86 139 1234 5678", "手机：<phone>"),
        ("座机010-12345678、(0755) 1234567", "座机<phone>、<phone>"),
        ("客服400-820-8820", "客服<phone>"),
        ("call +1 415-555-2671 or (415) 555-2671", "call <phone> or <phone>"),
        ("London: +44 20 7946 0958", "London: <phone>"),
        ("身份证11010519491231002X。", "身份证<id>。"),
        ("服务器8.8.8.8已下线", "服务器192.0.2.1已下线"),
    ],
)
def test_masked(text, masked):
    assert MASK(text) == masked
    assert MASK(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "1949年10月1日，2001-02-03，3.1415926535",
        "人口1413812345678人",
        "ISBN 978-7-302-51165-2",
        "局域网192.168.1.1与127.0.0.1",
        "110105194912310021",  # the check digit is wrong
        "版本 1.2.3.4.5",
        "@某人 转发 12345",
        "doi:10.1145/3292500.3330919",
        "1807–1838, 25 m high, 1,413,812,345",
    ],
)
def test_kept(text):
    assert MASK(text) == text


@given(st.text(alphabet="0123456789-+() .@a中", max_size=40))
def test_idempotent(text):
    assert MASK(MASK(text)) == MASK(text)


def test_check_digit():
    assert is_id_card("11010519491231002X")
    assert is_id_card("11010519491231002x")
    assert not is_id_card("110105194912310028")
