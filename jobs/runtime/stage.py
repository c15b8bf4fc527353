"""What a job hands to the runtime: a stage (what is made, and by which function) and its units.

The worker is named by reference (`module:function`) and opened once a process:
`open_worker(worker_config, store)` loads models and returns the function `unit -> UnitResult`. It runs
0..n times for a unit, anywhere; only the commit makes a result count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.datasets.books import Counters, Equation
from pipelines.datasets.manifest import Manifest, first_sha256
from pipelines.datasets.parts import PartWriter

UNITS = pa.schema(
    [
        pa.field("unit", pa.string()),
        pa.field("input", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("spec", pa.string(), metadata={"doc": "JSON: what the worker needs to find its input"}),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One restartable piece of work. `id`: 32 hex of the piece of input; `input`: as a person names it."""

    id: str
    input: str
    size_bytes: int = 0
    spec: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOut:
    """An opaque object that a unit makes: a token shard, an index."""

    dataset: str
    role: str
    suffix: str
    body: bytes
    rows: int
    cell: str | None = None
    tokens: int | None = None


@dataclass(slots=True, kw_only=True)
class UnitResult:
    """All that a unit made. A dataset with a schema gets exactly one part, which may have no rows.

    A part or the ledger may also come as a PartWriter, to which the worker wrote batch by batch.
    """

    parts: dict[str, pa.Table | PartWriter] = field(default_factory=dict)
    files: list[FileOut] = field(default_factory=list)
    ledger: pa.Table | PartWriter | None = None
    ledger_role: str = "ledger"  # `retried`: its rows supersede earlier ones of the same records
    counters: Counters = field(default_factory=Counters)
    stats: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A dataset that the stage makes; `schema` None where it consists of files only.

    `optional`: a unit may make no part of it. Counters named `stats.x` become statistics of the home, `stats@NAME.x`
    of the output NAME.
    """

    dataset: str
    kind: str
    schema: pa.Schema | None = None
    stats: dict[str, Any] = field(default_factory=dict)
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What an actor of a stage holds while it lives; engines without actors take no notice."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is made. The first output is the home: its `work/` holds the done records, its ledger the ledger rows.

    Each further output is committed after the one before and names the home as a parent. In an equation with an
    account `failed`, more than `max_failed_fraction` of the total stops the job before the commit.
    """

    job: str
    stage_id: str
    outputs: tuple[Output, ...]
    worker: str
    worker_config: dict[str, Any] = field(default_factory=dict)
    equations: Mapping[str, Equation] = field(default_factory=dict)
    max_failed_fraction: float = 1.0
    config: dict[str, Any] = field(default_factory=dict)
    artifacts: tuple[dict[str, Any], ...] = ()
    resources: Resources = Resources()

    @property
    def home(self) -> str:
        """Dataset that holds the work in flight."""
        return self.outputs[0].dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A manifest that the stage reads, and what for."""

    manifest: Manifest
    role: str = "input"


def unit_table(units: Iterable[Unit]) -> pa.Table:
    """Units as a table."""
    columns: dict[str, list[Any]] = {name: [] for name in UNITS.names}
    for u in units:
        columns["unit"].append(u.id)
        columns["input"].append(u.input)
        columns["size_bytes"].append(u.size_bytes)
        columns["spec"].append(json.dumps(u.spec, sort_keys=True))
    return pa.table(columns, schema=UNITS)


def unit_of(row: Mapping[str, Any]) -> Unit:
    """A row of the unit table as a Unit."""
    return Unit(id=row["unit"], input=row["input"], size_bytes=row["size_bytes"], spec=json.loads(row["spec"]))


def hash_unit(*parts: Any) -> str:
    """32 hex of JSON-able values: the name of a piece of input."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


def part_units(parts: pa.Table, **spec: Any) -> list[Unit]:
    """One unit for each row of a parent's part list, named by the part's bytes."""
    return [
        Unit(
            id=hash_unit(first_sha256(r), r["unit"]),
            input=r["input"],
            size_bytes=r["bytes"],
            spec={"key": r["key"], "rows_sum": r["rows_sum"], **spec},
        )
        for r in parts.drop_columns(["counters"]).to_pylist()
    ]
