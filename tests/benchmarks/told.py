"""What `gristmill plan` tells of a job beside what a run of it then takes: both commands, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipelines.datasets import open_dataset
from pipelines.datasets.store import open_store

# Told by the process itself: what the system tells of a child counts its parent's memory from before the exec.
_COMMAND = """
import atexit, sys
from cluster.cli import main
from jobs.runtime.cost import cpu_seconds, peak_memory_mb
atexit.register(lambda: sys.stderr.write(f"\\n{cpu_seconds()} {peak_memory_mb()}\\n"))
main()
"""


def told_and_used(root: Path, job: str, output: str, *settings: str, fraction: float = 0.1) -> dict[str, Any]:
    """{figure: what was told / what was used} of CPU seconds, peak memory and bytes of output of one worker process.

    `fraction` of the input is what the plan may look at; `output` is the dataset that the job writes.
    """
    sets = [word for setting in (*settings, f"output={output}") for word in ("--set", setting)]
    body, _, _ = _run(["plan", job, "--root", str(root), "--cores", "1", "--fraction", str(fraction), "--json", *sets])
    told = json.loads(body)["figures"]
    _, cpu, memory = _run(["run", job, "--root", str(root), "--engine", "process", *sets])
    part_list = open_dataset(open_store(root), output).part_list
    used = {"cpu": cpu, "memory": memory, "output": float(sum(part_list["bytes"].to_pylist()))}
    ratios = {name: round(told[name]["value"] / value, 3) for name, value in used.items()}
    return {"told_over_used": ratios, "used_cpu_s": round(cpu, 2), "used_mb": round(memory / 1e6)}


def _run(arguments: list[str]) -> tuple[bytes, float, float]:
    """(stdout, CPU seconds, bytes of peak memory) of `gristmill` with these arguments."""
    with subprocess.Popen(
        [sys.executable, "-c", _COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        body, told = process.communicate()
    if process.returncode:
        raise RuntimeError(f"gristmill {' '.join(arguments)} ended with {process.returncode}: {told.decode()[-2000:]}")
    cpu, memory = (float(word) for word in told.split()[-2:])
    return body, cpu, memory * 1e6


def worst(found: dict[str, Any]) -> float:
    """How far the worst figure is off, as a share of what was used."""
    return round(max(abs(ratio - 1) for ratio in found["told_over_used"].values()), 3)
