"""Processes that outlive us, each the leader of its own session, known by pid and start time.

A pid alone may belong to somebody else by the time we look again, so nothing is stopped unless the start
time and the boot agree; and what is stopped is that session, never a name.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A process of ours: its role, pid, start time in clock ticks since boot, and that boot."""

    role: str
    pid: int
    start_ticks: int
    boot_id: str


def start_daemon(role: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> Daemon:
    """Start `command` in a session of its own, its output appended to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
        )
    # `process` is dropped on purpose: it must not be waited for, it outlives this command.
    process.returncode = 0
    stat = _stat(process.pid)
    return Daemon(
        role=role, pid=process.pid, start_ticks=stat[1] if stat else -1, boot_id=_BOOT_ID.read_text().strip()
    )


def is_running(daemon: Daemon) -> bool:
    """Whether that very process is there still."""
    if daemon.boot_id != _BOOT_ID.read_text().strip():
        return False
    stat = _stat(daemon.pid)
    return stat is not None and stat[1] == daemon.start_ticks and stat[2] != "Z"


def stop_daemon(daemon: Daemon, *, timeout_s: float = 20) -> None:
    """Ask the process to end, then end what is left of its session."""
    if not is_running(daemon):
        return
    os.kill(daemon.pid, signal.SIGTERM)
    until = time.monotonic() + timeout_s
    while is_running(daemon) and time.monotonic() < until:
        _reap(daemon.pid)
        time.sleep(0.1)
    for _ in range(50):
        left = session_members(daemon.pid)
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        _reap(daemon.pid)
        time.sleep(0.1)


def session_members(session: int) -> list[int]:
    """Pids of all living processes of a session."""
    members = []
    for entry in Path("/proc").iterdir():
        if (
            entry.name.isdigit()
            and (stat := _stat(int(entry.name)))
            and stat[0] == session
            and stat[2] != "Z"
        ):
            members.append(int(entry.name))
    return members


def _stat(pid: int) -> tuple[int, int, str] | None:
    """(session, start ticks, state) of a process; None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold spaces and brackets
    return int(fields[3]), int(fields[19]), fields[0]


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
