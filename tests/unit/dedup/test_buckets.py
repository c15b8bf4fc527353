import itertools
import uuid

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.datasets.store import open_store
from pipelines.dedup.bands import BandPlan
from pipelines.dedup.buckets import (
    band_rows,
    bucket_table,
    copy_edges,
    exact_rows,
    meeting,
    parcels,
    resolved,
    unpacked,
    without_hot,
    without_hot_copies,
)
from pipelines.dedup.marks import pack
from pipelines.dedup.nodes import put_table
from pipelines.dedup.signed import band_columns, sign_documents
from tests.unit.dedup.test_signed import documents

PLAN = BandPlan(num_bands=12, rows_per_band=4)
STARTS = np.array([4, 4, 9])
# (digest, place, tie); the node is the position, and generations start at nodes 4 and 9
ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 2)), max_size=14)


def rows_of(listed, keys=1):
    columns = [[row[0]] * keys + [row[1], row[2], node] for node, row in enumerate(listed)]
    return np.array(columns, np.int64).reshape(-1, keys + 3)


def expected_buckets(listed):
    buckets = {}
    for node, (digest, place, tie) in enumerate(listed):
        buckets.setdefault(digest, []).append(((node >= 4) + (node >= 9), place, tie, node))
    return {digest: [row[3] for row in sorted(rows)] for digest, rows in buckets.items() if len(rows) > 1}


@settings(deadline=None)
@given(ROWS, st.randoms(use_true_random=False), st.integers(1, 2))
def test_buckets_are_in_the_survivor_order_whatever_the_order_of_rows(listed, rng, keys):
    rows = rows_of(listed, keys)
    order = list(range(len(rows)))
    rng.shuffle(order)
    found, start = meeting(rows[order], keys, STARTS)
    nodes = [list(bucket) for bucket in np.split(found[:, -1], np.flatnonzero(start))[1:]]
    assert nodes == [bucket for _, bucket in sorted(expected_buckets(listed).items())]


@settings(deadline=None)
@given(ROWS, st.integers(0, 14), st.integers(1, 5))
def test_a_bucket_is_cut_behind_its_first_and_dropped_without_a_new_document(listed, fresh_from, cap):
    table, hot = bucket_table(rows_of(listed), STARTS, fresh_from, cap)
    expected = expected_buckets(listed)
    cut = [bucket[:cap] for _, bucket in sorted(expected.items())]
    cut = [bucket for bucket in cut if any(node >= fresh_from for node in bucket)]
    assert table["node"].to_pylist() == [node for bucket in cut for node in bucket]
    assert sum(table["start"].to_pylist()) == len(cut)
    assert dict(zip(*hot.to_pydict().values(), strict=True)) == {
        digest: len(bucket) for digest, bucket in expected.items() if len(bucket) > cap
    }


@settings(deadline=None)
@given(ROWS, st.integers(0, 14))
def test_an_exact_copy_hangs_at_the_best_of_its_bucket(listed, fresh_from):
    edges = copy_edges(rows_of(listed, keys=2), STARTS, fresh_from)
    expected = {(b[0], n) for b in expected_buckets(listed).values() for n in b[1:] if n >= fresh_from}
    assert set(zip(edges["centre"].to_pylist(), edges["member"].to_pylist(), strict=True)) == expected
    assert edges["member_place"].to_pylist() == [listed[n][1] for n in edges["member"].to_pylist()]
    assert edges["centre_tie"].to_pylist() == [listed[n][2] for n in edges["centre"].to_pylist()]


def pieces_of(rows, cuts):
    """The rows in pieces of one generation each, as parts have them."""
    bounds = sorted({0, len(rows), *(cut for cut in [4, 9, *cuts] if cut < len(rows))})
    return [rows[a:b] for a, b in itertools.pairwise(bounds)]


