"""Take pages down everywhere: find what the list names, and put tombstones in its place, as new versions.

What is found is first added to the list as ids, so that a run that dies goes on from the list: the pages themselves
may not tell any more. Then every dataset is rewritten where it holds one of them, texts before what was made of
them. Rows, alignment and training positions stay; nothing is computed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.runtime.context import Context
from jobs.runtime.done import clear_done
from jobs.runtime.lease import lease
from jobs.runtime.stage import Output, Stage, Unit, UnitResult, hash_unit, unit_table
from jobs.runtime.units import do_units
from jobs.takedown_rewrite import STAGE, rewrite
from pipelines.datasets import Dataset, open_dataset
from pipelines.datasets.chain import Chain
from pipelines.datasets.gc import names_of
from pipelines.datasets.manifest import (
    Manifest,
    latest_manifest,
)
from pipelines.datasets.names import AUDIT, work_prefix
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.ranged import read_columns
from pipelines.datasets.store import Store
from pipelines.dedup.nodes import put_table
from pipelines.dedup.signed import EXACT
from pipelines.errors import ConflictError, InputError
from pipelines.takedown.listing import NAME, append, part_keys, read_listed
from pipelines.takedown.requests import text_digests

FOUND = pa.schema([("id", pa.string()), ("digest", pa.string()), ("found_by", pa.string()), ("input", pa.string())])
NEAR = pa.schema([("id", pa.string()), ("cluster", pa.string()), ("similarity", pa.float64()), ("input", pa.string())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What a takedown found and changed. `near`: rows of NEAR, copies to decide on; `rewritten`: rows by dataset."""

    listed: Manifest
    found: dict[str, int]
    near: pa.Table
    rewritten: dict[str, int]
    manifests: list[Manifest] = field(default_factory=list)


def request(context: Context, rows: list[dict[str, Any]], reason: str) -> tuple[Manifest | None, int]:
    """Add targets (`pipelines.takedown.requests.targets`) to the list: the version, and how many are new."""
    asked = {"asked_at": context.now(), "reason": reason}
    asked["request"] = hash_unit(asked, sorted(row["target"] for row in rows))[:16]
    return _append(context, [{**row, **asked} for row in rows])


def apply(context: Context, documents: str = "documents", dedup: str = "dedup", *, dry_run: bool = False) -> Applied:
    """Find, list and rewrite; with `dry_run` only find."""
    store = context.store
    listed = latest_manifest(store, NAME)
    if listed is None:
        raise InputError("no takedown was asked for", mend="`gristmill takedown add --urls FILE` first")
    with lease(store, f"datasets/{NAME}/work", say=context.progress.say):
        found = _find(context, open_dataset(store, documents))
        near = _near(context, documents, dedup, found)
        counts = {kind: n for kind in ("url", "domain", "text", "id", "twin") if (n := _count(found, kind))}
        if dry_run:
            return Applied(listed=listed, found=counts, near=near, rewritten={})
        rows = [
            {"kind": "id", "target": row["id"], "found_by": row["found_by"], "input": row["input"],
             "asked_at": context.now(), "reason": None, "request": None}
            for row in found.to_pylist()
        ]  # fmt: skip
        digests = sorted(set(found["digest"].to_pylist()) - {None})
        rows += [{"kind": "text", "target": d, "found_by": "twin", "asked_at": context.now()} for d in digests]
        listed = _append(context, rows)[0] or listed
        rewritten, manifests = {}, []
        for name in _in_order(store):
            manifest, changed = rewrite(context, name, listed)
            if manifest is not None:
                rewritten[name] = changed
                manifests.append(manifest)
        note(context, "apply", {"takedowns": listed.version, "found": counts, "rewritten": rewritten})
    return Applied(listed=listed, found=counts, near=near, rewritten=rewritten, manifests=manifests)


def note(context: Context, action: str, body: dict[str, Any]) -> None:
    """An entry of the audit chain: numbers and hashes, no text of any page."""
    chain = Chain(context.store, AUDIT)
    for _ in range(20):
        last = chain.latest()
        number = last[0] + 1 if last else 1
        if chain.append(number, {"action": f"takedown.{action}", "at": context.now(), **body}, context.writer):
            return
    raise ConflictError("audit: lost the race for the next entry twenty times", mend="run the same command again")


