"""From texts to signature parts, from signature parts to buckets, from buckets to verified edges.

Each step is a function on Arrow tables and the store, so that Spark and one process run the very same code;
what differs is only who brings the rows of one bucket together. Texts are read where they are compared, by
part and row, and never travel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.datasets.parts import read_parquet, sorted_rows
from pipelines.datasets.store import Store
from pipelines.dedup.bands import BandPlan
from pipelines.dedup.components import star_edges
from pipelines.dedup.nodes import read_nodes
from pipelines.dedup.signature import sign
from pipelines.dedup.verify import jaccards

EXACT_KEYS = ("exact_high", "exact_low")
EDGES = pa.schema([("centre", pa.int64()), ("member", pa.int64())])
PAIRS = EDGES.append(pa.field("similarity", pa.float64()))
READ_COLUMNS = ("id", "text", "date", "file", "offset")

_PLACE_BITS = 49
_LENGTH_LIMIT = (1 << 24) - 1
_MINUTE_LIMIT = (1 << 25) - 1
_MINUTES_TO_1990 = 20 * 525_960


def band_keys(plan: BandPlan) -> list[str]:
    """Column names of the band digests."""
    return [f"band_{band:03d}" for band in range(plan.num_bands)]


def signatures_schema(plan: BandPlan) -> pa.Schema:
    """Columns of a signatures dataset: a row for each document, in its order."""

    def column(name: str, kind: pa.DataType, doc: str) -> pa.Field:
        return pa.field(name, kind, metadata={"doc": doc})

    return pa.schema(
        [
            column("id", pa.string(), "document id"),
            column("file", pa.string(), "crawl file"),
            column("offset", pa.int64(), "byte offset of the record"),
            column("date", pa.string(), "date of capture"),
            column("characters", pa.int64(), "length of the text"),
            column("place", pa.int64(), "longer first, then earlier to the minute: the survivor order in 49 bits"),
            column("exact_high", pa.int64(), "BLAKE2b-128 of the normal form, first half; null for empty text"),
            column("exact_low", pa.int64(), "second half"),
            *(column(name, pa.int64(), "digest of a band of minima; null if too short") for name in band_keys(plan)),
        ]
    )


def sign_documents(documents: pa.Table, plan: BandPlan) -> pa.Table:
    """The signatures of a table of documents (READ_COLUMNS)."""
    texts = documents["text"]
    characters = pc.fill_null(pc.utf8_length(texts), 0).cast(pa.int64()).combine_chunks()
    signed = sign(texts, plan)
    short = signed.shingles == 0
    bands = np.ascontiguousarray(signed.bands.view(np.int64).T)
    columns = {
        "id": documents["id"],
        "file": documents["file"],
        "offset": documents["offset"],
        "date": documents["date"],
        "characters": characters,
        "place": survivor_places(characters, documents["date"]),
        "exact_high": pa.array(np.ascontiguousarray(signed.exact[:, 0]), mask=signed.empty),
        "exact_low": pa.array(np.ascontiguousarray(signed.exact[:, 1]), mask=signed.empty),
        **{name: pa.array(band, mask=short) for name, band in zip(band_keys(plan), bands, strict=True)},
    }
    return pa.table(columns, schema=signatures_schema(plan))


def survivor_places(characters: pa.Array, date: pa.Array | pa.ChunkedArray) -> pa.Array:
    """(n,) int64 below 2^49 that sorts a generation's documents as `survivor_rank` does, but for ties.

    Ties (the same length and the same minute of capture) only decide which copy is the centre of a star,
    never who survives.
    """
    stamps = pc.strptime(
        pc.utf8_slice_codeunits(date, 0, 16), format="%Y-%m-%dT%H:%M", unit="s", error_is_null=True
    ).cast(pa.int64())
    minutes = pc.fill_null(pc.divide(stamps, 60), _MINUTE_LIMIT)
    since = np.clip(np.asarray(minutes) - _MINUTES_TO_1990, 0, _MINUTE_LIMIT)  # to 2053
    shortness = _LENGTH_LIMIT - np.minimum(np.asarray(characters), _LENGTH_LIMIT)
    return pa.array((shortness << 25) | since)


def key_names(columns: Sequence[str]) -> tuple[str, ...]:
    """What a bucket is known by: both halves of the exact digest, or one band digest."""
    return EXACT_KEYS if tuple(columns) == EXACT_KEYS else ("digest",)


def bucket_schema(columns: Sequence[str]) -> pa.Schema:
    """Of `bucket_rows`: 8 bytes a column, which is all that is shuffled."""
    return pa.schema([(name, pa.int64()) for name in (*key_names(columns), "order", "node")])


def bucket_rows(store: Store, part: dict[str, Any], columns: Sequence[str]) -> pa.Table:
    """Keys of one signature part with (order, node): EXACT_KEYS, or several bands below each other.

    Bands share one space of keys, since the band's number is in its digest. A document without a key has no
    row.
    """
    table = read_parquet(store.get(part["signatures"]), [*columns, "place"])
    order = pa.array((part["generation"] << _PLACE_BITS) | table["place"].to_numpy())
    node = pa.array(part["first_node"] + np.arange(table.num_rows))
    groups = [EXACT_KEYS] if tuple(columns) == EXACT_KEYS else [(name,) for name in columns]
    tables = []
    for group in groups:
        whole = pa.table([*(table[name] for name in group), order, node], schema=bucket_schema(columns))
        tables.append(whole.filter(whole.column(0).is_valid()))
    return pa.concat_tables(tables)


def star_table(rows: pa.Table) -> pa.Table:
    """EDGES of whole buckets, from rows of `bucket_rows` in any order."""
    names = [name for name in rows.schema.names if name not in ("order", "node")]
    key = np.column_stack([rows[name].to_numpy() for name in names])
    centre, member = star_edges(key, rows["order"].to_numpy(), rows["node"].to_numpy())
    return pa.table({"centre": centre, "member": member}, schema=EDGES)


def candidate_edges(bands: pa.Table, exact: pa.Table) -> pa.Table:
    """Distinct edges of all bands, sorted, but for members that are exact copies of a better one.

    In every band such a member meets the better copy too, whose edges stand for it.
    """
    copies = exact["member"].to_numpy()
    centre, member = bands["centre"].to_numpy(), bands["member"].to_numpy()
    fresh = ~np.isin(member, copies)
    edges = np.unique(np.column_stack([centre[fresh], member[fresh]]), axis=0).reshape(-1, 2)
    return pa.table({"centre": edges[:, 0], "member": edges[:, 1]}, schema=EDGES)


def verify_edges(store: Store, parts: pa.Table, edges: pa.Table, min_similarity: float) -> pa.Table:
    """PAIRS: the edges whose texts have at least this exact Jaccard similarity."""
    if edges.num_rows == 0:
        return PAIRS.empty_table()
    edges = sorted_rows(edges, [("centre", "ascending"), ("member", "ascending")])
    centre, member = edges["centre"].to_numpy(), edges["member"].to_numpy()
    nodes = np.unique(np.concatenate([centre, member]))
    texts = read_nodes(store, parts, nodes, "documents", ["text"])["text"]
    found = jaccards(texts, np.searchsorted(nodes, centre), np.searchsorted(nodes, member))
    kept = found >= min_similarity
    return pa.table({"centre": centre[kept], "member": member[kept], "similarity": found[kept]}, schema=PAIRS)
