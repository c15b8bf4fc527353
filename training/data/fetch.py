"""Many byte ranges at once from the store, the slow tail hedged.

A folder or a memory store is read as it is. A store with `get_range_async` gets up to `in_flight` requests at a time
from one event loop; a request that takes much longer than most is asked again on another connection, and the first
answer wins (Dean and Barroso, "The Tail at Scale", 2013). Errors that may pass are asked again with a growing pause.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from pipelines.datasets.store import Store
from pipelines.errors import MissingObjectError, StoreError

Wanted = tuple[str, int, int]  # key, first byte, the byte after the last


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeRule:
    """When a request is asked again: `factor` times what nine of ten answers took, never before `least_s`."""

    factor: float = 3.0
    least_s: float = 0.1
    first_s: float = 1.0  # as long as too few answers are known
    most_attempts: int = 4  # at a time
    give_up_s: float = 120.0


class RangeFetcher:
    """Byte ranges of a store, from any thread."""

    def __init__(self, store: Store, *, in_flight: int = 64, rule: HedgeRule | None = None) -> None:
        """No request and no thread before the first fetch."""
        self._store, self._limit, self._rule = store, in_flight, rule or HedgeRule()
        self._loop: _Loop | None = None
        self._lock = threading.Lock()

    def fetch(self, wanted: Sequence[Wanted]) -> list[bytes]:
        """The bytes of each range, cut short at the object's end; what the store raises where one cannot be had."""
        if not hasattr(self._store, "get_range_async"):
            return self._read(wanted)
        with self._lock:
            if self._loop is None:
                self._loop = _Loop(self._store, self._limit, self._rule)
        return self._loop.fetch(wanted)

    @property
    def hedged(self) -> int:
        """Requests that were asked more than once."""
        return self._loop.hedged if self._loop else 0

    def close(self) -> None:
        """Drop what is in flight."""
        with self._lock:
            if self._loop is not None:
                self._loop.close()
                self._loop = None

    def _read(self, wanted: Sequence[Wanted]) -> list[bytes]:
        by_key: dict[str, list[int]] = defaultdict(list)
        for number, (key, _, _) in enumerate(wanted):
            by_key[key].append(number)
        found: list[bytes] = [b""] * len(wanted)
        for key, numbers in by_key.items():
            bodies = self._store.get_ranges(key, [wanted[n][1:] for n in numbers])
            for n, body in zip(numbers, bodies, strict=True):
                found[n] = body
        return found


@dataclass(slots=True, eq=False)
class _Request:
    wanted: Wanted
    answer: Future[bytes]
    began: float = 0.0
    attempts: set[asyncio.Task[None]] = field(default_factory=set)
    failures: int = 0
    asked: int = 0


class _Loop:
    """The event loop's thread; everything but `fetch` and `close` runs in it."""

    def __init__(self, store: Any, limit: int, rule: HedgeRule) -> None:
        self._store, self._limit, self._rule = store, limit, rule
        self._waiting: deque[_Request] = deque()
        self._flying: dict[_Request, None] = {}  # in the order in which they were first asked
        self._took: deque[float] = deque(maxlen=512)
        self._hedge_after = rule.first_s
        self.hedged = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ranges", daemon=True)
        self._thread.start()
        self._loop.call_soon_threadsafe(self._watch)

    def fetch(self, wanted: Sequence[Wanted]) -> list[bytes]:
        """Ask for all, wait for all."""
        requests = [_Request(one, Future()) for one in wanted]
        self._loop.call_soon_threadsafe(self._take, requests)
        return [request.answer.result() for request in requests]

    def close(self) -> None:
        """End the thread; who still waits gets an error."""
        self._loop.call_soon_threadsafe(self._end)
        self._thread.join(10)
        if not self._thread.is_alive():
            self._loop.close()

    def _take(self, requests: list[_Request]) -> None:
        self._waiting.extend(requests)
        self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._flying) < self._limit:
            request = self._waiting.popleft()
            request.began = monotonic()
            self._flying[request] = None
            self._ask(request)

    def _ask(self, request: _Request, pause: float = 0.0) -> None:
        request.asked += 1
        task = self._loop.create_task(self._attempt(request, pause))
        request.attempts.add(task)
        task.add_done_callback(request.attempts.discard)

    async def _attempt(self, request: _Request, pause: float) -> None:
        if pause:
            await asyncio.sleep(pause)
        began = monotonic()
        try:
            body = await self._store.get_range_async(*request.wanted)
        except MissingObjectError as error:
            self._finish(request, error)
        except StoreError as error:
            request.failures += 1
            if request.failures >= 8:
                self._finish(request, error)
            elif len(request.attempts) == 1:  # another one still under way may yet answer
                self._ask(request, min(0.05 * 2**request.failures, 2.0))
        except Exception as error:  # noqa: BLE001
            self._finish(request, error)  # whoever waits must be told
        else:
            self._took.append(monotonic() - began)
            self._finish(request, body)

    def _finish(self, request: _Request, outcome: bytes | Exception) -> None:
        if self._flying.pop(request, self) is self:
            return  # another attempt was first
        if isinstance(outcome, bytes):
            request.answer.set_result(outcome)
        else:
            request.answer.set_exception(outcome)
        for task in request.attempts:
            if task is not asyncio.current_task():
                task.cancel()
        self._fill()

    def _watch(self) -> None:
        """Ask again what takes too long; the oldest come first, so the walk ends at the first that is young."""
        now, rule = monotonic(), self._rule
        if len(self._took) >= 20:
            nine_of_ten = sorted(self._took)[len(self._took) * 9 // 10]
            self._hedge_after = max(rule.factor * nine_of_ten, rule.least_s)
        for request in list(self._flying):
            age = now - request.began
            if age < self._hedge_after:
                break
            if age > rule.give_up_s:
                key, start, end = request.wanted
                message = f"no answer for bytes {start}..{end - 1} of {key} in {rule.give_up_s:.0f} s"
                self._finish(
                    request, StoreError(message, key=key, mend="look at the store; the same command goes on")
                )
            elif len(request.attempts) < rule.most_attempts and age > self._hedge_after * request.asked:
                self.hedged += request.asked == 1
                self._ask(request)
        self._loop.call_later(min(self._hedge_after / 4, 0.1), self._watch)

    def _end(self) -> None:
        requests = [*self._flying, *self._waiting]
        attempts = [task for request in requests for task in request.attempts]
        self._waiting.clear()
        for request in requests:
            self._flying[request] = None
            self._finish(request, StoreError("the stream was closed"))
        self._last = self._loop.create_task(self._stop(attempts))

    async def _stop(self, attempts: list[asyncio.Task[None]]) -> None:
        await asyncio.gather(*attempts, return_exceptions=True)
        self._loop.stop()
