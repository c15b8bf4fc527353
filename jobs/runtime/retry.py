"""Records that a reason cost a dataset, tried again, as a new version that keeps everything else.

The new version has the old one's objects and, for each unit in which something changed, one part more (records that
are documents now) and one ledger object of role `retried`, whose rows supersede earlier ones of the same records
(`Dataset.ledger` reads it so).  They bear the unit's name, so that a later run takes them over with the unit, and
their counters are differences, so that the books count each record once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.runtime.catalog import load_job
from jobs.runtime.config import parse_config
from jobs.runtime.context import Context
from jobs.runtime.done import clear_done
from jobs.runtime.lease import lease
from jobs.runtime.run import check_present, commit_after, describe, fingerprint
from jobs.runtime.stage import Output, Parent, Stage, Unit, hash_unit, unit_table
from jobs.runtime.units import do_units
from pipelines.datasets import Dataset, open_dataset
from pipelines.datasets.books import check_books, total_counters
from pipelines.datasets.manifest import PART_LIST, Manifest, put_part_list
from pipelines.datasets.names import work_prefix
from pipelines.datasets.reasons import REASONS
from pipelines.errors import ConfigError, ConflictError


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """What a retry found and did.  `units`: (piece of input, records with the reason), largest first."""

    dataset: str
    version: int
    reason: str
    records: int
    units: list[tuple[str, int]]
    settled: int
    manifests: list[Manifest]


def retry(
    context: Context, name: str, reason: str, overrides: Mapping[str, Any] | None = None, *, dry_run: bool = False
) -> Retried:
    """Try again what `reason` cost the latest version of `name`.

    `overrides` are settings of its job; one that would change what comes out is refused, since the rest of the
    version was made without it.
    """
    dataset = open_dataset(context.store, name)
    stage = _stage(dataset, reason, overrides or {})
    losses = [row for row in unit_losses(dataset, reason) if row["records"] > 0]
    losses.sort(key=lambda row: (-row["records"], row["input"]))
    report = {
        "dataset": name,
        "reason": reason,
        "records": sum(row["records"] for row in losses),
        "units": [(row["input"], row["records"]) for row in losses],
    }
    if dry_run or not losses:
        return Retried(version=dataset.manifest.version, settled=0, manifests=[], **report)
    units = unit_table(Unit(id=row["unit"], input=row["input"]) for row in losses)
    prefix = work_prefix(name, hash_unit("retry", stage.stage_id, dataset.manifest.sha256, reason, stage.worker_config))
    with lease(context.store, prefix, say=context.progress.say):
        done = do_units(context, stage, units, prefix, shown=f"{stage.job}, tried again")
        settled = _settled(done)
        manifests = _commit(context, stage, dataset, done, settled) if settled else []
        clear_done(context.store, prefix)
    version = manifests[0].version if manifests else dataset.manifest.version
    return Retried(version=version, settled=sum(settled.values()), manifests=manifests, **report)


def unit_losses(dataset: Dataset, reason: str) -> Iterator[dict[str, Any]]:
    """Unit, input and how many of its records have the reason, by the units' own books."""
    found: dict[str, dict[str, Any]] = {}
    for batch in dataset.part_list.select(["unit", "input", "counters"]).to_batches(max_chunksize=1000):
        for row in batch.to_pylist():
            n = sum(c["value"] for c in row["counters"] or () if _is_loss(c["name"], reason))
            if n:
                unit = found.setdefault(row["unit"], {"unit": row["unit"], "input": row["input"], "records": 0})
                unit["records"] += n
    yield from found.values()


def _is_loss(counter: str, reason: str) -> bool:
    """`documents.failed.page_time` is a loss to `page_time`."""
    _, _, account = counter.partition(".")
    return account in (f"failed.{reason}", f"rejected.{reason}")


