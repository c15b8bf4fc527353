"""list -> map -> commit, for every engine.

*list*: finished already? say so and write nothing. Take over every (stage_id, unit) that the previous version or
`work/` holds. *map*: the engine runs the rest. *commit*: books, presence of every named object, one create-only put.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.runtime.context import Context
from jobs.runtime.done import clear_done, read_done
from jobs.runtime.lease import lease
from jobs.runtime.stage import Output, Parent, Stage, Unit, unit_table
from jobs.runtime.units import map_units
from pipelines.datasets.books import books_value, check_books, total_counters
from pipelines.datasets.content import add_sums
from pipelines.datasets.manifest import (
    CONTENT_ROLES,
    PART_LIST,
    Manifest,
    commit_manifest,
    latest_manifest,
    put_part_list,
    read_part_list,
)
from pipelines.datasets.names import work_prefix
from pipelines.datasets.store import ObjectInfo, Store
from pipelines.errors import ConflictError, InputError, IntegrityError


def run_stage(
    context: Context,
    stage: Stage,
    units: Iterable[Unit] | pa.Table,
    *,
    parents: Sequence[Parent] = (),
    stats: dict[str, Any] | None = None,
    engine: str | None = None,
) -> dict[str, Manifest]:
    """The committed manifest of each output. Repeating it writes nothing; dying anywhere leaves no half version."""
    table = units if isinstance(units, pa.Table) else unit_table(units)
    if pc.count_distinct(table["unit"]).as_py() != table.num_rows:
        raise InputError(
            f"{stage.job}: two pieces of the input are the same", mend="remove the one that is named twice"
        )
    store = context.store
    finished = _finished(store, stage, table, parents)
    if finished is not None:
        context.progress.say(f"{stage.home} v{finished[stage.home].version} is finished: nothing to do")
        return finished
    prefix = work_prefix(stage.home, stage.stage_id)
    with lease(store, prefix, say=context.progress.say):
        known = {o.dataset: _known_rows(store, o.dataset, stage.stage_id, table) for o in stage.outputs}
        done = read_done(store, prefix)
        missing = _missing(stage, table, known, done)
        _tell(context, stage, table, missing)
        map_units(context, stage, missing, prefix, engine=engine)
        if missing.num_rows:
            done = read_done(store, prefix)
            rest = _missing(stage, table, known, done)
            if rest.num_rows:
                raise IntegrityError(
                    f"{stage.job}: {rest.num_rows} units left no done record, first {rest['input'][0]}"
                )
        manifests = _commit_all(context, stage, table, parents, known, done, stats or {})
        clear_done(store, prefix)
    return manifests


def fingerprint(stage_id: str, dataset: str, units: pa.Table, parents: Sequence[Manifest]) -> str:
    """32 hex that answer: is this version finished? Of the stage, the units and the parents' content."""
    hasher = hashlib.sha256(f"{stage_id}\n{dataset}\n".encode())
    for sums in sorted(f"{p.name} {p.first_sum}" for p in parents):
        hasher.update(sums.encode() + b"\n")
    for chunk in units["unit"].sort().chunks:
        hasher.update("\n".join(chunk.to_pylist()).encode() + b"\n")
    return hasher.hexdigest()[:32]


def _finished(store: Store, stage: Stage, table: pa.Table, parents: Sequence[Parent]) -> dict[str, Manifest] | None:
    found: dict[str, Manifest] = {}
    for output in stage.outputs:
        latest = latest_manifest(store, output.dataset)
        if latest is None:
            return None
        above = [p.manifest for p in parents] + ([found[stage.home]] if found else [])
        if latest.fingerprint != fingerprint(stage.stage_id, output.dataset, table, above):
            return None
        found[output.dataset] = latest
    return found


def _known_rows(store: Store, dataset: str, stage_id: str, units: pa.Table) -> pa.Table:
    """Rows of the latest version that this stage made of these units."""
    latest = latest_manifest(store, dataset)
    if latest is None:
        return PART_LIST.empty_table()
    rows = read_part_list(store, latest)
    mine = pc.and_(pc.equal(rows["stage_id"], stage_id), pc.is_in(rows["unit"], units["unit"].combine_chunks()))
    return rows.filter(mine)


def _missing(stage: Stage, units: pa.Table, known: dict[str, pa.Table], done: pa.Table) -> pa.Table:
    """Units for which some output has no row, neither in the latest version nor in `work/`."""
    have = None
    for output in stage.outputs:
        made = done.filter(pc.equal(done["dataset"], output.dataset))["unit"].combine_chunks()
        old = known[output.dataset]["unit"].combine_chunks()
        here = pc.or_(pc.is_in(units["unit"], made), pc.is_in(units["unit"], old))
        have = here if have is None else pc.and_(have, here)
    return units.filter(pc.invert(have)) if have is not None else units


