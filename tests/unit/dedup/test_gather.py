import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.datasets.store import open_store
from pipelines.dedup.gather import gather, read_gathered
from pipelines.errors import IntegrityError

VALUES = [None if i % 7 == 3 else f"text {i} " + "中文" * (i % 5) for i in range(40)]


def part(group_rows, kind=None):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": pa.array(VALUES, kind or pa.string())}), sink, row_group_size=group_rows)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("group_rows", [1, 7, 40])
@pytest.mark.parametrize("rows", [[], [0], [39], [3, 4, 20, 38], list(range(40))])
def test_any_rows_of_what_was_gathered_are_read_back(group_rows, rows):
    store = open_store(f"memory://{uuid.uuid4().hex}")
    nodes = np.array(rows, np.int64) + 100
    store.put("part", part(group_rows))
    store.put("g", gather(store, "part", "text", 100, nodes))
    for some in (nodes, nodes[::2], nodes[:0]):
        expected = [(VALUES[node - 100] or "").encode() for node in some.tolist()]
        assert [bytes(value) for value in read_gathered(store, "g", some)] == expected


def test_values_far_apart_are_read_in_ranges_of_their_own():
    store = open_store(f"memory://{uuid.uuid4().hex}")
    values = [chr(97 + i) * 50_000 for i in range(8)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": values}), sink)
    store.put("part", sink.getvalue().to_pybytes())
    store.put("g", gather(store, "part", "text", 0, np.arange(8)))
    assert [v[:1] + v[-1:] for v in read_gathered(store, "g", np.array([0, 1, 6]))] == [b"aa", b"bb", b"gg"]


def test_what_was_not_gathered_or_is_not_there_is_an_error():
    store = open_store(f"memory://{uuid.uuid4().hex}")
    store.put("part", part(7))
    store.put("g", gather(store, "part", "text", 0, np.array([1, 5])))
    for missing in ([2], [1, 6]):
        with pytest.raises(IntegrityError):
            read_gathered(store, "g", np.array(missing))
    with pytest.raises(IntegrityError):
        gather(store, "part", "text", 0, np.array([39, 40]))
