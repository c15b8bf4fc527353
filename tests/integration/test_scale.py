"""Many units through list, commit and open, in a process whose memory and CPU are measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("units", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_many_units_are_listed_committed_and_opened_within_memory_and_time(units, tmp_path):
    """2 GB, and 60 s of CPU for a million: the objects and the batched done records lie in a folder already."""
    command = [sys.executable, "-m", "tests.benchmarks.many_units", str(units), str(tmp_path / "root")]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["rows"] == units and report["repeat_wrote_nothing"]
    assert report["peak_rss_bytes"] < 2_000_000_000, report
    assert report["cpu_seconds"] < 60, report
