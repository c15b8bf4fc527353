"""kill -9 of the driver in each stage of a recipe, then the same command; content compared with an unbroken run.

    python -m tests.faults.kill_driver FOLDER [--crawl PATTERN] [--to JOB] [--engine process] [--at JOB=SECONDS ...]

`kill_when` kills by what stands in the store and not by the clock, for the steps within one job.

Prints one JSON line: for each stage whether the kill met it at work, and whether all content sums are equal.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jobs.runtime.recipe import read_recipe, select_steps
from pipelines.datasets.gc import names_of
from pipelines.datasets.manifest import latest_manifest
from pipelines.datasets.store import open_store

CHECKOUT = Path(__file__).resolve().parents[2]


def command(root: Path, last: str, options: argparse.Namespace) -> list[str]:
    """The very command that a user types."""
    line = [sys.executable, "-m", "cluster.cli", "run", "local", "--root", str(root), "--to", last]
    if options.crawl:
        line += ["--crawl", options.crawl]
    if options.engine:
        line += ["--engine", options.engine]
    return line


def beside(root: Path) -> dict[str, Any]:
    """Where a user's command runs: it notes its root in that folder (gristmill.yaml), and not in the checkout."""
    folder = Path(f"{root}-cwd")
    folder.mkdir(parents=True, exist_ok=True)
    return {"cwd": folder, "env": {**os.environ, "PYTHONPATH": str(CHECKOUT)}}


def run_to_end(root: Path, last: str, options: argparse.Namespace) -> None:
    """Raises with the last lines of stderr where it fails."""
    done = subprocess.run(command(root, last, options), **beside(root), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"to {last}: exit {done.returncode}: {done.stderr[-3000:]}")


def kill_in(root: Path, job: str, options: argparse.Namespace) -> bool:
    """Start, wait for the stage's own line, a little more, kill -9; whether the process was still at work."""
    with subprocess.Popen(
        command(root, job, options), **beside(root), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.strip() == job:
                break
        time.sleep(dict(options.at).get(job, options.delay))
        was_running = process.poll() is None
        if was_running:
            os.kill(process.pid, signal.SIGKILL)
        process.stderr.read()
    return was_running


def kill_when(root: Path, line: list[str], pattern: str, seconds: float = 120.0) -> bool:
    """Start a command and kill -9 it once a path below `root` matches; whether that was before it ended by itself."""
    with subprocess.Popen(line, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            if any(root.glob(pattern)):
                break
            time.sleep(0.005)
        was_running = process.poll() is None
        process.kill()
    return was_running and any(root.glob(pattern))


def contents(root: Path) -> dict[str, Any]:
    """Content, ledger and books of the newest version of everything."""
    store = open_store(str(root))
    found = {}
    for name in names_of(store):
        manifest = latest_manifest(store, name)
        if manifest is not None:
            found[name] = [manifest.version, manifest.content_sum, manifest.stats.get("ledger_sum"), manifest.books]
    return found


def _moment(text: str) -> tuple[str, float]:
    job, _, seconds = text.partition("=")
    return job, float(seconds)


def main(arguments: list[str]) -> int:
    """0 where everything is equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--crawl", default=None)
    parser.add_argument("--to", default="evaluate_model")
    parser.add_argument("--engine", default=None)
    parser.add_argument("--delay", type=float, default=2.0, help="seconds from the stage's line to the kill")
    parser.add_argument("--at", action="append", default=[], type=_moment, metavar="JOB=SECONDS", help="another delay")
    options = parser.parse_args(arguments)
    steps = select_steps(read_recipe("local"), first=None, last=options.to, only=None)
    whole, broken = options.folder / "unbroken", options.folder / "killed"
    run_to_end(whole, options.to, options)
    killed = {}
    for step in steps:
        killed[step.job] = kill_in(broken, step.job, options)
        run_to_end(broken, step.job, options)
    expected, found = contents(whole), contents(broken)
    different = [n for n in sorted({*expected, *found}) if expected.get(n) != found.get(n)]
    report = {"benchmark": "kill_driver", "killed_at_work": killed, "equal": not different, "different": different}
    sys.stdout.write(json.dumps(report | {"content": {n: c[1] for n, c in found.items()}}) + "\n")
    return 0 if not different else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