@settings(deadline=None)
@given(ROWS, st.lists(st.integers(0, 14)), st.integers(0, 14), st.integers(1, 5), st.booleans())
def test_a_hot_bucket_is_the_same_if_its_pieces_were_cut_before(listed, cuts, fresh_from, cap, twice):
    rows = rows_of(listed)
    cut = [without_hot(piece, STARTS, cap) for piece in pieces_of(rows, cuts)]
    if twice:
        cut = [without_hot(np.concatenate(cut[k : k + 2]), STARTS, cap) for k in range(0, len(cut), 2)]
    arrived = np.concatenate([np.zeros((0, 4), np.int64), *cut])
    expected, found = (bucket_table(r, STARTS, fresh_from, cap) for r in (rows, arrived))
    assert found[0].equals(expected[0]) and found[1].equals(expected[1])
    digests = arrived[arrived[:, 3] >= 0, 0].tolist()
    bound = (cap + 1) * (len(cut) if cut else 0)
    assert all(digests.count(digest) <= bound for digest in set(digests))


@settings(deadline=None)
@given(ROWS, st.lists(st.integers(0, 14)), st.integers(0, 14), st.integers(1, 5))
def test_copies_that_do_not_travel_hang_at_the_best_of_all_pieces(listed, cuts, fresh_from, most):
    rows = rows_of(listed, keys=2)
    rows[:, 1] = [row[1] % 2 for row in listed]  # digests that differ in their second half
    expected = copy_edges(rows, STARTS, fresh_from)
    made = [without_hot_copies(piece, STARTS, fresh_from, most) for piece in pieces_of(rows, cuts)]
    sent = [rows for rows, _ in made]
    edges = copy_edges(np.concatenate([np.zeros((0, 5), np.int64), *sent]), STARTS, fresh_from)
    whole = pa.concat_tables([edges, *(resolved(table, edges) for _, table in made)])
    assert sorted(whole.to_pylist(), key=str) == sorted(expected.to_pylist(), key=str)
    for piece in sent:
        counted = piece[:, 0].tolist()
        assert all(counted.count(d) <= max(most, 2) for d in counted)


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40), st.integers(1, 7))
def test_parcels_lose_nothing_and_keep_equal_digests_together(digests, targets):
    rows = np.array([[digest, 1, 2, node] for node, digest in enumerate(digests)], np.int64).reshape(-1, 4)
    sent = dict(parcels(rows, targets))
    assert set(sent) <= set(range(targets))
    arrived = unpacked(sent.values(), 4)
    assert sorted(arrived.tolist()) == sorted(rows.tolist())
    homes = {}
    for target, blob in sent.items():
        for digest in unpacked([blob], 4)[:, 0].tolist():
            assert homes.setdefault(digest, target) == target


def test_documents_without_a_digest_and_exact_copies_have_no_rows():
    store = open_store(f"memory://{uuid.uuid4().hex}")
    texts = ["a b c d e f", None, "A b c d e f!", "too short", "g h i j k l m"]
    key = put_table(store, "s", sign_documents(documents(texts), PLAN))["key"]
    part = {"signatures": key, "generation": 1, "first_node": 10, "rows": 5}
    assert exact_rows(store, part)[:, 4].tolist() == [10, 12, 13, 14]
    store.put("marks", pack(np.arange(15) == 12))
    rows = np.concatenate([band_rows(store, part, column, "marks") for column in band_columns(PLAN)])
    assert sorted(rows[:, 3].tolist()) == sorted([10, 14] * 12)
    assert len(set(rows[:, 0].tolist())) == 24
    other = np.concatenate(
        [band_rows(store, part | {"generation": g}, column, "marks", apart=True)
         for g in (0, 1) for column in band_columns(PLAN)]
    )  # fmt: skip
    assert len(set(other[:, 0].tolist())) == 48


def test_no_rows_give_no_buckets():
    none = np.zeros((0, 4), np.int64)
    assert bucket_table(none, STARTS, 0, 5)[0].num_rows == 0
    assert copy_edges(np.zeros((0, 5), np.int64), STARTS, 0).num_rows == 0
    assert list(parcels(none, 3)) == []
