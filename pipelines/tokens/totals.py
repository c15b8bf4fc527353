"""Tokens counted by something: cells, languages, sources, domains, leading bits of the hash. Per part, then of all.

Each part's counts are a small table; adding them up keeps no more than a bounded number of names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.datasets.parts import read_parquet
from pipelines.tokens.cells import BUCKETS, token_buckets
from pipelines.tokens.encode import Encoded

MOST_DOMAINS = 20_000  # held while adding up; of more, the smallest half is let go
OTHERS = "(others)"
DOMAINS = pa.schema(
    [("domain", pa.string()), ("language", pa.string()), ("tokens", pa.int64()), ("documents", pa.int64())]
)


def tokens_by(encoded: Encoded, column: pa.Array) -> dict[str, tuple[int, int]]:
    """(tokens, documents) of the placed documents by the value of a column of the whole batch; "" for null."""
    names = column if isinstance(column, pa.DictionaryArray) else pc.dictionary_encode(pc.fill_null(column, ""))
    codes = np.asarray(names.indices)[encoded.rows] if len(encoded.rows) else np.zeros(0, np.int64)
    tokens = np.bincount(codes, weights=encoded.lengths, minlength=len(names.dictionary)).astype(np.int64)
    documents = np.bincount(codes, minlength=len(names.dictionary))
    found = zip(names.dictionary.to_pylist(), tokens.tolist(), documents.tolist(), strict=True)
    return {name: (t, n) for name, t, n in found if n}


def encode_buckets(encoded: Encoded, cells: pa.DictionaryArray, hashes: np.ndarray) -> bytes:
    """Tokens and documents of each cell by bucket of the hash, as a table of those that have any."""
    codes = np.asarray(cells.indices)[encoded.rows] if len(encoded.rows) else np.zeros(0, np.int64)
    columns: list[list[np.ndarray]] = [[], [], [], []]
    for code in np.unique(codes):
        inside = codes == code
        tokens, documents = token_buckets(hashes[encoded.rows][inside], encoded.lengths[inside])
        filled = np.flatnonzero(documents)
        made = (np.full(len(filled), code), filled, tokens[filled], documents[filled])
        for column, values in zip(columns, made, strict=True):
            column.append(values)
    joined = [np.concatenate([np.zeros(0, np.int64), *column]).astype(np.int64) for column in columns]
    names = pa.DictionaryArray.from_arrays(pa.array(joined[0].astype(np.int32)), cells.dictionary)
    return _encode(pa.table({"cell": names, "bucket": joined[1], "tokens": joined[2], "documents": joined[3]}))


def bucket_totals(tables: Iterable[bytes]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(BUCKETS,) tokens and documents by cell, over the tables of `encode_buckets`."""
    totals: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for body in tables:
        table = read_parquet(body)
        cells = pc.dictionary_encode(table["cell"].combine_chunks().cast(pa.string()))
        codes = np.asarray(cells.indices)
        bucket, tokens, documents = (table[name].to_numpy() for name in ("bucket", "tokens", "documents"))
        for code, cell in enumerate(cells.dictionary.to_pylist()):
            if cell not in totals:
                totals[cell] = (np.zeros(BUCKETS, np.int64), np.zeros(BUCKETS, np.int64))
            mine = codes == code
            np.add.at(totals[cell][0], bucket[mine], tokens[mine])
            np.add.at(totals[cell][1], bucket[mine], documents[mine])
    return totals


def encode_domains(encoded: Encoded, domain: pa.Array, language: pa.Array) -> bytes:
    """DOMAINS of the placed documents."""
    rows = pa.array(encoded.rows)
    names = [pc.fill_null(column, "").take(rows) for column in (domain, language)]
    table = pa.table([*names, pa.array(encoded.lengths)], names=["domain", "language", "tokens"])
    by = table.group_by(["domain", "language"], use_threads=False)
    found = by.aggregate([("tokens", "sum"), ("tokens", "count")])
    found = found.rename_columns(DOMAINS.names).cast(DOMAINS)
    order = pc.sort_indices(found, [("domain", "ascending"), ("language", "ascending")])
    return _encode(found.take(order))


class DomainTotals:
    """Tokens by domain over many tables of DOMAINS, in bounded memory.

    Exact up to MOST_DOMAINS domains. Beyond, small ones are let go now and then and added to the others, so a figure is
    then at least what is said; the order of the tables decides, so they are to come in one order.
    """

    def __init__(self, known: Mapping[str, int]) -> None:
        """`known`: what `top` gave for what stands already."""
        self._tokens = dict(known)
        self._others = self._tokens.pop(OTHERS, 0)

    def add(self, body: bytes) -> None:
        """Add a table."""
        table = read_parquet(body, ["domain", "tokens"])
        for domain, tokens in zip(*(column.to_pylist() for column in table.columns), strict=True):
            self._tokens[domain] = self._tokens.get(domain, 0) + tokens
        if len(self._tokens) > MOST_DOMAINS:
            self._keep(MOST_DOMAINS // 2)

    def top(self, count: int) -> dict[str, int]:
        """The `count` largest, and OTHERS."""
        self._keep(count)
        return self._tokens | ({OTHERS: self._others} if self._others else {})

    def _keep(self, count: int) -> None:
        ranked: list[tuple[str, Any]] = sorted(self._tokens.items(), key=lambda item: (-item[1], item[0]))
        self._others += sum(tokens for _, tokens in ranked[count:])
        self._tokens = dict(ranked[:count])


def _encode(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue().to_pybytes()