def _tell(context: Context, stage: Stage, units: pa.Table, missing: pa.Table) -> None:
    reused = units.num_rows - missing.num_rows
    latest = latest_manifest(context.store, stage.home)
    reason = ""
    if latest is not None and latest.stage_id != stage.stage_id:
        before, now = latest.job.get("config", {}), stage.config
        changed = [
            f"{k} {before.get(k)!r} -> {now.get(k)!r}" for k in sorted({*before, *now}) if before.get(k) != now.get(k)
        ]
        why = ", ".join(changed) or "the stage or a model that it uses has a new version"
        reason = f"; all is made anew, because {why}"
    if reused:
        reason += f"; {reused} of {units.num_rows} are taken over"
    context.progress.say(f"{stage.job}: {missing.num_rows} units to do{reason}")


def _commit_all(
    context: Context,
    stage: Stage,
    units: pa.Table,
    parents: Sequence[Parent],
    known: dict[str, pa.Table],
    done: pa.Table,
    stats: dict[str, Any],
) -> dict[str, Manifest]:
    manifests: dict[str, Manifest] = {}
    totals: dict[str, tuple[int, int]] = {}
    wanted = units["unit"].combine_chunks()
    for output in stage.outputs:
        old = known[output.dataset]
        fresh = _where(
            done,
            pc.equal(done["dataset"], output.dataset),
            pc.is_in(done["unit"], wanted),
            pc.invert(pc.is_in(done["unit"], old["unit"].combine_chunks())),
        )
        check_present(context, fresh)
        above = [*parents, *([Parent(manifest=manifests[stage.home], role="home")] if manifests else [])]
        if output.dataset == stage.home:
            totals = total_counters(
                pa.chunked_array([*old["counters"].chunks, *fresh["counters"].chunks], PART_LIST.field("counters").type)
            )
            check_books(f"{stage.job}, all units", totals, stage.equations)
            _check_failed(stage, totals, [old, fresh])
        manifests[output.dataset] = _commit(context, stage, output, units, above, old, fresh, totals, stats)
    return manifests


def _where(rows: pa.Table, *conditions: pa.ChunkedArray) -> pa.Table:
    """Rows where all conditions hold; without a copy where that is all of them."""
    mask = conditions[0]
    for condition in conditions[1:]:
        mask = pc.and_(mask, condition)
    return rows if pc.all(mask).as_py() else rows.filter(mask)


def check_present(context: Context, rows: pa.Table) -> None:
    """Every object about to be named is there, with its size (P2): a HEAD each for a few, listings for many."""
    named = rows.filter(pc.not_equal(rows["role"], "none")).select(["key", "bytes"])
    if named.num_rows <= 500:
        with ThreadPoolExecutor(8) as pool:
            found = [o for o in pool.map(context.store.head, named["key"].to_pylist()) if o]
        _compare(named, found)
        return
    folders = pc.unique(pc.replace_substring_regex(named["key"], r"[^/]*$", "")).to_pylist()
    for folder in folders:
        _compare(named.filter(pc.starts_with(named["key"], folder)), context.store.list(folder))


def _compare(named: pa.Table, found: Iterable[ObjectInfo]) -> None:
    """The found objects hold all named ones, with equal sizes; never more than a batch of Python objects at once."""
    keys, sizes = named["key"].combine_chunks(), np.asarray(named["bytes"])
    seen = np.full(named.num_rows, -1, np.int64)
    listing = iter(found)
    while batch := list(itertools.islice(listing, 50_000)):
        at = pc.index_in(pa.array([o.key for o in batch]), keys)
        valid = np.asarray(at.is_valid())
        seen[np.asarray(at.fill_null(0))[valid]] = np.array([o.size_bytes for o in batch], np.int64)[valid]
    wrong = np.flatnonzero(seen != sizes)
    if len(wrong):
        key = keys[int(wrong[0])].as_py()
        raise IntegrityError(
            f"{key} was written and is {'gone' if seen[wrong[0]] < 0 else 'of another size'} now ({len(wrong)} such)",
            key=key,
            mend="run the same command again; if it stays, delete the work/ folder of the dataset",
        )


def _commit(
    context: Context,
    stage: Stage,
    output: Output,
    units: pa.Table,
    parents: Sequence[Parent],
    old: pa.Table,
    fresh: pa.Table,
    totals: dict[str, tuple[int, int]],
    stats: dict[str, Any],
) -> Manifest:
    mark = fingerprint(stage.stage_id, output.dataset, units, [p.manifest for p in parents])
    for _ in range(5):
        base = latest_manifest(context.store, output.dataset)
        if base is not None and base.fingerprint == mark:
            return base  # somebody else finished the same
        version = base.version + 1 if base else 1
        extends = _extends(context.store, base, old)
        rows = _with_generation(old, fresh, version, keep=extends is not None)
        part_list, head, rows = put_part_list(context.store, output.dataset, rows)
        manifest = Manifest(
            name=output.dataset,
            version=version,
            part_list=part_list,
            head=head,
            extends=extends,
            **describe(context, stage, output, parents, rows, totals, stats, mark),
        )
        if (stored := commit_manifest(context.store, manifest, context.writer)) is not None:
            context.committed.append(stored)
            context.progress.say(
                f"{stored.name} v{stored.version}: {stored.part_list['rows']} rows, content {stored.content_sum}"
            )
            return stored
    raise ConflictError(
        f"{output.dataset}: lost the race for the next version five times", mend="run the same command again"
    )


