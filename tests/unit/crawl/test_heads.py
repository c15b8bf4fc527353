"""A header that is searched for is the header that reading line by line gives."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from pipelines.crawl.heads import NO_HEADERS, Headers, parse_http_head, parse_warc_head

_NAMES = ["a", "A", "ab", "b ", " b", "\ta", "content-type", "Content-Type", "x:a", "é", "a\r", "\va"]
_LINES = st.lists(
    st.tuples(
        st.sampled_from(_NAMES),
        st.sampled_from([":", ": ", " : ", "", ":\t", ":\n ", ":\r\n\t"]),
        st.sampled_from(["", "1", "two words", " x ", "a: b", "\na:c", "é", "\r", "folded\r\n more", "end\n\tmore"]),
        st.sampled_from(["\r\n", "\n", "\r\r\n"]),
    )
)


@given(_LINES)
def test_searching_and_reading_give_the_same(lines):
    raw = b"WARC/1.1\r\n" + "".join("".join(line) for line in lines).encode() + b"\r\n\r\n"
    whole = dict(Headers(raw, charset="utf-8"))
    for name in {"a", "ab", "b", "content-type", "x", "é", "absent", *whole}:
        fresh = Headers(raw, charset="utf-8")
        assert fresh.get(name) == whole.get(name)
        assert (name in fresh) == (name in whole)
    assert pickle.loads(pickle.dumps(Headers(raw, charset="utf-8"))) == whole


def test_the_first_of_a_repeated_name_wins_and_folds_are_joined():
    headers = Headers(b"HTTP/1.1 200 OK\r\nA: 1\r\na: 2\r\nB: x\r\n y\r\n\tz\r\nC : 3\r\n\r\n", charset="latin-1")
    assert dict(headers) == {"a": "1", "b": "x y z", "c": "3"}
    assert (headers["b"], headers.get("c"), headers.get("d", "none"), len(headers)) == ("x y z", "3", "none", 3)
    assert dict(NO_HEADERS) == {} and "a" not in NO_HEADERS


def test_angle_brackets_leave_the_header_too():
    headers, uri = parse_warc_head(b"WARC/1.0\r\nWARC-Target-URI: <http://mill.example/>\r\n\r\n")
    assert uri == b"http://mill.example/" and headers["warc-target-uri"] == "http://mill.example/"


def test_a_status_is_three_digits_or_none():
    for line, status in ((b"HTTP/1.1 200 OK", 200), (b"http/2 404", 404), (b"HTTP/1.1 2000", None), (b"ICY 200", None)):
        assert parse_http_head(line + b"\r\n\r\n")[0] == status
