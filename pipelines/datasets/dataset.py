"""Reading a dataset: pinned to one version, no engine, no torch.

corpus = open_dataset("s3://bucket/prefix", "corpus")      # latest version, or version=7
corpus.to_arrow(columns=["id", "text"]), corpus.sample(20), corpus.annotations("quality")
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.datasets.chain import Chain
from pipelines.datasets.manifest import (
    Manifest,
    latest_manifest,
    manifest_chain,
    read_manifest,
    read_part_list,
)
from pipelines.datasets.names import AUDIT
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import Store, open_store
from pipelines.errors import InputError, IntegrityError, MissingObjectError


class Dataset:
    """One version of a dataset."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store = store
        self.manifest = manifest

    @property
    def name(self) -> str:
        """Name without version."""
        return self.manifest.name

    @cached_property
    def part_list(self) -> pa.Table:
        """All durable objects, in stored order (cell, generation, input, unit)."""
        return read_part_list(self.store, self.manifest)

    def parts(self, role: str = "part") -> pa.Table:
        """Rows of the part list with this role."""
        return self.part_list.filter(pc.equal(self.part_list["role"], role))

    def read_object(self, row: dict[str, Any]) -> bytes:
        """Bytes of one row of the part list; IntegrityError where they are gone or differ."""
        try:
            body = self.store.get(row["key"])
        except MissingObjectError as e:
            raise self._gone(row["key"]) from e
        if hashlib.sha256(body).hexdigest() != row["sha256"]:
            raise IntegrityError(f"{row['key']} differs from its sha256 in the manifest", key=row["key"])
        return body

    def read_part(self, key: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One part as a table; page checksums are verified."""
        try:
            return read_parquet(self.store.get(key), columns)
        except MissingObjectError as e:
            raise self._gone(key) from e

    def _gone(self, key: str) -> IntegrityError:
        """What to say of an object that the manifest names and the store no longer has."""
        told = f"{self.name} v{self.manifest.version} names {key}, which is gone"
        if any(key in entry.get("keys", ()) for _, entry in Chain(self.store, AUDIT).entries()):
            return IntegrityError(
                f"{told}: it held pages that were taken down and purged",
                key=key,
                mend="read the latest version, which has tombstones in their place",
            )
        return IntegrityError(told, key=key, mend="restore the object, or run the job again under a new root")

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All rows, part by part."""
        for key in self.parts()["key"].to_pylist():
            yield from self.read_part(key, columns).to_batches()

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The whole dataset in memory: for samples and notebooks."""
        keys = self.parts()["key"].to_pylist()
        if not keys:
            return pa.table({})
        return pa.concat_tables([self.read_part(k, columns) for k in keys])

    def sample(self, n: int = 20, *, seed: int = 0, columns: Sequence[str] | None = None) -> pa.Table:
        """n rows drawn over all parts with equal chance, the same for a seed; reads only the parts it draws from."""
        parts = [r for r in self.parts().select(["key", "rows"]).to_pylist() if r["rows"]]
        total = sum(r["rows"] for r in parts)
        drawn = sorted(random.Random(seed).sample(range(total), min(n, total)))
        tables, start = [], 0
        for row in parts:
            inside = [i - start for i in drawn if start <= i < start + row["rows"]]
            start += row["rows"]
            if inside:
                tables.append(self.read_part(row["key"], columns).take(inside))
        return pa.concat_tables(tables) if tables else pa.table({})

    def read_file(self, name: str) -> bytes:
        """A file of an artifact, by name, checked against its hash."""
        rows = [r for r in self.parts("file").to_pylist() if r["input"] == name]
        if not rows:
            raise InputError(f"{self.name} v{self.manifest.version} has no file {name!r}")
        return self.read_object(rows[0])

    def annotations(self, family: str, version: int | None = None) -> pa.Table:
        """Rows of an annotations dataset, aligned with ours."""
        found = open_dataset(self.store, family, version)
        return pa.concat_tables([found.read_part(theirs["key"]) for _, theirs in aligned_parts(self, found)])

    def ledger(self, unit: str | None = None) -> Iterator[pa.Table]:
        """The ledger's rows, unit by unit (or of one), each record's last verdict.

        `retried` objects hold records that were tried again: their rows supersede earlier ones of the same file,
        offset, length and id, and a verdict `kept` means that the record is a document now and no row is left.
        """
        roles = pc.is_in(self.part_list["role"], pa.array(["ledger", "retried"]))
        rows = self.part_list.filter(roles)
        if unit is not None:
            rows = rows.filter(pc.equal(rows["unit"], unit))
        again = set(rows.filter(pc.equal(rows["role"], "retried"))["unit"].to_pylist())
        for row in rows.select(["unit", "key", "role"]).to_pylist():
            if row["unit"] not in again:
                yield self.read_part(row["key"])
        for name in sorted(again):
            objects = rows.filter(pc.equal(rows["unit"], name)).select(["key", "generation", "role"]).to_pylist()
            objects.sort(key=lambda o: (o["role"] == "retried", o["generation"], o["key"]))
            yield _last_verdicts(pa.concat_tables([self.read_part(o["key"]) for o in objects]))

    def explain(self, url_or_id: str) -> list[dict[str, Any]]:
        """Rows of this dataset and of its ledger about a URL or an id; a scan, meant for small datasets."""
        found: list[dict[str, Any]] = []
        parts = (self.read_part(key) for key in self.parts()["key"].to_pylist())
        for role, tables in (("part", parts), ("ledger", self.ledger())):
            for table in tables:
                match = None
                for column in ("id", "url"):
                    if column in table.schema.names:
                        equal = pc.fill_null(pc.equal(table[column], url_or_id), False)
                        match = equal if match is None else pc.or_(match, equal)
                if match is not None:
                    found += [{"dataset": self.name, "role": role, **r} for r in table.filter(match).to_pylist()]
        return found


def _last_verdicts(rows: pa.Table) -> pa.Table:
    """Rows in order of their versions -> those that stand.  `changed` rows tell of kept documents and always stand."""
    place = rows.select(["file", "offset", "length", "id", "verdict"]).to_pylist()
    last: dict[tuple[Any, ...], int] = {}
    stand = []
    for n, row in enumerate(place):
        if row["verdict"] == "changed":
            stand.append(n)
        else:
            last[row["file"], row["offset"], row["length"], row["id"]] = n
    stand += [n for n in last.values() if place[n]["verdict"] != "kept"]
    return rows.take(pa.array(sorted(stand), pa.int64()))


def aligned_parts(documents: Dataset, annotations: Dataset) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(part of the documents, part of the annotations) with the same rows in the same order.

    Paired by the piece of input and the ordered hash of the ids; InputError where a part has no annotations.
    """
    theirs = {(r["input"], r["rows_sum"]): r for r in annotations.parts().to_pylist()}
    pairs = [(r, theirs.get((r["input"], r["rows_sum"]))) for r in documents.parts().to_pylist()]
    missing = [mine["key"] for mine, other in pairs if other is None]
    if missing:
        raise InputError(
            f"{annotations.name} v{annotations.manifest.version} does not cover {len(missing)} of {len(pairs)} parts"
            f" of {documents.name} v{documents.manifest.version}",
            mend=f"run the job that makes {annotations.name} again",
        )
    return [(mine, other) for mine, other in pairs if other is not None]


def open_dataset(root: str | Store, name: str, version: int | None = None) -> Dataset:
    """Latest version or a given one; InputError that names what there is."""
    store = open_store(root) if isinstance(root, str) else root
    if version is None:
        manifest = latest_manifest(store, name)
        if manifest is None:
            raise InputError(
                f"no dataset {name!r} in {store.location}", mend="`gristmill datasets ls` shows what is there"
            )
        return Dataset(store, manifest)
    try:
        return Dataset(store, read_manifest(store, name, version))
    except MissingObjectError:
        there = manifest_chain(store, name).numbers()
        raise InputError(f"{name} has no version {version} in {store.location}; there are {there or 'none'}") from None
