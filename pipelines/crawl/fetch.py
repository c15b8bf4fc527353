"""A read-only store over HTTP with ranged GETs, such as https://data.commoncrawl.org/, that behaves as a guest.

No more requests a second and no more bytes at once than its rules say.  503 and 429 make every thread of it wait as
long as the server asks (Retry-After), or longer each time, with jitter.  What comes is checked against what was
asked; a reply that is slower than a floor is given up and asked again.
"""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from pipelines.errors import MissingObjectError, StoreError

_PIECE_BYTES = 64 << 10
_BUSY = frozenset({429, 500, 502, 503, 504})
_REFUSED = frozenset({401, 402, 403, 451})
_AGENT = "gristmill (crawl reader; ranged GETs)"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchRules:
    """Bounds of one process.  `divided` shares them among several."""

    requests_per_second: float = 5.0
    connections: int = 4
    bytes_in_flight: int = 64 << 20
    attempts: int = 8
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 300.0
    connect_seconds: float = 20.0
    stall_seconds: float = 30.0
    slowest_bytes_per_second: int = 16 << 10

    def divided(self, processes: int) -> FetchRules:
        """The share of one of so many processes that work at the same time."""
        if processes <= 1:
            return self
        return replace(
            self,
            requests_per_second=self.requests_per_second / processes,
            connections=max(1, self.connections // processes),
            bytes_in_flight=max(_PIECE_BYTES, self.bytes_in_flight // processes),
        )


class HttpStore:
    """Objects below an http(s) root, read by ranges.  `counters` tells what was asked, came and was waited for."""

    def __init__(
        self,
        location: str,
        rules: FetchRules | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`location` is the root, `https://data.commoncrawl.org/`; keys are paths below it."""
        import urllib3

        self.location = location.rstrip("/") + "/"
        self.rules = rules or FetchRules()
        self.counters: Counter[str] = Counter()
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Condition()
        self._next_start = 0.0
        self._in_flight = 0
        self._jitter = random.Random()
        self._pool = urllib3.PoolManager(
            maxsize=self.rules.connections,
            retries=False,
            headers={"User-Agent": _AGENT, "Accept-Encoding": "identity"},
            timeout=urllib3.Timeout(connect=self.rules.connect_seconds, read=self.rules.stall_seconds),
        )

    def __reduce__(self) -> tuple[type, tuple[str, FetchRules]]:
        """Pickle by location and rules."""
        return HttpStore, (self.location, self.rules)

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Bytes of each [start, end); shorter at the end of the object.  StoreError where the server will not."""
        if len(ranges) == 1:
            return [self._get(key, *ranges[0])]
        with ThreadPoolExecutor(self.rules.connections) as pool:
            return list(pool.map(lambda each: self._get(key, *each), ranges))

    def _get(self, key: str, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        self._take_room(end - start)
        try:
            return self._tried(key, start, end)
        finally:
            self._give_room(end - start)

    def _tried(self, key: str, start: int, end: int) -> bytes:
        last = "no try was made"
        for attempt in range(self.rules.attempts):
            self._wait_for_turn()
            try:
                return self._ask(key, start, end)
            except _AgainError as error:
                last = error.args[0]
                self._back_off(attempt, error.asked_seconds)
        raise StoreError(
            f"{self.location}{key}: bytes {start} to {end} did not come in {self.rules.attempts} tries; last: {last}",
            key=key,
            mend="Run the same command again later, with fewer requests a second.",
        )

    def _ask(self, key: str, start: int, end: int) -> bytes:
        import urllib3

        with self._lock:
            self.counters["requests"] += 1
        try:
            reply = self._pool.request(
                "GET",
                self.location + quote(key, safe="/:=+@,~"),
                headers={**self._pool.headers, "Range": f"bytes={start}-{end - 1}"},
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise _AgainError(f"{type(error).__name__}: {error}") from None
        whole = False
        try:
            self._judge(key, start, end, reply)
            if reply.status == 416:
                return b""
            body = self._body(reply, end - start)
            whole = True
        except urllib3.exceptions.HTTPError as error:
            raise _AgainError(f"{type(error).__name__}: {error}") from None
        finally:
            # Half a reply is not read to its end: its connection is closed.
            reply.release_conn() if whole else reply.close()
        self._check(start, end, reply, body)
        with self._lock:
            self.counters["bytes"] += len(body)
        return body

    def _judge(self, key: str, start: int, end: int, reply: Any) -> None:
        """Raise what the status means; 206 and 416 pass."""
        status = reply.status
        if status in (206, 416) or (status == 200 and start == 0):
            return
        if status in _BUSY:
            with self._lock:
                self.counters["busy_replies"] += 1
            raise _AgainError(f"status {status}", _retry_after(reply.headers.get("Retry-After")))
        if status in (404, 410):
            raise MissingObjectError(f"no object {key} in {self.location}", key=key)
        if status in _REFUSED:
            raise StoreError(
                f"{self.location} refuses {key}: status {status}.",
                key=key,
                mend="The server wants no more of this or asks for credentials: wait a day, ask less, or read s3://.",
            )
        told = "the server does not serve ranges" if status == 200 else f"status {status}"
        raise StoreError(
            f"{self.location}{key}: bytes {start} to {end}: {told}.",
            key=key,
            mend="Give the root that serves the files themselves, with ranges.",
        )

    def _body(self, reply: Any, size: int) -> bytes:
        """At most `size` bytes and one, no slower than the floor (`read1` comes back with whatever has come)."""
        begun = self._clock()
        pieces: list[bytes] = []
        held = 0
        while held <= size and (piece := reply.read1(min(_PIECE_BYTES, size + 1 - held))):
            pieces.append(piece)
            held += len(piece)
            spent = self._clock() - begun
            if spent > self.rules.stall_seconds + held / self.rules.slowest_bytes_per_second:
                with self._lock:
                    self.counters["slow_replies"] += 1
                raise _AgainError(f"{held} bytes in {spent:.0f} s")
        return b"".join(pieces)

    def _check(self, start: int, end: int, reply: Any, body: bytes) -> None:
        """What came is what was asked: the range by the server's own word, and as many bytes as that range has."""
        told = reply.headers.get("Content-Range", "")
        if reply.status == 200:
            told = f"bytes 0-{len(body) - 1}/{len(body)}"
        stop = _range_end(told, start)
        if stop is None or stop > end or len(body) != stop - start or (stop < end and not told.endswith(f"/{stop}")):
            with self._lock:
                self.counters["false_replies"] += 1
            raise _AgainError(f"bytes {start}-{end - 1} were asked for, {len(body)} came as {told[:60]!r}")

    def _wait_for_turn(self) -> None:
        with self._lock:
            now = self._clock()
            begin = max(now, self._next_start)
            self._next_start = begin + 1.0 / self.rules.requests_per_second
        self._rest(begin - now)

    def _back_off(self, attempt: int, asked_seconds: float | None) -> None:
        """Nobody of this store asks before the wait is over."""
        longest = self.rules.longest_wait_seconds
        wait = min(self.rules.first_wait_seconds * 2**attempt, longest)
        wait *= 0.5 + self._jitter.random() / 2
        if asked_seconds is not None:
            if asked_seconds > longest:
                raise StoreError(
                    f"{self.location} asks to wait {asked_seconds:.0f} s; the longest wait allowed is {longest:.0f} s.",
                    mend="Run the same command again later: finished work is kept.",
                )
            wait = asked_seconds + self._jitter.random() * min(1.0 + asked_seconds / 10, 10.0)
        with self._lock:
            self._next_start = max(self._next_start, self._clock() + wait)

    def _rest(self, seconds: float) -> None:
        if seconds > 0:
            with self._lock:
                self.counters["waited_ms"] += round(seconds * 1000)
            self._sleep(seconds)

    def _take_room(self, size: int) -> None:
        with self._lock:
            while self._in_flight and self._in_flight + size > self.rules.bytes_in_flight:
                self._lock.wait()
            self._in_flight += size

    def _give_room(self, size: int) -> None:
        with self._lock:
            self._in_flight -= size
            self._lock.notify_all()


class _AgainError(Exception):
    """Worth another try; args: what was seen, seconds that the server asks to wait."""

    @property
    def asked_seconds(self) -> float | None:
        return self.args[1] if len(self.args) > 1 else None


def _retry_after(text: str | None) -> float | None:
    """Seconds of a Retry-After header in either of its forms; None where there is none to be read."""
    if not text:
        return None
    if text.strip().isdigit() and len(text) < 9:
        return float(text)
    try:
        then = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return max(0.0, then.timestamp() - time.time())


def _range_end(told: str, start: int) -> int | None:
    """The end (exclusive) of `bytes START-LAST/TOTAL`; None where it is another range."""
    unit, _, rest = told.partition(" ")
    first, dash, last = rest.partition("/")[0].partition("-")
    if unit != "bytes" or not dash or not first.isdigit() or not last.isdigit() or int(first) != start:
        return None
    return int(last) + 1
