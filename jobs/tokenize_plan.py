"""The cost model of tokenize_documents: slices of the corpus, chosen by hash, through the job's own workers.

What is known of the whole is each part's bytes and rows, so costs are measured a byte of the stored parts. The workers
read slices that are written as parts are, and write to memory alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.runtime.cost import Figure, Plan, Ratio, Request, by_hash, cpu_seconds, peak_memory_mb
from jobs.runtime.stage import Unit, UnitResult
from pipelines.datasets import Dataset
from pipelines.datasets.parts import encode_table
from pipelines.datasets.store import MemoryStore, Store
from pipelines.errors import InputError

SLICE_BYTES = 4 << 20  # of text
LEAST_SLICES = 4
_BUSY = 0.9
Worker = Callable[[Unit], UnitResult]


class _Over(MemoryStore):
    """Reads what lies below where it has nothing itself; writes stay here."""

    def __init__(self, below: Store) -> None:
        super().__init__()
        self._below = below

    def get(self, key: str) -> bytes:
        """The object."""
        return super().get(key) if super().head(key) else self._below.get(key)


def plan_tokens(
    corpus: Dataset,
    scores: dict[str, str],
    open_encoder: Callable[[dict[str, Any], Store], Worker],
    open_sharder: Callable[[dict[str, Any], Store], Worker],
    worker_config: dict[str, Any],
    shard_tokens: int,
    request: Request,
) -> Plan:
    """The plan of tokenizing all parts of a corpus; `scores` is the score part of each input, where there are any."""
    parts = corpus.parts().select(["key", "input", "rows", "bytes"]).to_pylist()
    if not parts:
        raise InputError(f"{corpus.name} v{corpus.manifest.version} has no parts to plan for")
    total = sum(row["bytes"] for row in parts)
    store = _Over(corpus.store)
    config = {**worker_config, "prefix": "plan"}
    encode, gather = open_encoder(config, store), open_sharder(config, store)
    chosen = by_hash(parts, lambda row: row["key"])
    _measure(store, corpus, chosen[0], scores, 0, encode, gather, most_rows=64)  # compiles, fills caches
    started = cpu_seconds()
    costs: list[dict[str, float]] = []
    for number, row in enumerate(chosen, 1):
        if len(costs) >= LEAST_SLICES and sum(cost["stored"] for cost in costs) >= request.fraction * total:
            break
        costs.append(_measure(store, corpus, row, scores, number, encode, gather))
    store.objects.clear()
    sizes = [cost["stored"] for cost in costs]
    workers = min(request.cores, len(parts))

    def scaled(name: str, unit: str, fixed: float = 0.0) -> Figure:
        ratio = Ratio.of([cost[name] for cost in costs], sizes)
        value = ratio.value * total
        return Figure(value=value + fixed, unit=unit, error=ratio.error if len(costs) > 1 else None)

    grown = _grown(costs, total, max(row["bytes"] for row in parts), shard_tokens)
    cpu = scaled("cpu", "s", started * workers)
    wall = started + (cpu.value - started * workers) / workers / _BUSY
    return Plan(
        job="tokenize_documents",
        sample={
            "records": int(sum(cost["rows"] for cost in costs)),
            "bytes": int(sum(sizes)),
            "fraction": round(min(1.0, sum(sizes) / total), 4),
            "asked_fraction": request.fraction,
        },
        figures={
            "input": Figure(value=total, unit="B", error=0.0),
            "units": Figure(value=len(parts), unit="", error=0.0),
            "records": Figure(value=sum(row["rows"] for row in parts), unit="", error=0.0),
            "tokens": scaled("tokens", ""),
            "cpu": cpu,
            "start": Figure(value=started * workers, unit="s"),
            "wall": Figure(value=wall, unit="s", error=cpu.error),
            "output": scaled("output", "B"),
            "memory": Figure(value=workers * (1e6 * peak_memory_mb() + grown), unit="B"),
        },
        notes=[f"wall for {workers} worker processes; start-up of the engine not counted"],
    )


def _grown(costs: list[dict[str, float]], total: float, largest_part: float, shard_tokens: int) -> float:
    """Bytes that a worker holds of the largest part or shard, beyond what it held of a slice.

    Of a part its texts, and its tokens in two orders; of a shard its tokens twice.
    """
    stored = sum(cost["stored"] for cost in costs)
    text, tokens, two = (sum(cost[name] for cost in costs) / stored for name in ("text", "tokens", "token_bytes"))
    part = largest_part * (1 + text + 2 * two)
    shard = 2 * min(shard_tokens * two / max(tokens, 1e-9), two * total)
    return max(0.0, max(part, shard) - max(cost["stored"] for cost in costs) * (1 + text + 2 * two))


def _measure(
    store: _Over,
    corpus: Dataset,
    row: dict[str, Any],
    scores: dict[str, str],
    number: int,
    encode: Worker,
    gather: Worker,
    most_rows: int | None = None,
) -> dict[str, float]:
    """What one slice of a part costs: CPU seconds, tokens, bytes of output; and its share of the part's bytes."""
    table = corpus.read_part(row["key"])
    rows = min(len(table), most_rows or _rows_of(table))
    start = int(np.random.default_rng(number).integers(0, len(table) - rows + 1))
    sliced = table.slice(start, rows)
    made, text = encode_table("plan", f"{number:032x}", "part", sliced), sliced["text"].nbytes
    store.put(made.key, made.body)
    spec = {"part": made.key, "scores": scores.get(row["input"])}
    began = cpu_seconds()
    done = encode(Unit(id=f"{number:032x}", input=row["input"], spec=spec))
    listing = f"plan/listing-{number}.json"
    spill = f"plan/spill/{number:032x}"
    store.put(listing, json.dumps([[spill, made.key]]).encode())
    output = token_bytes = 0
    for cell in [name.removeprefix("cells.") for name in done.counters.values if name.startswith("cells.")]:
        bounds = {"first": "0", "last": str(2**64 - 1)}
        found = gather(Unit(id=f"{number:032x}", input=cell, spec={"cell": cell, "listing": listing, **bounds}))
        output += sum(len(file.body) for file in found.files)
        token_bytes += sum(len(file.body) for file in found.files if file.role == "shard")
    cpu = cpu_seconds() - began
    tokens = done.counters.values["tokens.in"][0]
    stored = row["bytes"] * rows / max(1, len(table))
    for key in (made.key, f"{spill}.rows.parquet", f"{spill}.tokens", listing):
        store.delete(key)
    return {
        "cpu": cpu,
        "tokens": float(tokens),
        "token_bytes": float(token_bytes),
        "text": float(text),
        "output": float(output),
        "stored": stored,
        "rows": float(rows),
    }


def _rows_of(table: pa.Table) -> int:
    """As many rows as have about SLICE_BYTES of text."""
    return max(1, min(len(table), len(table) * SLICE_BYTES // max(1, table["text"].nbytes)))


def score_parts(quality: Dataset | None) -> dict[str, str]:
    """The score part of each input."""
    if quality is None:
        return {}
    return {row["input"]: row["key"] for row in quality.parts().select(["input", "key"]).to_pylist()}
