"""Dates as pages and addresses write them."""

from __future__ import annotations

import pytest

from pipelines.crawl.dates import date_in_url, read_date

LATEST = "2026-11-03"


@pytest.mark.parametrize(
    ("written", "date"),
    [
        ("2024-03-05", "2024-03-05"), ("2024-3-5 10:00", "2024-03-05"), ("20240305", "2024-03-05"),
        ("20240305103000", None), ("2024/03/05", "2024-03-05"), ("2024.03.05", "2024-03-05"),
        ("发布于2024年3月5日", "2024-03-05"), ("Tue, 05 Mar 2024 08:00:00 GMT", "2024-03-05"),
        ("March 5, 2024", "2024-03-05"), ("5th March 2024", "2024-03-05"), ("March 2024", None), ("2024", None),
        ("2026-11-04", None), ("1066-10-14", None), ("2023-02-29", None), ("05/03/2024", None), ("", None),
    ],
)  # fmt: skip
def test_a_date_is_read(written, date):
    assert read_date(written, LATEST) == date


@pytest.mark.parametrize(
    ("path", "date"),
    [
        ("2024/05/06/flour.html", "2024-05-06"), ("2024-05-06-flour", "2024-05-06"),
        ("n/2024/0506/c1-2.html", "2024-05-06"),
        ("20240506/1.shtml", "2024-05-06"), ("2024-05/06/c_1.htm", "2024-05-06"), ("202405/06/t.html", "2024-05-06"),
        ("a20240506.html", "2024-05-06"), ("2024/13/06/", None),
        ("item/20240506123", None), ("2024/05/", None), ("", None),
    ],
)  # fmt: skip
def test_a_date_in_an_address_is_read(path, date):
    assert date_in_url(f"https://mill.example/{path}", LATEST) == date
    assert date_in_url(f"https://2024-05-06.example/{'x' * 3}", LATEST) is None
