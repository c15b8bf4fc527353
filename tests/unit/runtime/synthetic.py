"""A stage that needs no data: each unit makes a few rows, a ledger row, and can be told to wait or to die."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.runtime.stage import Counters, Output, Stage, Unit, UnitResult, hash_unit
from pipelines.datasets.books import Equation
from pipelines.datasets.schemas import LEDGER
from pipelines.datasets.store import Store

ROWS = pa.schema([("id", pa.string()), ("text", pa.string())])
SCORES = pa.schema([("id", pa.string()), ("toy.length", pa.float64())])
EQUATIONS = {"documents": Equation(total="read", terms=("kept", "rejected", "failed"))}


def open_worker(config: dict[str, Any], store: Store):
    def work(unit: Unit) -> UnitResult:
        _maybe_die(config, unit)
        time.sleep(config.get("seconds", 0.0))
        n = config["rows"]
        ids = [f"{unit.id}-{i}" for i in range(n)]
        texts = [f"第{i}页 of {unit.input}" for i in range(n)]
        counters = Counters()
        counters.add("documents.read", [i.encode() for i in ids] + [b"junk" + unit.id.encode()])
        counters.add("documents.kept", [i.encode() for i in ids])
        counters.add("documents.rejected.too_short", [b"junk" + unit.id.encode()])
        ledger = pa.Table.from_pylist([{"id": unit.id, "stage": "toy", "verdict": "rejected"}], schema=LEDGER)
        return UnitResult(
            parts={
                "documents": pa.table({"id": ids, "text": texts}),
                "scores": pa.table({"id": ids, "toy.length": [float(len(t)) for t in texts]}),
            },
            ledger=ledger,
            counters=counters,
            stats={"by_language.zh": n},
        )

    return work


def _maybe_die(config: dict[str, Any], unit: Unit) -> None:
    """Kill this process with -9 at the chosen unit, the first time only (a marker file remembers)."""
    marker = config.get("die_marker")
    if marker and unit.input == config["die_at"] and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def stage(**config: Any) -> Stage:
    """The stage id leaves out how units wait or die: that is no content."""
    config = {"rows": 3, **config}
    return Stage(
        job="toy",
        stage_id=hash_unit("toy", config["rows"]),
        outputs=(
            Output(dataset="documents", kind="documents", schema=ROWS),
            Output(dataset="scores", kind="annotations", schema=SCORES),
        ),
        worker="tests.unit.runtime.synthetic:open_worker",
        worker_config=config,
        equations=EQUATIONS,
        config={"rows": config["rows"]},
    )


def units(n: int) -> list[Unit]:
    return [Unit(id=hash_unit(i), input=f"crawl-{i:05d}.warc.gz") for i in range(n)]
