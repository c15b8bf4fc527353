"""Rewrite a dataset for a takedown: tombstones in its parts, silence in its ledger, filler in its token shards.

Each object that holds something listed is written anew and stands, in the next version, in the place of the old one;
all other objects are shared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.runtime.context import Context
from jobs.runtime.done import clear_done
from jobs.runtime.run import check_present, commit_after
from jobs.runtime.stage import FileOut, Output, Stage, Unit, UnitResult, hash_unit, unit_table
from jobs.runtime.units import do_units
from pipelines.datasets import Dataset, open_dataset
from pipelines.datasets.content import add_sums
from pipelines.datasets.manifest import (
    CONTENT_ROLES,
    PART_LIST,
    Manifest,
    first_content_sum,
    first_sha256,
    put_part_list,
)
from pipelines.datasets.names import work_prefix
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import Store
from pipelines.takedown.listing import part_keys, read_listed
from pipelines.takedown.requests import Listed
from pipelines.takedown.tombstones import redacted, standing, tells_of_page, void_tokens, with_tombstones

STAGE = hash_unit("takedown", 1)
ROWS_KINDS = ("documents", "signatures")  # kinds whose rows hold, or are made of, a page's text


def rewrite(context: Context, name: str, listed: Manifest) -> tuple[Manifest | None, int]:
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
    prefix = work_prefix(dataset.name, hash_unit(STAGE, dataset.name, step, keys))
    done = do_units(context, stage, unit_table(units), prefix)
    clear_done(context.store, prefix)
    return done


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
            origin = {"origin_sha256": first_sha256(row), "origin_sum": first_content_sum(row)}
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
    return commit_after(context, manifest, "tombstones in place")
