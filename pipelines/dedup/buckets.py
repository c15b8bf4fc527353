"""From signature parts to buckets: what is shuffled, and what is made of it where it arrives.

A row is 32 bytes: digest, place, tie, node (40 for the exact digest, which has two halves). Rows travel as binary
blobs, one for each part, column and target, so that an engine pays by the byte and not by the row. Most rows are alone
with their digest; only those that are not are ever sorted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.datasets.ranged import read_columns
from pipelines.datasets.store import Store
from pipelines.dedup.marks import read_marks
from pipelines.dedup.signed import EXACT, fixed_numbers

_INTEGERS = ("centre", "member", "centre_place", "centre_tie", "member_place", "member_tie")
EDGES = pa.schema([(name, pa.int64()) for name in _INTEGERS])
BUCKETS = pa.schema([("start", pa.bool_()), ("node", pa.int64()), ("place", pa.int64()), ("tie", pa.int64())])
HOT = pa.schema([("digest", pa.int64()), ("size", pa.int64())])
HOT_COPIES = EDGES.append(pa.field("digest", pa.int64()))  # the first half of it, which tells the target
_ODD = np.int64(0x1E3779B97F4A7C15)


def exact_rows(store: Store, part: dict[str, Any], gone: str | None = None, *, apart: bool = False) -> np.ndarray:
    """(m, 5) int64 of a part: both halves of the exact digest, place, tie, node. `apart`: generations do not meet.

    `gone`: key of the bits of documents that have left before and have no rows.
    """
    return _rows(store, part, EXACT, gone, apart)


def band_rows(
    store: Store, part: dict[str, Any], column: str, copies: str | None, *, apart: bool = False
) -> np.ndarray:
    """(m, 4) int64 of a part: digest, place, tie, node, for each band of a column; `copies` have no rows.

    Bands share one space of digests, since the band's number is in its digest.
    """
    return _rows(store, part, column, copies, apart)


def _rows(store: Store, part: dict[str, Any], column: str, copies: str | None, apart: bool) -> np.ndarray:
    table = read_columns(store, part["signatures"], [column, "place", "tie"])
    digests, wanted = fixed_numbers(table[column], np.int64)
    if copies is not None:
        wanted = wanted & ~read_marks(store, copies, part["first_node"], part["first_node"] + part["rows"])
    rows = np.flatnonzero(wanted)
    digests = digests[rows]
    if apart:
        digests = digests ^ (np.array([part["generation"] + 1]) * _ODD)
    place, tie, node = table["place"].to_numpy()[rows], table["tie"].to_numpy()[rows], part["first_node"] + rows
    if column == EXACT:
        return np.column_stack([digests, place, tie, node])
    made = np.empty((digests.shape[1], len(rows), 4), np.int64)
    made[:, :, 0] = digests.T
    made[:, :, 1:] = np.column_stack([place, tie, node])
    return made.reshape(-1, 4)


def parcels(rows: np.ndarray, targets: int) -> Iterator[tuple[int, bytes]]:
    """(target, rows as bytes) by the first column; a target without rows gets none."""
    target = targets_of(rows[:, 0], targets)
    order = np.argsort(target, kind="stable")
    bounds = np.searchsorted(target[order], np.arange(targets + 1))
    for number in range(targets):
        if bounds[number] < bounds[number + 1]:
            yield number, rows[order[bounds[number] : bounds[number + 1]]].tobytes()


def targets_of(digests: np.ndarray, targets: int) -> np.ndarray:
    """(n,) number of the target, of so many, where rows of these digests meet."""
    return (((digests * _ODD).view(np.uint64) >> np.uint64(33)) % np.uint64(targets)).astype(np.int64)


def unpacked(blobs: Iterable[bytes], width: int) -> np.ndarray:
    """(n, width) int64 of parcels."""
    return np.concatenate(
        [np.zeros((0, width), np.int64), *(np.frombuffer(b, np.int64).reshape(-1, width) for b in blobs)]
    )


def meeting(rows: np.ndarray, keys: int, generation_starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows that share their first `keys` columns with another, (m,) bool: starts a bucket).

    Buckets in order of the key, each in the survivor order: generation, place, tie, and the node for twins.
    """
    order = np.argsort(rows[:, 0])
    first = rows[order, 0]
    same = first[1:] == first[:-1]
    shared = np.zeros(len(rows), bool)
    shared[1:] |= same
    shared[:-1] |= same
    rows = rows[order[shared]]
    place, tie, node = rows[:, keys], rows[:, keys + 1], rows[:, keys + 2]
    generation = np.searchsorted(generation_starts, node, side="right")
    rows = rows[np.lexsort((node, tie, place, generation, *(rows[:, k] for k in reversed(range(keys)))))]
    start = np.ones(len(rows), bool)
    start[1:] = (rows[1:, :keys] != rows[:-1, :keys]).any(axis=1)
    alone = start.copy()
    alone[:-1] &= start[1:]
    return rows[~alone], start[~alone]


def copy_edges(rows: np.ndarray, generation_starts: np.ndarray, fresh_from: int) -> pa.Table:
    """EDGES from the best document of each digest of two halves to the others; only to those from `fresh_from` on.

    (n, 5): the halves, place, tie, node. A sixth column is the place that the edges tell, where they are sorted by
    another one.
    """
    rows, start = meeting(rows, 2, generation_starts)
    centre = np.flatnonzero(start)[np.cumsum(start) - 1]
    member = np.flatnonzero(~start & (rows[:, 4] >= fresh_from))
    return edges_table(rows[:, [rows.shape[1] - 1, 3, 4] if rows.shape[1] > 5 else [2, 3, 4]], centre[member], member)


