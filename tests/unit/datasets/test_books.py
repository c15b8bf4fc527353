from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.datasets.books import Counters, Equation, books_value, check_books, total_counters
from pipelines.datasets.manifest import COUNTERS
from pipelines.errors import IntegrityError

EQUATIONS = {"documents": Equation(total="read", terms=("kept", "rejected", "failed"))}


def counters(read, kept, rejected=()) -> Counters:
    c = Counters()
    c.add("documents.read", read)
    c.add("documents.kept", kept)
    c.add("documents.rejected.too_short", rejected)
    return c


def test_books_that_balance_pass_and_nest_by_reason():
    c = counters([b"a", b"b", b"c"], [b"a", b"b"], [b"c"])
    check_books("here", c.values, EQUATIONS)
    book = books_value(c.values, EQUATIONS)["documents"]
    assert book == {"read": 3, "kept": 2, "rejected": {"too_short": 1}, "failed": 0, "set_sum": book["set_sum"]}


def test_a_lost_record_is_seen():
    with pytest.raises(IntegrityError, match="read 3 = kept 1"):
        check_books("here", counters([b"a", b"b", b"c"], [b"a"], [b"c"]).values, EQUATIONS)


def test_one_lost_and_one_doubled_record_do_not_cancel():
    with pytest.raises(IntegrityError, match="not the records"):
        check_books("here", counters([b"a", b"b", b"c"], [b"a", b"a"], [b"c"]).values, EQUATIONS)


@given(
    st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=3)), max_size=6), max_size=8),
    st.integers(0, 8),
)
def test_totals_over_a_column_equal_totals_over_objects(all_units, cut):
    expected = Counters()
    rows = []
    for unit in all_units:
        c = Counters()
        for name, key in unit:
            c.add(name, [key])
            expected.add(name, [key])
        rows.append(c.rows() or None)
    column = pa.chunked_array([pa.array(rows[:cut], COUNTERS), pa.array(rows[cut:], COUNTERS)])
    assert total_counters(column) == expected.values
