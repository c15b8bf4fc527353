from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from jobs.runtime import lease as leases
from jobs.runtime.lease import lease
from pipelines.datasets.chain import Chain
from pipelines.datasets.store import MemoryStore
from pipelines.errors import ConflictError

SAID: list[str] = []


def take(store, **settings):
    return lease(store, "work", say=SAID.append, **settings)


def open_attempt(store, **changes) -> None:
    entry = {"event": "opened", **leases._identity(), **changes}
    Chain(store, "work/attempts", width=4).append(1, entry, "somebody")


def test_a_lease_is_given_back():
    store = MemoryStore()
    for _ in range(3):
        with take(store):
            pass
    assert Chain(store, "work/attempts", width=4).latest()[1]["event"] == "closed"


def test_a_second_holder_in_this_process_is_refused():
    store = MemoryStore()
    with take(store), pytest.raises(ConflictError), take(store):
        pass


def test_a_live_process_of_this_machine_is_respected():
    store = MemoryStore()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        open_attempt(store, pid=other.pid, started=leases._start_time(other.pid))
        with pytest.raises(ConflictError, match=str(other.pid)), take(store):
            pass
        other.communicate(b"\n")


def test_a_dead_process_of_this_machine_is_replaced_at_once():
    store = MemoryStore()
    with subprocess.Popen([sys.executable, "-c", ""]) as other:
        pid = other.pid
    open_attempt(store, pid=pid, started="1")
    begun = time.monotonic()
    with take(store):
        assert time.monotonic() - begun < 1


def test_a_pid_that_was_given_to_another_process_does_not_hold_the_lease():
    store = MemoryStore()
    open_attempt(store, pid=1, started="not its start time")
    with take(store):
        pass


def test_a_silent_holder_on_another_machine_is_replaced_after_the_silence():
    store = MemoryStore()
    open_attempt(store, machine="another", host="node7")
    begun = time.monotonic()
    with take(store, silence_seconds=0.4):
        assert time.monotonic() - begun >= 0.4
    assert "node7" in SAID[-1]


def test_a_beating_holder_on_another_machine_is_respected():
    store = MemoryStore()
    open_attempt(store, machine="another", host="node7")
    stop = threading.Event()

    def beat() -> None:
        n = 0
        while not stop.wait(0.05):
            n += 1
            store.put("work/attempts/0001.beat", str(n).encode())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(ConflictError, match="node7"), take(store, silence_seconds=5):
            pass
    finally:
        stop.set()
        thread.join()
