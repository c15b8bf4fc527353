import uuid

import numpy as np
import pyarrow as pa

from pipelines.datasets.store import open_store
from pipelines.dedup.nodes import (
    generation_starts,
    history_hashes,
    number_parts,
    owners,
    put_chunks,
    put_table,
    read_chunks,
    read_ids,
)


def row(name, generation, rows=2):
    """A row of a part list."""
    return {
        "key": f"{name}.parquet",
        "input": name,
        "unit": name,
        "generation": generation,
        "rows": rows,
        "sha256": name * 2,
    }


def test_nodes_of_an_appended_crawl_come_after_all_earlier_ones():
    early = [(row("b", 1), row("b", 1)), (row("c", 1, 3), row("c", 1, 3))]
    late = [(row("a", 4), row("a", 4)), *early]
    before, after = number_parts(early), number_parts(late)
    assert before["first_node"].to_pylist() == [0, 2]
    assert after.slice(0, 2).equals(before) and after["first_node"].to_pylist() == [0, 2, 5]
    assert after["generation"].to_pylist() == [0, 0, 1]
    assert generation_starts(after).tolist() == [5]


def test_a_part_without_rows_owns_no_node():
    rows = (("a", 1, 0), ("b", 1, 2), ("c", 2, 0))
    parts = number_parts([(row(*one), row(*one)) for one in rows])
    assert owners(parts, np.array([0, 1])).tolist() == [1, 1]
    assert generation_starts(parts).tolist() == [2]


def test_a_history_depends_on_its_own_and_earlier_signatures_only():
    early = [(row("b", 1), row("b", 1)), (row("c", 1), row("c", 1))]
    late = [*early, (row("a", 4), row("a", 4))]
    assert history_hashes(late)[1] == history_hashes(early[::-1])[1]
    assert history_hashes(late)[4] != history_hashes(late)[1]
    assert history_hashes(early[:1])[1] != history_hashes(early)[1]


def test_ids_are_read_by_node_over_parts():
    place = open_store(f"memory://{uuid.uuid4().hex}")
    keys = [put_table(place, "s", pa.table({"id": [f"{name}{i}" for i in range(3)]}))["key"] for name in "ab"]
    parts = number_parts([(row(n, 1, 3), row(n, 1, 3) | {"key": key}) for n, key in zip("ab", keys, strict=True)])
    assert read_ids(place, parts, np.array([1, 2, 3, 5])).to_pylist() == ["a1", "a2", "b0", "b2"]
    assert read_ids(place, parts, np.array([], np.int64)).to_pylist() == []


def test_chunks_are_read_back_by_range_of_nodes():
    place, count = open_store(f"memory://{uuid.uuid4().hex}"), 25
    table = pa.table({"node": [i // 2 * 3 for i in range(count)]})
    put_chunks(place, "p", "node", table, chunk_rows=4)
    keys = [stored.key for stored in place.list("p/")]
    assert len(keys) == 7
    for span in ((0, 100), (9, 10), (10, 12), (12, 40), (73, 100)):
        found = read_chunks(place, "p", keys, "node", span, table.schema)["node"].to_pylist()
        assert sorted(found) == [node for node in table["node"].to_pylist() if span[0] <= node < span[1]]
