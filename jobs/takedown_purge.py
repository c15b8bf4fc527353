"""After a takedown: prove that nothing listed is left, and delete the bytes that older versions still name.

Proof is a scan of the objects themselves: of those that the latest versions name, or of every object under the root.
A purge deletes what only older versions name and what holds something listed, with all its object versions. The
older manifests stay, for what they pin; reading the deleted part of one says that it was purged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.runtime.context import Context
from jobs.runtime.stage import Unit, UnitResult, hash_unit
from jobs.takedown_documents import map_tables, note
from jobs.takedown_rewrite import named_in
from jobs.takedown_runs import runs_that_saw
from pipelines.datasets import Dataset
from pipelines.datasets.gc import names_of
from pipelines.datasets.manifest import latest_manifest, manifest_chain, read_manifest
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import OldVersion, Store
from pipelines.dedup.signed import EXACT
from pipelines.dedup.substring import WINDOWS
from pipelines.errors import IntegrityError
from pipelines.takedown.listing import NAME, part_keys, read_listed
from pipelines.takedown.requests import Listed, text_digests
from pipelines.takedown.tombstones import standing, tells_of_page
from pipelines.tokens.tokenizer import RESERVED

LEFT = pa.schema([("key", pa.string()), ("version", pa.string()), ("rows", pa.int64()), ("what", pa.string())])
_PIECES = "pieces of texts without a name"  # of dedup_substrings, which a run that was broken off leaves behind
_SPILLED = ".tokens"  # beside `.rows.parquet`, which tells whose they are
_HOLD_TEXT = ("/parts/", "/ledger/", "/shards/", "/work/", "/files/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a scan saw. `left`: rows of LEFT, objects (or older versions of them) in which something listed is left."""

    objects: int
    left: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """Objects with listed content that only older versions (or nobody) name, and who may have learned from them.

    `versions`: what the store keeps beside what can be read, and what goes too: older versions, marks of deletion.
    """

    keys: list[str]
    versions: list[OldVersion]
    size_bytes: int
    models: list[str]
    runs: list[str]
    deleted: bool


def verify(context: Context, *, all_objects: bool = False) -> Proof:
    """Scan what the latest versions name, or every object that may hold a page's text."""
    store = context.store
    objects = list(_every_object(store, _named_by_any(store)) if all_objects else _named_by_latest(store).items())
    left = _scan(context, objects)
    note(context, "verify", {"objects": len(objects), "left": left.num_rows, "all_objects": all_objects})
    return Proof(objects=len(objects), left=left)


def purge(context: Context, *, delete: bool = False) -> Purged:
    """Find, and with `delete` remove, the old bytes; IntegrityError while the latest versions hold something listed."""
    store = context.store
    latest = _live_keys(store)
    if _scan(context, list(_named_by_latest(store).items())).num_rows:
        raise IntegrityError(
            "the latest versions still hold something that is listed", mend="`gristmill takedown apply` first"
        )
    named = _named_by_any(store)
    old = [(key, spec) for key, spec in _every_object(store, named) if key not in latest or "version" in spec]
    found = _scan(context, old).to_pylist()
    condemned = {row["key"] for row in found if row["version"] is None}
    if condemned - set(named):  # of a job in flight: it begins anew, as it must not count on what is gone
        condemned |= {o.key for o in store.list("datasets/") if _is_in_flight(o.key)}
    versions = _condemned_versions(store, condemned, {(row["key"], row["version"]) for row in found if row["version"]})
    sizes = {key: there.size_bytes for key in condemned if (there := store.head(key)) is not None}
    size = sum(sizes.values()) + sum(version.size_bytes for version in versions)
    models, runs = _learned(store)
    if delete:
        for key in sorted(condemned):
            store.purge(key)
        for version in versions:
            if version.key not in condemned:
                store.purge(version.key, version.version)
        gone = {(version.key, version.version) for version in versions}
        left = [key for key in condemned if store.head(key) is not None]
        left += [v.key for v in store.old_versions("datasets/") if v.key in condemned or (v.key, v.version) in gone]
        if left:
            raise IntegrityError(f"{len(left)} objects are still there after the purge, first {left[0]}", key=left[0])
        listed = latest_manifest(store, NAME)
        body = {"takedowns": listed.version if listed else 0, "keys": sorted(condemned), "models": models, "runs": runs}
        note(context, "purge", {**body, "versions": [[v.key, v.version] for v in versions]})
    keys = sorted(condemned)
    return Purged(keys=keys, versions=versions, size_bytes=size, models=models, runs=runs, deleted=delete)


