from __future__ import annotations

import datetime

import pytest

from jobs.runtime.context import Context
from jobs.runtime.run import run_stage
from pipelines.datasets import aligned_parts, open_dataset
from pipelines.datasets.gc import collect_garbage, names_of
from pipelines.datasets.store import MemoryStore
from pipelines.errors import ConfigError, InputError, IntegrityError
from tests.unit.runtime.synthetic import stage, units


@pytest.fixture
def store() -> MemoryStore:
    context = Context(store=MemoryStore())
    run_stage(context, stage(), units(3))
    run_stage(context, stage(), units(5))
    return context.store


def test_versions_open_by_number_and_the_latest_by_default(store):
    assert open_dataset(store, "documents").manifest.version == 2
    assert open_dataset(store, "documents", 1).to_arrow().num_rows == 9
    with pytest.raises(InputError, match="no version 9"):
        open_dataset(store, "documents", 9)
    with pytest.raises(InputError, match="no dataset 'dokuments'"):
        open_dataset(store, "dokuments")
    with pytest.raises(ConfigError):
        open_dataset(store, "../documents")


def test_annotations_are_aligned_row_by_row(store):
    documents = open_dataset(store, "documents")
    scores = documents.annotations("scores")
    assert scores["id"].to_pylist() == documents.to_arrow(["id"])["id"].to_pylist()


def test_annotations_that_do_not_cover_a_version_are_refused(store):
    with pytest.raises(InputError, match="does not cover 2 of 5 parts"):
        aligned_parts(open_dataset(store, "documents"), open_dataset(store, "scores", 1))


def test_a_sample_is_the_same_for_a_seed_and_inside_the_data(store):
    dataset = open_dataset(store, "documents")
    ids = set(dataset.to_arrow()["id"].to_pylist())
    sample = dataset.sample(7, seed=3)["id"].to_pylist()
    assert sample == dataset.sample(7, seed=3)["id"].to_pylist() != dataset.sample(7, seed=4)["id"].to_pylist()
    assert len(set(sample)) == 7 and set(sample) <= ids
    assert dataset.sample(1000).num_rows == 15


def test_changed_bytes_are_found(store):
    dataset = open_dataset(store, "documents")
    row = dataset.parts().to_pylist()[0]
    store.put(row["key"], store.get(row["key"])[:-1] + b"x")
    with pytest.raises(IntegrityError, match="sha256"):
        dataset.read_object(row)


def test_explain_finds_rows_and_ledger(store):
    dataset = open_dataset(store, "documents")
    kept = dataset.to_arrow()["id"][0].as_py()
    assert [r["role"] for r in dataset.explain(kept)] == ["part"]
    rejected = units(1)[0].id
    assert dataset.explain(rejected)[0]["verdict"] == "rejected"


NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def gc(store, *, delete=False, hours=0, dry_run=False):
    at = NOW + datetime.timedelta(hours=hours)
    return collect_garbage(store, delete=delete, grace_hours=24, dry_run=dry_run, now=at)


def test_gc_deletes_only_what_nothing_names_and_only_a_day_after_it_said_so(store):
    store.put("datasets/documents/parts/dead-0000.parquet", b"x")
    before = dict(store.objects)
    assert gc(store)["candidates"] == ["datasets/documents/parts/dead-0000.parquet"]
    assert gc(store, delete=True, hours=23)["deleted"] == 0
    assert gc(store, delete=True, hours=25, dry_run=True)["deleted"] == 0
    assert gc(store, delete=True, hours=25)["deleted"] == 1
    assert {k for k in before if k not in store.objects} == {"datasets/documents/parts/dead-0000.parquet"}


def test_gc_spares_a_part_that_came_into_use_since_it_was_listed(store):
    context = Context(store=store)
    fresh = MemoryStore()
    run_stage(Context(store=fresh), stage(), units(6))
    lost = [k for k in fresh.objects if "/parts/" in k and k not in store.objects]
    for key in lost:
        store.put(key, fresh.get(key))
    assert set(gc(store)["candidates"]) == set(lost)
    run_stage(context, stage(), units(6))
    assert gc(store, delete=True, hours=48)["deleted"] == 0
    assert open_dataset(store, "documents").to_arrow().num_rows == 18


def test_gc_spares_what_a_job_in_flight_has_recorded(store):
    from jobs.runtime.done import DoneWriter
    from jobs.runtime.execute import run_unit
    from pipelines.datasets.names import work_prefix

    writer = DoneWriter(store, work_prefix("documents", stage(rows=9).stage_id), units=1, seconds=1)
    writer.add(run_unit(stage(rows=9), units(1)[0], store))
    gc(store)
    assert gc(store, delete=True, hours=48)["deleted"] == 0


def test_names_are_found_by_their_manifests(store):
    assert names_of(store) == ["documents", "scores"]
