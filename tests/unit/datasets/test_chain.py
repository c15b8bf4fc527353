from __future__ import annotations

import threading

import pytest

from pipelines.datasets.chain import Chain
from pipelines.datasets.store import MemoryStore
from pipelines.errors import StoreError


def test_each_number_has_one_writer_and_the_losers_read_on():
    store = MemoryStore()
    wins: dict[int, list[str]] = {n: [] for n in range(1, 6)}

    def write(name: str) -> None:
        chain = Chain(store, "log")
        for n in range(1, 6):
            if chain.append(n, {"by": name}, name):
                wins[n].append(name)

    threads = [threading.Thread(target=write, args=(f"w{i}",)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(len(w) == 1 for w in wins.values())
    assert [e["by"] for _, e in Chain(store, "log").entries()] == [wins[n][0] for n in range(1, 6)]


def test_our_own_bytes_behind_a_refusal_are_a_success_and_others_are_not():
    store = MemoryStore()
    chain = Chain(store, "log", letter="v")
    assert chain.append(1, {}, "me")
    assert chain.append(1, {}, "me")
    assert not chain.append(1, {}, "you")
    assert chain.key(1) == "log/v000001.json"


def test_only_numbered_entries_count():
    store = MemoryStore()
    for key in ("log/0001.beat", "log/latest.json", "log/0002.json.tmp", "log/deep/0009.json"):
        store.put(key, b"{}")
    chain = Chain(store, "log", width=4)
    assert chain.latest() is None and chain.numbers() == []


def test_a_store_that_stays_broken_is_told():
    class Broken(MemoryStore):
        def put(self, key, body, *, create_only=False):
            raise StoreError("503")

    with pytest.raises(StoreError, match="503"):
        Chain(Broken(), "log").append(1, {}, "me")
