from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipelines.datasets.store import MemoryStore
from pipelines.errors import MissingObjectError, StoreError
from training.data.fetch import HedgeRule, RangeFetcher

RULE = HedgeRule(least_s=0.05, first_s=0.05, give_up_s=1.0)


class SlowStore:
    """Answers by a plan: for each key what its first, second, ... request meets."""

    location = "slow://"

    def __init__(self, plans: dict[str, list[str]] | None = None) -> None:
        self.plans = plans or {}
        self.asked: Counter[str] = Counter()
        self.cancelled = 0
        self.flying = self.most_flying = 0

    async def get_range_async(self, key: str, start: int, end: int) -> bytes:
        number = self.asked[key]
        self.asked[key] += 1
        plan = self.plans.get(key, [])
        what = plan[number] if number < len(plan) else "good"
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            await asyncio.sleep(3600 if what == "hang" else 0.002)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.flying -= 1
        if what == "503":
            raise StoreError("503 Slow Down")
        if what == "missing":
            raise MissingObjectError(f"no object {key}", key=key)
        return f"{key}:{start}-{end}".encode()


def fetcher_of(plans=None, **options) -> tuple[RangeFetcher, SlowStore]:
    store = SlowStore(plans)
    return RangeFetcher(store, **{"rule": RULE, **options}), store


def test_answers_come_in_the_order_of_the_questions_from_many_threads_and_few_are_in_flight():
    fetcher, store = fetcher_of(in_flight=7)
    with ThreadPoolExecutor(6) as pool:
        asked = [[(f"k{n}", n, n + i) for i in range(30)] for n in range(12)]
        for wanted, bodies in zip(asked, pool.map(fetcher.fetch, asked), strict=True):
            assert bodies == [f"{key}:{start}-{end}".encode() for key, start, end in wanted]
    assert 1 < store.most_flying <= 7
    fetcher.close()


def test_a_request_that_hangs_is_asked_again_and_the_first_is_dropped():
    fetcher, store = fetcher_of({"a": ["hang"], "b": ["hang", "hang"]})
    began = time.monotonic()
    assert fetcher.fetch([("a", 0, 1), ("c", 0, 1), ("b", 0, 1)]) == [b"a:0-1", b"c:0-1", b"b:0-1"]
    assert time.monotonic() - began < RULE.give_up_s
    assert store.asked == {"a": 2, "b": 3, "c": 1}
    assert fetcher.hedged == 2
    fetcher.close()
    assert store.cancelled == 3


def test_errors_that_pass_are_asked_again_and_lasting_ones_are_told():
    fetcher, store = fetcher_of({"a": ["503", "503"], "gone": ["missing"], "ill": ["503"] * 50})
    assert fetcher.fetch([("a", 0, 1)]) == [b"a:0-1"]
    with pytest.raises(MissingObjectError):
        fetcher.fetch([("a", 0, 1), ("gone", 0, 1)])
    with pytest.raises(StoreError):
        fetcher.fetch([("ill", 0, 1)])
    assert store.asked["ill"] <= 40
    assert fetcher.fetch([("z", 1, 2)]) == [b"z:1-2"]
    fetcher.close()


def test_no_answer_at_all_is_an_error_in_time():
    fetcher, store = fetcher_of({"a": ["hang"] * 99})
    with pytest.raises(StoreError, match=r"no answer for bytes 0\.\.0 of a in 1 s"):
        fetcher.fetch([("a", 0, 1)])
    assert store.asked["a"] <= RULE.most_attempts + 1
    fetcher.close()


def test_closing_wakes_who_waits():
    fetcher, _ = fetcher_of({"a": ["hang"] * 99}, rule=HedgeRule())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(fetcher.fetch, [("a", 0, 1)])
        while not any(thread.name == "ranges" for thread in threading.enumerate()):
            time.sleep(0.01)
        time.sleep(0.05)
        fetcher.close()
        with pytest.raises(StoreError, match="closed"):
            waiting.result(5)


def test_a_store_without_asynchronous_reads_is_read_as_it_is():
    store = MemoryStore()
    store.put("a", b"0123456789")
    store.put("b", b"abc")
    fetcher = RangeFetcher(store)
    assert fetcher.fetch([("a", 2, 4), ("b", 1, 9), ("a", 0, 1)]) == [b"23", b"bc", b"0"]
    with pytest.raises(MissingObjectError):
        fetcher.fetch([("c", 0, 1)])
