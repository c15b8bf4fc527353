from __future__ import annotations

import threading

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.runtime.context import Context
from jobs.runtime.run import run_stage
from jobs.runtime.stage import Unit
from pipelines.datasets import open_dataset
from pipelines.datasets.manifest import manifest_chain
from pipelines.datasets.store import MemoryStore, check_create_only
from pipelines.errors import IntegrityError, StoreError
from tests.unit.runtime.counting_store import CountingStore, Killed, LostReplyStore
from tests.unit.runtime.synthetic import stage, units


def contents(store) -> dict[str, str]:
    found = {}
    for name in ("documents", "scores"):
        manifest = open_dataset(store, name).manifest
        found[name] = manifest.content_sum
        found[f"{name} ledger"] = manifest.stats["ledger_sum"]
        found[f"{name} books"] = str(manifest.books)
    return found


def unbroken(n: int = 4) -> dict[str, str]:
    context = Context(store=MemoryStore())
    run_stage(context, stage(), units(n))
    return contents(context.store)


def named_objects_exist(store) -> None:
    for name in ("documents", "scores"):
        for version in manifest_chain(store, name).numbers():
            rows = open_dataset(store, name, version).part_list.to_pylist()
            for row in rows:
                assert store.head(row["key"]).size_bytes == row["bytes"]


def test_a_finished_stage_repeated_writes_nothing():
    context = Context(store=MemoryStore())
    run_stage(context, stage(), units(4))
    before = dict(context.store.objects)
    again = run_stage(context, stage(), units(4))
    assert context.store.objects == before
    assert again["scores"].version == 1


def test_an_added_unit_makes_a_version_that_shares_every_old_part():
    context = Context(store=MemoryStore())
    first = run_stage(context, stage(), units(4))["documents"]
    second = run_stage(context, stage(), units(6))["documents"]
    old = set(open_dataset(context.store, "documents", 1).part_list["key"].to_pylist())
    rows = open_dataset(context.store, "documents", 2).part_list
    assert old < set(rows["key"].to_pylist())
    assert second.extends == {"version": 1, "manifest_sha256": first.sha256}
    generations = dict(zip(rows["key"].to_pylist(), rows["generation"].to_pylist(), strict=True))
    assert {generations[k] for k in old} == {1} and set(generations.values()) == {1, 2}
    assert contents(context.store) == unbroken(6)


def test_a_changed_config_reuses_nothing():
    context = Context(store=MemoryStore())
    run_stage(context, stage(rows=3), units(2))
    second = run_stage(context, stage(rows=5), units(2))["documents"]
    assert second.extends is None and second.part_list["rows"] == 10


def test_a_removed_unit_makes_a_version_without_its_part():
    context = Context(store=MemoryStore())
    run_stage(context, stage(), units(4))
    less = run_stage(context, stage(), units(3))["documents"]
    assert less.extends is None and contents(context.store) == unbroken(3)


def _calls() -> int:
    counting = CountingStore(MemoryStore())
    run_stage(Context(store=counting, flush_units=2), stage(), units(4))
    return counting.calls


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_store_call_the_same_command_ends_with_the_unbroken_content(after):
    """Crash-point enumeration: P1, P2, P4."""
    expected = unbroken()
    total = _calls()
    assert total > 30
    for k in range(1, total + 1):
        inner = MemoryStore()
        with pytest.raises(Killed):
            run_stage(Context(store=CountingStore(inner, die_at=k, after=after), flush_units=2), stage(), units(4))
        for name in ("documents", "scores"):  # readers see nothing or a whole version
            if manifest_chain(inner, name).numbers():
                assert open_dataset(inner, name).to_arrow().num_rows == 12
        run_stage(Context(store=inner, flush_units=2), stage(), units(4))
        assert contents(inner) == expected, k
        assert manifest_chain(inner, "documents").numbers() == [1], k
        named_objects_exist(inner)


def test_killed_at_any_store_call_of_an_append_the_old_version_stays_and_the_new_one_comes():
    expected = unbroken(5)
    base = MemoryStore()
    run_stage(Context(store=base), stage(), units(3))
    counting = CountingStore(_copy(base))
    run_stage(Context(store=counting), stage(), units(5))
    for k in range(1, counting.calls + 1, 3):
        inner = _copy(base)
        with pytest.raises(Killed):
            run_stage(Context(store=CountingStore(inner, die_at=k)), stage(), units(5))
        assert open_dataset(inner, "documents", 1).to_arrow().num_rows == 9
        run_stage(Context(store=inner), stage(), units(5))
        assert contents(inner) == expected


