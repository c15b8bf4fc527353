"""List, commit and open a dataset of N units on a folder: `python -m tests.benchmarks.many_units N FOLDER`.

The parts (empty files) and the done records, in batches of 1,000, are laid out beforehand by another process, as a
map would have left them. One JSON line: seconds, CPU seconds and peak memory of this process.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.runtime.context import Context
from jobs.runtime.done import encode_done
from jobs.runtime.execute import DONE
from jobs.runtime.run import run_stage
from jobs.runtime.stage import UNITS, Output, Stage
from pipelines.datasets import open_dataset
from pipelines.datasets.books import Equation
from pipelines.datasets.names import work_prefix
from pipelines.datasets.store import open_store

STAGE = Stage(
    job="synthetic",
    stage_id="synthetic",
    outputs=(Output(dataset="documents", kind="documents"),),
    worker="tests.benchmarks.many_units:nothing",
    equations={"documents": Equation(total="read", terms=("kept",))},
)
BATCH = 1000


def unit_columns(start: int, end: int) -> pa.Table:
    """Units by number."""
    n = end - start
    columns = {
        "unit": [f"{i:032x}" for i in range(start, end)],
        "input": [f"crawl-{i:08d}.warc.gz" for i in range(start, end)],
        "size_bytes": np.zeros(n, np.int64),
        "spec": ["{}"] * n,
    }
    return pa.table(columns, schema=UNITS)


def lay_out(folder: str, units: int) -> None:
    """Empty part files and the done records that name them."""
    store = open_store(folder)
    parts = Path(folder) / "datasets/documents/shards"
    parts.mkdir(parents=True)
    counters = [{"name": f"documents.{a}", "value": 1, "sum": bytes(16)} for a in ("kept", "read")]
    for start in range(0, units, BATCH):
        table = unit_columns(start, min(units, start + BATCH))
        rows = []
        for row in table.to_pylist():
            name = f"{row['unit']}-0123456789abcdef.bin"
            (parts / name).touch()
            rows.append(
                {
                    "role": "shard",
                    "key": f"datasets/documents/shards/{name}",
                    "stage_id": STAGE.stage_id,
                    "unit": row["unit"],
                    "input": row["input"],
                    "rows": 1,
                    "bytes": 0,
                    "sha256": "e" * 64,
                    "content_sum": f"1-{row['unit']}",
                    "tokens": 1,
                    "counters": counters,
                    "dataset": "documents",
                    "attempt": "0" * 16,
                }
            )
        body = encode_done(pa.Table.from_pylist(rows, schema=DONE))
        store.put(f"{work_prefix('documents', STAGE.stage_id)}/done/{start:032x}.parquet", body)


def main(units: int, folder: str) -> None:
    """Lay out, then measure."""
    maker = multiprocessing.get_context("spawn").Process(target=lay_out, args=(folder, units))
    maker.start()
    maker.join()
    begun, cpu = time.monotonic(), time.process_time()
    context = Context(store=open_store(folder))
    manifest = run_stage(context, STAGE, unit_columns(0, units))["documents"]
    rows = open_dataset(folder, "documents").parts("shard").num_rows
    again = run_stage(context, STAGE, unit_columns(0, units))["documents"]
    report = {
        "benchmark": "many_units",
        "units": units,
        "rows": rows,
        "repeat_wrote_nothing": again.sha256 == manifest.sha256,
        "seconds": round(time.monotonic() - begun, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
