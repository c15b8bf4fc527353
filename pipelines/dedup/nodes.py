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

from pipelines.datasets.dataset import read_parquet
from pipelines.datasets.manifest import as_first_written
from pipelines.datasets.store import Store
from pipelines.dedup.survivors import DECISIONS

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
NODES = pa.schema(
    [
        ("node", pa.int64()),
        ("generation", pa.int64()),
        ("characters", pa.int64()),
        ("date", pa.string()),
        ("id", pa.string()),
        ("file", pa.string()),
        ("offset", pa.int64()),
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
        for signature in sorted(as_first_written(part)[0] for part in mine):
            hasher.update(signature.encode())
        hashes[generation] = hasher.hexdigest()[:32]
    return hashes


def read_nodes(store: Store, parts: pa.Table, nodes: np.ndarray, dataset: str, columns: Sequence[str]) -> pa.Table:
    """Columns of these nodes, which rise, from `documents` or `signatures`; only rows asked for are kept."""
    firsts = parts["first_node"].to_numpy()
    owner = np.searchsorted(firsts, nodes, side="right") - 1
    tables = []
    for number in np.unique(owner):
        rows = nodes[owner == number] - firsts[number]
        table = read_parquet(store.get(parts[dataset][int(number)].as_py()), columns)
        tables.append(table.select(list(columns)).take(pa.array(rows)))
    return pa.concat_tables(tables)


def read_order(store: Store, parts: pa.Table, nodes: np.ndarray) -> pa.Table:
    """NODES: what decides between copies, for nodes that rise."""
    if len(nodes) == 0:
        return NODES.empty_table()
    columns = ("characters", "date", "id", "file", "offset")
    table = read_nodes(store, parts, nodes, "signatures", columns)
    owner = np.searchsorted(parts["first_node"].to_numpy(), nodes, side="right") - 1
    generation = parts["generation"].to_numpy()[owner]
    return (
        table.append_column("node", pa.array(nodes))
        .append_column("generation", pa.array(generation))
        .select(NODES.names)
    )


def put_table(store: Store, prefix: str, table: pa.Table) -> dict[str, Any]:
    """Store a table of the work in flight under its hash: {"key", "rows"}."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    key = f"{prefix}/{hashlib.sha256(sink.getvalue().to_pybytes()).hexdigest()[:32]}.parquet"
    store.put(key, sink.getvalue().to_pybytes())
    return {"key": key, "rows": table.num_rows}


def read_tables(store: Store, keys: Sequence[str], schema: pa.Schema) -> pa.Table:
    """The tables under these keys as one."""
    tables = [read_parquet(store.get(key)) for key in keys]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def read_pairs(store: Store, exact: Sequence[str], near: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(left, right, similarity) of the exact edges (1.0) and the verified pairs, from their stored tables."""
    columns: list[list[np.ndarray]] = [[], [], []]
    for key in (*exact, *near):
        table = read_parquet(store.get(key))
        scores = table["similarity"].to_numpy() if key in near else np.ones(table.num_rows)
        found = (table["centre"].to_numpy(), table["member"].to_numpy(), scores)
        for column, values in zip(columns, found, strict=True):
            column.append(values)
    kinds = (np.int64, np.int64, np.float64)
    left, right, similarity = (
        np.concatenate([np.zeros(0, kind), *column]) for column, kind in zip(columns, kinds, strict=True)
    )
    return left, right, similarity


def put_decisions(store: Store, prefix: str, decisions: pa.Table, chunk_rows: int = 1_000_000) -> None:
    """Store decisions, sorted by node, in tables whose names tell the nodes they span."""
    for start in range(0, decisions.num_rows, chunk_rows):
        chunk = decisions.slice(start, chunk_rows)
        first, last = chunk["node"][0].as_py(), chunk["node"][-1].as_py()
        sink = pa.BufferOutputStream()
        pq.write_table(chunk, sink, compression="zstd", write_page_checksum=True)
        store.put(f"{prefix}/{first}-{last}.parquet", sink.getvalue().to_pybytes())


def read_decisions(store: Store, prefix: str, keys: Sequence[str], first: int, end: int) -> pa.Table:
    """Decisions of the nodes from `first` to before `end`, of the tables that `put_decisions` stored."""
    tables = [DECISIONS.empty_table()]
    for key in keys:
        low, high = (int(number) for number in key.removeprefix(prefix).removesuffix(".parquet").split("-"))
        if low < end and high >= first:
            table = read_parquet(store.get(key))
            tables.append(table.filter(pc.and_(pc.greater_equal(table["node"], first), pc.less(table["node"], end))))
    return pa.concat_tables(tables)
