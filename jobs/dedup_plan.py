"""The cost model of dedup_documents: some parts of the documents, chosen by hash, through the job's own code.

Parts are signed, and the steps behind the signatures run over them in memory, by one process. What goes through the
shuffle follows from the share of documents that have bands; what a document costs, from two samples of which one is
twice the other, so that what only starts up is told apart. A sample holds few of the pairs that the whole has (half the
documents have a quarter of them), so a crawl with many copies costs more than is told here.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
import uuid
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from jobs.runtime.context import Context
from jobs.runtime.cost import Figure, Plan, Request, by_hash
from jobs.runtime.run import run_stage
from jobs.runtime.stage import Output, Stage, Unit, UnitResult, hash_unit
from pipelines.datasets import open_dataset
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.schemas import DOCUMENTS
from pipelines.datasets.store import MemoryStore, Store
from pipelines.dedup.bands import BandPlan, s_curve
from pipelines.dedup.urls import URL
from pipelines.errors import InputError

if TYPE_CHECKING:
    from jobs.dedup_documents import Config

LEAST_ROWS = 20_000
MOST_ROWS = 50_000
# A Spark session opened and closed, its workers' first imports and thirty small steps cost as much as so many starts of
# a Python that imports what a worker does: so the machine itself tells how fast it is.
SESSION_STARTS = 40
TARGET_MB = 64  # of parcels in a task that sorts them; sorting holds about four times as much
_BUSY = 0.8  # share of the wall time in which a core works, beyond a session, which keeps one of them busy


def plan_dedup(config: Config, context: Context, request: Request) -> Plan:
    """The plan of deduplicating the documents as they are now."""
    documents = open_dataset(context.store, config.documents)
    parts = documents.parts().to_pylist()
    total = sum(part["rows"] for part in parts)
    if not total:
        raise InputError(f"{config.documents} has no documents", mend="run extract_crawl first")
    plan = BandPlan(**asdict(config.lsh))
    wanted = min(total, MOST_ROWS, max(LEAST_ROWS, int(request.fraction * total)))
    sample = _sample(context.store, parts, wanted)
    _Trial(config, sample.slice(0, 50))  # compiles, or reads what was compiled
    whole = _least(config, sample)
    half = _least(config, sample.slice(0, max(1, sample.num_rows // 2)))
    each = max(0.0, whole.cpu - half.cpu) / max(1, sample.num_rows - sample.num_rows // 2)
    banded = whole.banded / sample.num_rows
    copies = whole.stats["exact"] / sample.num_rows
    candidates = whole.stats["candidates"] / sample.num_rows
    captures = 48 * whole.addressed / sample.num_rows if config.urls != "off" else 0.0
    exact = 40 * whole.digested / sample.num_rows
    shuffled = total * (captures + exact + 32 * plan.num_bands * max(0.0, banded - copies))
    session = SESSION_STARTS * min(_start_cpu() for _ in range(3))
    cpu = session + total * each
    linked = total * (whole.stats["exact"] + whole.stats["verified"]) / sample.num_rows
    bits = 4 * total / 8e6
    decided = 300e-6 * min(linked, config.links_per_task)
    memory = request.cores * (300 + 4 * TARGET_MB + bits) + decided
    error = 0.25 if sample.num_rows < total else None
    return Plan(
        job="dedup_documents",
        sample={"records": sample.num_rows, "fraction": sample.num_rows / total},
        figures={
            "input": Figure(value=float(sum(part["bytes"] for part in parts)), unit="B"),
            "units": Figure(value=float(len(parts)), unit=""),
            "documents": Figure(value=float(total), unit=""),
            "shuffle": Figure(value=shuffled, unit="B", error=0.05 if error else None),
            "cpu": Figure(value=cpu, unit="s", error=error),
            "wall": Figure(value=session + total * each / request.cores / _BUSY, unit="s", error=error),
            "memory": Figure(value=memory * 1e6, unit="B"),
            "output": Figure(value=total * whole.written / sample.num_rows, unit="B", error=0.1 if error else None),
        },
        notes=[
            f"{plan.num_bands} bands of {plan.rows_per_band}: pairs that become candidates, by similarity: "
            + ", ".join(f"{j:g} {share:.1%}" for j, share in s_curve(plan.num_bands, plan.rows_per_band).items()),
            f"in the sample {candidates:.3f} candidates and {copies:.3f} exact copies a document; the whole has more",
        ],
    )


def _start_cpu() -> float:
    """CPU seconds of a Python process that imports what a worker of the wide steps does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = f"import sys; sys.path[:] = {sys.path!r}; import jobs.dedup_exchange, jobs.dedup_groups, jobs.dedup_steps"
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _least(config: Config, rows: pa.Table) -> _Trial:
    """The trial that took least, of three: whatever else the machine does only adds."""
    return min((_Trial(config, rows) for _ in range(3)), key=lambda trial: trial.cpu)


class _Trial:
    """The job over some documents, in memory."""

    def __init__(self, config: Config, rows: pa.Table) -> None:
        from jobs.dedup_documents import run

        context = Context(store=MemoryStore(f"memory://{uuid.uuid4().hex}"), engine="process")
        stage = Stage(
            job="plan",
            stage_id=hash_unit("plan"),
            outputs=(Output(dataset="documents", kind="documents", schema=DOCUMENTS),),
            worker="jobs.dedup_plan:open_rows",
        )
        _rows["rows"] = rows
        run_stage(context, stage, [Unit(id=hash_unit("plan"), input="sample")], engine="process")
        names = {"documents": "documents", "signatures": "signatures", "output": "dedup", "pairs": "dedup_pairs"}
        begun = time.process_time()
        _, marked, _ = run(replace(config, **names), context)
        self.cpu = time.process_time() - begun
        self.stats: dict[str, Any] = {"verified": 0, **marked.stats["pairs"]}
        made = [open_dataset(context.store, name) for name in ("signatures", "dedup", "dedup_pairs")]
        self.written = sum(row["bytes"] for dataset in made for row in dataset.parts().to_pylist())
        table = made[0].to_arrow(["exact", "sketch", URL])
        self.digested = len(table) - table["exact"].null_count
        self.addressed = len(table) - table[URL].null_count
        self.banded = len(table) - table["sketch"].null_count


_rows: dict[str, pa.Table] = {}


def open_rows(_worker_config: dict[str, Any], _store: Store) -> Any:
    """The sample as a part."""

    def rows(_unit: Unit) -> UnitResult:
        return UnitResult(parts={"documents": _rows["rows"]})

    return rows


def _sample(store: Store, parts: list[dict[str, Any]], wanted: int) -> pa.Table:
    """Rows of parts in the order of their hashes; of each at most what spreads the sample over ten of them."""
    tables: list[pa.Table] = []
    have = 0
    for part in by_hash(parts, lambda part: part["key"]):
        table = read_parquet(store.get(part["key"]))
        share = min(table.num_rows, max(1, wanted // min(10, len(parts))), wanted - have)
        rows = np.sort(np.random.default_rng(0).permutation(table.num_rows)[:share])
        tables.append(table.take(pa.array(rows)))
        have += share
        if have >= wanted:
            break
    return pa.concat_tables(tables).combine_chunks()