def _is_in_flight(key: str) -> bool:
    return "/work/" in key and "/attempts/" not in key and f"/{NAME}/" not in key


def _condemned_versions(store: Store, keys: set[str], found: set[tuple[str, str]]) -> list[OldVersion]:
    """All versions and marks of objects that go or, where only versions were found, of what was deleted before."""
    dead = {key for key in {key for key, _ in found} if store.head(key) is None}
    whole = keys | dead
    return [v for v in store.old_versions("datasets/") if v.key in whole or (v.key, v.version) in found]


def _live_keys(store: Store) -> set[str]:
    """Every key that the latest versions name, whatever its role."""
    manifests = [latest_manifest(store, name) for name in names_of(store)]
    return {key for m in manifests if m is not None for key in Dataset(store, m).part_list["key"].to_pylist()}


def _named_by_latest(store: Store) -> dict[str, dict[str, Any]]:
    """Key -> what is needed to look into it, of objects that may hold text."""
    manifests = (latest_manifest(store, name) for name in _with_text(store))
    return dict(sorted(named for m in manifests if m is not None for named in _named(Dataset(store, m))))


def _named_by_any(store: Store) -> dict[str, dict[str, Any]]:
    """The same of all versions that are there."""
    found: dict[str, dict[str, Any]] = {}
    for name in _with_text(store):
        for number in manifest_chain(store, name).numbers():
            for key, spec in _named(Dataset(store, read_manifest(store, name, number))):
                found.setdefault(key, spec)
    return dict(sorted(found.items()))


def _with_text(store: Store) -> list[str]:
    manifests = {name: latest_manifest(store, name) for name in names_of(store) if not name.startswith("artifacts/")}
    return [name for name, m in manifests.items() if m is not None and m.kind != "takedowns"]