def _copy(store: MemoryStore) -> MemoryStore:
    copy = MemoryStore()
    copy.objects.update(store.objects)
    return copy


@pytest.mark.parametrize("refusal", [True, False], ids=["told exists", "unknown outcome"])
@pytest.mark.parametrize("suffix", ["v000001.json", "attempts/0001.json"])
def test_a_lost_reply_to_a_commit_is_a_success(suffix, refusal):
    store = LostReplyStore(suffix, refusal=refusal)
    run_stage(Context(store=store), stage(), units(3))
    assert store.lost == 1
    assert contents(store) == unbroken(3)
    assert manifest_chain(store, "documents").numbers() == [1]


def test_two_committers_at_once_leave_one_version_and_the_same_content():
    """No lease is trusted: both commit from their own done records at the same time."""
    import jobs.runtime.run as run

    store = MemoryStore()
    barrier = threading.Barrier(2)
    original = run.commit_manifest
    results, errors = [], []

    def together(*args):
        barrier.wait(10)
        return original(*args)

    def work() -> None:
        try:
            context = Context(store=store)
            results.append(run._commit_all(context, stage(), table, [], known, done, {}))
        except BaseException as e:  # noqa: BLE001
            errors.append(e)

    from jobs.runtime.done import read_done
    from jobs.runtime.execute import DONE
    from jobs.runtime.stage import unit_table

    table = unit_table(units(3))
    rows = [run_rows(store, u) for u in units(3)]
    known = {n: DONE.empty_table().select(run.PART_LIST.names) for n in ("documents", "scores")}
    done = pa.concat_tables(rows)
    assert read_done(store, "datasets/documents/work/x").num_rows == 0
    run.commit_manifest = together
    try:
        threads = [threading.Thread(target=work) for _ in range(2)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        run.commit_manifest = original
    assert not errors
    assert manifest_chain(store, "documents").numbers() == [1]
    assert results[0]["documents"].sha256 == results[1]["documents"].sha256
    assert contents(store) == unbroken(3)


def run_rows(store, unit: Unit) -> pa.Table:
    from jobs.runtime.execute import run_unit

    return run_unit(stage(), unit, store)


def test_two_attempts_of_a_unit_that_differ_are_settled_to_the_smaller_whatever_their_order():
    from jobs.runtime.done import settle

    store = MemoryStore()
    rows = run_rows(store, units(1)[0])
    other = rows.set_column(rows.schema.names.index("attempt"), "attempt", pa.array(["0" * 16] * rows.num_rows))
    key = rows.schema.names.index("key")
    other = other.set_column(key, "key", pc.binary_join_element_wise(other["key"], "x", ""))
    for pair in ([rows, other], [other, rows, rows]):
        settled = settle(pa.concat_tables(pair))
        assert settled.num_rows == rows.num_rows
        assert set(settled["attempt"].to_pylist()) == {"0" * 16}


def test_an_object_that_vanished_before_the_commit_stops_it():
    class Forgetful(MemoryStore):
        def head(self, key):
            return None if "/parts/" in key else super().head(key)

    with pytest.raises(IntegrityError, match="gone"):
        run_stage(Context(store=Forgetful()), stage(), units(2))


def test_a_store_that_ignores_create_only_is_refused():
    class Careless(MemoryStore):
        def put(self, key, body, *, create_only=False):
            super().put(key, body)
            return True

    with pytest.raises(StoreError, match="does not honour create-only"):
        check_create_only(Careless())
    context = Context(store=Careless(), single_writer=True)
    context.prepare()


def test_a_unit_whose_store_stumbles_once_is_tried_again():
    class Stumbling(MemoryStore):
        stumbles = 0

        def put(self, key, body, *, create_only=False):
            if "/parts/" in key and not self.stumbles:
                self.stumbles = 1
                raise StoreError("503 SlowDown", key=key)
            return super().put(key, body, create_only=create_only)

    store = Stumbling()
    run_stage(Context(store=store), stage(), units(2))
    assert store.stumbles == 1 and contents(store) == unbroken(2)
