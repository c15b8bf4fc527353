"""The manifest: one JSON object that makes a version of a dataset exist (format `gristmill.manifest/1`).

It names its durable objects through a part list, a Parquet object with a row for every one of them. Readers
never list folders to find data. Version N+1 is the next number of a create-only chain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.datasets.chain import Chain
from pipelines.datasets.names import home, manifest_key, manifest_prefix
from pipelines.datasets.parts import conform, read_parquet, sorted_rows
from pipelines.datasets.store import Store
from pipelines.errors import IntegrityError, MissingObjectError

FORMAT = "gristmill.manifest/1"

COUNTERS = pa.list_(
    pa.struct([pa.field("name", pa.string()), pa.field("value", pa.int64()), pa.field("sum", pa.binary(16))])
)

PART_LIST = pa.schema(
    [
        pa.field("role", pa.string(), metadata={"doc": "part, ledger, retried, shard, idx, docs, crc, file"}),
        pa.field("key", pa.string(), metadata={"doc": "object key, relative to the root"}),
        pa.field("stage_id", pa.string(), metadata={"doc": "stage that made it"}),
        pa.field("unit", pa.string(), metadata={"doc": "32 hex: the piece of input it was made of"}),
        pa.field("input", pa.string(), metadata={"doc": "the piece of input as a person names it"}),
        pa.field("rows", pa.int64()),
        pa.field("bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("rows_sum", pa.string(), metadata={"doc": "ordered hash of the ids"}),
        pa.field("content_sum", pa.string(), metadata={"doc": "rows-hash, adds over parts"}),
        pa.field("cell", pa.string(), metadata={"doc": "token shards: their cell"}),
        pa.field("tokens", pa.int64(), metadata={"doc": "token shards: tokens"}),
        pa.field("generation", pa.int64(), metadata={"doc": "version that brought the unit"}),
        pa.field("counters", COUNTERS, metadata={"doc": "the unit's books and statistics"}),
        pa.field("origin_sha256", pa.string(), metadata={"doc": "sha256 before the first takedown; null: none"}),
        pa.field("origin_sum", pa.string(), metadata={"doc": "content_sum before the first takedown; null: none"}),
    ]
)
CONTENT_ROLES = ("part", "shard", "file")
_ORDER = [(c, "ascending") for c in ("cell", "generation", "input", "unit", "role", "key")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One version. `sha256` is of the stored JSON and is what pins name, together with name and version."""

    name: str
    version: int
    kind: str
    parents: list[dict[str, Any]]
    job: dict[str, Any]
    books: dict[str, Any]
    part_list: dict[str, Any]
    head: list[dict[str, Any]]
    schema: list[dict[str, Any]]
    stats: dict[str, Any]
    artifacts: list[dict[str, Any]]
    content_sum: str
    created_at: str
    extends: dict[str, Any] | None = None
    sha256: str = field(default="", compare=False)

    @property
    def stage_id(self) -> str:
        """Stage that made this version."""
        return self.job["stage_id"]

    @property
    def fingerprint(self) -> str:
        """Answers: is this version finished?"""
        return self.job["fingerprint"]

    @property
    def first_sum(self) -> str:
        """The content sum before anything was taken down: what versions made of this one are known by."""
        return self.job.get("content_sum_before_takedown", self.content_sum)

    def pin(self, role: str = "input") -> dict[str, Any]:
        """Name, version and hash, as parents and plans hold them."""
        return {"name": self.name, "version": self.version, "manifest_sha256": self.sha256, "role": role}

    def body(self) -> dict[str, Any]:
        """The JSON value without the writer."""
        value = {"format": FORMAT, **asdict(self)}
        del value["sha256"]
        return value


def manifest_chain(store: Store, name: str) -> Chain:
    """The chain whose entries are the versions."""
    return Chain(store, manifest_prefix(name), letter="v")


def read_manifest(store: Store, name: str, version: int) -> Manifest:
    """One version; IntegrityError where the object is no manifest of this format."""
    key = manifest_key(name, version)
    encoded = store.get(key)
    try:
        value = json.loads(encoded)
        if value.pop("format") != FORMAT:
            raise KeyError("format")
        value.pop("writer", None)
        return Manifest(**value, sha256=hashlib.sha256(encoded).hexdigest())
    except (ValueError, KeyError, TypeError) as e:
        raise IntegrityError(f"{store.location}: {key} is no {FORMAT}: {e}", key=key) from None


def latest_manifest(store: Store, name: str) -> Manifest | None:
    """The highest version, or None."""
    numbers = manifest_chain(store, name).numbers()
    return read_manifest(store, name, numbers[-1]) if numbers else None


def commit_manifest(store: Store, manifest: Manifest, writer: str) -> Manifest | None:
    """Put the version create-only. The manifest as stored, or None where another writer has that number."""
    if not manifest_chain(store, manifest.name).append(manifest.version, manifest.body(), writer):
        return None
    return read_manifest(store, manifest.name, manifest.version)


def put_part_list(store: Store, name: str, rows: pa.Table) -> tuple[dict[str, Any], list[dict[str, Any]], pa.Table]:
    """Store the part list, content-named: (its manifest entry, the head of 20 rows, the rows in stored order)."""
    rows = sorted_rows(rows.select(PART_LIST.names).cast(PART_LIST), _ORDER)
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows, sink, compression="zstd", write_page_checksum=True, use_dictionary=["role", "stage_id", "cell"]
    )
    encoded = sink.getvalue().to_pybytes()
    digest = hashlib.sha256(encoded).hexdigest()
    key = f"{home(name)}/lists/{digest[:16]}.parquet"
    store.put(key, encoded)
    content = rows.filter(pc.is_in(rows["role"], pa.array(CONTENT_ROLES)))
    entry = {
        "key": key,
        "sha256": digest,
        "parts": content.num_rows,
        "objects": rows.num_rows,
        "rows": pc.sum(content["rows"]).as_py() or 0,
        "bytes": pc.sum(rows["bytes"]).as_py() or 0,
    }
    head = rows.slice(0, 20).select(["role", "key", "unit", "input", "rows"]).to_pylist()
    return entry, head, rows


def read_part_list(store: Store, manifest: Manifest) -> pa.Table:
    """The part list, checked against the hash in the manifest."""
    key = manifest.part_list["key"]
    try:
        encoded = store.get(key)
    except MissingObjectError as e:
        raise IntegrityError(
            f"{manifest.name} v{manifest.version} names {key}, which is gone from {store.location}",
            key=key,
            mend="restore the object, or run the job again under a new root",
        ) from e
    if hashlib.sha256(encoded).hexdigest() != manifest.part_list["sha256"]:
        raise IntegrityError(f"{store.location}: {key} differs from the hash in the manifest", key=key)
    return conform(read_parquet(encoded), PART_LIST)


def first_sha256(row: Mapping[str, Any]) -> str:
    """The sha256 of an object of the part list as its job wrote it, whatever was taken down since.

    What was made of the object is known by it: a takedown makes nothing anew.
    """
    return row.get("origin_sha256") or row["sha256"]


def first_content_sum(row: Mapping[str, Any]) -> str:
    """The content sum of an object as its job wrote it."""
    return row.get("origin_sum") or row["content_sum"]
