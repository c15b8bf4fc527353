"""Garbage collection in two phases: list what nothing names, and a day later, if still unnamed, delete it.

Live is what a manifest names (every version is kept), what a done record of a job in flight names, and everything
under `runs/`. A part written by a job that is running now is covered by the grace: it is either named by then, or
its job has written done records. Candidate lists are a create-only chain under `gc/`.
"""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.datasets.chain import Chain
from pipelines.datasets.manifest import manifest_chain, read_manifest, read_part_list
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import Store

_COLLECTED = re.compile(r"(datasets|artifacts)/[^/]+/(parts|ledger|index|shards|files|lists)/.+|_probe/.+")


def names_of(store: Store) -> list[str]:
    """Datasets, then artifacts, that have a manifest."""
    found = set()
    for prefix in ("datasets/", "artifacts/"):
        for o in store.list(prefix):
            kind, name, folder = [*o.key.split("/", 3), "", ""][:3]
            if folder == "manifests":
                found.add(name if kind == "datasets" else f"artifacts/{name}")
    return sorted(found, key=lambda n: (n.startswith("artifacts/"), n))


def collect_garbage(
    store: Store, *, delete: bool, grace_hours: float, dry_run: bool, now: datetime.datetime | None = None
) -> dict[str, Any]:
    """The report: objects in use, candidates with their bytes, what was deleted, what to do next."""
    now = now or datetime.datetime.now(datetime.UTC)
    live = _live_keys(store)
    used, candidates, size_bytes = 0, [], 0
    for batch in _batches(store):
        keys = pa.array([o.key for o in batch])
        named = pc.is_in(keys, live).to_pylist()
        for o, is_named in zip(batch, named, strict=True):
            if is_named or not _COLLECTED.fullmatch(o.key):
                used += 1
            else:
                candidates.append(o.key)
                size_bytes += o.size_bytes
    chain = Chain(store, "gc", width=6)
    report = {
        "root": store.location,
        "live": used,
        "candidates": candidates,
        "bytes": size_bytes,
        "deleted": 0,
    }
    if delete:
        return report | _delete(store, chain, set(candidates), grace_hours, now, dry_run)
    if candidates and not dry_run:
        last = chain.latest()
        body = {"at": now.isoformat(), "keys": candidates}
        chain.append(last[0] + 1 if last else 1, body, uuid.uuid4().hex)
    after = f"next: `gristmill datasets gc --delete` after {grace_hours:g} hours deletes those that are still unused"
    return report | {"next": after if candidates else "nothing to collect"}


def _delete(
    store: Store,
    chain: Chain,
    candidates: set[str],
    grace_hours: float,
    now: datetime.datetime,
    dry_run: bool,
) -> dict[str, Any]:
    old: set[str] = set()
    for _, entry in chain.entries():
        if now - datetime.datetime.fromisoformat(entry["at"]) >= datetime.timedelta(hours=grace_hours):
            old |= set(entry["keys"])
    condemned = sorted(old & candidates)
    if not dry_run:
        for key in condemned:
            store.delete(key)
    left = len(candidates) - len(condemned)
    verb = "would delete" if dry_run else "deleted"
    tail = f"; {left} are not yet {grace_hours:g} hours on a list" if left else ""
    return {"deleted": 0 if dry_run else len(condemned), "next": f"{verb} {len(condemned)} objects{tail}"}


def _live_keys(store: Store) -> pa.Array:
    columns: list[pa.Array] = []
    for name in names_of(store):
        for version in manifest_chain(store, name).numbers():
            manifest = read_manifest(store, name, version)
            columns.append(read_part_list(store, manifest)["key"].combine_chunks())
            columns.append(pa.array([manifest.part_list["key"]]))
    for prefix in ("datasets/", "artifacts/"):
        for o in store.list(prefix):
            if "/work/" in o.key and "/done/" in o.key:
                done = read_parquet(store.get(o.key), ["key"])
                columns.append(done["key"].combine_chunks())
    return pc.unique(pa.chunked_array(columns, pa.string())) if columns else pa.array([], pa.string())


def _batches(store: Store) -> Iterator[list[Any]]:
    for prefix in ("datasets/", "artifacts/", "_probe/"):
        listing = iter(store.list(prefix))
        while batch := list(islice(listing, 10_000)):
            yield batch
