"""The cost model of dedup_lines and dedup_substrings: some documents, chosen by hash, through the job's own code.

The sample runs in memory, as a whole and by halves. What a document costs is the difference, so that what only
starts up is told apart; bytes are counted where the job reads and writes them. What a sample cannot tell is how much
more repeats in the whole: the share of what is set aside between the steps is taken to grow up to the whole as it grew
from the half sample to the whole one.
"""

from __future__ import annotations

import math
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.runtime.context import Context
from jobs.runtime.cost import Figure, Plan, Request, by_hash
from jobs.runtime.run import run_stage
from jobs.runtime.stage import Output, Stage, Unit, UnitResult, hash_unit
from jobs.wide_steps import parts_beside, sketch_shape
from pipelines.datasets import Dataset, open_dataset
from pipelines.datasets.manifest import Manifest
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import MemoryStore, Store
from pipelines.errors import InputError

LEAST_BYTES = 16 << 20  # of text: less would not hold the error below 25%
MOST_BYTES = 64 << 20
PARTS = 20
START_CPU_S = 2.2  # of a worker: its imports, and what was compiled before
BASE_MB = 280  # resident then
_BUSY = 0.8  # share of the wall time in which a core works
_READ = {"documents": None, "dedup": ["id", "dedup.keep"], "signatures": ["id", "place", "tie"]}
_KINDS = {"documents": "documents", "dedup": "annotations", "signatures": "signatures"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What differs between the jobs.

    `outputs`: settings that name what it writes. `told`: (digests sketched, rows set aside) of a run. `bound`: the
    count that its sketch looks for. `held`: bytes that a task holds, from the bytes of text of the largest part and the
    rows set aside. `aside_s`: CPU seconds of a row that is set aside. `expected`: digests for which the job
    itself makes its sketch, where it does not count them first.
    """

    job: str
    run: Callable[[Any, Context], list[Manifest]]
    outputs: tuple[str, ...]
    told: Callable[[Manifest], tuple[int, int]]
    bound: int
    held: Callable[[float, float], float]
    aside_s: float
    expected: Callable[[Dataset], int] | None = None


def plan_repeats(config: Any, context: Context, request: Request, measure: Measure) -> Plan:
    """The plan of a job over the documents as they are now."""
    documents = open_dataset(context.store, config.documents)
    beside = {"dedup": config.dedup, "signatures": config.signatures}
    found, _ = parts_beside(context, documents, beside)
    total = sum(mine["rows"] for mine, _ in found)
    if not total:
        raise InputError(f"{config.documents} has no documents", mend="run extract_crawl first")
    sample = _sample(context.store, found, request.fraction)
    rows = sample["documents"].num_rows
    half = max(1, rows // 2)
    _Trial(config, measure, sample, min(rows, 20))  # compiles, or reads what was compiled
    less, more = _Trial(config, measure, sample, half), _Trial(config, measure, sample, rows)
    other = _Trial(config, measure, {role: table.slice(rows - half) for role, table in sample.items()}, half)
    error = 0.25 if rows < total else None
    grown = _growth((less.share + other.share) / 2, more.share, rows / half, total / rows)

    stored = sum(mine["bytes"] for mine, _ in found)

    def bytes_of(name: str) -> Figure:
        wide = total / rows * more.counted[name, "wide"] * grown
        each = max(0, more.counted[name, "other"] - less.counted[name, "other"]) / max(1, rows - half)
        texts = stored * more.counted[name, "texts"] / more.stored  # real parts are packed better than a mixed sample
        once = max(0.0, more.counted[name, "other"] - rows * each)  # manifests above all
        return Figure(value=texts + total * each + once + wide, unit="B", error=error)

    text = _text_bytes(sample["documents"]) / rows
    aside = total / rows * more.set_aside
    cpu = START_CPU_S * request.cores + total * max(0.0, more.cpu - (less.cpu + other.cpu) / 2) / max(1, rows - half)
    cpu += (grown - 1) * aside * measure.aside_s  # what repeats in the whole and not in the sample
    digests = measure.expected(documents) if measure.expected else int(total / rows * more.sketched)
    shape = sketch_shape(digests, measure.bound, config.sketch_mib)
    largest = max(mine["rows"] for mine, _ in found) * text
    memory = request.cores * (BASE_MB * 1e6 + measure.held(largest, aside * grown) + (shape.mib << 20))
    return Plan(
        job=measure.job,
        sample={"records": rows, "bytes": int(rows * text), "fraction": rows / total},
        figures={
            "input": Figure(value=float(stored), unit="B"),
            "units": Figure(value=float(len(found)), unit=""),
            "documents": Figure(value=float(total), unit=""),
            "cpu": Figure(value=cpu, unit="s", error=error),
            "wall": Figure(value=cpu / request.cores / _BUSY, unit="s", error=error),
            "read": bytes_of("read"),
            "written": bytes_of("written"),
            "sketch": Figure(value=float(shape.mib << 20), unit="B"),
            "memory": Figure(value=memory, unit="B", error=error),
        },
        notes=[
            f"{int(total / rows * more.sketched):,} digests go into the sketch; about {aside * grown:,.0f} rows are set"
            " aside between the steps, which a sample tells least well: it is as if they grew on as from its halves",
            "read and written: all objects of all steps, what is deleted at the end included; a Spark session takes"
            " some 10 s of CPU more",
        ],
    )


def _growth(few: float, many: float, doubled: float, to_total: float) -> float:
    """By how much a share that was `few` in the half sample and `many` in the whole one grows up to the total."""
    if not 0 < few < many < 1 or to_total <= 1:
        return 1.0
    return min(to_total ** (math.log(many / few) / math.log(doubled)), 1 / many)


class _Metered(MemoryStore):
    """Counts the bytes that go in and out: of texts, of steps in flight, of all other objects."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        super().__init__(f"memory://{uuid.uuid4().hex}")
        self.counted: Counter[tuple[str, str]] = Counter()

    def get(self, key: str) -> bytes:
        """The bytes, counted."""
        body = super().get(key)
        self.counted["read", _kind(key)] += len(body)
        return body

    def put(self, key: str, body: bytes, *, create_only: bool = False) -> bool:
        """Store and count."""
        self.counted["written", _kind(key)] += len(body)
        return super().put(key, body, create_only=create_only)


def _kind(key: str) -> str:
    if key.startswith("datasets/documents/parts/"):
        return "texts"
    return "wide" if "/wide/" in key else "other"


class _Trial:
    """The job over the first documents of the sample, in memory."""

    def __init__(self, config: Any, measure: Measure, sample: dict[str, pa.Table], rows: int) -> None:
        store = _Metered()
        context = Context(store=store, engine="process")
        for role, table in sample.items():
            _rows["rows"] = table.slice(0, rows)
            stage = Stage(
                job="plan",
                stage_id=hash_unit("plan", role),
                outputs=(Output(dataset=role, kind=_KINDS[role], schema=table.schema),),
                worker="jobs.lines_plan:open_rows",
                worker_config={"dataset": role},
            )
            run_stage(context, stage, [Unit(id=hash_unit("plan"), input="sample")], engine="process")
        names = {role: role if role in sample else "" for role in _READ}
        self.stored = store.counted["written", "texts"]
        store.counted.clear()
        begun = time.process_time()
        marked = measure.run(replace(config, **names, **{name: name for name in measure.outputs}), context)[-1]
        self.cpu = time.process_time() - begun
        self.sketched, self.set_aside = measure.told(marked)
        self.share = self.set_aside / max(1, self.sketched)
        self.counted = store.counted
        store.objects.clear()


_rows: dict[str, pa.Table] = {}


def open_rows(worker_config: dict[str, Any], _store: Store) -> Callable[[Unit], UnitResult]:
    """The sample as a part."""
    return lambda _unit: UnitResult(parts={worker_config["dataset"]: _rows["rows"]})


def _sample(
    store: Store, found: list[tuple[dict[str, Any], dict[str, dict[str, Any]]]], fraction: float
) -> dict[str, pa.Table]:
    """Documents, and what lies beside them, of parts in the order of their hashes, spread over PARTS of them."""
    chosen = [pair for pair in by_hash(found, lambda pair: pair[0]["key"]) if pair[0]["rows"]]
    total = sum(mine["rows"] for mine, _ in chosen)
    tables: dict[str, list[pa.Table]] = {}
    have, wanted, share = 0, 1, 1.0
    for mine, theirs in chosen:
        held = {role: read_parquet(store.get(part["key"]), _READ[role]) for role, part in theirs.items()}
        held["documents"] = read_parquet(store.get(mine["key"]))
        if not tables:
            each = max(1.0, _text_bytes(held["documents"]) / mine["rows"])
            wanted = math.ceil(min(total, MOST_BYTES / each, max(LEAST_BYTES / each, fraction * total)))
            share = min(1.0, wanted / sum(mine["rows"] for mine, _ in chosen[:PARTS]))  # of each part alike
        rows = np.random.default_rng(0).permutation(mine["rows"])[: math.ceil(share * mine["rows"])]
        for role, table in held.items():
            tables.setdefault(role, []).append(table.take(pa.array(rows)))
        have += len(rows)
        if have >= wanted:
            break
    mixed = pa.array(np.random.default_rng(1).permutation(have))  # so that its half is like the whole
    return {role: pa.concat_tables(some).take(mixed).combine_chunks() for role, some in tables.items()}


def _text_bytes(documents: pa.Table) -> int:
    return pc.sum(pc.binary_length(documents["text"])).as_py() or 0