def without_hot_copies(
    rows: np.ndarray, generation_starts: np.ndarray, fresh_from: int, most: int
) -> tuple[np.ndarray, pa.Table]:
    """(rows of a part to send, HOT_COPIES): of a digest with more than `most` rows only the best is sent.

    The others hang at it already; `resolved` hangs them at the best of all parts. So what meets of one digest is
    bounded by the parts, and not by its copies.
    """
    if len(rows) <= most:
        return rows, HOT_COPIES.empty_table()
    order = np.argsort(rows[:, 0], kind="stable")
    ends = np.flatnonzero(np.append(rows[order[1:], 0] != rows[order[:-1], 0], True)) + 1
    sizes = np.diff(ends, prepend=0)
    if sizes.max() <= most:
        return rows, HOT_COPIES.empty_table()
    crowded = np.zeros(len(rows), bool)
    crowded[order[np.repeat(sizes > most, sizes)]] = True
    found, start = meeting(rows[crowded], 2, generation_starts)
    taken = crowded & np.isin(rows[:, 4], found[:, 4])
    edges = copy_edges(found, generation_starts, fresh_from)
    digest = found[np.flatnonzero(~start & (found[:, 4] >= fresh_from)), 0]
    return np.concatenate([rows[~taken], found[start]]), edges.append_column("digest", pa.array(digest))


def resolved(hot: pa.Table, edges: pa.Table) -> pa.Table:
    """EDGES of HOT_COPIES, with the centre that `edges` hang theirs at; a centre that hangs at none is the best."""
    centre = hot["centre"].to_numpy()
    member = edges["member"].to_numpy()
    order = np.argsort(member)
    at = np.searchsorted(member[order], centre)
    hangs = at < len(member)
    hangs[hangs] = member[order[at[hangs]]] == centre[hangs]
    columns = {name: hot[name].to_numpy() for name in EDGES.names}
    for name in ("centre", "centre_place", "centre_tie"):
        columns[name] = columns[name].copy()
        columns[name][hangs] = edges[name].to_numpy()[order[at[hangs]]]
    return pa.table(columns, schema=EDGES)


def without_hot(rows: np.ndarray, generation_starts: np.ndarray, cap: int) -> np.ndarray:
    """Rows of bands of which `bucket_table` makes the same: of each digest the first `cap` and one more.

    Those behind are told by their number, in the place of a row whose node is -1. May be done again to what was done
    to pieces.
    """
    told = rows[:, 3] < 0
    real, counts = rows[~told], rows[told]
    found, start = meeting(real, 1, generation_starts)
    firsts = np.flatnonzero(start)
    sizes = np.diff(np.append(firsts, len(found)))
    if len(firsts) == 0 or sizes.max() <= cap + 1:
        return rows
    bucket = np.cumsum(start) - 1
    behind = np.arange(len(found)) - firsts[bucket] > cap
    lost = np.bincount(bucket[behind], minlength=len(firsts))
    hot = np.flatnonzero(lost)
    digest, number = np.unique(np.concatenate([counts[:, 0], found[firsts[hot], 0]]), return_inverse=True)
    behind_all = np.zeros(len(digest), np.int64)
    np.add.at(behind_all, number, np.concatenate([counts[:, 1], lost[hot]]))
    more = np.column_stack([digest, behind_all, np.zeros_like(digest), np.full_like(digest, -1)])
    kept = np.concatenate([real[~np.isin(real[:, 0], found[firsts[hot], 0])], found[~behind & np.isin(bucket, hot)]])
    return np.concatenate([kept, more])


def bucket_table(    rows: np.ndarray, generation_starts: np.ndarray, fresh_from: int, cap: int
) -> tuple[pa.Table, pa.Table]:
    """(BUCKETS, HOT) of whole bands: buckets with a document from `fresh_from` on, the first `cap` of each.

    The cap is taken in the survivor order, so that what an appended crawl brings never displaces an earlier document.
    Rows may have gone through `without_hot`.
    """
    told = rows[rows[:, 3] < 0]
    rows, start = meeting(rows[rows[:, 3] >= 0] if len(told) else rows, 1, generation_starts)
    if len(rows) == 0:
        return BUCKETS.empty_table(), HOT.empty_table()
    firsts = np.flatnonzero(start)
    bucket = np.cumsum(start) - 1
    sizes = np.diff(np.append(firsts, len(rows)))
    np.add.at(sizes, np.searchsorted(rows[firsts, 0], told[:, 0]), told[:, 1])
    hot = sizes > cap
    found = pa.table({"digest": rows[firsts[hot], 0], "size": sizes[hot]}, schema=HOT)
    inside = np.arange(len(rows)) - firsts[bucket] < cap
    fresh = np.zeros(len(firsts), bool)
    fresh[bucket[inside & (rows[:, 3] >= fresh_from)]] = True
    kept = inside & fresh[bucket]
    columns = {"start": start[kept], "node": rows[kept, 3], "place": rows[kept, 1], "tie": rows[kept, 2]}
    return pa.table(columns, schema=BUCKETS), found


def edges_table(order: np.ndarray, centre: np.ndarray, member: np.ndarray) -> pa.Table:
    """EDGES between rows of (place, tie, node)."""
    a, b = order[centre], order[member]
    return pa.table([pa.array(c) for c in (a[:, 2], b[:, 2], a[:, 0], a[:, 1], b[:, 0], b[:, 1])], schema=EDGES)