def _stage(dataset: Dataset, reason: str, overrides: Mapping[str, Any]) -> Stage:
    if reason not in REASONS:
        raise ConfigError(f"no reason {reason!r}", mend=f"`gristmill datasets show {dataset.name}` lists its reasons")
    job = dataset.manifest.job["name"]
    module = load_job(job)
    if not hasattr(module, "retry_stage"):
        raise ConfigError(
            f"{dataset.name} was made by {job}, which does not try single records again",
            mend=f"`gristmill run {job}` makes it anew",
        )
    before: dict[str, Any] = {}
    for key, value in dataset.manifest.job["config"].items():
        *path, last = key.split(".")
        inner = before
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    config, _ = parse_config(module.Config, [(f"{dataset.name}'s own settings", before), ("command line", overrides)])
    stage = module.retry_stage(config, dataset, reason)
    if stage.stage_id != dataset.manifest.stage_id:
        raise ConfigError(
            f"{dataset.name} v{dataset.manifest.version} was made with other settings, models or code than these",
            mend=f"leave out settings that change what comes out, or `gristmill run {job}`, which makes all of it anew",
        )
    return stage


def _settled(done: pa.Table) -> dict[str, int]:
    """How many records changed their verdict, by unit; units without one are left out."""
    found: dict[str, int] = {}
    for row in done.select(["unit", "counters"]).to_pylist():
        n = sum(c["value"] for c in row["counters"] or () if c["name"] == "stats.retried")
        if n:
            found[row["unit"]] = n
    return found


def _commit(
    context: Context, stage: Stage, dataset: Dataset, done: pa.Table, settled: Mapping[str, int]
) -> list[Manifest]:
    """The next version of each output; the home first, as in every commit."""
    manifests: list[Manifest] = []
    changed = pa.array(sorted(settled))
    totals: dict[str, tuple[int, int]] = {}
    units = pa.table({"unit": pc.unique(dataset.part_list["unit"])})
    for output in stage.outputs:
        base = dataset if output.dataset == stage.home else open_dataset(context.store, output.dataset)
        if manifests and not _made_of(base.manifest, dataset.manifest):
            raise ConflictError(
                f"{output.dataset} v{base.manifest.version} does not belong to {dataset.name}"
                f" v{dataset.manifest.version}",
                mend=f"`gristmill run {stage.job}` brings both to one state",
            )
        mine = pc.and_(pc.equal(done["dataset"], output.dataset), pc.is_in(done["unit"], changed))
        fresh = done.filter(mine).select(PART_LIST.names)
        check_present(context, fresh)
        version = base.manifest.version + 1
        at = PART_LIST.names.index("generation")
        generation = pa.array([version] * fresh.num_rows, pa.int64())
        rows = pa.concat_tables([base.part_list, fresh.set_column(at, PART_LIST.field(at), generation)])
        if output.dataset == stage.home:
            totals = total_counters(rows["counters"])
            check_books(f"{stage.job}, with the records tried again", totals, stage.equations)
        manifests.append(_put(context, stage, output, base.manifest, rows, units, totals, manifests))
    return manifests


def _made_of(manifest: Manifest, home: Manifest) -> bool:
    return any(p["name"] == home.name and p["manifest_sha256"] == home.sha256 for p in manifest.parents)


def _put(
    context: Context,
    stage: Stage,
    output: Output,
    base: Manifest,
    rows: pa.Table,
    units: pa.Table,
    totals: dict[str, tuple[int, int]],
    above: list[Manifest],
) -> Manifest:
    parents = [Parent(manifest=above[0], role="home")] if above else []
    mark = fingerprint(stage.stage_id, output.dataset, units, [p.manifest for p in parents])
    part_list, head, rows = put_part_list(context.store, output.dataset, rows)
    stats = {"crawl_root": base.stats["crawl_root"]} if "crawl_root" in base.stats else {}
    manifest = Manifest(
        name=output.dataset,
        version=base.version + 1,
        part_list=part_list,
        head=head,
        extends={"version": base.version, "manifest_sha256": base.sha256},
        **describe(context, stage, output, parents, rows, totals, stats, mark),
    )
    return commit_after(context, manifest, f"{part_list['rows']} rows")
