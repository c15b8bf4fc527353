"""Names of charsets mean what they mean to a browser."""

from __future__ import annotations

import codecs

import pytest

from pipelines.crawl.labels import MULTIBYTE, SHIFTED, _codecs, codec_of


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("gb2312", "gb18030"), (" GBK ", "gb18030"), ("cp936", "gb18030"), ("Big5", "big5hkscs"),
        ("big5-hkscs", "big5hkscs"), ("Shift_JIS", "cp932"), ("windows-31j", "cp932"), ("EUC-KR", "cp949"),
        ("ks_c_5601-1987", "cp949"), ("ISO-8859-1", "cp1252"), ("us-ascii", "cp1252"), ("iso-8859-9", "cp1254"),
        ("tis-620", "cp874"), ("iso-8859-8-i", "iso8859-8"), ("koi8-ru", "koi8-u"), ("x-mac-ukrainian", "mac-cyrillic"),
        ("utf8", "utf-8"), ("utf-16", "utf-16-le"), ("unicodeFFFE", "utf-16-be"),
    ],
)  # fmt: skip
def test_a_label_has_its_codec(label, codec):
    assert codec_of(label) == codec


@pytest.mark.parametrize("label", ["", "utf-7", "rot13", "hex", "idna", "unicode_escape", "no-such", "gbk2", "big5\0"])
def test_other_names_have_none(label):
    assert codec_of(label) is None


def test_every_codec_is_a_text_codec_under_its_own_name():
    assert len(_codecs()) > 230
    for codec in {*_codecs().values(), *MULTIBYTE, *SHIFTED}:
        assert codecs.lookup(codec).name == codec and codecs.lookup(codec)._is_text_encoding
