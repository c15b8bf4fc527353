"""A killable child process for code that can hang, crash or eat memory on a hostile page.

A bound that is only checked after the work is no bound: C code holds the interpreter, and no signal handler or thread
of this process runs until it is done.  So the work stands in a child that the kernel ends (sandbox_child.py).  The
child starts at the first call, outlives calls, and is replaced when it dies; the caller lives on.

It is started by exec of a small module, never by fork, so it may be used beside threads, a JVM or Ray, and in
processes that may have no `multiprocessing` children.  It has a session of its own: Ctrl-C reaches the caller only.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.crawl.sandbox_child import (
    CALLS,
    COUNTER,
    MAX_REPLY_BYTES,
    OUT_OF_MEMORY,
    REPLIES,
    decode_reply,
)
from pipelines.errors import SetupError

START_SECONDS = 900.0  # compiling all kernels takes a minute of CPU, on a busy machine many
FRAME_CALLS = 32  # so many calls travel together: a switch between processes costs more than a small page
FRAME_BYTES = 256 << 10
_FRAMES = 2  # one in work, one on the way
_PIPE_BYTES = 1 << 20
_WALL_FACTOR = 5.0
_GRACE_SECONDS = 1.0  # the kernel ends the call; this is for a child that is stopped
_BOOT = "import sys,json;sys.path[:]=json.loads(sys.argv.pop(1));from pipelines.crawl.sandbox_child import main;main()"
_OVERRUN = {signal.SIGPROF, signal.SIGALRM, signal.SIGXCPU}
_F_SETPIPE_SZ = 1031
# One thread a child: a pool of OpenMP threads a worker costs address space, and cores that others need.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
_ENVIRONMENT = frozenset(
    {"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"}
)


class StuckError(Exception):
    """A call was ended; args: the ledger's reason (page_time, page_memory, page_crash), detail."""

    @property
    def reason(self) -> str:
        """The ledger's word."""
        return self.args[0]

    @property
    def detail(self) -> str:
        """What a person needs beyond it."""
        return self.args[1]


class RaisedError(Exception):
    """The target raised; args: the class name of its exception, its message."""

    @property
    def kind(self) -> str:
        """Class name."""
        return self.args[0]


@dataclass(slots=True)
class _Call:
    args: tuple[Any, ...]
    outcome: Any = None
    known: bool = False


