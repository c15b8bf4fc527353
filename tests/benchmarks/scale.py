"""Deduplication at 1, 2, 4 and 8 times as many documents: CPU, shuffled bytes and the driver's memory.

`python -m tests.benchmarks.scale [--documents N] [--engine process]` prints a table on stderr and one JSON line on
stdout. N is the largest count, of short documents; a tenth are near copies and a tenth exact ones. CPU is of the job's
process and all its children, less that of a run over no documents; memory is the largest that the driver's Python held.
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
from pathlib import Path
from typing import Any

from jobs import dedup_documents
from pipelines.datasets import open_dataset
from pipelines.datasets.store import open_store
from tests.benchmarks.dedup import context
from tests.benchmarks.filters import note
from tests.benchmarks.planted import commit

STEPS = 4


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


def measured(root: Path, engine: str) -> tuple[float, float]:
    """(CPU seconds, MB that the driver held) of the job in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "tests.benchmarks.scale", "--run", str(root), "--engine", engine]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, float(told.stdout.strip().splitlines()[-1])


def main() -> None:
    """Empty, then each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--engine", default="spark")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        ctx = context(options.run, options.engine)
        dedup_documents.run(dedup_documents.Config(), ctx)
        ctx.close()
        sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}\n")
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as made:
        for count in [0, *(options.documents >> step for step in reversed(range(STEPS)))]:
            root = Path(made) / str(count)
            commit(context(root, "process"), short_texts(count))
            cpu, memory = measured(root, options.engine)
            stats = open_dataset(open_store(root), "dedup").manifest.stats
            rows.append({"documents": count, "cpu": cpu, "memory": memory, "shuffle": stats["pairs"]["shuffle_bytes"]})
            note(
                f"{count:9,} documents: {cpu:7.1f} s CPU, {rows[-1]['shuffle'] / 1e6:8.1f} MB shuffled, {memory:.0f} MB"
            )
            shutil.rmtree(root)
    empty, *steps = rows
    pairs = list(itertools.pairwise(steps))
    result = {
        "name": "scale",
        "engine": options.engine,
        "cpu_per_doubling": round(max((b["cpu"] - empty["cpu"]) / (a["cpu"] - empty["cpu"]) for a, b in pairs), 2),
        "shuffle_per_doubling": round(max(b["shuffle"] / a["shuffle"] for a, b in pairs), 2),
        "driver_memory_growth": round(steps[-1]["memory"] / steps[0]["memory"], 2),
        "rows": rows,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
