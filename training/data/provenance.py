"""From a step to its documents and from a document to its steps, by the order's arithmetic and the shards' tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.datasets import open_dataset
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import Store
from pipelines.errors import InputError
from training.data.batches import BatchPlan
from training.data.order import Order, RowSpan
from training.data.plan import DatasetPin, Plan
from training.data.shards import TokenShards

_COLUMNS = ["id", "part", "row", "first_token", "tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownDocument:
    """Tokens [first, first + tokens) of a row that are those of a document from `document_first` on.

    `part` and `row` say where its text stands in the corpus.
    """

    id: str
    cell: str
    first: int
    tokens: int
    document_first: int
    document_tokens: int
    part: str
    row: int


class Provenance:
    """A plan with the tables that tell which document a token is of; a table is read when it is asked for.

    `done`: steps that the run's newest checkpoint covers.
    """

    def __init__(self, store: Store, plan: Plan, *, done: int = 0) -> None:
        """Open the plan's datasets."""
        self.plan, self.done, self._store = plan, done, store
        pins = list(dict.fromkeys(pin for segment in plan.segments for pin in segment.datasets))
        self._shards = TokenShards.open(store, pins)
        self.order, self.batches = Order(plan, self._shards), BatchPlan(plan)
        self._keys = {
            pin: {
                (row["cell"], row["unit"]): row["key"]
                for row in open_dataset(store, pin.name, pin.version).parts("docs").to_pylist()
            }
            for pin in pins
        }

    def positions(self, step: int) -> np.ndarray:
        """The positions of a step, (rows,); InputError for a step that the plan has not."""
        if not 0 < step <= self.batches.steps:
            raise InputError(f"the plan has steps 1 to {self.batches.steps}, not {step}")
        return self.batches.batch(step - 1).positions

    def documents(self, position: int) -> list[ShownDocument]:
        """The documents of a row, in reading order."""
        found: list[ShownDocument] = []
        at = 0
        row = self.order.row(position)
        for span in row.spans:
            pin = self.plan.segments[row.segment].datasets[span.dataset]
            found += self._of_span(pin, span, at)
            at += span.tokens
        return found

    def steps_of(self, document: str) -> Iterator[dict[str, Any]]:
        """Where the plan shows a document: cell, position, step (None: skipped), of its first token and of its later
        tokens in other rows."""
        for pin, tables in self._keys.items():
            shards = self._shards.datasets[pin].cells
            for (cell, unit), key in tables.items():
                table = read_parquet(self._store.get(key), ["id", "first_token", "tokens"])
                hit = table.filter(pc.equal(table["id"], document)).to_pylist()
                if not hit:
                    continue
                number = next(n for n, shard in enumerate(shards[cell]) if shard.unit == unit)
                for name in self._names(pin, cell):
                    yield from self._shown(name, number, hit)

    def _shown(self, name: str, shard: int, documents: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        shortest = min(segment.sequence_length for segment in self.plan.segments)
        positions: set[int] = set()
        for row in documents:
            first, last = row["first_token"], row["first_token"] + row["tokens"] - 1
            for token in [*range(first, last, shortest), last]:
                positions |= {position for position, _ in self.order.seen_at(name, shard, token)}
        for position in sorted(positions):
            step = self.batches.step_of(position)
            yield {"cell": name, "position": position, "step": None if step is None else step + 1}

    def _names(self, pin: DatasetPin, cell: str) -> list[str]:
        """The order's names for a cell of a dataset."""
        found = {
            planned.name
            for segment in self.plan.segments
            for planned in segment.cells
            if planned.cell == cell and segment.datasets[planned.dataset] == pin
        }
        return sorted(found)

    def _of_span(self, pin: DatasetPin, span: RowSpan, at: int) -> Iterator[ShownDocument]:
        unit = self._shards.shards(pin, span.cell)[span.shard].unit
        table = self._table(self._keys[pin][span.cell, unit])
        starts = table["first_token"].to_numpy()
        last = int(np.searchsorted(starts, span.first + span.tokens, side="left"))
        begin = int(np.searchsorted(starts, span.first, side="right")) - 1
        for row in table.slice(max(begin, 0), last - max(begin, 0)).to_pylist():
            low = max(row["first_token"], span.first)
            high = min(row["first_token"] + row["tokens"], span.first + span.tokens)
            if low < high:
                yield ShownDocument(
                    id=row["id"],
                    cell=span.cell,
                    first=at + low - span.first,
                    tokens=high - low,
                    document_first=low - row["first_token"],
                    document_tokens=row["tokens"],
                    part=row["part"],
                    row=row["row"],
                )

    def _table(self, key: str) -> pa.Table:
        return read_parquet(self._store.get(key), _COLUMNS).combine_chunks()
