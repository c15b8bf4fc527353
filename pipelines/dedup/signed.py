"""A signatures dataset: what is kept of each document, so that no later crawl has to read its text again.

Bands stand eight to a column, so that one column is one restartable wide step; the sketch has a byte of each minimum.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup.bands import BandPlan
from pipelines.dedup.order import OrderRule, survivor_places, survivor_ties
from pipelines.dedup.signature import sign
from pipelines.dedup.urls import URL, url_digests

READ_COLUMNS = ("id", "text", "date", "file", "offset", "url")
BANDS_PER_COLUMN = 8
EXACT = "exact"


def band_columns(plan: BandPlan) -> list[str]:
    """Column names of the band digests, eight bands to a column."""
    return [f"bands_{first:03d}" for first in range(0, plan.num_bands, BANDS_PER_COLUMN)]


def signatures_schema(plan: BandPlan) -> pa.Schema:
    """Columns of a signatures dataset: a row for each document, in its order."""

    def column(name: str, kind: pa.DataType, doc: str) -> pa.Field:
        return pa.field(name, kind, metadata={"doc": doc})

    bands = []
    for name, first in zip(band_columns(plan), range(0, plan.num_bands, BANDS_PER_COLUMN), strict=True):
        width = 8 * min(BANDS_PER_COLUMN, plan.num_bands - first)
        bands.append(column(name, pa.binary(width), "64-bit digests of bands of minima; null if too short"))
    return pa.schema(
        [
            column("id", pa.string(), "document id"),
            column("place", pa.int64(), "score, length, domain and date in the survivor order; smaller is better"),
            column("tie", pa.int64(), "the order where places are equal: of the id, then a hash of file and offset"),
            column(EXACT, pa.binary(16), "BLAKE2b-128 of the normal form; null for empty text"),
            column(URL, pa.binary(16), "BLAKE2b-128 of the canonical URL; null where there is none"),
            *bands,
            column("sketch", pa.binary(plan.num_permutations), "a byte of each minimum; null if too short"),
        ]
    )


def sign_documents(
    documents: pa.Table, plan: BandPlan, rule: OrderRule | None = None, *, mobile_hosts: bool = False
) -> pa.Table:
    """The signatures of a table of documents (READ_COLUMNS and those of the rule).

    `mobile_hosts`: the mobile address of a page is that of the page (`urls.canonical_url`).
    """
    rule = rule or OrderRule()
    texts = documents["text"]
    signed = sign(texts, plan)
    short = signed.shingles == 0
    preferred = None
    if rule.preferred_domains:
        preferred = pc.fill_null(pc.is_in(documents["domain"], pa.array(rule.preferred_domains)), False)
    place = survivor_places(
        pc.utf8_length(texts).cast(pa.int64()).combine_chunks(),
        documents["date"],
        score=documents[rule.score].to_numpy() if rule.score else None,
        preferred=None if preferred is None else preferred.to_numpy(zero_copy_only=False),
    )
    tie = survivor_ties(*(documents[name].to_pylist() for name in ("id", "file", "offset")))
    columns = {
        "id": documents["id"],
        "place": place,
        "tie": tie,
        EXACT: fixed_binary(signed.exact, signed.empty),
        URL: url_digests(documents["url"], mobile_hosts=mobile_hosts),
        "sketch": fixed_binary(signed.sketches, short),
    }
    for number, name in enumerate(band_columns(plan)):
        bands = signed.bands[:, number * BANDS_PER_COLUMN : (number + 1) * BANDS_PER_COLUMN]
        columns[name] = fixed_binary(np.ascontiguousarray(bands), short)
    schema = signatures_schema(plan)
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def fixed_binary(values: np.ndarray, null: np.ndarray) -> pa.Array:
    """(n, k) numbers as n binaries of one width."""
    body = np.ascontiguousarray(values)
    width = body.dtype.itemsize * body.shape[1]
    valid = pa.py_buffer(np.packbits(~null, bitorder="little"))
    return pa.Array.from_buffers(pa.binary(width), len(body), [valid, pa.py_buffer(body)])


def fixed_numbers(column: pa.ChunkedArray, kind: type) -> tuple[np.ndarray, np.ndarray]:
    """((n, k) numbers, (n,) bool: has a value) of binaries of one width; rows without a value hold anything."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], array.type)
    width = array.type.byte_width // np.dtype(kind).itemsize
    if len(array) == 0:
        return np.zeros((0, width), kind), np.zeros(0, bool)
    values = np.frombuffer(array.buffers()[1], kind).reshape(-1, width)[array.offset : array.offset + len(array)]
    return values, np.asarray(array.is_valid())
