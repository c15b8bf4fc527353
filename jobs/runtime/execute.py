"""One unit of a stage, in whatever process: open the worker once, run it, check its books, store its objects.

Runs 0..n times for a unit. Objects are content-named, so a second run writes the same keys; where two runs
differ, both rows are kept apart by `attempt` and the commit takes the smaller.
"""

from __future__ import annotations

import hashlib
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.runtime.stage import Output, Stage, Unit, UnitResult
from pipelines.datasets.books import check_books
from pipelines.datasets.content import format_sum
from pipelines.datasets.manifest import PART_LIST
from pipelines.datasets.parts import EncodedObject, PartWriter, encode_file, encode_table
from pipelines.datasets.schemas import LEDGER
from pipelines.datasets.store import Store, open_store
from pipelines.errors import IntegrityError, MissingObjectError, StoreError

DONE = PART_LIST.append(pa.field("dataset", pa.string())).append(pa.field("attempt", pa.string()))
_RETRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What travels to a worker process."""

    location: str
    stage: Stage
    done_prefix: str
    flush_seconds: float = 10.0
    flush_units: int = 1000


_open: dict[str, Callable[[Unit], UnitResult]] = {}


def open_worker(stage: Stage, store: Store) -> Callable[[Unit], UnitResult]:
    """The stage's unit function; opened once a process and store."""
    key = hashlib.sha256(repr((stage.worker, stage.stage_id, stage.worker_config, store.location)).encode()).hexdigest()
    if key not in _open:
        module, _, name = stage.worker.partition(":")
        _open.clear()  # models of an earlier stage need not stay in memory
        _open[key] = getattr(importlib.import_module(module), name)(stage.worker_config, store)
    return _open[key]


def run_task_unit(task: Task, unit: Unit) -> pa.Table:
    """The done rows of one unit, by a process that has only the task."""
    return run_unit(task.stage, unit, open_store(task.location))


def run_unit(stage: Stage, unit: Unit, store: Store) -> pa.Table:
    """Run, check, store: the unit's done rows. What its environment did wrong is tried again, with a pause."""
    for attempt in range(_RETRIES):
        try:
            return _run_once(stage, unit, store)
        except (MissingObjectError, IntegrityError):
            raise
        except StoreError:
            if attempt == _RETRIES - 1:
                raise
            time.sleep(0.5 * 4**attempt)
    raise AssertionError("unreachable")


def _run_once(stage: Stage, unit: Unit, store: Store) -> pa.Table:
    result = open_worker(stage, store)(unit)
    for name, n in result.stats.items():
        result.counters.add_count(name if name.startswith("stats@") else f"stats.{name}", n)
    check_books(f"unit {unit.input} of {stage.job}", result.counters.values, stage.equations)
    objects = [(o.dataset, e) for o in stage.outputs for e in _encode(stage, o, unit, result)]
    for _, encoded in objects:
        if encoded.role != "none":
            store.put(encoded.key, encoded.body)
    return _done_rows(stage, unit, objects, result)


def _encode(stage: Stage, output: Output, unit: Unit, result: UnitResult) -> list[EncodedObject]:
    encoded = []
    dataset = output.dataset
    if dataset in result.parts and output.schema is not None:
        encoded.append(_part(dataset, unit, "part", result.parts[dataset], output.schema))
    elif output.schema is not None and not output.optional:
        raise ValueError(f"{stage.worker} made no part of {dataset} for unit {unit.input}")
    encoded += [
        encode_file(dataset, unit.id, f.role, f.suffix, f.body, f.rows, cell=f.cell, tokens=f.tokens)
        for f in result.files
        if f.dataset == dataset
    ]
    if dataset == stage.home and result.ledger is not None and _rows(result.ledger):
        encoded.append(_part(dataset, unit, result.ledger_role, result.ledger, LEDGER))
    if not encoded:  # a unit that made nothing of this dataset is still a finished unit
        encoded.append(_nothing(dataset, unit))
    return encoded


def _rows(made: pa.Table | PartWriter) -> int:
    return made.rows if isinstance(made, PartWriter) else made.num_rows


def _part(dataset: str, unit: Unit, role: str, made: pa.Table | PartWriter, schema: pa.Schema) -> EncodedObject:
    if isinstance(made, PartWriter):
        if not made.schema.equals(schema):
            raise ValueError(f"the {role} of {dataset} was written with another schema than the stage's")
        return made.finish(dataset, unit.id, role)
    return encode_table(dataset, unit.id, role, made, schema)


def _nothing(dataset: str, unit: Unit) -> EncodedObject:
    """The row of a unit without objects: it keeps the unit finished, nothing is stored."""
    empty = hashlib.sha256(b"").hexdigest()
    return EncodedObject(
        key=f"none/{dataset}/{unit.id}",
        role="none",
        body=b"",
        rows=0,
        sha256=empty,
        content_sum=format_sum(0, 0),
    )


def _done_rows(stage: Stage, unit: Unit, objects: list[tuple[str, EncodedObject]], result: UnitResult) -> pa.Table:
    attempt = hashlib.sha256("".join(sorted(e.sha256 for _, e in objects)).encode()).hexdigest()[:16]
    counters = result.counters.rows()
    rows: list[dict[str, Any]] = []
    for dataset, e in objects:
        first = dataset == stage.home and not any(r["dataset"] == dataset for r in rows)
        rows.append(
            {
                "role": e.role,
                "key": e.key,
                "stage_id": stage.stage_id,
                "unit": unit.id,
                "input": unit.input,
                "rows": e.rows,
                "bytes": len(e.body),
                "sha256": e.sha256,
                "rows_sum": e.rows_sum,
                "content_sum": e.content_sum,
                "cell": e.cell,
                "tokens": e.tokens,
                "generation": None,
                "counters": counters if first else None,
                "dataset": dataset,
                "attempt": attempt,
            }
        )
    return pa.Table.from_pylist(rows, schema=DONE)
