"""Fetching over HTTP as a guest: paced, patient when told to wait, and never fooled by a false range."""

from __future__ import annotations

import pickle
import random
import time

import pytest

from pipelines.crawl.fetch import FetchRules, HttpStore
from pipelines.crawl.sources import StoreSource
from pipelines.crawl.warc import read_warc
from pipelines.errors import MissingObjectError, StoreError
from tests.sample.warc_writer import crawl_file, response_record
from tests.unit.crawl.http_server import serving

QUICK = FetchRules(requests_per_second=1000, first_wait_seconds=0.01, attempts=4, stall_seconds=0.3, connect_seconds=5)
BODY = random.Random(5).randbytes(300_000)


class _Clock:
    """Time that passes only in sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def _busy(status: int, **headers: str):
    return lambda handler, _body: handler.reply(status, b"slow down", **headers) or True


def test_ranges_come_as_asked_and_are_cut_at_the_end():
    with serving({"a/b c.gz": BODY}) as server:
        store = HttpStore(server.root, QUICK)
        assert store.get_ranges("a/b c.gz", [(0, 10), (5, 5), (299_990, 400_000)]) == [BODY[:10], b"", BODY[-10:]]
        assert store.get_ranges("a/b c.gz", [(300_000, 300_010)]) == [b""]
        assert store.counters["requests"] == 3 and store.counters["bytes"] == 20
        assert pickle.loads(pickle.dumps(store)).get_ranges("a/b c.gz", [(1, 3)]) == [BODY[1:3]]


def test_a_crawl_is_read_over_http_like_any_other():
    body = crawl_file(*(response_record(f"https://mill.example/{n}", b"<p>x</p>" * n) for n in range(1, 5)))
    with serving({"x.warc.gz": body}) as server:
        assert len(list(read_warc(StoreSource(HttpStore(server.root, QUICK), "x.warc.gz", len(body))))) == 4


@pytest.mark.parametrize("status", [503, 429])
def test_a_server_that_says_when_is_waited_for_by_every_thread(status):
    clock = _Clock()
    with serving({"k": BODY}) as server:
        server.mischief = [_busy(status, Retry_After="7")]
        store = HttpStore(server.root, QUICK, clock=clock, sleep=clock.sleep)
        assert store.get_ranges("k", [(0, 5)]) == [BODY[:5]]
        assert 7.0 <= clock.slept[0] < 8.8
        assert store.counters["busy_replies"] == 1 and store.counters["waited_ms"] >= 7000
        then = clock.now
        store._next_start = then + 3  # what another thread was told
        store.get_ranges("k", [(0, 5)])
        assert clock.now == pytest.approx(then + 3)


def test_a_date_in_retry_after_is_understood_and_one_too_far_is_an_error():
    with serving({"k": BODY}) as server:
        server.mischief = [_busy(503, Retry_After="Fri, 01 Jan 2100 00:00:00 GMT")]
        with pytest.raises(StoreError, match="asks to wait") as caught:
            HttpStore(server.root, QUICK).get_ranges("k", [(0, 5)])
        assert caught.value.mend
        clock = _Clock()
        server.mischief = [_busy(503, Retry_After="Thu, 01 Jan 1970 00:00:00 GMT"), _busy(503, Retry_After="soon")]
        store = HttpStore(server.root, QUICK, clock=clock, sleep=clock.sleep)
        assert store.get_ranges("k", [(0, 5)]) == [BODY[:5]]


def test_waits_grow_and_end_in_an_error_that_says_so():
    clock = _Clock()
    with serving({"k": BODY}) as server:
        server.mischief = [_busy(503)] * 10
        rules = FetchRules(requests_per_second=1000, first_wait_seconds=1, attempts=5)
        store = HttpStore(server.root, rules, clock=clock, sleep=clock.sleep)
        with pytest.raises(StoreError, match="503") as caught:
            store.get_ranges("k", [(0, 5)])
        assert len(server.asked) == 5 and "later" in caught.value.mend
        waits = [seconds for seconds in clock.slept if seconds > 0.1]
        assert [0.5 * 2**n <= wait <= 2**n + 0.01 for n, wait in enumerate(waits)] == [True] * 4


def test_requests_keep_their_distance():
    with serving({"k": BODY}) as server:
        store = HttpStore(server.root, FetchRules(requests_per_second=50, connections=4))
        store.get_ranges("k", [(n, n + 1) for n in range(12)])
        times = sorted(at for _, _, at in server.asked)
        assert times[-1] - times[0] >= 11 / 50 * 0.8


@pytest.mark.parametrize("status", [401, 403, 451])
def test_a_refusal_is_an_error_at_once(status):
    with serving({"k": BODY}) as server:
        server.mischief = [_busy(status)]
        with pytest.raises(StoreError, match="refuses") as caught:
            HttpStore(server.root, QUICK).get_ranges("k", [(0, 5)])
        assert caught.value.mend and len(server.asked) == 1


def test_an_absent_object_a_redirect_and_a_server_without_ranges_are_told_apart():
    with serving({"k": BODY}) as server:
        with pytest.raises(MissingObjectError):
            HttpStore(server.root, QUICK).get_ranges("none", [(0, 5)])
        server.mischief = [_busy(302, Location="http://127.0.0.1:9/elsewhere")]
        with pytest.raises(StoreError, match="302"):
            HttpStore(server.root, QUICK).get_ranges("k", [(0, 5)])
        server.mischief = [_busy(200)]
        with pytest.raises(StoreError, match="ranges"):
            HttpStore(server.root, QUICK).get_ranges("k", [(3, 5)])


@pytest.mark.parametrize(
    "lie",
    [
        lambda handler, body: handler.reply(206, body[1:6], "bytes 1-5/300000") or True,
        lambda handler, body: handler.reply(206, body[:5]) or True,
        lambda handler, body: handler.reply(206, body[:3], "bytes 0-4/300000") or True,
        lambda handler, body: handler.reply(206, body[:3], "bytes 0-2/300000") or True,
        lambda handler, body: handler.reply(206, body, "bytes 0-4/300000") or True,
        lambda handler, body: handler.reply(206, body, "bytes 0-299999/300000") or True,
        lambda handler, body: handler.reply(200, body) or True,
    ],
)
def test_a_false_range_is_asked_again_and_never_believed(lie):
    with serving({"k": BODY}) as server:
        server.mischief = [lie]
        store = HttpStore(server.root, QUICK)
        assert store.get_ranges("k", [(0, 5)]) == [BODY[:5]]
        assert len(server.asked) == 2 and store.counters["false_replies"] == 1
        server.mischief = [lie] * 9
        with pytest.raises(StoreError, match="were asked for"):
            HttpStore(server.root, QUICK).get_ranges("k", [(0, 5)])


def _drip(handler, body: bytes) -> bool:
    handler.send_response(206)
    handler.send_header("Content-Length", "100000")
    handler.send_header("Content-Range", "bytes 0-99999/300000")
    handler.end_headers()
    try:
        for n in range(200):
            handler.wfile.write(body[n : n + 1])
            handler.wfile.flush()
            time.sleep(0.02)
    except OSError:
        pass
    handler.close_connection = True
    return True


def _hang_up(handler, body: bytes) -> bool:
    handler.send_response(206)
    handler.send_header("Content-Length", "100000")
    handler.send_header("Content-Range", "bytes 0-99999/300000")
    handler.end_headers()
    handler.wfile.write(body[:500])
    handler.close_connection = True
    return True


def test_a_slow_drip_and_a_cut_reply_are_given_up_and_asked_again():
    with serving({"k": BODY}) as server:
        server.mischief = [_drip]
        store = HttpStore(server.root, QUICK)
        begun = time.monotonic()
        assert store.get_ranges("k", [(0, 100_000)]) == [BODY[:100_000]]
        assert time.monotonic() - begun < 3 and store.counters["slow_replies"] == 1
        server.mischief = [_hang_up]
        assert store.get_ranges("k", [(0, 100_000)]) == [BODY[:100_000]]


def test_a_server_that_is_not_there_is_an_error_of_the_store():
    with pytest.raises(StoreError, match="tries"):
        HttpStore("http://127.0.0.1:9/", QUICK).get_ranges("k", [(0, 5)])


def test_rules_are_shared_among_processes():
    one = FetchRules(requests_per_second=8, connections=4).divided(4)
    assert (one.requests_per_second, one.connections) == (2, 1)
