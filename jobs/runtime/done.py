"""Done records: which units are finished, in batches, content-named under `work/<stage_id>/done/`.

A batch is written after 1,000 units or 10 seconds, so a million units cost a thousand puts.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.runtime.execute import DONE
from pipelines.datasets.parts import conform, read_parquet
from pipelines.datasets.store import Store


class DoneWriter:
    """Collects done rows and writes them in batches; `close` writes the rest."""

    def __init__(
        self,
        store: Store,
        prefix: str,
        *,
        units: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._prefix, self._units, self._seconds, self._clock = (
            store,
            prefix,
            units,
            seconds,
            clock,
        )
        self._rows: list[pa.Table] = []
        self._since = clock()

    def add(self, rows: pa.Table) -> None:
        """Rows of one finished unit."""
        self._rows.append(rows)
        if len(self._rows) >= self._units or self._clock() - self._since >= self._seconds:
            self.close()

    def close(self) -> None:
        """Write what is collected."""
        if self._rows:
            body = encode_done(pa.concat_tables(self._rows))
            self._store.put(f"{self._prefix}/done/{hashlib.sha256(body).hexdigest()[:32]}.parquet", body)
        self._rows, self._since = [], self._clock()


def encode_done(rows: pa.Table) -> bytes:
    """A batch as it is stored."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def read_done(store: Store, prefix: str) -> pa.Table:
    """All done rows of a stage in flight; of a unit with several outcomes, those of the smaller attempt."""
    keys = [o.key for o in store.list(f"{prefix}/done/")]
    with ThreadPoolExecutor(8) as pool:
        tables = list(pool.map(lambda k: conform(read_parquet(store.get(k)), DONE), keys))
    settled = settle(pa.concat_tables(tables)) if tables else DONE.empty_table()
    pa.default_memory_pool().release_unused()
    return settled


def settle(rows: pa.Table) -> pa.Table:
    """One row an object and one attempt a unit."""
    if pc.count_distinct(rows["key"]).as_py() != rows.num_rows:
        index = pa.array(range(rows.num_rows))
        first = (
            rows.select(["key", "dataset"])
            .append_column("row", index)
            .group_by(["key", "dataset"], use_threads=False)
            .aggregate([("row", "min")])
        )
        rows = rows.take(first["row_min"].sort())
    by_unit = rows.select(["unit", "attempt"]).group_by("unit", use_threads=False)
    attempts = by_unit.aggregate([("attempt", "min"), ("attempt", "max")])
    if pc.all(pc.equal(attempts["attempt_min"], attempts["attempt_max"])).as_py() is False:
        chosen = pa.table({"unit": attempts["unit"], "attempt": attempts["attempt_min"]})
        position = rows.select(["unit", "attempt"]).append_column("row", pa.array(range(rows.num_rows)))
        kept = position.join(chosen, keys=["unit", "attempt"], join_type="inner", use_threads=False)
        rows = rows.take(kept["row"].sort())
    return rows


def clear_done(store: Store, prefix: str) -> None:
    """Forget the done records of a stage whose versions are committed: the part lists name all they named."""
    for o in list(_done_objects(store, prefix)):
        store.delete(o)


def _done_objects(store: Store, prefix: str) -> Iterator[str]:
    for o in store.list(f"{prefix}/done/"):
        yield o.key
