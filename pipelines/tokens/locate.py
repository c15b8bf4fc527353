"""The way back: from a token of a shard to its document, its page's address and its place in the crawl.

Reads the part list, the row group of the shard's `.docs.parquet` that holds the token, and of the corpus part the row
group that holds the row, without its text: a few ranged reads, whatever the shard's size.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.datasets.dataset import open_dataset
from pipelines.datasets.gc import names_of
from pipelines.datasets.manifest import latest_manifest
from pipelines.datasets.store import Store
from pipelines.errors import InputError
from pipelines.tokens.stored import StoredFile

_PLACE = re.compile(r"(?P<shard>.+\.bin|[0-9a-f]{32}(?:-[0-9a-f]{16})?):(?P<token>[0-9]{1,15})")
PAGE_COLUMNS = ("url", "title", "language", "source", "domain", "date", "file", "offset", "length")


def parse_place(text: str) -> tuple[str, int] | None:
    """(shard, token) of `SHARD:TOKEN`, where the shard is a key, a file name or its stem; None where it is none."""
    found = _PLACE.fullmatch(text)
    return (found["shard"], int(found["token"])) if found else None


def locate_token(store: Store, shard: str, token: int) -> dict[str, Any]:
    """What holds token `token`, counted from 0, of a shard of the latest version of any token dataset.

    Keys: dataset, version, shard, cell, token, document (number in the shard), id, part, row, first_token, tokens,
    offset_in_document and PAGE_COLUMNS; for padding of a packed shard id is None and the rest is left out. InputError
    where there is no such shard or token.
    """
    found = _find_shard(store, shard)
    if not 0 <= token < found["tokens"]:
        raise InputError(f"{found['shard']} has {found['tokens']} tokens, none is number {token}")
    document = _row_of_token(store, found.pop("docs"), token)
    row = {name: found[name] for name in ("dataset", "version", "shard", "cell")}
    row |= {"token": token, **document, "offset_in_document": token - document["first_token"]}
    if row["id"] is not None:
        row |= _page(store, row["part"], row["row"])
    return row


def _find_shard(store: Store, shard: str) -> dict[str, Any]:
    wanted = shard.rpartition("/")[2].removesuffix(".bin")
    for name in names_of(store):
        manifest = latest_manifest(store, name)
        if manifest is None or manifest.kind != "tokens":
            continue
        dataset = open_dataset(store, name)
        rows = dataset.parts("shard")
        match = rows.filter(pc.match_substring(rows["key"], f"/{wanted}")).select(["key", "unit", "cell", "tokens"])
        if match.num_rows:
            row = match.to_pylist()[0]
            docs = dataset.parts("docs")
            theirs = docs.filter(pc.equal(docs["unit"], row["unit"])).select(["key"]).to_pylist()
            return {"dataset": name, "version": manifest.version, "shard": row["key"], "docs": theirs[0]["key"], **row}
    raise InputError(
        f"no token dataset has a shard {shard}", mend="`gristmill datasets files tokens` lists the shards (.bin)"
    )


def _row_of_token(store: Store, key: str, token: int) -> dict[str, Any]:
    file = _open(store, key)
    column = file.schema_arrow.get_field_index("first_token")
    firsts = [
        file.metadata.row_group(group).column(column).statistics.min for group in range(file.metadata.num_row_groups)
    ]
    table = file.read_row_group(int(np.searchsorted(firsts, token, side="right")) - 1, use_threads=False)
    at = int(np.searchsorted(table["first_token"].to_numpy(), token, side="right")) - 1
    return table.slice(at, 1).to_pylist()[0]


def _page(store: Store, key: str, row: int) -> dict[str, Any]:
    file, before = _open(store, key), 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if row < before + rows:
            columns = [name for name in PAGE_COLUMNS if name in file.schema_arrow.names]
            table = file.read_row_group(group, columns=columns, use_threads=False)
            return table.slice(row - before, 1).to_pylist()[0]
        before += rows
    raise InputError(f"{key} has {before} rows, the shard says row {row}")


def _open(store: Store, key: str) -> pq.ParquetFile:
    return pq.ParquetFile(pa.PythonFile(StoredFile(store, key), mode="r"), page_checksum_verification=True)