def _every_object(store: Store, named: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What versions name, what nobody names, and what the store keeps of objects that were overwritten or deleted."""
    yield from named.items()
    for stored in store.list("datasets/"):
        if stored.key not in named and _may_hold_text(stored.key):
            yield stored.key, {}
    for old in store.old_versions("datasets/"):
        if not old.is_mark and (old.key in named or _may_hold_text(old.key)):
            yield old.key, {**named.get(old.key, {}), "version": old.version}


def _may_hold_text(key: str) -> bool:
    inside = any(folder in key for folder in _HOLD_TEXT) and f"/{NAME}/" not in key
    of_tokens = ("/shards/" in key and key.endswith(".bin")) or ("/work/" in key and key.endswith(_SPILLED))
    return inside and (key.endswith(".parquet") or of_tokens)


def _named(dataset: Dataset) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = dataset.part_list.select(["role", "key", "unit", "cell"]).to_pylist()
    docs = {(r["unit"], r["cell"]): r["key"] for r in rows if r["role"] == "docs"}
    for row in rows:
        if row["role"] in ("part", "ledger", "retried"):
            yield row["key"], {}
        elif row["role"] == "shard":
            yield row["key"], {"docs": docs[row["unit"], row["cell"]], "dtype": dataset.manifest.stats["dtype"]}


def _scan(context: Context, objects: list[tuple[str, dict[str, Any]]]) -> pa.Table:
    units = [
        Unit(id=hash_unit("scan", key, spec.get("version")), input=key, spec={"key": key, **spec})
        for key, spec in objects
    ]
    return map_tables(context, "scan", units, f"{__name__}:open_scanner", {"listed": part_keys(context.store)}, LEFT)


def open_scanner(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """LEFT of one object."""
    listed = read_listed(store, worker_config["listed"])

    def scan(unit: Unit) -> UnitResult:
        key, version = unit.spec["key"], unit.spec.get("version")
        if version is None and store.head(key) is None:  # purged already
            return UnitResult()
        body = store.get(key) if version is None else store.get_version(key, version)
        if key.endswith(".bin"):
            rows, what = _left_in_shard(store, body, unit.spec, listed)
        elif key.endswith(_SPILLED):
            rows, what = _left_in_spill(store, f"{key.removesuffix(_SPILLED)}.rows.parquet", listed)
        else:
            rows, what = _left_in_table(read_parquet(body), listed)
        if not rows:
            return UnitResult()
        return UnitResult(parts={NAME: pa.table([[key], [version], [rows], [what]], schema=LEFT)})

    return scan


def _left_in_shard(store: Store, body: bytes, spec: dict[str, Any], listed: Listed) -> tuple[int, str]:
    """Documents of which a token of text is left; all of a shard of which nobody tells what it holds."""
    if "docs" not in spec or store.head(spec["docs"]) is None:
        return 1, "a shard of which nobody tells the documents"
    docs = read_parquet(store.get(spec["docs"]), ["id", "first_token", "tokens"])
    docs = docs.filter(pc.is_in(docs["id"], listed.ids))
    if not docs.num_rows:
        return 0, "tokens"
    tokens = np.frombuffer(body, np.dtype(spec["dtype"]).newbyteorder("<"))
    spans = zip(docs["first_token"].to_pylist(), docs["tokens"].to_pylist(), strict=True)
    return sum(bool((tokens[first : first + count] >= RESERVED).any()) for first, count in spans), "tokens"


def _left_in_spill(store: Store, rows_key: str, listed: Listed) -> tuple[int, str]:
    """Listed documents of a spill; one of which nobody tells what it holds, as it is older or half written, counts."""
    if store.head(rows_key) is None:
        return 1, "a spill of which nobody tells the documents"
    ids = read_parquet(store.get(rows_key), ["id"])["id"]
    return pc.sum(pc.is_in(ids, listed.ids)).as_py() or 0, "tokens"


def _left_in_table(table: pa.Table, listed: Listed) -> tuple[int, str]:
    """Rows with a listed id, address or text in which more than the id is left."""
    names = set(table.schema.names)
    if set(WINDOWS.names) <= names:
        return table.num_rows, _PIECES
    if "id" not in names:
        return 0, "rows"
    if "verdict" in names:
        return pc.sum(pc.and_(named_in(table, listed), tells_of_page(table))).as_py() or 0, "ledger rows"
    if not names & {"text", EXACT}:  # annotations hold numbers and ids alone, lists of a shard or a spill count
        return 0, "rows"
    found = pc.or_(standing(table, listed.ids), pc.and_(named_in(table, listed), _has_text(table)))
    if "text" in names and len(listed.texts):
        found = pc.or_(found, pc.fill_null(pc.is_in(text_digests(table["text"]), listed.texts), False))
    return pc.sum(found).as_py() or 0, "rows"


def _has_text(table: pa.Table) -> pa.Array:
    name = "text" if "text" in table.schema.names else table.schema.names[-1]
    return table[name].combine_chunks().is_valid()


def _learned(store: Store) -> tuple[list[str], list[str]]:
    """Artifacts and runs made of a version from before the takedown: they may hold what they learned."""
    touched: dict[str, int] = {}
    for name in names_of(store):
        for number in manifest_chain(store, name).numbers():
            manifest = read_manifest(store, name, number)
            if any(p["role"] == "takedown" for p in manifest.parents):
                touched.setdefault(name, number)
    models = []
    for name in names_of(store):
        for number in manifest_chain(store, name).numbers():
            manifest = read_manifest(store, name, number)
            if name.startswith("artifacts/") and any(
                p["version"] < touched.get(p["name"], 0) for p in manifest.parents
            ):
                models.append(f"{name} v{number}")
    return models, [row["run"] for row in runs_that_saw(store) if row["steps"]]
