from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.datasets.store import MemoryStore
from pipelines.errors import ConfigError, ConflictError, InputError, IntegrityError
from training.data.plan import DatasetPin, Plan, single_segment_plan
from training.run_log import Attempt, RunLog, request_stop

RECIPE = {"seed": 1, "model": {"layers": 2}}


def plan(steps: int = 10) -> Plan:
    pin = DatasetPin(name="tokens", version=1, manifest_sha256="a" * 64)
    return single_segment_plan(
        seed=1, dataset=pin, weights={"en": 1}, sequence_length=8, rows_per_batch=2, steps=steps
    )


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    RunLog(store, "tiny").write_plan(plan(), RECIPE)
    return store


def test_a_stale_writer_is_refused_sees_the_newer_attempt_and_exits_7(store):
    old = Attempt(RunLog(store, "tiny"), {"host": "a"})
    old.add("checkpoint", {"key": "k1", "sha256": "s1", "step": 5})
    new = Attempt(RunLog(store, "tiny"), {"host": "b"})
    assert (old.number, new.number) == (1, 2)
    with pytest.raises(ConflictError, match=r"attempt 2 \(host b\) was opened after attempt 1") as refusal:
        old.add("checkpoint", {"key": "k2", "sha256": "s2", "step": 10})
    assert refusal.value.exit_code == 7
    new.add("checkpoint", {"key": "k3", "sha256": "s3", "step": 10})
    state = RunLog(store, "tiny").state
    assert state.checkpoint["key"] == "k3"
    assert state.attempt == 2


@settings(deadline=None)
@given(actions=st.lists(st.sampled_from(["open", "stop", "w0", "w1", "w2", "w3"]), max_size=25))
def test_whatever_writers_do_only_the_newest_attempt_ever_commits(actions):
    store = MemoryStore()
    RunLog(store, "tiny").write_plan(plan(), RECIPE)
    writers: list[Attempt] = []
    committed: list[int] = []
    for step, action in enumerate(actions):
        if action == "open":
            writers.append(Attempt(RunLog(store, "tiny"), {"step": step}))
        elif action == "stop":
            assert request_stop(store, "tiny") is bool(writers)
        elif int(action[1]) < len(writers):
            writer = writers[int(action[1])]
            if writer is writers[-1]:
                writer.add("checkpoint", {"key": f"k{step}", "sha256": "s"})
                committed.append(step)
            else:
                with pytest.raises(ConflictError):
                    writer.add("checkpoint", {"key": f"k{step}", "sha256": "s"})
    state = RunLog(store, "tiny").state
    assert state.attempt == len(writers)
    assert (state.checkpoint or {}).get("key") == (f"k{committed[-1]}" if committed else None)


def test_a_request_to_stop_between_two_entries_is_seen_and_written_past(store):
    attempt = Attempt(RunLog(store, "tiny"), {})
    assert request_stop(store, "tiny")
    attempt.add("checkpoint", {"key": "k", "sha256": "s"})
    assert attempt.log.state.stop_requested
    assert not Attempt(RunLog(store, "tiny"), {}).log.state.stop_requested


def test_a_lost_reply_to_an_append_is_a_success(store):
    class LostReply(MemoryStore):
        lose = True

        def put(self, key, body, *, create_only=False):
            won = super().put(key, body, create_only=create_only)
            if create_only and self.lose:
                self.lose = False
                return False
            return won

    attempt = Attempt(RunLog(LostReply(store.location), "tiny"), {})
    assert attempt.number == 1
    assert RunLog(store, "tiny").state.number == 2


def test_the_same_plan_again_writes_nothing_and_another_one_is_refused_with_the_difference(store):
    before = [info.key for info in store.list("runs/")]
    RunLog(store, "tiny").write_plan(plan(), RECIPE)
    assert [info.key for info in store.list("runs/")] == before
    with pytest.raises(ConfigError, match="end_position: 20 there, 24 now") as refusal:
        RunLog(store, "tiny").write_plan(plan(steps=12), RECIPE)
    assert "another name" in str(refusal.value)
    with pytest.raises(ConfigError, match="model"):
        RunLog(store, "tiny").write_plan(plan(), {**RECIPE, "model": {"layers": 3}})


def test_two_drivers_that_write_the_same_first_plan_agree(store):
    one, two = RunLog(store, "other"), RunLog(store, "other")
    one.write_plan(plan(), RECIPE)
    two.write_plan(plan(), RECIPE)
    assert two.state.number == 1
    three = RunLog(store, "third")
    RunLog(store, "third").write_plan(plan(11), RECIPE)
    with pytest.raises(ConfigError):
        three.write_plan(plan(), RECIPE)


def test_a_run_without_plan_cannot_be_attempted_and_a_gap_in_the_chain_is_an_error(store):
    with pytest.raises(InputError, match="has no plan"):
        Attempt(RunLog(store, "none"), {})
    Attempt(RunLog(store, "tiny"), {})
    store.delete("runs/tiny/log/000001.json")
    with pytest.raises(IntegrityError, match="after number 0"):
        RunLog(store, "tiny")


def test_the_state_at_a_number_ignores_what_came_later(store):
    log = RunLog(store, "tiny")
    attempt = Attempt(log, {})
    at = log.state.number
    attempt.add("checkpoint", {"key": "k", "sha256": "s"})
    assert log.state_at(at).checkpoint is None
    assert replace(log.state_at(at + 1)) == log.state
