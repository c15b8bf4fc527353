from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.local.processes import is_running, session_members, start_daemon, stop_daemon


def test_a_daemon_and_its_children_end_and_a_bystander_stays(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    daemon = start_daemon(
        "test", ["sh", "-c", "sleep 60 & sleep 60"], environment=os.environ, log=tmp_path / "log"
    )
    try:
        _until(lambda: len(session_members(daemon.pid)) >= 2)
        assert is_running(daemon)
        stop_daemon(daemon, timeout_s=2)
        assert session_members(daemon.pid) == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_daemon_that_ignores_the_request_is_ended(tmp_path: Path) -> None:
    code = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True)\ntime.sleep(60)"
    )
    daemon = start_daemon("test", [sys.executable, "-c", code], environment=os.environ, log=tmp_path / "log")
    _until(lambda: "up" in (tmp_path / "log").read_text())
    stop_daemon(daemon, timeout_s=0.5)
    assert not is_running(daemon)


@pytest.mark.parametrize("changed", [{"start_ticks": 1}, {"boot_id": "another boot"}])
def test_a_pid_that_belongs_to_somebody_else_by_now_is_not_touched(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    daemon = start_daemon("test", ["sleep", "60"], environment=os.environ, log=tmp_path / "log")
    other = replace(daemon, **changed)  # type: ignore[arg-type]
    try:
        assert not is_running(other)
        stop_daemon(other)
        assert is_running(daemon)
    finally:
        os.kill(daemon.pid, signal.SIGKILL)
        os.waitpid(daemon.pid, 0)


def _until(condition: object, timeout_s: float = 20) -> None:
    until = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)
