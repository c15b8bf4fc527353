from __future__ import annotations

import builtins

import pytest

from pipelines.datasets.store import MemoryStore
from pipelines.errors import SetupError
from training.metrics import MetricsWriter, TensorBoardWriter, read_live, read_metrics


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


def test_tensorboard_gets_every_number_and_those_by_cell(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    board = TensorBoardWriter(str(tmp_path), "tiny", 4)
    board.add({"step": 5, "loss": 2.5, "mfu": None, "applied": True, "digest": "ab", "loss_by_cell": {"en.web": 3.5}})
    board.close()
    [path] = (tmp_path / "tiny").iterdir()
    body, events = path.read_bytes(), []
    while body:  # TFRecord: length, its crc, the event, its crc
        length = int.from_bytes(body[:8], "little")
        events.append(Event.FromString(body[12 : 12 + length]))
        body = body[16 + length :]
    shown = {value.tag: (event.step, value.simple_value) for event in events for value in event.summary.value}
    assert shown == {"loss": (5, 2.5), "applied": (5, 1.0), "loss_by_cell/en.web": (5, 3.5)}
    assert 5 in {event.step for event in events if event.session_log.status}, "steps from here on are written anew"


def test_without_a_writer_of_event_files_the_mend_is_told(tmp_path, monkeypatch):
    known = builtins.__import__

    def no_tensorboard(name, *rest, **more):
        if name == "tensorboardX":
            raise ImportError(name)
        return known(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", no_tensorboard)
    with pytest.raises(SetupError, match="pip install tensorboardX"):
        TensorBoardWriter(str(tmp_path), "tiny", 0)
