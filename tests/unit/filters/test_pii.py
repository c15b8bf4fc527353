"""Personal data is found by check digits and context; what only looks like it stays; spans restore the text."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.datasets.reasons import REASONS
from pipelines.filters.pii import KINDS, PLACEHOLDERS, find, mask

_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def _masked(text: str) -> str:
    return mask(text, find(text.encode()))


def _identity(seed: int, check: str | None = None) -> str:
    rng = random.Random(seed)
    while True:
        born = f"{rng.randrange(1890, 1899)}{rng.randrange(1, 13):02}{rng.randrange(1, 29):02}"
        body = f"110105{born}{rng.randrange(1000):03}"
        last = "10X98765432"[sum(int(d) * w for d, w in zip(body, _WEIGHTS, strict=True)) % 11]
        if check is None or last == check:
            return body + last


def _card(seed: int, digits: int = 16) -> str:
    body = "62" + "".join(random.Random(seed).choices("0123456789", k=digits - 3))
    for last in "0123456789":
        total = 0
        for place, digit in enumerate(reversed(body + last)):
            value = int(digit) * (2 if place % 2 else 1)
            total += value - 9 if value > 9 else value
        if total % 10 == 0:
            return body + last
    raise AssertionError


FOUND = [
    ("email", "邮箱zhangsan@example.com请来信", "邮箱[email]请来信"),
    ("email", "邮箱zhang.san@example.com请", "邮箱[email]请"),
    ("email", "Write to Bob@Example.COM", "Write to [email]"),
    ("email", "bob@example.com.", "[email]."),
    ("email", "全角：abc＠example．com。", "全角：[email]。"),
    ("ipv4", "from 203.0.113.77, twice", "from [ip], twice"),
    ("ipv4", "http://203.0.113.77:8080/", "http://[ip]:8080/"),
    ("ipv6", "via 2001:db8::2e4a.", "via [ip]."),
    ("cn_mobile", "电话13800138000，", "电话[phone]，"),
    ("cn_mobile", "+86 138-0013-8000 或 +8613800138000", "[phone] 或 [phone]"),
    ("cn_mobile", "手机１３８００１３８０００。", "手机[phone]。"),
    ("cn_landline", "座机010-12345678转801", "座机[phone]转801"),
    ("cn_landline", "(0755)2345 6789", "[phone]"),
    ("cn_id", f"身份证{_identity(1)}号", "身份证[id]号"),
    ("cn_id", f"身份证{_identity(2, 'X')}，{_identity(3, 'X').lower()}", "身份证[id]，[id]"),
    ("bank_card", f"卡号{_card(4, 19)}", "卡号[card]"),
    ("bank_card", "card 4111 1111 1111 1111 is", "card [card] is"),
    ("bank_card", "call me, 6222-0200-0000-0001-230 today", "call me, [card] today"),
    ("cn_passport", "护照号码E12345678", "护照号码[passport]"),
    ("cn_plate", "车牌京A·12345，沪AD12345", "车牌[plate]，[plate]"),
    ("qq", "QQ：123456789 QQ群87654321", "QQ：[qq] QQ群[qq]"),
    ("wechat", "微信号：zhang_san88，加微信：hello88", "微信号：[wechat]，加微信：[wechat]"),
    ("tw_id", "身分證A123456789", "身分證[id]"),
    ("hk_id", "HKID A123456(3)", "HKID [id]"),
    ("phone", "call (617) 555-0108 or +44 20 7946 0958", "call [phone] or [phone]"),
    ("phone", "London 020 7946 0002", "London [phone]"),
    ("us_ssn", "SSN 987-65-4321.", "SSN [id]."),
    ("iban", "IBAN DE89 3704 0044 0532 0130 00", "IBAN [account]"),
]
LOOKALIKES = [
    "version 1.10.20.30",
    "OpenSSL 3.0.13.4",
    "v8.4.12.99",
    "版本 115.236.118.11",
    "1.2.3.4.5",
    "10.2.3.400",
    "Chrome/120.0.99.110",
    "192.168.1.1 10.0.0.8 127.0.0.1 172.16.9.9 169.254.1.1 0.0.0.0 255.255.255.0",
    "::1 fe80::1 std::vector a::b 12:30:45",
    "logo@2x.png",
    "git@example.com:some/repo",
    "react@17.0.2",
    "@decorator.name",
    "2026-11-03 12:30:45",
    "3.141592653589793",
    "ISBN 978-7-111-18787-0",
    f"订单编号：{_card(9)}",
    "流水号 6203824696218889884",
    "1024 2048 4096 8192 16384 32768",
    "sizes 4000 4004 4008 4012 4016 4020 4024 4028 4032 4036",
    "part 123-45-67890",
    "1234567890123456789",
    _identity(5)[:-1] + ("0" if _identity(5)[-1] != "0" else "1"),
    "110105189913401234",
    "微信公众号：gristmill",
    "微信 WeChat iPhone",
    "QQ音乐2024",
    "H1N1病毒E1234型",
    "第13800138000123页",
    "400-800-1234",
    "0 000 0000 0000 0000",
    "figure 555-0",
]


@pytest.mark.parametrize(("kind", "text", "expected"), FOUND)
def test_each_kind_is_found_and_replaced_by_its_placeholder(kind, text, expected):
    assert _masked(text) == expected
    assert {span.kind for span in find(text.encode())} == {kind} or kind in {s.kind for s in find(text.encode())}


@pytest.mark.parametrize("text", LOOKALIKES)
def test_what_only_looks_like_it_stays(text):
    assert _masked(text) == text


def test_a_kind_that_is_not_wanted_is_left():
    text = "a@example.com 203.0.113.77"
    assert mask(text, find(text.encode(), ["ipv4"])) == "a@example.com [ip]"


@given(st.lists(st.one_of(st.sampled_from([t for _, t, _ in FOUND] + LOOKALIKES), st.text(max_size=12)), max_size=12))
@settings(deadline=None, max_examples=200)
def test_putting_the_values_back_by_their_spans_restores_the_text(pieces):
    text = " ".join(pieces)
    spans = find(text.encode("utf-8", "replace"))
    text = text.encode("utf-8", "replace").decode()
    assert spans == sorted(spans) and all(a.end <= b.start for a, b in itertools.pairwise(spans))
    masked, at, restored, shift = mask(text, spans), 0, [], 0
    for span in spans:
        begin = span.start + shift
        label = PLACEHOLDERS[span.kind]
        assert masked[begin : begin + len(label)] == label
        restored += [masked[at:begin], text[span.start : span.end]]
        at = begin + len(label)
        shift += len(label) - (span.end - span.start)
    assert "".join([*restored, masked[at:]]) == text


@given(st.text(max_size=300))
@settings(deadline=None, max_examples=150)
def test_any_text_is_searched_without_an_error(text):
    find(text.encode("utf-8", "replace"))


def test_a_find_far_into_a_long_text_has_its_offset_in_characters():
    text = "磨坊" * 50_000 + "a@example.com" + "尾" * 10
    (span,) = find(text.encode())
    assert text[span.start : span.end] == "a@example.com"


def test_hostile_digits_and_signs_cost_linear_time():
    for piece in ("1", "1.", "@", "a@", "1-", "::", "QQ", "京A1", "0 ", "微信a"):
        find((piece * (100_000 // len(piece))).encode())


def test_every_kind_has_a_placeholder_and_a_reason():
    assert all(f"pii_{kind}" in REASONS for kind in KINDS)
