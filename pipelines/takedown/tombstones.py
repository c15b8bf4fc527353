"""What stands where something was taken down: a row of which only the id is left, tokens that no loss counts.

Rows and tokens keep their number and their order. So annotations stay aligned, look-ups stay right, and a training
run that is under way reads every other token at the position where it always stood.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.datasets.parts import read_parquet
from pipelines.errors import IntegrityError
from pipelines.tokens.shards import page_checksums

_KEPT = ("id", "place", "tie")  # of signatures: the order among copies, which decides nothing any more and says nothing
_LEDGER_KEPT = ("id", "file", "offset", "length", "stage", "verdict", "reason", "value", "threshold")


def standing(table: pa.Table, ids: pa.Array) -> pa.Array:
    """(n,) bool: rows of these ids that are no tombstones yet."""
    listed = pc.is_in(table["id"].combine_chunks(), ids)
    return pc.and_(listed, pc.invert(_is_tombstone(table)))


def _is_tombstone(table: pa.Table) -> pa.Array:
    found = pa.array(np.ones(table.num_rows, bool))
    for name in table.schema.names:
        if name not in _KEPT:
            found = pc.and_(found, table[name].combine_chunks().is_null())
    return found


def with_tombstones(table: pa.Table, ids: pa.Array) -> pa.Table:
    """The table with every column null in rows of these ids, but for the id (and the order that signatures hold)."""
    return _without(table, standing(table, ids), _KEPT)


def redacted(ledger: pa.Table, listed: pa.Array) -> pa.Table:
    """The ledger with what tells of a page (url, match, detail, excerpt) null in the rows that `listed` marks."""
    return _without(ledger, listed, _LEDGER_KEPT)


def _without(table: pa.Table, rows: pa.Array, kept: tuple[str, ...]) -> pa.Table:
    """The table, null in these rows but for the columns that are kept."""
    columns = {name: table[name].combine_chunks() for name in table.schema.names}
    for field in table.schema:
        if field.name not in kept:
            columns[field.name] = pc.if_else(rows, pa.scalar(None, field.type), columns[field.name])
    return pa.table(columns, schema=table.schema)


def tells_of_page(ledger: pa.Table) -> pa.Array:
    """(n,) bool: ledger rows in which something of the page is left."""
    found = pa.array(np.zeros(ledger.num_rows, bool))
    for name in ledger.schema.names:
        if name not in _LEDGER_KEPT:
            found = pc.or_(found, ledger[name].combine_chunks().is_valid())
    refused = pc.fill_null(pc.equal(ledger["reason"].combine_chunks(), "takedown"), False)  # says which kind, no more
    return pc.and_(found, pc.invert(refused))


def void_tokens(body: bytes, docs: bytes, ids: pa.Array, dtype: np.dtype, filler_id: int) -> tuple[bytes, bytes, int]:
    """A shard's `.bin` and `.crc` with the documents' tokens set to the filler; and how many changed.

    Reserved ids stay, EOS above all: documents are told apart by it. IntegrityError where the shard is shorter than its
    documents say.
    """
    from pipelines.tokens.tokenizer import RESERVED

    tokens = np.frombuffer(body, dtype).copy()
    table = read_parquet(docs, ["id", "first_token", "tokens"])
    rows = table.filter(pc.is_in(table["id"], ids))
    changed = 0
    for first, count in zip(rows["first_token"].to_pylist(), rows["tokens"].to_pylist(), strict=True):
        if first + count > len(tokens):
            raise IntegrityError(f"a shard of {len(tokens)} tokens has a document that ends at {first + count}")
        span = tokens[first : first + count]
        text = span >= RESERVED
        changed += int(text.sum())
        span[text] = filler_id
    voided = tokens.tobytes()
    return voided, page_checksums(voided), changed
