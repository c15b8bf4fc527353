"""Texts are cut into units much as spaCy cuts English, and character by character where there are no spaces."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.filters.reader import units_of_lines


def _same(left: str, right: str) -> bool:
    """Whether two texts are cut into the same units."""
    a, b = units_of_lines([left, right])
    return a == b


@pytest.mark.parametrize(
    ("text", "apart"),
    [
        ("Don't stop, now.", "do n't stop , now ."),
        ("well-known and/or thing", "well - known and / or thing"),
        ("(really) costs $3.50...", "( really ) costs $ 3.50 ..."),
        ("Washington,D.C.", "washington , d.c."),
        ("See http://a.b/c-d, now", "see http://a.b/c-d , now"),
        ("用Python写脚本", "用 python 写 脚 本"),
        ("ＡＢＣ，ｄｅｆ", "abc ， def"),
        ("one--two 3-4", "one -- two 3 - 4"),
        ("你好。再见！", "你 好 。 再 见 ！"),
    ],
)
def test_a_text_is_cut_as_its_pieces_set_apart(text, apart):
    assert _same(text, apart)


def test_equal_words_have_equal_hashes_and_others_do_not():
    (hashes,) = units_of_lines(["mill Mill MILL mills 磨 坊"])
    assert hashes[0] == hashes[1] == hashes[2]
    assert len(set(hashes)) == 4


def test_hashes_of_many_words_do_not_collide():
    (hashes,) = units_of_lines([" ".join(f"w{n}" for n in range(20_000))])
    assert len(np.unique(np.array(hashes, np.uint64))) == 20_000
