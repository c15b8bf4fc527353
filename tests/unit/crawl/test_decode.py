"""Bytes as sent become text, whatever was declared."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.crawl.decode import decode, decode_text, header_charset, meta_charset

HANS = "<p>磨坊把谷物磨成面粉，过程分为清理、研磨和筛分三步。镕基、㙍这些字不在国标里。</p>" * 3
HANT = "<p>磨坊把穀物磨成麵粉，過程分為清理、研磨和篩分三步。這是繁體中文的網頁內容。</p>" * 3


@pytest.mark.parametrize("declared", ["gb2312", "gbk", "GB18030", "iso-8859-1", "utf-8", None, "no-such"])
def test_gb_pages_read_right_whatever_they_declare(declared):
    body = HANS.encode("gb18030")
    content_type = f"text/html; charset={declared}" if declared else None
    assert decode_text(body, content_type) == (HANS, "gb18030")


@pytest.mark.parametrize("declared", ["big5", "Big5-HKSCS", None])
def test_big5_pages_read_right(declared):
    body = HANT.encode("big5")
    text, charset = decode_text(body, f"text/html; charset={declared}" if declared else None)
    assert (text, charset) == (HANT, "big5hkscs")


@pytest.mark.parametrize("declared", ["gb2312", "gbk", "utf-8", "iso-8859-1", None])
def test_big5_under_a_wrong_label_reads_right(declared):
    body = HANT.encode("big5")
    assert decode_text(body, f"text/html; charset={declared}" if declared else None) == (HANT, "big5hkscs")


def test_gb_under_the_label_of_big5_and_little_gb_among_much_code_read_right():
    assert decode_text(HANS.encode("gb18030"), "text/html; charset=big5")[1] == "gb18030"
    code = "<pre>" + "for (i = 0; i < n; i++) { a[i] = b[i]; }\n" * 80 + "</pre>"
    assert decode_text((code + HANS[:120]).encode("gb18030"), None)[1] == "gb18030"


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("Жернова медленно вращаются, и зерно становится мукой. " * 5, "cp1251"),
        ("Les meules tournent lentement là où l'été s'achève déjà. " * 5, "cp1252"),
        ("石臼はゆっくりと回り、穀物は粉になる。この谷では昔からそうだった。" * 5, "cp932"),
        ("石臼はゆっくりと回り、穀物は粉になる。この谷では昔からそうだった。" * 5, "euc_jp"),
        ("맷돌은 천천히 돌고 곡식은 가루가 된다. 이 골짜기에서는 늘 그랬다. " * 5, "cp949"),
    ],
)
def test_declared_charsets_of_other_scripts_are_not_taken_for_chinese(text, codec):
    name = {"cp932": "shift_jis", "euc_jp": "euc-jp", "cp949": "euc-kr", "cp1252": "iso-8859-1"}.get(codec, codec)
    assert decode_text(text.encode(codec), f"text/html; charset={name}") == (text, codec)


def test_the_page_s_own_declaration_counts_where_the_header_has_none():
    body = b'<meta http-equiv=Content-Type content="text/html; charset=windows-1251">' + "Привет, мир".encode("cp1251")
    assert decode_text(body, "text/html")[0].endswith("Привет, мир")


def test_a_byte_order_mark_is_read_and_dropped():
    for codec in ("utf-8-sig", "utf-16"):
        assert decode_text("磨坊".encode(codec), "text/html; charset=gbk")[0] == "磨坊"


@pytest.mark.parametrize(("codec", "declared"), [("utf-8", "utf-8"), ("gb18030", "gb2312"), ("big5", "big5")])
def test_a_few_broken_bytes_do_not_lose_the_page(codec, declared):
    text = HANT * 5
    body = bytearray(text.encode(codec))
    body[40:41] = b"\xff"
    body[200:200] = b"\xff\xfe"
    read, _ = decode_text(bytes(body), f"text/html; charset={declared}")
    same = sum(a == b for a, b in zip(read[-200:], text[-200:], strict=True))
    assert same == 200 and "\ufffd" in read


def test_dangerous_and_non_text_codecs_are_never_used():
    for name in ("utf-7", "rot13", "hex", "zip", "idna", "unicode_escape", "base64"):
        assert decode_text(b"+ADw-script+AD4- \xff", f"text/html; charset={name}")[0].startswith("+ADw-")


@given(st.binary(max_size=400), st.sampled_from(["gbk", "big5", "utf-8", "shift_jis", "euc-kr", "x" * 60, ""]))
@settings(deadline=None, max_examples=200)
def test_any_bytes_become_text_that_can_be_stored(body, charset):
    text, used = decode_text(body, f"text/html; charset={charset}")
    assert text.encode("utf-8", "surrogatepass").decode("utf-8", "replace") is not None
    assert used


@given(st.text(max_size=200))
@settings(deadline=None, max_examples=100)
def test_utf8_is_read_as_it_was_written(text):
    if text.startswith("\ufeff"):
        text = text[1:]
    assert (
        decode_text(text.encode("utf-8", "replace"), "text/html; charset=gbk")[0]
        == text.encode("utf-8", "replace").decode()
    )


RUSSIAN = "Жернова медленно вращаются, и зерно становится мукой, как всегда было в этой долине. "
FRENCH = "Les meules tournent lentement là où l'été s'achève déjà, et le blé devient farine. "
JAPANESE = "石臼はゆっくりと回り、穀物は粉になる。この谷では昔からそうだった。"
KOREAN = "맷돌은 천천히 돌고 곡식은 가루가 된다. 이 골짜기에서는 늘 그랬다. "
GREEK = "Οι μυλόπετρες γυρίζουν αργά και το σιτάρι γίνεται αλεύρι, όπως πάντα. "
POLISH = "Kamienie młyńskie obracają się powoli, a zboże staje się mąką, jak zawsze było. "
WRITTEN = [
    (HANS, "gb18030"), (HANT, "big5hkscs"), (JAPANESE, "cp932"), (JAPANESE, "euc_jp"), (KOREAN, "cp949"),
    (RUSSIAN, "cp1251"), (RUSSIAN, "koi8-r"), (RUSSIAN, "cp866"), (RUSSIAN, "iso8859-5"), (FRENCH, "cp1252"),
    (GREEK, "cp1253"), (POLISH, "iso8859-2"), (POLISH, "cp1250"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "codec"), WRITTEN)
@pytest.mark.parametrize("declared", [None, "utf-8", "iso-8859-1", "gb2312", "shift_jis", "windows-1251"])
def test_one_sentence_is_enough_whatever_is_declared(text, codec, declared):
    found = decode(text.encode(codec), f"text/html; charset={declared}" if declared else None)
    assert found.text == text
    assert found.broken == 0 and not found.repaired


def test_header_and_meta_that_contradict_each_other_are_settled_by_the_bytes():
    for header, meta in (("big5", "gb2312"), ("gb2312", "big5"), ("utf-8", "gbk"), ("iso-8859-1", "utf-8")):
        for text, codec in ((HANS, "gb18030"), (HANT, "big5hkscs")):
            page = f'<head><meta charset="{meta}"></head>{text}'
            assert decode(page.encode(codec), f"text/html; charset={header}").text == page


def test_what_decided_is_told():
    body = HANS.encode("gb18030")
    assert decode(body, "text/html; charset=gb2312").how == "header"
    assert decode(b'<meta charset="gbk">' + body, "text/html").how == "meta"
    assert decode(body, "text/html; charset=big5").how == "evidence"
    assert decode(body).how == "detected"
    assert decode(HANS.encode()).how == "utf8"
    assert decode(HANS.encode("utf-8-sig")).how == "bom"
    assert decode(b"caf\xe9 ").how in ("default", "detected")


@pytest.mark.parametrize(
    ("page", "charset"),
    [
        (b'<meta charset="gb2312">', "gb18030"),
        (b"<META HTTP-EQUIV='Content-Type' CONTENT='text/html;charset=Big5'>", "big5hkscs"),
        (b"<!-- <meta charset=gbk> --><meta charset=euc-jp>", "euc_jp"),
        (b"<!-- <meta charset=gbk>", None),
        (b"<meta name=x><meta charset=utf-16>", "utf-8"),
        (b'<?xml version="1.0" encoding="Shift_JIS"?><html>', "cp932"),
        (b"<meta charset=no-such>", None),
        (b"<meta charset=" + b"x" * 9_000 + b">", None),
        (b" " * 9_000 + b"<meta charset=gbk>", None),
    ],
)
def test_the_page_s_declaration_is_found_as_browsers_find_it(page, charset):
    assert meta_charset(page) == charset


def test_the_header_s_charset_may_be_quoted_or_absent():
    assert header_charset('text/html; Charset="GB2312"; x=y') == "gb18030"
    assert header_charset("text/html") is None and header_charset(None) is None


@pytest.mark.parametrize("codec", ["gb18030", "big5hkscs", "cp932", "euc_jp", "cp949"])
@pytest.mark.parametrize("broken", [b"\x81", b"\xff", b"\xe3"])
def test_a_stray_byte_costs_a_few_characters_and_not_the_rest_of_the_line(codec, broken):
    line = {"gb18030": HANS, "big5hkscs": HANT, "cp949": KOREAN * 4}.get(codec, JAPANESE * 4)
    line = line.encode(codec, "ignore").decode(codec)
    body = line.encode(codec)
    at = len(line[: len(line) // 3].encode(codec))
    found = decode(body[:at] + broken + body[at:], f"text/html; charset={codec}")
    assert found.text[-len(line) // 2 :] == line[-len(line) // 2 :]
    assert found.text[: len(line) // 3 - 2] == line[: len(line) // 3 - 2]
    assert found.broken <= 2


@pytest.mark.parametrize("text", ["It’s flour, isn’t it", HANS, "über"])
def test_utf8_that_is_cut_or_has_one_broken_byte_is_still_utf8(text):
    cut = (text + "坊").encode()[:-1]
    assert decode(cut, "text/html; charset=gbk").text == text + "\ufffd"
    for declared in ("text/html", "text/html; charset=utf-8"):
        page = ("<p>" + text + "</p>") * 3 + "<p>"
        found = decode(page.encode() + b"\xff</p>", declared)
        assert (found.text, found.charset) == (page + "\ufffd</p>", "utf-8")


def test_circled_numbers_in_japanese_euc_are_read():
    page = JAPANESE.encode("euc_jp") + b"\xad\xa1"
    assert decode(page, "text/html; charset=euc-jp").text == JAPANESE + "①"


def test_undefined_bytes_of_a_one_byte_charset_are_controls_as_in_browsers():
    assert decode(b"d\xe9j\xe0 vu \x81 o\xf9", "text/html; charset=windows-1252").text == "déjà vu \x81 où"


def test_escaped_japanese_is_read_though_all_its_bytes_are_ascii():
    body = JAPANESE.encode("iso2022_jp")
    assert decode(body, "text/html; charset=iso-2022-jp").text == JAPANESE
    assert decode(body).text == JAPANESE


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf16_is_known_by_its_zeros_and_not_by_its_name(codec):
    page = f"<html><head><title>{HANS[:20]}</title></head>" + "<p>flour and grain</p>" * 20
    assert decode(page.encode(codec), "text/html; charset=gbk").text == page
    assert decode(page.encode("utf-8"), f"text/html; charset={codec}").text == page


@pytest.mark.parametrize("text", [HANS * 3, RUSSIAN * 3, FRENCH * 5, JAPANESE * 3])
@pytest.mark.parametrize("wrong", ["cp1252", "latin-1"])
def test_utf8_that_was_encoded_twice_is_put_right(text, wrong):
    once = "".join(bytes((octet,)).decode(wrong, "ignore") or chr(octet) for octet in text.encode())
    twice = once.encode()
    found = decode(twice, "text/html; charset=utf-8")
    assert found.text == text and found.repaired


def test_gb_read_as_western_letters_and_stored_as_utf8_is_put_right():
    text = HANS.replace("㙍", "")
    found = decode(text.encode("gbk").decode("latin-1").encode(), "text/html; charset=utf-8")
    assert found.text == text and found.repaired


@pytest.mark.parametrize(
    "text",
    [
        FRENCH * 9,
        POLISH * 9,
        "Ein „Ã©“ statt é: so sieht ein doppelt kodiertes é aus. Über Größe, Maß und Füße. " * 5,
        "© 2024 » Ñandú · «año» — ¿qué? " * 9,
        "ÄÖÜ ÄÄ ÖÖ Øå æø " * 20,
    ],
)
def test_sound_western_pages_are_left_as_they_are(text):
    found = decode(text.encode(), "text/html; charset=utf-8")
    assert found.text == text and not found.repaired


@given(st.binary(max_size=600), st.sampled_from([None, "gbk", "big5", "utf-16", "euc-jp", "iso-2022-jp", "hz-gb-2312"]))
@settings(deadline=None, max_examples=300)
def test_any_bytes_under_any_label_become_text_without_surrogates(body, label):
    found = decode(body, f"text/html; charset={label}" if label else None)
    found.text.encode("utf-8", "strict")
    assert found.how in ("bom", "utf8", "header", "meta", "evidence", "detected", "default")


HOSTILE = {
    "broken pairs": b"\x81\x20" * (5 << 19),
    "lead bytes": b"\xff" * (5 << 20),
    "open comments": b"<!--" * (5 << 18) + b"\xe9",
    "metas": b"<meta " * (5 << 18) + b"\xe9",
    "latin pairs": "Ã©é".encode() * (5 << 18),
    "undefined": b"\x81\xe9" * (5 << 19),
    "escapes": b"\x1b$B" * (5 << 18),
    "gb with errors": HANS.encode("gb18030") * 2_000 + b"\xff<" * (5 << 17),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_five_megabytes_of_trouble_take_linear_time(name):
    body = HOSTILE[name]
    decode(body[:1_000])
    begun = time.process_time()
    decode(body, "text/html; charset=gbk")
    assert time.process_time() - begun < 3.0
