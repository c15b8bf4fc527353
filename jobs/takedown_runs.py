"""Which training runs saw pages that are to be taken down, and at which steps.

A run's order is a pure function of its plan and the sizes of its shards, so this is arithmetic: no token is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.datasets import open_dataset
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import Store
from pipelines.takedown.listing import part_keys, read_listed


def runs_that_saw(store: Store, most_documents: int = 1000) -> list[dict[str, Any]]:
    """For each run whose data holds listed documents: run, position reached, documents, steps (first, last, count).

    Steps are those up to the newest checkpoint that trained a row with any token of such a document, of at most
    `most_documents` documents; `all_steps` are their numbers, from 0, ascending.
    """
    from training.data.batches import BatchPlan
    from training.data.order import Order
    from training.data.shards import TokenShards
    from training.run_log import RunLog

    ids = read_listed(store, part_keys(store)).ids
    found = []
    for run in sorted({o.key.split("/")[1] for o in store.list("runs/") if o.key.count("/") >= 2}):
        state = RunLog(store, run).state
        if state.plan is None:
            continue
        pins = list(dict.fromkeys(pin for segment in state.plan.segments for pin in segment.datasets))
        shards = TokenShards.open(store, pins)
        order, batches = Order(state.plan, shards), BatchPlan(state.plan)
        reached = (state.checkpoint or {}).get("position", 0)
        documents, steps = 0, set()
        for pin in pins:
            numbers = {s.unit: n for cell in shards.datasets[pin].cells.values() for n, s in enumerate(cell)}
            for row in open_dataset(store, pin.name, pin.version).parts("docs").to_pylist():
                spans = _spans(store, row["key"], ids)
                left = max(0, most_documents - documents)
                documents += len(spans)
                for first, count in spans[:left]:
                    shown = _shown_at(state.plan, order, pin, row["cell"], numbers[row["unit"]], first, count)
                    steps |= {batches.step_of(position) for position in shown if position < reached} - {None}
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
                    "all_steps": seen,
                }
            )
    return found


def _spans(store: Store, key: str, ids: pa.Array) -> list[tuple[int, int]]:
    """(first token, tokens) of the listed documents of a shard."""
    docs = read_parquet(store.get(key), ["id", "first_token", "tokens"])
    docs = docs.filter(pc.is_in(docs["id"], ids))
    return list(zip(docs["first_token"].to_pylist(), docs["tokens"].to_pylist(), strict=True))


def _shown_at(plan: Any, order: Any, pin: Any, cell: str, shard: int, first: int, count: int) -> Iterator[int]:
    """Positions whose rows show any of these tokens."""
    cells = [
        (c.name, c.stretch_tokens, segment.sequence_length)
        for segment in plan.segments
        for c in segment.cells
        if c.cell == cell and segment.datasets[c.dataset] == pin
    ]
    for name, stretch, length in dict.fromkeys(cells):
        for token in _one_of_each_row(first, count, stretch, length):
            for position, _ in order.seen_at(name, shard, token):
                yield position


def _one_of_each_row(first: int, count: int, stretch: int, length: int) -> Iterator[int]:
    """Tokens among which is one of every row that shows any of the document's.

    Within a stretch tokens lie in rows one after the other, so one in every `length`, and the last, touch each row. A
    stretch's end is also where the tail of a shard begins.
    """
    at, end = first, first + count
    while at < end:
        border = min(end, (at // stretch + 1) * stretch)
        yield from range(at, border, length)
        yield border - 1
        at = border
