import uuid

import networkx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.datasets.store import open_store
from pipelines.dedup.bands import BandPlan
from pipelines.dedup.buckets import (
    EDGES,
    EXACT_KEYS,
    band_keys,
    bucket_rows,
    candidate_edges,
    sign_documents,
    signatures_schema,
    star_table,
    survivor_places,
    verify_edges,
)
from pipelines.dedup.nodes import (
    history_hashes,
    number_parts,
    put_decisions,
    put_table,
    read_decisions,
    read_nodes,
    read_order,
)
from pipelines.dedup.survivors import DECISIONS, survivor_rank

PLAN = BandPlan(num_bands=8, rows_per_band=4)
DATES = st.sampled_from([None, "2026-11-03T10:00:00Z", "2026-11-03T10:01:00Z", "2025-01-01T00:00:00Z", "not a date"])


def store():
    return open_store(f"memory://{uuid.uuid4().hex}")


def documents(texts, dates=None):
    count = len(texts)
    return pa.table(
        {
            "id": [f"{i:032x}" for i in range(count)],
            "text": pa.array(texts, pa.string()),
            "date": pa.array(dates or [None] * count, pa.string()),
            "file": ["f"] * count,
            "offset": list(range(count)),
        }
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


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), DATES), min_size=1, max_size=12))
def test_a_place_sorts_as_the_survivor_order_but_for_ties(rows):
    characters = pa.array([length for length, _ in rows], pa.int64())
    date = pa.array([when for _, when in rows], pa.string())
    place = survivor_places(characters, date).to_numpy()
    assert ((place >= 0) & (place < 1 << 49)).all()
    valid = [when if when and when[0] == "2" else None for _, when in rows]
    table = pa.table(
        {
            "generation": [0] * len(rows),
            "characters": characters,
            "date": pa.array(valid, pa.string()),
            "id": [f"{i:032x}" for i in range(len(rows))],
            "file": ["f"] * len(rows),
            "offset": [0] * len(rows),
        }
    )
    rank = survivor_rank(table)
    order = np.argsort(rank)
    assert (np.diff(place[order]) >= 0).all()


def test_signatures_have_a_row_for_each_document_in_its_order():
    texts = ["one two three four five six", None, "short", "一二三四五六七"]
    signed = sign_documents(documents(texts), PLAN)
    assert signed.schema.equals(signatures_schema(PLAN))
    assert signed["characters"].to_pylist() == [27, 0, 5, 7]
    assert [value is None for value in signed["band_000"].to_pylist()] == [False, True, True, False]
    assert [value is None for value in signed["exact_high"].to_pylist()] == [False, True, False, False]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12),
    st.integers(1, 8),
)
def test_dropping_exact_copies_from_the_candidates_loses_no_component(texts, step):
    """All bands and exact digests over texts that often agree: components with and without the short cut."""
    words = [f"w{first} " * 6 + f"v{second} x y z a b" + "." * (i % 2) for i, (first, second) in enumerate(texts)]
    place, keys = store(), band_keys(PLAN)
    part = {
        "signatures": put_table(place, "s", sign_documents(documents(words), PLAN))["key"],
        "generation": 0,
        "first_node": 0,
    }
    exact = star_table(bucket_rows(place, part, EXACT_KEYS))
    groups = [keys[start : start + step] for start in range(0, len(keys), step)]
    bands = pa.concat_tables([star_table(bucket_rows(place, part, group)) for group in groups])
    fewer = candidate_edges(bands, exact)

    def components(*tables):
        graph = networkx.Graph()
        graph.add_nodes_from(range(len(words)))
        for table in tables:
            graph.add_edges_from(zip(table["centre"].to_pylist(), table["member"].to_pylist(), strict=True))
        return {frozenset(found) for found in networkx.connected_components(graph)}

    assert components(exact, fewer) == components(exact, bands)
    assert not set(fewer["member"].to_pylist()) & set(exact["member"].to_pylist())
    alone = pa.concat_tables([star_table(bucket_rows(place, part, [name])) for name in keys])
    assert candidate_edges(alone, exact).equals(fewer)


def test_a_pair_at_the_threshold_is_a_duplicate():
    place = store()
    texts = ["a b c d e f", "a b c d e f g", "z y x w v u"]
    pq_key = put_table(place, "d", documents(texts))["key"]
    parts = number_parts([(row("a", 1, 3) | {"key": pq_key}, row("a", 1, 3))])
    edges = pa.table({"centre": [1, 1], "member": [0, 2]}, schema=EDGES)
    pairs = verify_edges(place, parts, edges, 2 / 3)
    assert pairs.to_pylist() == [{"centre": 1, "member": 0, "similarity": 2 / 3}]
    assert verify_edges(place, parts, edges, 0.67).num_rows == 0
    assert verify_edges(place, parts, edges.slice(0, 0), 0.5).num_rows == 0


def test_nodes_of_an_appended_crawl_come_after_all_earlier_ones():
    early = [(row("b", 1), row("b", 1)), (row("c", 1, 3), row("c", 1, 3))]
    late = [(row("a", 4), row("a", 4)), *early]
    before, after = number_parts(early), number_parts(late)
    assert before["first_node"].to_pylist() == [0, 2]
    assert after.slice(0, 2).equals(before) and after["first_node"].to_pylist() == [0, 2, 5]
    assert after["generation"].to_pylist() == [0, 0, 1]


def test_a_history_depends_on_its_own_and_earlier_signatures_only():
    early = [(row("b", 1), row("b", 1)), (row("c", 1), row("c", 1))]
    late = [*early, (row("a", 4), row("a", 4))]
    assert history_hashes(late)[1] == history_hashes(early[::-1])[1]
    assert history_hashes(late)[4] != history_hashes(late)[1]
    assert history_hashes(early[:1])[1] != history_hashes(early)[1]


def test_rows_are_read_by_node_over_parts():
    place = store()
    keys = [put_table(place, "d", documents([f"{name}{i}" for i in range(3)]))["key"] for name in "ab"]
    pairs = [(row(name, 1, 3) | {"key": key}, row(name, 1, 3)) for name, key in zip("ab", keys, strict=True)]
    parts = number_parts(pairs)
    found = read_nodes(place, parts, np.array([1, 2, 3, 5]), "documents", ["text"])
    assert found["text"].to_pylist() == ["a1", "a2", "b0", "b2"]
    assert read_order(place, parts, np.array([], np.int64)).num_rows == 0


def test_decisions_are_read_back_by_range_of_nodes():
    place, count = store(), 25
    table = pa.table(
        {
            "node": [3 * i for i in range(count)],
            "keep": [True] * count,
            "cluster": ["c"] * count,
            "match": pa.nulls(count, pa.string()),
            "similarity": pa.nulls(count, pa.float64()),
        },
        schema=DECISIONS,
    )
    put_decisions(place, "p", table, chunk_rows=4)
    keys = [stored.key for stored in place.list("p/")]
    assert len(keys) == 7
    for first, end in ((0, 100), (9, 10), (10, 12), (12, 40), (73, 100)):
        found = read_decisions(place, "p/", keys, first, end)["node"].to_pylist()
        assert sorted(found) == [node for node in table["node"].to_pylist() if first <= node < end]


def test_signature_columns_are_plain_parquet():
    place = store()
    key = put_table(place, "s", sign_documents(documents(["a b c d e f"]), PLAN))["key"]
    assert pq.read_schema(pa.BufferReader(place.get(key))).names[-1] == "band_007"