def _append(context: Context, rows: list[dict[str, Any]]) -> tuple[Manifest | None, int]:
    job = {"name": "takedown", "stage_id": STAGE, "config": {}, "producers": [context.producer()]}
    whole = [{"found_by": None, "input": None, "host": None, "request": None, "reason": None, **row} for row in rows]
    return append(context.store, whole, job=job, created_at=context.now(), writer=context.writer)


def _count(found: pa.Table, kind: str) -> int:
    return pc.sum(pc.equal(found["found_by"], kind)).as_py() or 0


def _in_order(store: Store) -> list[str]:
    """Datasets that hold pages or tell of them: texts first, tokens last."""
    order = {"documents": 0, "signatures": 1, "annotations": 2, "tokens": 3}
    kinds = {name: latest_manifest(store, name).kind for name in names_of(store) if not name.startswith("artifacts/")}
    return sorted((n for n, kind in kinds.items() if kind in order), key=lambda n: (order[kinds[n]], n))


def _find(context: Context, documents: Dataset) -> pa.Table:
    """FOUND: documents that stand and are named by address, text or id, and the exact twins of those."""
    signatures = _signatures_of(context.store, documents)
    rows = documents.parts().select(["key", "input", "bytes"]).to_pylist()
    units = [
        Unit(
            id=hash_unit("find", row["key"]),
            input=row["input"],
            size_bytes=row["bytes"],
            spec={"key": row["key"], "signatures": signatures.get(row["key"])},
        )
        for row in rows
    ]
    config: dict[str, Any] = {"listed": part_keys(context.store), "twins": None}
    named = map_tables(context, "find", units, f"{__name__}:open_finder", config, FOUND)
    digests = sorted(set(named["digest"].to_pylist()) - {None})
    listed = read_listed(context.store, config["listed"])
    if not digests and not len(listed.texts):
        return named
    with _wanted(context.store, digests) as config["twins"]:
        twins = map_tables(context, "find twins", units, f"{__name__}:open_finder", config, FOUND)
    fresh = twins.filter(pc.invert(pc.is_in(twins["id"], named["id"].combine_chunks())))
    return pa.concat_tables([named, fresh])


def _signatures_of(store: Store, documents: Dataset) -> dict[str, str]:
    """Part of the documents -> the part of signatures that lies beside it, where there is one with digests."""
    for name in names_of(store):
        manifest = latest_manifest(store, name)
        if manifest is None or manifest.kind != "signatures":
            continue
        if EXACT not in {column["name"] for column in manifest.schema}:
            continue
        theirs = {(r["input"], r["rows_sum"]): r["key"] for r in Dataset(store, manifest).parts().to_pylist()}
        parts = documents.parts().select(["key", "input", "rows_sum"]).to_pylist()
        return {r["key"]: theirs[place] for r in parts if (place := (r["input"], r["rows_sum"])) in theirs}
    return {}


