from __future__ import annotations

from pipelines.datasets.store import MemoryStore
from training.metrics import MetricsWriter, read_live, read_metrics


def test_each_step_comes_from_the_newest_attempt_that_trained_it():
    store = MemoryStore()
    first, second = MetricsWriter(store, "r", "attempt-0001"), MetricsWriter(store, "r", "attempt-0002")
    for step in (1, 2, 3):
        first.add({"step": step, "by": 1})
    first.flush()
    second.add({"step": 3, "by": 2})
    second.flush()
    second.flush()
    assert [(m["step"], m["by"]) for m in read_metrics(store, "r")] == [(1, 1), (2, 1), (3, 2)]
    assert len(list(store.list("runs/r/metrics/"))) == 2


def test_the_live_object_is_the_last_one_shown():
    store = MemoryStore()
    assert read_live(store, "r") is None
    MetricsWriter(store, "r", "attempt-0001").show({"step": 4})
    assert read_live(store, "r") == {"step": 4}
