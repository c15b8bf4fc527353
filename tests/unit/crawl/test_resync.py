"""A broken byte inside a double-byte text is found and given up alone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.crawl.resync import read_broken

LINE = "磨坊把谷物磨成面粉，过程分为清理、研磨和筛分三步。"


@pytest.mark.parametrize("at", range(2, 48, 5))
def test_a_missing_byte_costs_a_few_characters(at):
    body = LINE.encode("gbk")
    read = read_broken(body[:at] + body[at + 1 :], "gb18030")
    assert len(read) >= len(LINE) - 1
    assert sum(a != b for a, b in zip(reversed(read), reversed(LINE[at // 2 + 4 :]), strict=False)) == 0
    assert read[: max(at // 2 - 3, 0)] == LINE[: max(at // 2 - 3, 0)]


def test_sound_lines_around_a_broken_one_are_untouched():
    body = f"<p>{LINE}</p>\n".encode("gbk")
    read = read_broken(body + b"<p>\xff\xd6</p>\n" + body, "gb18030")
    assert read.startswith(f"<p>{LINE}</p>\n<p>") and read.endswith(f"</p>\n<p>{LINE}</p>\n")


def test_a_page_cut_inside_a_character_loses_that_one():
    assert read_broken(LINE.encode("gbk")[:-1], "gb18030") == LINE[:-1] + "\ufffd"


@given(st.binary(max_size=200), st.sampled_from(["gb18030", "big5hkscs", "cp932", "euc_jp", "cp949"]))
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_read_and_ascii_between_lines_stays(body, charset):
    read = read_broken(b"<p>\n" + body + b"\n</p>", charset)
    assert read.startswith("<p>\n") and read.endswith("\n</p>")


@pytest.mark.parametrize("piece", [b"\xff", b"\xb0\xff<", b"\x81\x39\x81\x39\x81", b"\xb0a\xff "])
def test_five_megabytes_of_broken_bytes_take_linear_time(piece):
    body = piece * ((5 << 20) // len(piece))
    begun = time.process_time()
    read_broken(body, "gb18030")
    assert time.process_time() - begun < 2.0
