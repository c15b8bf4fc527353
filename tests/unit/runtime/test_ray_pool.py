"""The pool's decisions, played through without an engine and without a clock."""

import heapq
import random

import pytest

from jobs.runtime.pool import Pool, PoolRules, Send, Start, Stop, Work


def units(count, size=1 << 20):
    return [Work(number=n, size_bytes=size) for n in range(count)]


class Played:
    """A made-up engine: actors take a second to start, a unit takes `cost(number, actor, attempt)` seconds."""

    def __init__(self, pool, cost, room=lambda now: 4, deaths=lambda number, attempt: False, rss=lambda n: 0):
        self.pool, self.cost, self.room, self.deaths, self.rss = pool, cost, room, deaths, rss
        self.now, self.events, self.queues, self.alive = 0.0, [], {}, {}
        self.started, self.most_alive, self.most_bytes, self.results = 0, 0, 0, {}
        self.tries, self.fatal, self.sent = {}, None, []

    def run(self, limit=100_000):
        for _ in range(limit):
            self.act()
            if self.pool.is_finished or self.fatal is not None or not self.events:
                return self
            if self.events[0][0] - self.now > 1.0:
                self.now += 1.0  # the poll
                continue
            self.now, kind, actor, number = heapq.heappop(self.events)
            if actor not in self.alive:
                continue
            if kind == "ready":
                self.pool.ready(actor)
                continue
            if kind == "death":
                self.drop(actor)
                self.fatal = self.pool.died(actor)
                continue
            self.queues[actor].pop(0)
            if self.pool.finished(actor, number, self.now, self.rss(number)):
                self.results[number] = self.results.get(number, 0) + 1
            self.work(actor)
        raise AssertionError("no end")

    def act(self):
        for action in self.pool.decide(self.now, room=self.room(self.now)):
            if isinstance(action, Start):
                self.alive[action.actor], self.queues[action.actor] = True, []
                self.started += 1
                heapq.heappush(self.events, (self.now + 1.0, "ready", action.actor, -1))
            elif isinstance(action, Send):
                self.sent.append((action.actor, action.number))
                self.queues[action.actor].append(action.number)
                if len(self.queues[action.actor]) == 1:
                    self.work(action.actor)
            else:
                assert isinstance(action, Stop)
                self.drop(action.actor)
        self.most_alive = max(self.most_alive, len(self.alive))
        flying = {n for queue in self.queues.values() for n in queue}
        self.most_bytes = max(self.most_bytes, len(flying))

    def drop(self, actor):
        self.alive.pop(actor)
        self.queues.pop(actor)

    def work(self, actor):
        if self.queues[actor]:
            number = self.queues[actor][0]
            attempt = self.tries[number] = self.tries.get(number, 0) + 1
            kind = "death" if self.deaths(number, attempt) else "done"
            heapq.heappush(self.events, (self.now + self.cost(number, actor, attempt), kind, actor, number))


def once(count):
    return dict.fromkeys(range(count), 1)


def test_every_unit_is_done_once_and_the_pool_grows_to_the_room_and_shrinks():
    played = Played(Pool(units(50), PoolRules(most_actors=10)), lambda *_: 2.0).run()
    assert played.results == once(50)
    assert 4 <= played.most_alive <= 5 and len(played.sent) == 50
    assert len(played.alive) <= 2  # at the end


def test_a_cluster_that_grows_is_used():
    played = Played(Pool(units(200), PoolRules(most_actors=16)), lambda *_: 3.0, room=lambda now: 2 if now < 20 else 12)
    played.run()
    assert played.most_alive >= 12 and played.results == once(200)
    few = Played(Pool(units(200), PoolRules(most_actors=3)), lambda *_: 3.0, room=lambda now: 50).run()
    assert few.most_alive == 3
    assert Played(Pool(units(2), PoolRules(most_actors=9)), lambda *_: 1.0, room=lambda now: 50).run().started == 2


def test_bytes_in_flight_are_bounded_and_a_large_unit_still_goes():
    rules = PoolRules(most_actors=8, bytes_in_flight=3 << 20)
    played = Played(Pool(units(30), rules), lambda *_: 1.0, room=lambda now: 8).run()
    assert played.most_bytes == 3 and played.results == once(30)
    large = Played(Pool(units(3, size=9 << 20), rules), lambda *_: 1.0).run()
    assert large.most_bytes == 1 and large.results == once(3)


def test_a_late_unit_is_sent_to_a_second_actor_and_the_first_result_counts():
    def cost(number, actor, attempt):
        return 100_000.0 if number == 7 and attempt == 1 else 5.0

    played = Played(Pool(units(20), PoolRules(most_actors=4)), cost).run()
    assert played.results == once(20) and played.now < 500 and played.pool.sent_twice >= 1
    assert [n for _, n in played.sent].count(7) == 2


def test_a_late_unit_is_not_sent_twice_while_others_wait_or_where_it_is_only_large():
    def cost(number, actor, attempt):
        return 40.0 if number == 0 else 5.0

    work = [Work(number=0, size_bytes=20 << 20), *units(40)[1:]]
    played = Played(Pool(work, PoolRules(most_actors=2)), cost, room=lambda now: 2).run()
    assert played.pool.sent_twice == 0 and played.results == once(40)


def test_a_death_loses_nothing():
    rng = random.Random(4)
    played = Played(
        Pool(units(80), PoolRules(most_actors=4)), lambda *_: 2.0, deaths=lambda n, attempt: rng.random() < 0.1
    ).run()
    assert played.results == once(80) and played.started > 8


def test_a_unit_that_ends_its_process_is_named_and_its_neighbours_are_not_blamed():
    played = Played(Pool(units(30), PoolRules(most_actors=3)), lambda *_: 2.0, deaths=lambda n, attempt: n == 11).run()
    assert played.fatal == 11 and played.tries[11] <= 6


def test_actors_are_replaced_after_many_units_or_when_they_have_grown():
    by_count = Played(Pool(units(40), PoolRules(most_actors=2, recycle_units=5)), lambda *_: 1.0).run()
    assert by_count.results == once(40) and by_count.started >= 8
    by_size = Played(
        Pool(units(40), PoolRules(most_actors=2, recycle_rss_bytes=100)),
        lambda *_: 1.0,
        rss=lambda n: 200 if n == 3 else 50,
    ).run()
    assert by_size.results == once(40) and by_size.started == 3
    assert by_size.pool.largest_rss_bytes == 200


@pytest.mark.parametrize("seed", range(30))
def test_any_history_ends_with_every_unit_done_once(seed):
    rng = random.Random(seed)
    rules = PoolRules(
        most_actors=rng.randrange(1, 7), in_flight=rng.randrange(1, 4), recycle_units=rng.randrange(2, 50),
        bytes_in_flight=rng.randrange(1, 20) << 20, straggle_least_s=rng.uniform(1, 30), most_attempts=60,
    )  # fmt: skip
    count = rng.randrange(1, 60)
    costs = [rng.expovariate(0.3) * (50 if rng.random() < 0.05 else 1) for _ in range(count)]
    played = Played(
        Pool([Work(number=n, size_bytes=rng.randrange(5 << 20)) for n in range(count)], rules),
        lambda number, actor, attempt: costs[number] * rng.uniform(0.5, 2),
        room=lambda now: 1 + int(now / 7) % 5,
        deaths=lambda number, attempt: rng.random() < 0.1,
    ).run()
    assert played.results == once(count)