class Sandbox:
    """Calls of `target` ("module:function") in a child with bounds a call.

    `seconds` of CPU; `wall_seconds` of time (5 times as much unless told, since a busy machine is no fault of the
    page); `memory_bytes` of address space on top of what is mapped when the child is ready.  `prepare`
    ("module:function") runs once in each child, outside the bounds: imports, compilation, models.

    A call that dies of memory or a crash in a child that has served others is tried once more in a fresh one, so that
    no page pays for its predecessors.  With `patience` above 1 a call that dies of time is tried once more, alone,
    with that many times the seconds.  Arguments: what marshal takes.  Results: None, booleans, numbers, strings,
    bytes, lists, dicts by string.  One thread at a time.
    """

    def __init__(
        self,
        target: str,
        *,
        seconds: float,
        memory_bytes: int,
        wall_seconds: float | None = None,
        patience: float = 1.0,
        prepare: str = "",
    ) -> None:
        """Nothing is started yet."""
        wall_seconds = _WALL_FACTOR * seconds if wall_seconds is None else wall_seconds
        self._settings = [target, prepare, seconds, wall_seconds, memory_bytes]
        self._wall_seconds = wall_seconds
        self._patience = patience
        self._child: _Child | None = None
        self.restarts = 0
        self.target_seconds = 0.0  # CPU in the target, of calls that were answered

    def call(self, *args: Any) -> Any:
        """The target's result; StuckError, RaisedError, or SetupError where the child cannot start."""
        (result,) = self.map([args])
        if isinstance(result, Exception):
            raise result
        return result

    def map(self, calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """A result, StuckError or RaisedError for each tuple of arguments, in order, pipelined."""
        frames: deque[list[_Call]] = deque()
        waiting = _frames(calls)
        try:
            while True:
                while len(frames) < _FRAMES and (frame := next(waiting, None)) is not None:
                    frames.append(frame)
                    self._running().send(1.0, [call.args for call in frame])
                if not frames:
                    return
                self._answer(frames)
                for call in frames.popleft():
                    yield call.outcome
        except BaseException:  # also an abandoned loop: what flies would be taken for answers to the next call
            self.close()
            raise

    def close(self) -> None:
        """End the child, with whatever it started; the next call starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def __enter__(self) -> Sandbox:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _running(self) -> _Child:
        child = self._child
        if child is None or child.owner != os.getpid():  # a fork of the owner has copies of the pipes, and no right
            self._child = child = _Child(self._settings)
        return child

    def _answer(self, frames: deque[list[_Call]]) -> None:
        """Outcomes for every call of the first frame, through as many children as it takes."""
        while True:
            child = self._running()
            open_calls = [call for call in frames[0] if not call.known]
            if not open_calls:
                return
            answers, worn_out, cause = self._reply(child, 1.0)
            for call, answer in zip(open_calls, answers, strict=False):
                if answer[0] == "memory":
                    cause = cause or ("page_memory", "out of memory")
                    break
                call.outcome = answer[1] if answer[0] == "done" else RaisedError(*answer[1:3])
                call.known = True
                child.served += 1
            if cause is None and not worn_out and len(answers) == len(open_calls):
                continue
            self._drop()
            if cause is not None:
                rest = [call for call in open_calls if not call.known]
                at = 0 if answers else min(max(child.began() - child.served - 1, 0), len(rest) - 1)
                self._judge(rest[at], cause, alone=child.served == 0 and at == 0)
            for frame in frames:
                if left := [call.args for call in frame if not call.known]:
                    self._running().send(1.0, left)

    def _judge(self, call: _Call, cause: tuple[str, str], *, alone: bool) -> None:
        """The outcome of a call during which a child died: at once, or after a second try in a fresh child."""
        slow = cause[0] == "page_time"
        if (self._patience > 1) if slow else not alone:
            patience = self._patience if slow else 1.0
            child = self._running()
            child.send(patience, [call.args])
            answers, _, second = self._reply(child, patience)
            child.served += 1
            if second is None and answers and answers[0][0] != "memory":
                call.outcome = answers[0][1] if answers[0][0] == "done" else RaisedError(*answers[0][1:3])
                call.known = True
                return
            cause = second or ("page_memory", "out of memory")
            self._drop()
        call.outcome, call.known = StuckError(*cause), True

    def _reply(self, child: _Child, patience: float) -> tuple[list[Any], bool, tuple[str, str] | None]:
        answers, worn_out, spent, cause = child.reply(self._wall_seconds * patience)
        self.target_seconds += spent
        return answers, worn_out, cause

    def _drop(self) -> None:
        self.close()
        self.restarts += 1


class _Child:
    """The process and its pipes; `reply` never raises on what the child does."""

    def __init__(self, settings: list[Any]) -> None:
        self.owner = os.getpid()
        self.served = 0
        self._out: deque[memoryview] = deque()
        self._in = bytearray()
        self._piece = memoryview(bytearray(_PIPE_BYTES))
        with tempfile.TemporaryFile() as shared:
            shared.write(bytes(COUNTER.size))
            shared.flush()
            self._counter = mmap.mmap(shared.fileno(), COUNTER.size)
            self._process = _start([*settings, shared.fileno()], shared.fileno())
        pipes = (self._process.stdin, self._process.stdout)
        self._write_fd, self._read_fd = (pipe.fileno() for pipe in pipes if pipe is not None)
        self.end = weakref.finalize(self, _end, self._process, self.owner)
        for fd in (self._write_fd, self._read_fd):
            os.set_blocking(fd, False)
            _widen(fd)
        self._poll = select.poll()
        self._poll.register(self._read_fd, select.POLLIN)
        ready, cause = self._wait(START_SECONDS)
        if ready != ["ready"]:
            self.end()
            told = ready[1:] if ready else cause or ()
            raise SetupError(
                f"the child process for {settings[0]} does not start: {': '.join(map(str, told))}",
                mend="`gristmill doctor` tells what is missing here",
            )

    def send(self, patience: float, calls: list[tuple[Any, ...]]) -> None:
        """Queue calls that are answered together."""
        body = marshal.dumps((patience, calls))
        self._out.append(memoryview(CALLS.pack(len(body)) + body))
        self._flush()

    def began(self) -> int:
        """How many calls this child has begun."""
        return COUNTER.unpack_from(self._counter)[0]

    def reply(self, wall_seconds: float) -> tuple[list[Any], bool, float, tuple[str, str] | None]:
        """(answers to the oldest calls sent, whether the child is worn out, CPU seconds, why it died or None)."""
        found, cause = self._wait(wall_seconds + _GRACE_SECONDS)
        if cause is None:
            with contextlib.suppress(ValueError, TypeError, IndexError):
                answers, worn_out, spent = found
                if all(a[0] in ("done", "raised", "memory") for a in answers):
                    return answers, worn_out, float(spent), None
            cause = ("page_crash", "the result cannot be read")
        self.end()
        return [], False, 0.0, cause

    def _wait(self, wall_seconds: float) -> tuple[Any, tuple[str, str] | None]:
        """(the next frame, None), or (None, why there is none).  The clock starts anew with each call begun."""
        began = self.began()
        deadline = time.monotonic() + wall_seconds
        while True:
            if (found := self._take()) is not None:
                return found
            if self._out:
                self._poll.register(self._write_fd, select.POLLOUT)
            left = deadline - time.monotonic()
            events = dict(self._poll.poll(max(0.0, left) * 1000))
            if self._out:
                self._poll.unregister(self._write_fd)
                self._flush()
            if self._read_fd in events:
                got = os.readv(self._read_fd, [self._piece])
                if not got:
                    return None, self._cause()
                self._in += self._piece[:got]
            elif left <= 0:
                if self.began() == began:
                    return None, ("page_time", f"more than {wall_seconds - _GRACE_SECONDS:g} s")
                began, deadline = self.began(), time.monotonic() + wall_seconds

    def _flush(self) -> None:
        try:
            while self._out:
                sent = os.write(self._write_fd, self._out[0])
                self._out[0] = self._out[0][sent:]
                if not self._out[0]:
                    self._out.popleft()
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._out.clear()  # reading tells the rest

    def _take(self) -> tuple[Any, tuple[str, str] | None] | None:
        """A whole frame out of what has come, if there is one."""
        if len(self._in) < REPLIES.size:
            return None
        head_bytes, rest = REPLIES.unpack_from(self._in)
        size = REPLIES.size + head_bytes + rest
        if size > MAX_REPLY_BYTES:
            return None, ("page_memory", f"a result of {size} bytes")
        if len(self._in) < size:
            return None
        body = bytes(memoryview(self._in)[REPLIES.size : size])
        del self._in[:size]
        try:
            return decode_reply(body, head_bytes), None
        except (ValueError, KeyError, TypeError, IndexError):
            return None, ("page_crash", "the result cannot be read")

    def _cause(self) -> tuple[str, str]:
        """Why the pipe ended."""
        code = self._process.wait()
        if code == OUT_OF_MEMORY:
            return "page_memory", "out of memory"
        number = -code
        if number in _OVERRUN:
            return "page_time", f"ended by {signal.Signals(number).name}"
        if number == signal.SIGKILL:  # not by us: the kernel was out of memory
            return "page_memory", "killed"
        return "page_crash", signal.Signals(number).name if number in set(signal.Signals) else f"exit {code}"


def _frames(calls: Iterable[tuple[Any, ...]]) -> Iterator[list[_Call]]:
    frame: list[_Call] = []
    size = 0
    for args in calls:
        frame.append(_Call(args))
        size += sum(len(a) for a in args if isinstance(a, bytes | str))
        if len(frame) >= FRAME_CALLS or size >= FRAME_BYTES:
            yield frame
            frame, size = [], 0
    if frame:
        yield frame


def _start(arguments: list[Any], shared_fd: int) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT}  # no credentials
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-c", _BOOT, json.dumps([str(p) for p in sys.path]), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            pass_fds=[shared_fd],
            env={**kept, **_ONE_THREAD},
            start_new_session=True,
        )
    except OSError as error:
        raise SetupError(
            f"a child process cannot be started: {error.strerror}", mend="look at the limits on processes and memory"
        ) from None


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill the child and its process group."""
    if owner != os.getpid():
        return
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _widen(fd: int) -> None:
    """A pipe that holds a few pages at once; where the system refuses, the usual 64 KiB do."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_BYTES)