def commit_after(context: Context, manifest: Manifest, told: str) -> Manifest:
    """Commit a version made of the latest one; ConflictError where another writer was first. `told` of progress."""
    stored = commit_manifest(context.store, manifest, context.writer)
    if stored is None:
        raise ConflictError(
            f"another writer made {manifest.name} v{manifest.version}", mend="run the same command again"
        )
    context.committed.append(stored)
    context.progress.say(f"{stored.name} v{stored.version}: {told}")
    return stored


def describe(
    context: Context,
    stage: Stage,
    output: Output,
    parents: Sequence[Parent],
    rows: pa.Table,
    totals: dict[str, tuple[int, int]],
    stats: dict[str, Any],
    mark: str,
) -> dict[str, Any]:
    """What a manifest tells beside its number and its part list; `mark` is its fingerprint."""
    return {
        "kind": output.kind,
        "parents": [p.manifest.pin(p.role) for p in parents],
        "job": {
            "name": stage.job,
            "stage_id": stage.stage_id,
            "fingerprint": mark,
            "config": stage.config,
            "producers": [context.producer()],
        },
        "books": books_value(totals, stage.equations),
        "schema": [
            {"name": f.name, "type": str(f.type), "doc": (f.metadata or {}).get(b"doc", b"").decode()}
            for f in output.schema or ()
        ],
        "stats": {
            **_stats(stage, output, totals),
            "ledger_sum": _sum_of(rows, ("ledger", "retried")),
            **output.stats,
            **stats,
        },
        "artifacts": list(stage.artifacts),
        "content_sum": _sum_of(rows, CONTENT_ROLES),
        "created_at": context.now(),
    }


def _extends(store: Store, base: Manifest | None, old: pa.Table) -> dict[str, Any] | None:
    """The base version, where every object of it is taken over."""
    if base is None or base.part_list["objects"] != old.num_rows:
        return None
    return {"version": base.version, "manifest_sha256": base.sha256}


def _with_generation(old: pa.Table, fresh: pa.Table, version: int, *, keep: bool) -> pa.Table:
    rows = pa.concat_tables([old.select(PART_LIST.names), fresh.select(PART_LIST.names)])
    new = pa.array([version] * fresh.num_rows, pa.int64())
    before = old["generation"] if keep else pa.chunked_array([pa.array([version] * old.num_rows, pa.int64())])
    column = pa.chunked_array([*before.chunks, new], pa.int64())
    return rows.set_column(PART_LIST.names.index("generation"), PART_LIST.field("generation"), column)


def _sum_of(rows: pa.Table, roles: Sequence[str]) -> str:
    return add_sums(rows.filter(pc.is_in(rows["role"], pa.array(list(roles))))["content_sum"].to_pylist())


def _check_failed(stage: Stage, totals: dict[str, tuple[int, int]], rows: Sequence[pa.Table]) -> None:
    for name, equation in stage.equations.items():
        book = books_value(totals, {name: equation})[name]
        reasons = book.get("failed", 0)
        failed = sum(reasons.values()) if isinstance(reasons, dict) else reasons
        total = book[equation.total] if isinstance(book[equation.total], int) else sum(book[equation.total].values())
        if failed > stage.max_failed_fraction * total:
            told = ", ".join(f"{k} {n}" for k, n in reasons.items()) if isinstance(reasons, dict) else str(failed)
            raise InputError(
                f"{stage.job}: {failed} of {total} {name} failed ({told}), the first of them in"
                f" {_first_failing(rows, name)}; nothing was committed",
                mend=f"look at it; if it is meant so, raise max_failed_fraction (now {stage.max_failed_fraction:g})",
            )


def _first_failing(rows: Sequence[pa.Table], name: str) -> str:
    """The piece of input, as a person names it, with the first failed record."""
    for table in rows:
        for batch in table.select(["input", "counters"]).to_batches(max_chunksize=1000):
            for row in batch.to_pylist():
                if any(c["name"].startswith(f"{name}.failed") for c in row["counters"] or ()):
                    return row["input"]
    return "an unknown place"


def _stats(stage: Stage, output: Output, totals: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """`stats.by_language.zh` nests; of domains the hundred largest stay."""
    stats: dict[str, Any] = {}
    prefixes = [f"stats@{output.dataset}.", *(["stats."] if output.dataset == stage.home else [])]
    for name, (n, _) in sorted(totals.items()):
        prefix = next((p for p in prefixes if name.startswith(p)), None)
        if prefix is None:
            continue
        group, dot, key = name.removeprefix(prefix).partition(".")
        if dot:
            stats.setdefault(group, {})[key] = n
        else:
            stats[group] = n
    if "by_domain" in stats:
        top = sorted(stats.pop("by_domain").items(), key=lambda x: (-x[1], x[0]))[:100]
        stats["by_domain_top100"] = dict(top)
    return stats
