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
from pipelines.datasets import Dataset, open_dataset
from pipelines.datasets.gc import names_of
from pipelines.datasets.manifest import latest_manifest, manifest_chain, read_manifest
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import Store
from pipelines.dedup.signed import EXACT
from pipelines.errors import IntegrityError
from pipelines.takedown.listing import NAME, part_keys, read_listed
from pipelines.takedown.requests import Listed, text_digests
from pipelines.takedown.tombstones import standing, tells_of_page
from pipelines.tokens.tokenizer import RESERVED

LEFT = pa.schema([("key", pa.string()), ("rows", pa.int64()), ("what", pa.string())])
_HOLD_TEXT = ("/parts/", "/ledger/", "/shards/", "/work/", "/files/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a scan saw. `left`: rows of LEFT, objects in which something listed is left."""

    objects: int
    left: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """Objects with listed content that only older versions (or nobody) name, and who may have learned from them."""

    keys: list[str]
    size_bytes: int
    models: list[str]
    runs: list[str]
    deleted: bool


def verify(context: Context, *, all_objects: bool = False) -> Proof:
    """Scan what the latest versions name, or every object that may hold a page's text."""
    objects = list(_objects(context.store, all_objects=all_objects))
    left = _scan(context, objects)
    note(context, "verify", {"objects": len(objects), "left": left.num_rows, "all_objects": all_objects})
    return Proof(objects=len(objects), left=left)


def purge(context: Context, *, delete: bool = False) -> Purged:
    """Find, and with `delete` remove, the old bytes; IntegrityError while the latest versions hold something listed."""
    store = context.store
    latest = _live_keys(store)
    if _scan(context, list(_objects(store, all_objects=False))).num_rows:
        raise IntegrityError(
            "the latest versions still hold something that is listed", mend="`gristmill takedown apply` first"
        )
    old = [(key, spec) for key, spec in _objects(store, all_objects=True) if key not in latest]
    condemned = sorted(set(_scan(context, old)["key"].to_pylist()))
    sizes = {key: found.size_bytes for key in condemned if (found := store.head(key)) is not None}
    models, runs = _learned(store)
    if delete:
        for key in condemned:
            store.purge(key)
        left = [key for key in condemned if store.head(key) is not None]
        if left:
            raise IntegrityError(f"{len(left)} objects are still there after the purge, first {left[0]}", key=left[0])
        listed = latest_manifest(store, NAME)
        body = {"takedowns": listed.version if listed else 0, "keys": condemned, "models": models, "runs": runs}
        note(context, "purge", body)
    return Purged(keys=condemned, size_bytes=sum(sizes.values()), models=models, runs=runs, deleted=delete)


def _live_keys(store: Store) -> set[str]:
    """Every key that the latest versions name, whatever its role."""
    manifests = [latest_manifest(store, name) for name in names_of(store)]
    return {key for m in manifests if m is not None for key in Dataset(store, m).part_list["key"].to_pylist()}


def _objects(store: Store, *, all_objects: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, what is needed to look into it) of objects that may hold text."""
    named: dict[str, dict[str, Any]] = {}
    for name in names_of(store):
        manifest = latest_manifest(store, name)
        if name.startswith("artifacts/") or manifest is None or manifest.kind == "takedowns":
            continue
        numbers = manifest_chain(store, name).numbers() if all_objects else [manifest.version]
        for number in numbers:
            version = manifest if number == manifest.version else read_manifest(store, name, number)
            for key, spec in _named(Dataset(store, version)):
                named.setdefault(key, spec)
    yield from sorted(named.items())
    if all_objects:
        for stored in store.list("datasets/"):
            inside = any(folder in stored.key for folder in _HOLD_TEXT) and f"/{NAME}/" not in stored.key
            if inside and stored.key not in named and stored.key.endswith(".parquet"):
                yield stored.key, {}


def _named(dataset: Dataset) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = dataset.part_list.select(["role", "key", "unit", "cell"]).to_pylist()
    docs = {(r["unit"], r["cell"]): r["key"] for r in rows if r["role"] == "docs"}
    for row in rows:
        if row["role"] in ("part", "ledger", "retried"):
            yield row["key"], {}
        elif row["role"] == "shard":
            yield row["key"], {"docs": docs[row["unit"], row["cell"]], "dtype": dataset.manifest.stats["dtype"]}


def _scan(context: Context, objects: list[tuple[str, dict[str, Any]]]) -> pa.Table:
    units = [Unit(id=hash_unit("scan", key), input=key, spec={"key": key, **spec}) for key, spec in objects]
    return map_tables(context, "scan", units, f"{__name__}:open_scanner", {"listed": part_keys(context.store)}, LEFT)


def open_scanner(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """LEFT of one object."""
    listed = read_listed(store, worker_config["listed"])

    def scan(unit: Unit) -> UnitResult:
        key = unit.spec["key"]
        if store.head(key) is None:  # purged already
            return UnitResult()
        rows, what = (
            _left_in_shard(store, unit.spec, listed) if "docs" in unit.spec else _left_in_table(store, key, listed)
        )
        if not rows:
            return UnitResult()
        return UnitResult(parts={NAME: pa.table([[key], [rows], [what]], schema=LEFT)})

    return scan


def _left_in_shard(store: Store, spec: dict[str, Any], listed: Listed) -> tuple[int, str]:
    """Documents of which a token of text is left."""
    docs = read_parquet(store.get(spec["docs"]), ["id", "first_token", "tokens"])
    docs = docs.filter(pc.is_in(docs["id"], listed.ids))
    if not docs.num_rows:
        return 0, "tokens"
    tokens = np.frombuffer(store.get(spec["key"]), np.dtype(spec["dtype"]).newbyteorder("<"))
    spans = zip(docs["first_token"].to_pylist(), docs["tokens"].to_pylist(), strict=True)
    return sum(bool((tokens[first : first + count] >= RESERVED).any()) for first, count in spans), "tokens"


def _left_in_table(store: Store, key: str, listed: Listed) -> tuple[int, str]:
    """Rows with a listed id, address or text in which more than the id is left."""
    table = read_parquet(store.get(key))
    names = set(table.schema.names)
    if "id" not in names:
        return 0, "rows"
    if "verdict" in names:
        return pc.sum(pc.and_(named_in(table, listed), tells_of_page(table))).as_py() or 0, "ledger rows"
    spilled = "tokens" in names and pa.types.is_large_binary(table.schema.field("tokens").type)
    if not spilled and not names & {"text", EXACT}:  # annotations hold numbers and ids alone, a shard's list counts
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


def runs_that_saw(store: Store, most_documents: int = 1000) -> list[dict[str, Any]]:
    """For each run whose data holds listed documents: run, position reached, documents, steps (first, last, count).

    Steps are those up to the newest checkpoint, by the order's own arithmetic, of at most `most_documents` documents.
    """
    from training.data.batches import BatchPlan
    from training.data.order import Order
    from training.data.shards import TokenShards
    from training.run_log import RunLog

    listed = read_listed(store, part_keys(store))
    found = []
    for run in sorted({o.key.split("/")[1] for o in store.list("runs/") if o.key.count("/") >= 2}):
        state = RunLog(store, run).state
        if state.plan is None:
            continue
        pins = [pin for segment in state.plan.segments for pin in segment.datasets]
        shards = TokenShards.open(store, pins)
        order, batches = Order(state.plan, shards), BatchPlan(state.plan)
        reached = (state.checkpoint or {}).get("position", 0)
        documents, steps = 0, set()
        for pin in dict.fromkeys(pins):
            dataset = open_dataset(store, pin.name, pin.version)
            numbers = {s.unit: n for cell in shards.datasets[pin].cells.values() for n, s in enumerate(cell)}
            for row in dataset.parts("docs").to_pylist():
                docs = read_parquet(store.get(row["key"]), ["id", "first_token"])
                hit = docs.filter(pc.is_in(docs["id"], listed.ids))
                documents += hit.num_rows
                for token in hit["first_token"].to_pylist()[: max(0, most_documents - documents + hit.num_rows)]:
                    positions = _shown_at(state.plan, order, pin, row["cell"], numbers[row["unit"]], token, reached)
                    steps |= {batches.step_of(position) for position in positions} - {None}
        if documents:
            seen = sorted(steps)
            found.append(
                {
                    "run": run,
                    "position": reached,
                    "documents": documents,
                    "steps": len(seen),
                    "first_step": seen[0] if seen else None,
                    "last_step": seen[-1] if seen else None,
                }
            )
    return found


def _shown_at(plan: Any, order: Any, pin: Any, cell: str, shard: int, token: int, reached: int) -> Iterator[int]:
    """Positions below `reached` whose rows show this token."""
    names = {c.name for s in plan.segments for c in s.cells if c.cell == cell and s.datasets[c.dataset] == pin}
    for name in names:
        for position, _ in order.seen_at(name, shard, token):
            if position < reached:
                yield position
