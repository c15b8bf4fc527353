import random
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.datasets.parts import read_parquet
from pipelines.datasets.ranged import RangedParquet, read_columns
from pipelines.datasets.store import MemoryStore, open_store
from pipelines.errors import IntegrityError, MissingObjectError

COLUMNS = ("id", "text", "dedup.keep", "digest", "list", "same")


class Counting(MemoryStore):
    """Tells how many bytes were read."""

    def __init__(self):
        super().__init__(f"memory://{uuid.uuid4().hex}")
        self.read = 0

    def get_ranges(self, key, ranges):
        self.read += sum(end - first for first, end in ranges)
        return super().get_ranges(key, ranges)


def table(rows, seed=0):
    rng = random.Random(seed)
    texts = ["".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(rng.randrange(2000))) for _ in range(rows)]
    return pa.table(
        {
            "id": [f"{i:032x}" for i in range(rows)],
            "text": pa.array([None if i % 7 == 3 else text for i, text in enumerate(texts)], pa.large_string()),
            "dedup.keep": [i % 3 == 0 for i in range(rows)],
            "digest": pa.array([rng.randbytes(64) for _ in range(rows)], pa.binary(64)),
            "list": pa.array([[i] * (i % 4) for i in range(rows)], pa.list_(pa.int64())),
            "same": pa.array(["zh"] * rows, pa.string()),
        }
    )


def stored(rows, group_rows, **options):
    store = Counting()
    sink = pa.BufferOutputStream()
    pq.write_table(table(rows), sink, row_group_size=group_rows, write_page_checksum=True, **options)
    store.put("part", sink.getvalue().to_pybytes())
    return store


@given(
    rows=st.integers(1, 60),
    group_rows=st.integers(1, 60),
    columns=st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=4, unique=True),
    chosen=st.data(),
    compression=st.sampled_from(["zstd", "none"]),
)
def test_any_columns_of_any_groups_are_those_of_the_whole(rows, group_rows, columns, chosen, compression):
    store = stored(rows, group_rows, compression=compression)
    part = RangedParquet(store, "part")
    assert sum(part.group_rows) == rows
    ends = np.cumsum([0, *part.group_rows])
    groups = chosen.draw(st.lists(st.integers(0, len(part.group_rows) - 1), max_size=3, unique=True).map(sorted))
    whole = read_parquet(store.get("part"), columns)
    pieces = [whole.slice(ends[group], part.group_rows[group]) for group in groups]
    assert part.read(columns, groups).equals(pa.concat_tables([whole.slice(0, 0), *pieces]))
    assert read_columns(store, "part", columns).equals(whole)


def test_only_what_is_asked_for_is_read():
    store = stored(4000, 500)
    size = store.head("part").size_bytes
    read_columns(store, "part", ["digest"])
    assert 4000 * 64 < store.read < 4000 * 64 * 1.1 + 70_000  # and the footer
    store.read = 0
    RangedParquet(store, "part").read(["text"], [3])
    assert store.read < size / 8 + 70_000


def test_a_footer_longer_than_the_first_read_is_read_whole():
    names = [f"column_{i:04d}" for i in range(3000)]
    store = Counting()
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: [1, 2] for name in names}), sink)
    store.put("part", sink.getvalue().to_pybytes())
    assert read_columns(store, "part", names[5:7]).to_pydict() == {name: [1, 2] for name in names[5:7]}


@pytest.mark.parametrize("body", [b"", b"PAR1", b"x" * 5000, b"PAR1" + b"\xff" * 8 + b"PAR1"])
def test_what_is_no_parquet_object_is_refused(body):
    store = Counting()
    store.put("part", body)
    with pytest.raises(IntegrityError):
        RangedParquet(store, "part")


def test_absent_objects_absent_columns_and_changed_pages_are_errors():
    store = stored(500, 100)
    with pytest.raises(MissingObjectError):
        read_columns(store, "other", ["id"])
    with pytest.raises(IntegrityError, match="no column nothing"):
        read_columns(store, "part", ["id", "nothing"])
    body = bytearray(store.get("part"))
    at = body.index(store.get("part")[2000:2040])
    body[at] ^= 1
    store.put("part", bytes(body))
    with pytest.raises(IntegrityError):
        read_columns(store, "part", list(COLUMNS))


@pytest.mark.s3
def test_a_bucket_gives_the_same_by_ranges(s3_prefix):
    store = open_store(s3_prefix)
    body = stored(700, 100).get("part")
    store.put("datasets/part", body)
    for columns in (["digest"], ["text", "id"], list(COLUMNS)):
        assert read_columns(store, "datasets/part", columns).equals(read_parquet(body, columns))
    assert RangedParquet(store, "datasets/part").read(["text"], [6]).equals(read_parquet(body, ["text"]).slice(600))
    with pytest.raises(MissingObjectError):
        RangedParquet(store, "datasets/other")
