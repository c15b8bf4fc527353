"""The dataset `takedowns`: read it, add to it. A version holds all rows of the ones before."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.datasets.content import add_sums
from pipelines.datasets.dataset import Dataset
from pipelines.datasets.manifest import PART_LIST, Manifest, commit_manifest, latest_manifest, put_part_list
from pipelines.datasets.parts import encode_table, read_parquet
from pipelines.datasets.store import Store
from pipelines.errors import ConflictError
from pipelines.takedown.requests import TAKEDOWNS, Listed

NAME = "takedowns"
KIND = "takedowns"


def part_keys(store: Store, name: str = NAME) -> list[str]:
    """Keys of the parts of the latest list; none where nothing was ever asked for."""
    manifest = latest_manifest(store, name)
    return Dataset(store, manifest).parts()["key"].to_pylist() if manifest is not None else []


def read_listed(store: Store, keys: list[str]) -> Listed:
    """The targets in these parts."""
    tables = [read_parquet(store.get(key), TAKEDOWNS.names) for key in keys]
    return Listed(pa.concat_tables(tables) if tables else TAKEDOWNS.empty_table())


def append(
    store: Store,
    rows: list[dict[str, Any]],
    *,
    job: dict[str, Any],
    created_at: str,
    writer: str,
    name: str = NAME,
) -> tuple[Manifest | None, int]:
    """The version that holds these rows too, and how many of them are new (kind and target decide).

    Losing the race for the number is answered by adding to the winner's version.
    """
    for _ in range(5):
        base = latest_manifest(store, name)
        have = pa.table({"kind": pa.array([], pa.string()), "target": pa.array([], pa.string())})
        before = PART_LIST.empty_table()
        if base is not None:
            dataset = Dataset(store, base)
            have, before = dataset.to_arrow(["kind", "target"]), dataset.part_list
        known = set(pc.binary_join_element_wise(have["kind"], have["target"], "/").to_pylist())
        fresh = [row for row in rows if f"{row['kind']}/{row['target']}" not in known]
        if not fresh:
            return base, 0
        version = base.version + 1 if base else 1
        table = pa.Table.from_pylist(fresh, schema=TAKEDOWNS)
        unit = hashlib.sha256("".join(f"{r['kind']}/{r['target']}\n" for r in fresh).encode()).hexdigest()[:32]
        part = encode_table(name, unit, "part", table, TAKEDOWNS)
        store.put(part.key, part.body)
        row = {
            "role": "part", "key": part.key, "stage_id": job["stage_id"], "unit": unit, "input": f"request {version}",
            "rows": part.rows, "bytes": len(part.body), "sha256": part.sha256, "content_sum": part.content_sum,
            "generation": version,
        }  # fmt: skip
        parts = pa.concat_tables([before, pa.Table.from_pylist([row], schema=PART_LIST)])
        part_list, head, parts = put_part_list(store, name, parts)
        manifest = Manifest(
            name=name, version=version, kind=KIND, parents=[], job={**job, "fingerprint": unit}, books={},
            part_list=part_list, head=head,
            extends={"version": base.version, "manifest_sha256": base.sha256} if base else None,
            schema=[{"name": f.name, "type": str(f.type), "doc": f.metadata[b"doc"].decode()} for f in TAKEDOWNS],
            stats=_stats(have["kind"].to_pylist() + [r["kind"] for r in fresh]), artifacts=[],
            content_sum=add_sums(parts["content_sum"].to_pylist()), created_at=created_at,
        )  # fmt: skip
        if (stored := commit_manifest(store, manifest, writer)) is not None:
            return stored, len(fresh)
    raise ConflictError(f"{name}: lost the race for the next version five times", mend="run the same command again")


def _stats(kinds: list[str]) -> dict[str, Any]:
    return {"by_kind": {kind: kinds.count(kind) for kind in sorted(set(kinds))}}
