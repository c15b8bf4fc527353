"""Which actor gets which unit, when actors start and when they stop: decisions without an engine.

The engine tells what happened (`ready`, `finished`, `died`) and asks what to do (`decide`). Nothing here waits, reads a
clock or knows Ray, so every decision is tested as plain logic.

The pool grows while work waits, up to what the cluster has, and asks for a little more than that, so that a cluster
that can grow sees the demand. It shrinks at the end. What takes far longer than its size lets expect is given to a
second actor once nothing else waits; the first to finish wins, which content-named parts make harmless. An actor is
replaced after many units, or when its memory has grown. What an actor's death interrupts is done again; a unit that
saw a death is sent alone, so that one that kills its process is known, and counted, by itself.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRules:
    """Bounds of a pool. Times in seconds, sizes in bytes of the units' input."""

    most_actors: int
    in_flight: int = 2  # units sent to an actor: one at work, one that waits at its door
    bytes_in_flight: int = 8 << 30
    straggle_factor: float = 4.0
    straggle_least_s: float = 20.0
    recycle_units: int = 2000
    recycle_rss_bytes: int = 6 << 30
    most_attempts: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A unit as the pool sees it: its place in the wave and its size."""

    number: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Start:
    """Start one more actor and call it so."""

    actor: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send a unit to an actor."""

    actor: int
    number: int


@dataclass(frozen=True, slots=True)
class Stop:
    """End an actor; nothing that it does is wanted any more."""

    actor: int


Action = Start | Send | Stop


@dataclass(slots=True)
class _Actor:
    is_ready: bool = False
    flying: list[int] = field(default_factory=list)
    since: float = 0.0  # when the first of `flying` came to its turn
    units: int = 0
    is_worn: bool = False


class Pool:
    """The state of one wave of units."""

    def __init__(self, work: Sequence[Work], rules: PoolRules) -> None:
        self._rules = rules
        self._sizes = {w.number: w.size_bytes for w in work}
        self._waiting: deque[int] = deque(w.number for w in work)
        self._actors: dict[int, _Actor] = {}
        self._attempts: dict[int, int] = {}
        self._done: set[int] = set()
        self._rates: list[float] = []
        self._next = 0
        self.most_at_once = 0
        self.sent_twice = 0
        self.largest_rss_bytes = 0

    @property
    def is_finished(self) -> bool:
        """Whether every unit is done."""
        return len(self._done) == len(self._sizes)

    def ready(self, actor: int) -> None:
        """The actor has started."""
        self._actors[actor].is_ready = True

    def finished(self, actor: int, number: int, now: float, rss_bytes: int = 0) -> bool:
        """The actor finished a unit. False where another one did before: the result is not wanted."""
        mine = self._actors.get(actor)
        first = number not in self._done
        self._done.add(number)
        self.largest_rss_bytes = max(self.largest_rss_bytes, rss_bytes)
        if mine is not None and number in mine.flying:
            if mine.flying[0] == number and first:
                self._rates.append((now - mine.since) / self._weight(number))
            mine.flying.remove(number)
            mine.since = now
            mine.units += 1
            mine.is_worn |= mine.units >= self._rules.recycle_units or rss_bytes > self._rules.recycle_rss_bytes
        return first

    def died(self, actor: int) -> int | None:
        """The actor is gone: what it had is sent again. A unit that saw too many deaths, else None."""
        mine = self._actors.pop(actor, None)
        if mine is None:
            return None
        for number in reversed(mine.flying):
            if number in self._done or any(number in other.flying for other in self._actors.values()):
                continue
            self._attempts[number] = self._attempts.get(number, 0) + 1
            if self._attempts[number] >= self._rules.most_attempts and len(mine.flying) == 1:
                return number
            self._waiting.appendleft(number)
        return None

    def decide(self, now: float, *, room: int) -> list[Action]:
        """What to do now. `room`: actors that the cluster could hold in all, those of this pool among them."""
        actions: list[Action] = []
        for name, actor in list(self._actors.items()):
            if actor.is_worn and not actor.flying:
                del self._actors[name]
                actions.append(Stop(name))
        self._grow(actions, room)
        self._feed(actions, now)
        if not self._waiting:
            self._double(actions, now)
            self._shrink(actions)
        return actions

    def _weight(self, number: int) -> float:
        return max(1.0, self._sizes[number] / (1 << 20)) + 1.0  # a small unit costs something, too

    def _grow(self, actions: list[Action], room: int) -> None:
        """As many as the work needs, those that start already counted; at most one or a quarter beyond the room."""
        allowed = min(self._rules.most_actors, max(1, room + max(1, room // 4)))
        busy = sum(bool(a.flying) for a in self._actors.values())
        wanted = min(allowed, busy + len(self._waiting)) if self._waiting else 0
        while len(self._actors) < wanted:
            self._actors[self._next] = _Actor()
            actions.append(Start(self._next))
            self._next += 1
        self.most_at_once = max(self.most_at_once, len(self._actors))

    def _feed(self, actions: list[Action], now: float) -> None:
        """One unit an actor first, then the next at its door; never more bytes than the bound, but always one unit."""
        flying = sum(self._sizes[n] for a in self._actors.values() for n in a.flying)
        starting = sum(not actor.is_ready for actor in self._actors.values())
        for depth in range(self._rules.in_flight):
            if depth and len(self._waiting) <= starting:
                return  # they are for those that start
            for name, actor in self._actors.items():
                if not self._waiting:
                    return
                if not actor.is_ready or actor.is_worn or len(actor.flying) != depth:
                    continue
                number = self._waiting[0]
                if number in self._done:
                    self._waiting.popleft()
                    continue
                alone = self._attempts.get(number, 0) > 0
                suspect = any(self._attempts.get(n, 0) for n in actor.flying)
                if (alone and depth) or suspect:
                    continue
                if flying and flying + self._sizes[number] > self._rules.bytes_in_flight:
                    return
                self._waiting.popleft()
                flying += self._sizes[number]
                if not actor.flying:
                    actor.since = now
                actor.flying.append(number)
                actions.append(Send(name, number))

    def _double(self, actions: list[Action], now: float) -> None:
        """A second actor for what takes too long, the latest first."""
        if len(self._rates) < 3:
            return
        usual = statistics.median(self._rates)
        idle = [name for name, a in self._actors.items() if a.is_ready and not a.flying and not a.is_worn]
        late = []
        for actor in self._actors.values():
            if not actor.flying:
                continue
            lasts = now - actor.since
            expected = self._rules.straggle_factor * usual * self._weight(actor.flying[0])
            if lasts <= max(self._rules.straggle_least_s, expected):
                continue
            for number in actor.flying:  # what waits at the door of a late actor waits as long
                twice = sum(number in other.flying for other in self._actors.values()) > 1
                if not twice and number not in self._done and not self._attempts.get(number):
                    late.append((-lasts, number))
        for (_, number), name in zip(sorted(late), idle, strict=False):
            self._actors[name].flying.append(number)
            self._actors[name].since = now
            self.sent_twice += 1
            actions.append(Send(name, number))

    def _shrink(self, actions: list[Action]) -> None:
        """Actors without work leave, but for one that may take over what is late."""
        idle = [name for name, a in self._actors.items() if not a.flying]
        busy = len(self._actors) - len(idle)
        ready = [name for name in idle if self._actors[name].is_ready]
        spare = set(ready[:1]) if busy else set()
        for name in idle:
            if name not in spare:
                del self._actors[name]
                actions.append(Stop(name))
