from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.datasets.content import add_sums, rows_sum, table_content_sum

ROW = st.fixed_dictionaries(
    {
        "id": st.none() | st.text(max_size=8),
        "n": st.none() | st.integers(-(2**63), 2**63 - 1),
        "x": st.none() | st.floats(),
        "b": st.none() | st.booleans(),
        "raw": st.none() | st.binary(max_size=5),
    }
)
SCHEMA = pa.schema(
    [("id", pa.string()), ("n", pa.int64()), ("x", pa.float64()), ("b", pa.bool_()), ("raw", pa.binary())]
)


def table(rows) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


@given(st.lists(ROW, max_size=12), st.integers(0, 12), st.randoms())
def test_the_sum_depends_neither_on_order_nor_on_cuts_nor_on_column_order(rows, cut, random):
    whole = table_content_sum(table(rows))
    assert add_sums([table_content_sum(table(rows[:cut])), table_content_sum(table(rows[cut:]))]) == whole
    shuffled = list(rows)
    random.shuffle(shuffled)
    turned = table(shuffled).select(["raw", "x", "id", "b", "n"])
    assert table_content_sum(turned) == whole


@given(ROW, ROW)
def test_rows_that_differ_have_different_sums(a, b):
    same = repr(sorted(_canonical(a).items())) == repr(sorted(_canonical(b).items()))
    assert (table_content_sum(table([a])) == table_content_sum(table([b]))) == same


def _canonical(row):
    return {k: (v + 0.0 if isinstance(v, float) else v) for k, v in row.items() if v is not None}


def test_an_added_null_column_changes_nothing_and_a_value_moved_to_another_column_does():
    base = pa.table({"a": ["x"], "b": [None]}, schema=pa.schema([("a", pa.string()), ("b", pa.string())]))
    assert table_content_sum(base) == table_content_sum(pa.table({"a": ["x"]}))
    assert table_content_sum(base) != table_content_sum(pa.table({"b": ["x"]}))


def test_encodings_of_the_same_values_agree():
    plain = pa.table({"a": ["x", "y", "x"]})
    coded = pa.table({"a": plain["a"].dictionary_encode()})
    assert table_content_sum(plain) == table_content_sum(coded)
    assert table_content_sum(pa.table({"n": pa.array([1], pa.int32())})) == table_content_sum(pa.table({"n": [1]}))
    zeros = [table_content_sum(pa.table({"x": [z]})) for z in (0.0, -0.0)]
    assert zeros[0] == zeros[1]


def test_a_column_with_an_offset_and_nulls_is_read_where_it_lies():
    column = pa.array([None, "a", None, "bb"])
    assert table_content_sum(pa.table({"a": column.slice(1)})) == table_content_sum(pa.table({"a": ["a", None, "bb"]}))


def test_rows_sum_sees_order():
    assert rows_sum(["a", "b"]) != rows_sum(["b", "a"]) != rows_sum(["ab", ""])


def test_the_format_is_pinned():
    """A stored sum must mean the same for ever: this value may only change with a new format number."""
    pinned = pa.table({"id": ["一", None], "n": [1, -1], "x": [0.5, None]})
    assert table_content_sum(pinned) == "2-6ebd82a9decadc97049aa16972f653d1"
