"""What jobs that count over the whole corpus have in common: steps without a shuffle.

A step's units read objects and write objects below a prefix of the work in flight; the next step reads them from
there. So it runs on any engine, and a step that was finished is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from jobs.runtime.context import Context
from jobs.runtime.lease import lease
from jobs.runtime.run import fingerprint, run_stage
from jobs.runtime.stage import Output, Parent, Stage, Unit, UnitResult, hash_unit, unit_table
from jobs.runtime.units import do_units
from pipelines.datasets import Dataset, aligned_parts
from pipelines.datasets.books import total_counters
from pipelines.datasets.manifest import Manifest, latest_manifest
from pipelines.datasets.store import Store
from pipelines.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    from pipelines.dedup.frequency import SketchShape

MOST_FALSE_SHARE = 0.25  # of what is rare that may pass the sketch before it is called too small


def parts_beside(
    context: Context, documents: Dataset, datasets: dict[str, str]
) -> tuple[list[tuple[dict[str, Any], dict[str, dict[str, Any]]]], list[Parent]]:
    """(part of the documents, the part of each dataset that has its rows, by role), and the parents.

    `datasets` are names by role; one without a name is left out.
    """
    found: list[tuple[dict[str, Any], dict[str, dict[str, Any]]]] = [
        (row, {}) for row in documents.parts().to_pylist()
    ]
    parents = [Parent(manifest=documents.manifest)]
    for role, name in datasets.items():
        if name:
            dataset = context.open(name)
            parents.append(Parent(manifest=dataset.manifest, role=role))
            for (_, theirs), (_, part) in zip(found, aligned_parts(documents, dataset), strict=True):
                theirs[role] = part
    return found, parents


def survivor_columns_of(store: Store, documents: pa.Table, signatures: str | None) -> tuple[np.ndarray, np.ndarray]:
    """(place, tie), each (n,) int64: as the part of signatures has them, else worked out from the documents."""
    from pipelines.datasets.parts import read_parquet
    from pipelines.dedup.lines import survivor_columns

    if signatures is None:
        return survivor_columns(documents)
    table = read_parquet(store.get(signatures), ["place", "tie"])
    if table.num_rows != documents.num_rows:
        raise IntegrityError(f"{table.num_rows} signatures for {documents.num_rows} documents", key=signatures)
    return table["place"].to_numpy(), table["tie"].to_numpy()


def annotate_after(
    context: Context,
    stage: Stage,
    units: pa.Table,
    parents: Sequence[Parent],
    prefix: str,
    decide: dict[str, Callable[[], Any]],
) -> Manifest:
    """The committed annotations. Where they are finished nothing is done; else `decide` runs first, under a lease.

    Its results are statistics of the manifest, by name; what lies below `prefix` is removed at the end.
    """
    mark = fingerprint(stage.stage_id, stage.home, units, [p.manifest for p in parents])
    latest = latest_manifest(context.store, stage.home)
    if latest is not None and latest.fingerprint == mark:
        context.progress.say(f"{stage.home} v{latest.version} is finished: nothing to do")
        return latest
    with lease(context.store, prefix, say=context.progress.say):
        stats = {name: step() for name, step in decide.items()}
        made = run_stage(context, stage, units, parents=parents, stats=stats)[stage.home]
    for stored in list(context.store.list(f"{prefix}/")):
        context.store.delete(stored.key)
    return made


def run_step(
    context: Context, stage: Stage, worker: str, worker_config: dict[str, Any], units: Sequence[Unit], done: str
) -> dict[str, int]:
    """The units that left no done record below `done` yet; statistics of all of them."""
    name = worker.partition(":open_")[2]
    wide = Stage(
        job=f"{stage.job}: {name}",
        stage_id=stage.stage_id,
        outputs=(Output(dataset=stage.home, kind="annotations"),),
        worker=worker,
        worker_config=worker_config,
    )
    counters = total_counters(do_units(context, wide, unit_table(units), done)["counters"])
    return {name.removeprefix("stats."): n for name, (n, _) in counters.items()}


def generation_numbers(rows: Iterable[dict[str, Any]]) -> dict[int, int]:
    """Generation -> its number from 0; appended ones come after."""
    return {generation: number for number, generation in enumerate(sorted({row["generation"] for row in rows}))}


def group_parts(rows: Sequence[dict[str, Any]], bytes_per_step: int, **extra: str) -> list[Unit]:
    """Units of parts of one generation each, of at most so many bytes together.

    The spec holds `generation` (its number), `keys`, and for each of `extra` the values of that column.
    """
    numbers = generation_numbers(rows)
    groups: list[list[dict[str, Any]]] = []
    size = 0
    for row in sorted(rows, key=lambda row: (row["generation"], row["input"], row["unit"])):
        fits = groups and groups[-1][0]["generation"] == row["generation"] and size + row["bytes"] <= bytes_per_step
        if fits:
            groups[-1].append(row)
            size += row["bytes"]
        else:
            groups.append([row])
            size = row["bytes"]
    units = []
    for group in groups:
        number, keys = numbers[group[0]["generation"]], [row["key"] for row in group]
        more = {name: [row[column] for row in group] for name, column in extra.items()}
        total = sum(row["bytes"] for row in group)
        spec = {"generation": number, "keys": keys, **more}
        units.append(Unit(id=hash_unit(number, spec), input=group[0]["input"], size_bytes=total, spec=spec))
    return units


def sketch_shape(digests: int, bound: int, most_mib: int) -> SketchShape:
    """As much memory as so many digests need, at most `most_mib`."""
    from pipelines.dedup.frequency import SketchShape, counters_needed

    most = SketchShape(mib=most_mib, bound=bound)
    return most if (needed := counters_needed(digests, bound)) >= most_mib else SketchShape(mib=needed, bound=bound)


def step_tag(shape: SketchShape, groups: Sequence[Unit]) -> str:
    """What steps of one sketch and one grouping share: what others left behind is never counted with theirs."""
    return hash_unit(shape.mib, sorted(unit.id for unit in groups))[:8]


def open_merger(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """The set of candidates, from the sum of all sketches below `sketches-TAG/`: one sketch in memory."""
    from pipelines.dedup.frequency import Sketch, SketchShape

    shape = SketchShape(**worker_config["shape"])

    def merge(_unit: Unit) -> UnitResult:
        prefix, tag = worker_config["prefix"], worker_config["tag"]
        whole = Sketch(shape)
        for stored in store.list(f"{prefix}/sketches-{tag}/"):
            whole.merge(store.get(stored.key))
        frequent = whole.frequent()
        store.put(f"{prefix}/candidates-{tag}.zst", frequent.to_bytes())
        told = {"false_share": round(frequent.false_share, 6), "occurrences": whole.frequent_occurrences()}
        store.put(f"{prefix}/candidates-{tag}.json", json.dumps(told).encode())
        return UnitResult()

    return merge


def check_sketch(context: Context, prefix: str, tag: str, shape: SketchShape, digests: int) -> int:
    """About how many of the digests are candidates; ConfigError where the sketch lets too many through."""
    from pipelines.dedup.frequency import counters_needed

    told = json.loads(context.store.get(f"{prefix}/candidates-{tag}.json"))
    if told["false_share"] > MOST_FALSE_SHARE:
        raise ConfigError(
            f"a sketch of {shape.mib} MiB for {digests} digests lets {told['false_share']:.0%} of what is rare through",
            mend=f"--set sketch_mib={max(2 * shape.mib, counters_needed(digests, shape.bound))}",
        )
    return told["occurrences"]
