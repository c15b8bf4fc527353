"""Take pages down everywhere: find what the list names, and put tombstones in its place, as new versions.

What is found is first added to the list as ids, so that a run that dies goes on from the list: the pages themselves
may not tell any more. Then every dataset is rewritten where it holds one of them, texts before what was made of
them. Rows, alignment and training positions stay; nothing is computed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.runtime.context import Context
from jobs.runtime.done import clear_done, read_done
from jobs.runtime.execute import Task
from jobs.runtime.lease import lease
from jobs.runtime.run import WAVE_UNITS, check_present
from jobs.runtime.stage import FileOut, Output, Stage, Unit, UnitResult, hash_unit, unit_table
from pipelines.datasets import Dataset, open_dataset
from pipelines.datasets.chain import Chain
from pipelines.datasets.content import add_sums
from pipelines.datasets.gc import names_of
from pipelines.datasets.manifest import (
    CONTENT_ROLES,
    PART_LIST,
    Manifest,
    as_first_written,
    commit_manifest,
    latest_manifest,
    put_part_list,
)
from pipelines.datasets.names import work_prefix
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import Store
from pipelines.dedup.signed import EXACT
from pipelines.errors import ConflictError, InputError
from pipelines.takedown.listing import NAME, append, part_keys, read_listed
from pipelines.takedown.requests import Listed, text_digests
from pipelines.takedown.tombstones import redacted, standing, tells_of_page, void_tokens, with_tombstones

STAGE = hash_unit("takedown", 1)
ROWS_KINDS = ("documents", "signatures")  # kinds whose rows hold, or are made of, a page's text
AUDIT = "audit"

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
            manifest, changed = _rewrite(context, name, listed)
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


# ---- find ----------------------------------------------------------------------------------------------------------


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
    config = {"listed": part_keys(context.store), "twins": None}
    named = map_tables(context, "find", units, f"{__name__}:open_finder", config, FOUND)
    digests = sorted(set(named["digest"].to_pylist()) - {None})
    listed = read_listed(context.store, config["listed"])
    if not digests and not len(listed.texts):
        return named
    config["twins"] = digests
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
    twins = worker_config["twins"]

    def find(unit: Unit) -> UnitResult:
        if twins is None:
            part = read_parquet(store.get(unit.spec["key"]), ["id", "url"])
            kinds = np.array([listed.kind_of(url) for url in part["url"].to_pylist()], object)
            by_id = np.asarray(pc.is_in(part["id"].combine_chunks(), listed.ids)) & np.asarray(part["url"].is_valid())
            kinds[by_id & (kinds == None)] = "id"  # noqa: E711 - of each element
            rows = np.flatnonzero(kinds != None)  # noqa: E711
            digests = _digests(store, unit.spec, rows) if len(rows) else pa.nulls(0, pa.string())
        else:
            every = _digests(store, unit.spec, None)
            wanted = pa.concat_arrays([pa.array(twins, pa.string()), listed.texts])
            rows = np.flatnonzero(np.asarray(pc.is_in(every, wanted)) & np.asarray(every.is_valid()))
            digests = every.take(pa.array(rows))
            asked = np.asarray(pc.is_in(digests, listed.texts))
            kinds = np.full(len(every), None, object)
            kinds[rows] = np.where(asked, "text", "twin")
        ids = read_parquet(store.get(unit.spec["key"]), ["id"])["id"].take(pa.array(rows))
        inputs = [unit.input] * len(rows)
        table = pa.table([ids, digests, pa.array(kinds[rows].tolist(), pa.string()), inputs], schema=FOUND)
        return UnitResult(parts={NAME: table} if len(rows) else {})

    return find


def _digests(store: Store, spec: dict[str, Any], rows: np.ndarray | None) -> pa.Array:
    """32 hex of the normal forms of these rows, or of all: from the signatures, else from the texts."""
    if spec["signatures"] is not None:
        found = read_parquet(store.get(spec["signatures"]), [EXACT])[EXACT]
        found = found.take(pa.array(rows)) if rows is not None else found
        return pa.array([digest and digest.hex() for digest in found.to_pylist()], pa.string())
    texts = read_parquet(store.get(spec["key"]), ["text"])["text"]
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
    config: dict[str, Any] = {"ids": ids, "clusters": None}
    mine = map_tables(
        context, "clusters", [u for u in units if u.input in touched], f"{__name__}:open_neighbours", config, NEAR
    )
    clusters = sorted(set(mine["cluster"].to_pylist()) - {None})
    config["clusters"] = clusters
    near = map_tables(context, "near copies", units, f"{__name__}:open_neighbours", config, NEAR) if clusters else mine
    return near.filter(pc.invert(pc.is_in(near["id"], pa.array(ids, pa.string()))))


def open_neighbours(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """NEAR of one part of dedup annotations: of the given ids, or of the given clusters."""
    ids, clusters = (pa.array(worker_config[name] or [], pa.string()) for name in ("ids", "clusters"))
    by, wanted = ("id", ids) if worker_config["clusters"] is None else ("dedup.cluster", clusters)

    def neighbours(unit: Unit) -> UnitResult:
        part = read_parquet(store.get(unit.spec["key"]), ["id", "dedup.cluster", "dedup.similarity"])
        rows = part.filter(pc.is_in(part[by], wanted))
        if not rows.num_rows:
            return UnitResult()
        table = pa.table([*rows.columns, pa.array([unit.input] * rows.num_rows)], schema=NEAR)
        return UnitResult(parts={NAME: table})

    return neighbours


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
    done = run_units(context, stage, own, work_prefix(NAME, place))
    keys = done.filter(pc.equal(done["role"], "part"))["key"].to_pylist()
    tables = [read_parquet(context.store.get(key)) for key in sorted(keys)]
    for key in keys:
        context.store.delete(key)
    return pa.concat_tables([schema.empty_table(), *tables])


def run_units(context: Context, stage: Stage, units: Iterable[Unit], prefix: str) -> pa.Table:
    """Done rows of all units; those that an attempt before left are taken over."""
    table = unit_table(units)
    task = Task(
        location=context.store.location,
        stage=stage,
        done_prefix=prefix,
        flush_seconds=context.flush_seconds,
        flush_units=context.flush_units,
    )
    left = table.filter(pc.invert(pc.is_in(table["unit"], read_done(context.store, prefix)["unit"].combine_chunks())))
    with context.progress.stage(stage.job, left.num_rows) as tick:
        for start in range(0, left.num_rows, WAVE_UNITS):
            for rows in context.map(task, left.slice(start, WAVE_UNITS)):
                tick(rows)
    done = read_done(context.store, prefix)
    clear_done(context.store, prefix)
    return done


# ---- rewrite -------------------------------------------------------------------------------------------------------


def _rewrite(context: Context, name: str, listed: Manifest) -> tuple[Manifest | None, int]:
    """The next version of a dataset with tombstones, and rows (of tokens: documents' tokens) changed; or None."""
    dataset = open_dataset(context.store, name)
    rows = dataset.part_list.to_pylist()
    table = read_listed(context.store, part_keys(context.store))
    inputs = set(table.table["input"].to_pylist())
    done = [PART_LIST.empty_table()]
    kind = dataset.manifest.kind
    if kind in ROWS_KINDS:
        parts = [r for r in rows if r["role"] == "part" and r["input"] in inputs]
        if parts:
            schema = pq.ParquetFile(pa.BufferReader(context.store.get(parts[-1]["key"]))).schema_arrow
            done.append(_rewrite_objects(context, dataset, "parts", parts, "open_entomber", schema))
    if kind == "tokens":
        done.append(_rewrite_objects(context, dataset, "shards", _shards(rows), "open_voider", None))
    ledgers = [r for r in rows if r["role"] in ("ledger", "retried")]
    if ledgers:
        done.append(_rewrite_objects(context, dataset, "ledger", ledgers, "open_redactor", None))
    changed = pa.concat_tables([t.select(PART_LIST.names) for t in done])
    changed = changed.filter(pc.not_equal(changed["role"], "none"))
    if not changed.num_rows:
        return None, 0
    count = sum(c["value"] for cs in changed["counters"].to_pylist() for c in cs or () if c["name"] == "stats.changed")
    check_present(context, changed)
    return _commit(context, dataset, changed, listed), count


def _shards(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a shard, that names its documents and page table too."""
    others = {(r["role"], r["unit"], r["cell"]): r for r in rows}
    found = []
    for row in rows:
        if row["role"] == "shard":
            docs = others["docs", row["unit"], row["cell"]]
            found.append({**row, "docs": docs["key"]})
    return found


def _rewrite_objects(
    context: Context, dataset: Dataset, step: str, rows: list[dict[str, Any]], worker: str, schema: pa.Schema | None
) -> pa.Table:
    """Done rows of the objects that changed, each named by the unit `hash_unit(key)` of the one it stands for."""
    keys = part_keys(context.store)
    stats = dataset.manifest.stats
    config = {
        "listed": keys,
        "name": dataset.name,
        "dtype": stats.get("dtype"),
        "filler_id": stats.get("tokenizer", {}).get("filler_id") if dataset.manifest.kind == "tokens" else None,
    }
    stage = Stage(
        job=f"takedown: {dataset.name}, {step}",
        stage_id=hash_unit(STAGE, dataset.name, step),
        outputs=(Output(dataset=dataset.name, kind=dataset.manifest.kind, schema=schema, optional=True),),
        worker=f"{__name__}:{worker}",
        worker_config=config,
    )
    units = [
        Unit(
            id=hash_unit(row["key"]),
            input=row["input"] or row["key"],
            size_bytes=row["bytes"],
            spec={"key": row["key"], "role": row["role"], "docs": row.get("docs"), "cell": row["cell"],
                  "tokens": row["tokens"]},
        )
        for row in rows
    ]  # fmt: skip
    return run_units(context, stage, units, work_prefix(dataset.name, hash_unit(STAGE, dataset.name, step, keys)))


def open_entomber(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """A part with tombstones, where it has rows to be taken down."""
    listed, name = read_listed(store, worker_config["listed"]), worker_config["name"]

    def entomb(unit: Unit) -> UnitResult:
        body = store.get(unit.spec["key"])
        if not pc.any(pc.is_in(read_parquet(body, ["id"])["id"], listed.ids)).as_py():
            return UnitResult()
        table = read_parquet(body)
        count = pc.sum(standing(table, listed.ids)).as_py() or 0
        if not count:
            return UnitResult()
        return UnitResult(parts={name: with_tombstones(table, listed.ids)}, stats={"changed": count})

    return entomb


def open_redactor(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """A ledger object without what tells of the pages, where it tells of any."""
    listed = read_listed(store, worker_config["listed"])

    def redact(unit: Unit) -> UnitResult:
        ledger = read_parquet(store.get(unit.spec["key"]))
        mask = pc.and_(tells_of_page(ledger), named_in(ledger, listed))
        count = pc.sum(mask).as_py() or 0
        if not count:
            return UnitResult()
        return UnitResult(ledger=redacted(ledger, mask), ledger_role=unit.spec["role"], stats={"changed": count})

    return redact


def named_in(table: pa.Table, listed: Listed) -> pa.Array:
    """(n,) bool: rows with a listed id, or a listed address."""
    names = table.schema.names
    found = pc.is_in(table["id"].combine_chunks(), listed.ids)
    if "url" in names and listed.names_pages:
        kinds = [listed.kind_of(url) is not None for url in table["url"].to_pylist()]
        found = pc.or_(found, pa.array(kinds, pa.bool_()))
    return found


def open_voider(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """A token shard with its page table, the spans of the documents set to the filler, where it has any."""
    listed, name = read_listed(store, worker_config["listed"]), worker_config["name"]
    dtype = np.dtype(worker_config["dtype"]).newbyteorder("<")

    def void(unit: Unit) -> UnitResult:
        docs = store.get(unit.spec["docs"])
        ids = read_parquet(docs, ["id"])["id"]
        if not pc.any(pc.is_in(ids, listed.ids)).as_py():
            return UnitResult()
        body, checksums, changed = void_tokens(
            store.get(unit.spec["key"]), docs, listed.ids, dtype, worker_config["filler_id"]
        )
        if not changed:
            return UnitResult()
        given = {"dataset": name, "rows": len(ids), "cell": unit.spec["cell"], "tokens": unit.spec["tokens"]}
        return UnitResult(
            files=[
                FileOut(role="shard", suffix=".bin", body=body, **given),
                FileOut(role="crc", suffix=".crc", body=checksums, **{**given, "tokens": None}),
            ],
            stats={"changed": changed},
        )

    return void


def _commit(context: Context, dataset: Dataset, changed: pa.Table, listed: Manifest) -> Manifest:
    """The version after the latest, each changed object in the place of the one that it stands for."""
    base = dataset.manifest
    now = {(row["unit"], row["role"]): row for row in changed.to_pylist()}
    shards = {(r["unit"], r["cell"]): hash_unit(r["key"]) for r in dataset.parts("shard").to_pylist()}
    rows = []
    for row in dataset.part_list.to_pylist():
        unit = shards.get((row["unit"], row["cell"])) if row["role"] == "crc" else hash_unit(row["key"])
        new = now.get((unit, row["role"]))
        if new is not None:
            origin = dict(zip(("origin_sha256", "origin_sum"), as_first_written(row), strict=True))
            row = {**row, **{k: new[k] for k in ("key", "bytes", "sha256", "content_sum")}, **origin}
        rows.append(row)
    part_list, head, table = put_part_list(context.store, dataset.name, pa.Table.from_pylist(rows, schema=PART_LIST))
    content = table.filter(pc.is_in(table["role"], pa.array(CONTENT_ROLES)))
    ledger = table.filter(pc.is_in(table["role"], pa.array(["ledger", "retried"])))
    manifest = replace(
        base,
        version=base.version + 1,
        parents=[*(p for p in base.parents if p["role"] != "takedown"), listed.pin("takedown")],
        job={**base.job, "content_sum_before_takedown": base.first_sum},
        part_list=part_list,
        head=head,
        extends={"version": base.version, "manifest_sha256": base.sha256},
        content_sum=add_sums(content["content_sum"].to_pylist()),
        stats={**base.stats, "ledger_sum": add_sums(ledger["content_sum"].to_pylist())},
        created_at=context.now(),
    )
    stored = commit_manifest(context.store, manifest, context.writer)
    if stored is None:
        raise ConflictError(
            f"another writer made {dataset.name} v{manifest.version}", mend="run the same command again"
        )
    context.committed.append(stored)
    context.progress.say(f"{stored.name} v{stored.version}: tombstones in place")
    return stored
