"""The child's side of a sandbox: a loop that reads a few calls, runs the target on each, writes what it gave.

The kernel ends a call that overruns, whatever C code holds the interpreter: ITIMER_PROF bounds CPU, ITIMER_REAL wall
time, RLIMIT_AS memory, each with its default, deadly action.  So a child whose parent died in the middle of a call
ends by itself too; an idle one ends at the end of its pipe.  (PR_SET_PDEATHSIG would not do: it fires when the
*thread* that started the child ends.)  A counter in shared memory tells the parent which call was running.

Results travel as JSON with long strings and bytes beside it, never as pickles: what comes back has touched hostile
bytes.  Arguments go the other way, from the one who is trusted, by marshal.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import marshal
import mmap
import os
import resource
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

CALLS = struct.Struct("<Q")  # bytes of the marshalled calls
REPLIES = struct.Struct("<IQ")  # bytes of the JSON, bytes of the blobs
COUNTER = struct.Struct("<Q")
MAX_REPLY_BYTES = 256 << 20
OUT_OF_MEMORY = 99  # exit status: the call itself did not fit
_LONG = 64  # a longer string travels beside the JSON
_IDLE_SECONDS = 5.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TIMERS = (signal.SIGPROF, signal.SIGALRM)


def encode_reply(value: Any) -> bytes:
    """None, booleans, numbers, strings, bytes, sequences (they come back as lists) and dicts by string."""
    blobs: list[bytes] = []

    def plain(item: Any) -> Any:
        kind = type(item)
        if kind is str:
            if len(item) <= _LONG:
                return item
            blobs.append(item.encode("utf-8", "surrogatepass"))
            return {"s": len(blobs) - 1}
        if kind is list or kind is tuple:
            return [plain(x) for x in item]
        if kind is bytes or kind is bytearray:
            blobs.append(item)
            return {"b": len(blobs) - 1}
        if kind is dict:
            return {"d": {k: plain(v) for k, v in item.items()}}
        return item

    told = plain(value)
    head = json.dumps([told, [len(b) for b in blobs]]).encode()
    return b"".join([REPLIES.pack(len(head), sum(map(len, blobs))), head, *blobs])


def decode_reply(body: bytes, head_bytes: int) -> Any:
    """The value of a reply without its head; ValueError, KeyError, TypeError or IndexError where it is none."""
    value, sizes = json.loads(body[:head_bytes])
    spans, at = [], head_bytes
    for n in sizes:
        spans.append((at, at + n))
        at += n

    def full(item: Any) -> Any:
        if type(item) is list:
            return [full(x) for x in item]
        if type(item) is dict:
            if "s" in item:
                start, end = spans[item["s"]]
                return body[start:end].decode("utf-8", "surrogatepass")
            if "b" in item:
                start, end = spans[item["b"]]
                return body[start:end]
            return {k: full(v) for k, v in item["d"].items()}
        return item

    return full(value)


def serve(target: str, prepare: str, seconds: float, wall_seconds: float, memory_bytes: int, counter_fd: int) -> None:
    """Run calls until the parent closes the pipe.  Standard input and output are the pipe; the target gets neither."""
    calls, replies = _take_pipes()
    parent = os.getppid()
    counter = mmap.mmap(counter_fd, COUNTER.size)
    for number in (*_TIMERS, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TIMERS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if prepare:
            _load(prepare)()
        function = _load(target)
    except BaseException as error:  # noqa: BLE001  told to the parent, which raises it
        _write(replies, encode_reply(["broken", type(error).__name__, str(error)[:2000]]))
        return
    limit = _bound_memory(memory_bytes)
    _write(replies, encode_reply(["ready"]))
    begun = 0
    with contextlib.suppress(BrokenPipeError):
        while (body := _next_calls(calls, parent)) is not None:
            patience, listed = marshal.loads(body)
            answers = []
            started = time.process_time()
            for args in listed:
                begun += 1
                COUNTER.pack_into(counter, 0, begun)
                answers.append(_run(function, args, seconds * patience, wall_seconds * patience))
                if answers[-1][0] == "memory":
                    break
            spent = time.process_time() - started
            _write(replies, encode_reply([answers, _worn_out(limit, memory_bytes), spent]))
    os.killpg(0, signal.SIGKILL)  # with whatever the target left running


def main() -> None:
    """What the parent starts: target, prepare, seconds, wall seconds, memory bytes, the counter's descriptor."""
    target, prepare, seconds, wall_seconds, memory_bytes, counter_fd = sys.argv[1:7]
    try:
        serve(target, prepare, float(seconds), float(wall_seconds), int(memory_bytes), int(counter_fd))
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


def _take_pipes() -> tuple[int, int]:
    calls, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return calls, replies


def _load(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _run(function: Callable[..., Any], args: tuple[Any, ...], seconds: float, wall_seconds: float) -> list[Any]:
    """["done", value], ["raised", kind, message] or ["memory"]."""
    me = os.getpid()
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, wall_seconds)
    try:
        reply = ["done", function(*args)]
    except MemoryError:
        reply = ["memory"]
    except Exception as error:  # noqa: BLE001  the target may raise anything; the parent decides
        reply = ["raised", type(error).__name__, str(error)[:500]]
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    if os.getpid() != me:  # a copy that the target forked and that came back out of it
        os._exit(0)
    return reply


def _next_calls(calls: int, parent: int) -> bytearray | None:
    """The next marshalled calls, or None where the parent is gone or done."""
    while not select.select([calls], [], [], _IDLE_SECONDS)[0]:
        if os.getppid() != parent:  # though another process holds a copy of its end of the pipe
            return None
    head = _read(calls, CALLS.size)
    body = _read(calls, CALLS.unpack(head)[0]) if head is not None else None
    return body if os.getppid() == parent else None


def _read(fd: int, size: int) -> bytearray | None:
    """Exactly `size` bytes, None at the end of the pipe."""
    body = bytearray(size)
    view = memoryview(body)
    while view:
        got = os.readv(fd, [view])
        if not got:
            return None
        view = view[got:]
    return body


def _write(fd: int, frame: bytes) -> None:
    view = memoryview(frame)
    while view:
        view = view[os.write(fd, view) :]


def _bound_memory(memory_bytes: int) -> int | None:
    """Bound the address space at what is mapped now and so much more: the soft limit, so that a nested one fits."""
    mapped = _mapped()
    if mapped is None:
        return None
    limit = mapped + memory_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    return limit


def _mapped() -> int | None:
    try:
        with open("/proc/self/statm", "rb", buffering=0) as statm:  # noqa: PTH123  a file that is no file
            return int(statm.read().split()[0]) * _PAGE
    except OSError:
        return None


def _worn_out(limit: int | None, memory_bytes: int) -> bool:
    """Whether half of the memory is gone for good, so that the next page should get a fresh child."""
    mapped = _mapped()
    return limit is not None and mapped is not None and limit - mapped < memory_bytes // 2