def open_finder(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """FOUND of one part: by address and id, or, given `twins`, by the digest of the text."""
    listed = read_listed(store, worker_config["listed"])
    twins = None if worker_config["twins"] is None else _read_wanted(store, worker_config["twins"])

    def find(unit: Unit) -> UnitResult:
        if twins is None:
            part = read_columns(store, unit.spec["key"], ["id", "url", "file"])
            kinds = np.array([listed.kind_of(url) for url in part["url"].to_pylist()], object)
            stands = np.asarray(part["file"].is_valid()) | np.asarray(part["url"].is_valid())  # a tombstone has neither
            by_id = np.asarray(pc.is_in(part["id"].combine_chunks(), listed.ids)) & stands
            kinds[by_id & (kinds == None)] = "id"  # noqa: E711 - of each element
            rows = np.flatnonzero(kinds != None)  # noqa: E711
            digests = _digests(store, unit.spec, rows) if len(rows) else pa.nulls(0, pa.string())
        else:
            every = _digests(store, unit.spec, None)
            wanted = pa.concat_arrays([twins, listed.texts])
            rows = np.flatnonzero(np.asarray(pc.is_in(every, wanted)) & np.asarray(every.is_valid()))
            digests = every.take(pa.array(rows))
            asked = np.asarray(pc.is_in(digests, listed.texts))
            kinds = np.full(len(every), None, object)
            kinds[rows] = np.where(asked, "text", "twin")
        ids = read_columns(store, unit.spec["key"], ["id"])["id"].take(pa.array(rows))
        inputs = [unit.input] * len(rows)
        table = pa.table([ids, digests, pa.array(kinds[rows].tolist(), pa.string()), inputs], schema=FOUND)
        return UnitResult(parts={NAME: table} if len(rows) else {})

    return find


def _digests(store: Store, spec: dict[str, Any], rows: np.ndarray | None) -> pa.Array:
    """32 hex of the normal forms of these rows, or of all: from the signatures, else from the texts."""
    if spec["signatures"] is not None:
        found = read_columns(store, spec["signatures"], [EXACT])[EXACT]
        found = found.take(pa.array(rows)) if rows is not None else found
        return pa.array([digest and digest.hex() for digest in found.to_pylist()], pa.string())
    texts = read_columns(store, spec["key"], ["text"])["text"]
    return text_digests(texts.take(pa.array(rows)) if rows is not None else texts)


def _near(context: Context, documents: str, dedup: str, found: pa.Table) -> pa.Table:
    """NEAR: documents in the clusters of what was found that were not found themselves."""
    if latest_manifest(context.store, dedup) is None or not found.num_rows:
        return NEAR.empty_table()
    parts = open_dataset(context.store, dedup).parts().select(["key", "input", "bytes"]).to_pylist()
    ids = found["id"].to_pylist()
    touched = set(found["input"].to_pylist())
    units = [
        Unit(id=hash_unit("near", r["key"]), input=r["input"], size_bytes=r["bytes"], spec={"key": r["key"]})
        for r in parts
    ]
    worker, own = f"{__name__}:open_neighbours", [u for u in units if u.input in touched]
    with _wanted(context.store, ids) as wanted:
        mine = map_tables(context, "clusters", own, worker, {"by": "id", "wanted": wanted}, NEAR)
    near, clusters = mine, sorted(set(mine["cluster"].to_pylist()) - {None})
    if clusters:
        with _wanted(context.store, clusters) as wanted:
            near = map_tables(context, "near copies", units, worker, {"by": "dedup.cluster", "wanted": wanted}, NEAR)
    return near.filter(pc.invert(pc.is_in(near["id"], pa.array(ids, pa.string()))))


def open_neighbours(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """NEAR of one part of dedup annotations: of the given ids, or of the given clusters."""
    by, wanted = worker_config["by"], _read_wanted(store, worker_config["wanted"])

    def neighbours(unit: Unit) -> UnitResult:
        part = read_parquet(store.get(unit.spec["key"]), ["id", "dedup.cluster", "dedup.similarity"])
        rows = part.filter(pc.is_in(part[by], wanted))
        if not rows.num_rows:
            return UnitResult()
        table = pa.table([*rows.columns, pa.array([unit.input] * rows.num_rows)], schema=NEAR)
        return UnitResult(parts={NAME: table})

    return neighbours


@contextmanager
def _wanted(store: Store, names: Iterable[str]) -> Iterator[str]:
    """The key of an object that holds these ids or digests, sorted: a task's configuration travels with every unit."""
    table = pa.table({"name": pa.array(sorted(set(names)), pa.string())})
    key = put_table(store, f"{work_prefix(NAME, STAGE)}/wanted", table)["key"]
    yield key
    store.delete(key)


def _read_wanted(store: Store, key: str) -> pa.Array:
    return read_parquet(store.get(key))["name"].combine_chunks()


def map_tables(
    context: Context,
    step: str,
    units: list[Unit],
    worker: str,
    config: dict[str, Any],
    schema: pa.Schema,
) -> pa.Table:
    """What the units made, as one table as large as what is to be taken down; nothing of it is committed."""
    stage = Stage(
        job=f"takedown: {step}",
        stage_id=hash_unit(STAGE, step),
        outputs=(Output(dataset=NAME, kind="takedowns", schema=schema, optional=True),),
        worker=worker,
        worker_config=config,
    )
    place = hash_unit(STAGE, step, config)
    # What one step made and deletes must not be what another step's done record names.
    own = [replace(unit, id=hash_unit(place, unit.id)) for unit in units]
    prefix = work_prefix(NAME, place)
    done = do_units(context, stage, unit_table(own), prefix)
    clear_done(context.store, prefix)
    keys = done.filter(pc.equal(done["role"], "part"))["key"].to_pylist()
    tables = [read_parquet(context.store.get(key)) for key in sorted(keys)]
    for key in keys:
        context.store.delete(key)
    return pa.concat_tables([schema.empty_table(), *tables])
