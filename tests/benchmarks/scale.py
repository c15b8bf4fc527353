"""Deduplication at 1, 2, 4 and 8 times as many documents: CPU, shuffled bytes and the driver's memory.

`python -m tests.benchmarks.scale [--documents N] [--engine process]` prints a table on stderr and one JSON line on
stdout. N is the largest count, of short documents; a tenth are near copies and a tenth exact ones. CPU is of the job's
process and all its children, less that of a run over no documents; the driver's memory is the largest that its Python
held. `plan_over_actual` is what `gristmill plan dedup_documents` told of the smallest step over what then happened:
shuffled bytes, CPU, wall time, memory of all processes (proportional set size, so that what they share counts once).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from jobs import dedup_documents
from jobs.runtime.cost import Request, peak_memory_mb, plan_job
from pipelines.datasets import open_dataset
from pipelines.datasets.store import open_store
from tests.benchmarks.dedup import context
from tests.benchmarks.filters import note
from tests.benchmarks.planted import commit

STEPS = 4
CORES = 2


def short_texts(count: int) -> list[str]:
    """About 60 words or 150 characters; each ten hold an exact and a near copy of one of the others."""
    rng = random.Random(count)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randrange(2, 9))) for _ in range(50_000)]
    made: list[str] = []
    for number in range(count):
        if number % 10 == 8:
            made.append("  " + made[rng.randrange(max(0, number - 5000), number)])
        elif number % 10 == 9:
            copy = made[rng.randrange(max(0, number - 5000), number)].split()
            copy[rng.randrange(len(copy))] = "changed"
            made.append(" ".join(copy))
        elif number % 2:
            made.append(" ".join(rng.choices(words, k=60)))
        else:
            made.append("".join(map(chr, rng.choices(range(0x4E00, 0x6000), k=150))))
    return made


def measured(root: Path, engine: str) -> dict[str, float]:
    """The job in a process of its own: CPU and wall seconds, MB that its driver held, MB of all its processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "tests.benchmarks.scale", "--run", str(root), "--engine", engine]
    begun = time.monotonic()
    whole = 0.0
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(command, stdout=told, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            whole = max(whole, tree_mb(process.pid))
            time.sleep(0.25)
        wall = time.monotonic() - begun
        if process.returncode:
            raise RuntimeError(f"{command} ended with {process.returncode}")
        told.seek(0)
        driver = float(told.read().decode().strip().splitlines()[-1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu, "wall": wall, "driver": driver, "memory": whole}


def tree_mb(pid: int) -> float:
    """MB that a process and all below it hold; what they share counts once."""
    total, waiting = 0.0, [pid]
    while waiting:
        at = Path(f"/proc/{waiting.pop()}")
        try:
            lines = (at / "smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) / 1000 for line in lines if line.startswith("Pss:"))
            for children in at.glob("task/*/children"):
                waiting += map(int, children.read_text().split())
        except OSError:  # it has ended
            continue
    return total


def planned(root: Path) -> dict[str, float]:
    """What `gristmill plan dedup_documents` tells."""
    plan = plan_job("dedup_documents", dedup_documents.Config(), context(root, "process"), Request(cores=CORES))
    return {name: figure.value for name, figure in plan.figures.items()}


def main() -> None:
    """Empty, then each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--engine", default="spark")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        ctx = context(options.run, options.engine)
        dedup_documents.run(dedup_documents.Config(), ctx)
        sys.stdout.write(f"{peak_memory_mb()}\n")  # getrusage would tell what this process was forked from
        ctx.close()
        return
    rows: list[dict[str, Any]] = []
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as made:
        for count in [0, *(options.documents >> step for step in reversed(range(options.steps)))]:
            root = Path(made) / str(count)
            commit(context(root, "process"), short_texts(count))
            plan = planned(root) if len(rows) == 1 else None
            row = {"documents": count, **measured(root, options.engine)}
            stats = open_dataset(open_store(root), "dedup").manifest.stats["pairs"]
            rows.append(row | {"shuffle": stats["shuffle_bytes"]})
            note(
                f"{count:9,} documents: {row['cpu']:7.1f} s CPU, {row['wall']:6.1f} s, driver {row['driver']:.0f} MB,"
                f" all {row['memory']:.0f} MB, {stats['shuffle_bytes'] / 1e6:8.1f} MB shuffled"
            )
            if plan is not None:
                actual = {"shuffle": rows[-1]["shuffle"], "memory": 1e6 * row["memory"]}
                actual |= {name: row[name] for name in ("cpu", "wall")}
                ratios = {name: round(plan[name] / value, 2) for name, value in actual.items()}
                note(f"planned over actual: {ratios}")
            shutil.rmtree(root)
    empty, *steps = rows
    pairs = list(itertools.pairwise(steps))
    result: dict[str, Any] = {"name": "scale", "engine": options.engine, "plan_over_actual": ratios}
    if pairs:
        result |= {
            "cpu_per_doubling": round(max((b["cpu"] - empty["cpu"]) / (a["cpu"] - empty["cpu"]) for a, b in pairs), 2),
            "shuffle_per_doubling": round(max(b["shuffle"] / a["shuffle"] for a, b in pairs), 2),
            "driver_memory_growth": round(steps[-1]["driver"] / steps[0]["driver"], 2),
        }
    result |= {"rows": rows, "cores": CORES, "load": os.getloadavg()[0]}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
