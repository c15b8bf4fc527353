"""The cost model of score_quality: whole parts of the documents, chosen by hash, through the job's own worker.

What is known of the whole is the size of its parts in bytes, so costs are measured a byte. A part is the unit of the
job, so what a unit costs beside its rows is in the sample as it is in the job.
"""

from __future__ import annotations

import math
import time
from typing import Any

import pyarrow as pa

from jobs.runtime.cost import Figure, Plan, Ratio, Request, by_hash, cpu_seconds, peak_memory_mb
from jobs.runtime.stage import Unit, part_units
from jobs.score_quality import open_worker
from pipelines.datasets import Dataset
from pipelines.datasets.parts import encode_table

LEAST_ROWS = 1000
LEAST_PARTS = 3
_BUSY = 0.9  # share of the wall time in which an actor works on units


def plan_scoring(documents: Dataset, worker_config: dict[str, Any], request: Request) -> Plan:
    """The plan of scoring all parts; `worker_config` as the job's workers get it."""
    rows = {row["key"]: row["rows"] for row in documents.parts().select(["key", "rows"]).to_pylist()}
    units = by_hash(part_units(documents.parts()), lambda unit: unit.id)
    total = sum(unit.size_bytes for unit in units)
    work = open_worker(worker_config, documents.store)
    for unit in units[:1]:  # compiles, fills caches: what is done once in a process
        _cost(work, unit)
    start = cpu_seconds()
    costs, sizes, documents_seen, written = [], [], [], []
    for unit in units:
        if len(costs) >= LEAST_PARTS and sum(sizes) >= request.fraction * total and sum(documents_seen) >= LEAST_ROWS:
            break
        cpu, body = _cost(work, unit)
        costs.append(cpu)
        sizes.append(float(unit.size_bytes))
        documents_seen.append(float(rows[unit.spec["key"]]))
        written.append(float(body))
    workers = max(1, min(request.cores, len(units)))
    start -= costs[0] if costs else 0.0  # the first unit was no start
    ratio = Ratio.of(costs, sizes)
    spent, out = ratio.value * total, Ratio.of(written, sizes)
    cpu = spent + start * workers
    return Plan(
        job="score_quality",
        sample={
            "records": int(sum(documents_seen)),
            "bytes": int(sum(sizes)),
            "fraction": round(sum(sizes) / total, 4) if total else 0.0,
            "asked_fraction": request.fraction,
            "parts": len(costs),
        },
        figures={
            "input": Figure(value=total, unit="B", error=0.0),
            "units": Figure(value=len(units), unit="", error=0.0),
            "documents": Figure(value=sum(rows.values()), unit="", error=0.0),
            "cpu": Figure(value=cpu, unit="s", error=ratio.error * spent / cpu if cpu else None),
            "start": Figure(value=start * workers, unit="s"),
            "wall": Figure(value=start + spent / workers / _BUSY, unit="s", error=ratio.error),
            "output": Figure(value=out.value * total, unit="B", error=out.error),
            "reads": Figure(value=len(units) + 4 * workers, unit="requests"),
            "writes": Figure(value=len(units) + math.ceil(len(units) / 1000) + 8, unit="requests"),
            "memory": Figure(value=peak_memory_mb() * workers * 1e6, unit="B"),
        },
        notes=[f"wall for {workers} actors; start-up of Ray not counted"],
    )


def _cost(work: Any, unit: Unit) -> tuple[float, int]:
    """(CPU seconds, bytes written) of one unit; nothing is stored."""
    before = time.process_time()
    result = work(unit)
    written = 0
    for name, table in result.parts.items():
        if isinstance(table, pa.Table):
            written += len(encode_table(name, unit.id, "part", table, table.schema).body)
    return time.process_time() - before, written
