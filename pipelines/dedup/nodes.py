"""Documents as dense integers: how the wide steps of deduplication name a document in 8 bytes.

Parts stand in the order (generation, input, unit) and a document's node is the number of rows before it. So
nodes of an appended crawl come after all earlier ones, and the numbers follow from the manifest alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.datasets.manifest import first_sha256
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.ranged import read_columns
from pipelines.datasets.store import Store

PARTS = pa.schema(
    [
        ("documents", pa.string()),
        ("signatures", pa.string()),
        ("input", pa.string()),
        ("unit", pa.string()),
        ("generation", pa.int64()),
        ("rows", pa.int64()),
        ("first_node", pa.int64()),
    ]
)


def number_parts(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> pa.Table:
    """PARTS in node order, from pairs of part-list rows (documents, signatures); generations count from 0."""
    ordered = sorted(pairs, key=lambda pair: (pair[0]["generation"], pair[0]["input"], pair[0]["unit"]))
    generations = sorted({mine["generation"] for mine, _ in ordered})
    rows = np.array([mine["rows"] for mine, _ in ordered], np.int64)
    return pa.table(
        {
            "documents": [mine["key"] for mine, _ in ordered],
            "signatures": [theirs["key"] for _, theirs in ordered],
            "input": [mine["input"] for mine, _ in ordered],
            "unit": [mine["unit"] for mine, _ in ordered],
            "generation": [generations.index(mine["generation"]) for mine, _ in ordered],
            "rows": rows,
            "first_node": np.cumsum(rows) - rows,
        },
        schema=PARTS,
    )


def history_hashes(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[int, str]:
    """For each generation, a hash of the signatures that its decisions depend on: its own and all earlier."""
    hashes: dict[int, str] = {}
    hasher = hashlib.sha256()
    for generation in sorted({mine["generation"] for mine, _ in pairs}):
        hasher.update(b"generation\n")
        mine = [theirs for document, theirs in pairs if document["generation"] == generation]
        for signature in sorted(first_sha256(part) for part in mine):
            hasher.update(signature.encode())
        hashes[generation] = hasher.hexdigest()[:32]
    return hashes


def generation_starts(parts: pa.Table) -> np.ndarray:
    """First node of each generation but the first, for `searchsorted(..., side="right")`."""
    generation, first = parts["generation"].to_numpy(), parts["first_node"].to_numpy()
    return first[1:][generation[1:] != generation[:-1]]


def owners(parts: pa.Table, nodes: np.ndarray) -> np.ndarray:
    """(n,) index of the part of each node; parts without rows own none."""
    return np.searchsorted(parts["first_node"].to_numpy(), nodes, side="right") - 1


def read_ids(store: Store, parts: pa.Table, nodes: np.ndarray) -> pa.Array:
    """The ids of these nodes, which rise."""
    firsts = parts["first_node"].to_numpy()
    owner = owners(parts, nodes)
    tables = [pa.array([], pa.string())]
    for number in np.unique(owner).tolist():
        table = read_columns(store, parts["signatures"][number].as_py(), ["id"])
        tables += table["id"].take(pa.array(nodes[owner == number] - firsts[number])).chunks
    return pa.concat_arrays(tables)


def table_body(table: pa.Table) -> bytes:
    """A table of the work in flight as Parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue().to_pybytes()


def put_table(store: Store, prefix: str, table: pa.Table) -> dict[str, Any]:
    """Store a table of the work in flight under its hash: {"key", "rows"}."""
    body = table_body(table)
    key = f"{prefix}/{hashlib.sha256(body).hexdigest()[:32]}.parquet"
    store.put(key, body)
    return {"key": key, "rows": table.num_rows}


def put_counted(store: Store, folder: str, table: pa.Table) -> None:
    """Store a table, where it has rows, under its hash and their number, which `counted` reads."""
    if table.num_rows:
        body = table_body(table)
        store.put(f"{folder}/{hashlib.sha256(body).hexdigest()[:32]}-{table.num_rows}.parquet", body)


def counted(store: Store, folder: str) -> list[dict[str, Any]]:
    """{"key", "rows"} of the tables in a folder that `put_counted` stored."""
    keys = [stored.key for stored in store.list(f"{folder}/")]
    return [{"key": key, "rows": int(key.removesuffix(".parquet").rpartition("-")[2])} for key in keys]


def read_tables(store: Store, keys: Sequence[str], schema: pa.Schema) -> pa.Table:
    """The tables under these keys as one."""
    tables = [read_parquet(store.get(key)) for key in keys]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def put_chunks(store: Store, prefix: str, column: str, table: pa.Table, chunk_rows: int = 1_000_000) -> None:
    """Store rows, sorted by `column`, in tables whose names tell the nodes that they span."""
    for start in range(0, table.num_rows, chunk_rows):
        chunk = table.slice(start, chunk_rows)
        first, last = chunk[column][0].as_py(), chunk[column][-1].as_py()
        store.put(f"{prefix}/{first}-{last}-{start // chunk_rows}.parquet", table_body(chunk))


def read_chunks(
    store: Store, prefix: str, keys: Sequence[str], column: str, span: tuple[int, int], schema: pa.Schema
) -> pa.Table:
    """Rows of the nodes span[0] to before span[1], of the tables that `put_chunks` stored."""
    first, end = span
    tables = [schema.empty_table()]
    for key in keys:
        low, high, _ = (int(n) for n in key.removeprefix(f"{prefix}/").removesuffix(".parquet").split("-"))
        if low < end and high >= first:
            table = read_parquet(store.get(key))
            tables.append(table.filter(pc.and_(pc.greater_equal(table[column], first), pc.less(table[column], end))))
    return pa.concat_tables(tables)
