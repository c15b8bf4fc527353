"""The lease: who is working on a stage. It saves work; safety rests on content-named parts and create-only manifests.

`attempts/NNNN.json` is a create-only chain; its owner overwrites `NNNN.beat`. On the same machine a holder whose
process is gone is replaced at once; another machine's holder after 120 s without a change of its heartbeat, by the
waiter's own monotonic clock.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.datasets.chain import Chain
from pipelines.datasets.store import Store
from pipelines.errors import ConflictError, MissingObjectError, StoreError

BEAT_SECONDS = 10.0
SILENCE_SECONDS = 120.0
_held: set[str] = set()


@contextmanager
def lease(
    store: Store, prefix: str, *, say: Callable[[str], None], silence_seconds: float = SILENCE_SECONDS
) -> Iterator[None]:
    """Hold the stage for the length of the block; ConflictError where a live process holds it."""
    chain = Chain(store, f"{prefix}/attempts", width=4)
    writer = uuid.uuid4().hex
    number = _take(store, chain, writer, say, silence_seconds)
    _held.add(writer)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(store, _beat_key(chain, number), stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        _held.discard(writer)
        beat.join(timeout=30)
    _close(chain, number, writer)


def _take(store: Store, chain: Chain, writer: str, say: Callable[[str], None], silence_seconds: float) -> int:
    while True:
        last = chain.latest()
        if last and last[1]["event"] == "opened" and last[1]["writer"] not in _held:
            _await_end(store, chain, last, say, silence_seconds)
        elif last and last[1]["event"] == "opened":
            raise ConflictError("this process already works on this stage", key=chain.key(last[0]))
        number = last[0] + 1 if last else 1
        if chain.append(number, {"event": "opened", **_identity()}, writer):
            return number


def _await_end(
    store: Store,
    chain: Chain,
    last: tuple[int, dict[str, Any]],
    say: Callable[[str], None],
    silence_seconds: float,
) -> None:
    """Return when the holder may be replaced; ConflictError where it lives."""
    number, holder = last
    me = _identity()
    if holder["machine"] == me["machine"]:
        if holder["pid"] == me["pid"] and holder["started"] == me["started"]:
            return  # this very process, which does not hold it: an attempt that failed here
        if _start_time(holder["pid"]) == holder["started"]:
            raise ConflictError(
                f"process {holder['pid']} on this machine is working on it",
                key=chain.key(number),
                mend="wait for it, or stop it",
            )
        return
    say(f"attempt {number} by {holder['host']} has not ended; waiting up to {silence_seconds:.0f} s for its heartbeat")
    seen, since = _read_beat(store, chain, number), time.monotonic()
    while time.monotonic() - since < silence_seconds:
        time.sleep(min(2.0, silence_seconds / 4))
        if (latest := chain.latest()) and latest[0] != number:
            return
        if _read_beat(store, chain, number) != seen:
            raise ConflictError(
                f"{holder['host']} (pid {holder['pid']}) is working on it",
                key=chain.key(number),
                mend="wait for it, or stop it there",
            )


def _close(chain: Chain, number: int, writer: str) -> None:
    chain.append(number + 1, {"event": "closed", "attempt": number}, writer)


def _beat_key(chain: Chain, number: int) -> str:
    return chain.key(number).removesuffix(".json") + ".beat"


def _read_beat(store: Store, chain: Chain, number: int) -> bytes:
    try:
        return store.get(_beat_key(chain, number))
    except MissingObjectError:
        return b""


def _beat(store: Store, key: str, stop: threading.Event) -> None:
    count = 0
    while not stop.wait(BEAT_SECONDS):
        count += 1
        try:
            store.put(key, str(count).encode())
        except StoreError:  # the work itself meets the store's trouble and tells it
            continue


def _identity() -> dict[str, Any]:
    return {
        "machine": _machine(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _start_time(os.getpid()),
    }


def _machine() -> str:
    """Boot id and pid namespace: containers share the first, and a pid means something only inside the second."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        return socket.gethostname()
    return f"{boot}/{namespace}"


def _start_time(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot (a pid may be used again); None where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
