import json
import random
import uuid

import pyarrow as pa
import pytest

from jobs import decontaminate_documents
from jobs.runtime.context import Context
from pipelines.datasets import open_dataset
from pipelines.datasets.store import open_store
from pipelines.errors import ConfigError, InputError
from tests.made_documents import commit_documents, join, prose


def context():
    return Context(store=open_store(f"memory://{uuid.uuid4().hex}"), engine="process", flush_seconds=0.0)


@pytest.fixture
def sets(tmp_path):
    rng = random.Random(1)
    made = {
        "english": [join(prose(rng, "en", 40)) for _ in range(5)],
        "chinese": [join(prose(rng, "zh", 40)) for _ in range(5)],
        "short": ["two words"],
    }
    for name, rows in made.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"question": r}) + "\n" for r in rows))
    return tmp_path, made


def settings(folder, **changed):
    return decontaminate_documents.Config(benchmarks=str(folder), dedup="", **changed)


def rows_of(ctx, name="contamination"):
    dataset = open_dataset(ctx.store, name)
    return [row for key in dataset.parts()["key"].to_pylist() for row in dataset.read_part(key).to_pylist()]


def test_leaks_are_marked_by_benchmark_and_boilerplate_condemns_no_corpus(sets):
    folder, made = sets
    rng = random.Random(2)
    clean = [join(prose(rng, ("zh", "en")[i % 2], 100)) for i in range(40)]
    licence = made["english"][0]  # stands on every page
    leak_en, leak_zh = clean[0] + "\n" + made["english"][1], made["chinese"][2] + clean[1]
    texts = [text + "\n" + licence for text in clean] + [leak_en, leak_zh, None]
    ctx = context()
    commit_documents(ctx, {"a": [{"text": t} for t in texts[:20]], "b": [{"text": t} for t in texts[20:]]})
    (marked,) = decontaminate_documents.run(settings(folder), ctx)
    rows = rows_of(ctx)
    assert [row["contamination.hits"] > 0 for row in rows] == [False] * 40 + [True, True, False]
    assert rows[40]["contamination.example"] == "english/english.jsonl:1"
    assert rows[41]["contamination.benchmark"] == "chinese" and rows[41]["contamination.example_share"] == 1.0
    told = marked.stats["benchmarks"]
    assert told["english"]["ngrams_guarded"] == 28 and told["english"]["examples_met"] == 1
    assert told["chinese"]["examples_half_met"] == 1 and told["short"]["too_short"] == 1
    assert marked.stats["contaminated"] == 2 and marked.stats["documents_by_benchmark"] == {"chinese": 1, "english": 1}
    assert not [stored for stored in ctx.store.list("datasets/contamination/") if "/wide/" in stored.key]
    assert decontaminate_documents.run(settings(folder), ctx)[0].sha256 == marked.sha256
    (strict,) = decontaminate_documents.run(settings(folder, most_documents=100), ctx)
    assert strict.version == 2 and strict.stats["contaminated"] == 42


def test_copies_that_dedup_removes_do_not_guard_a_leak(sets):
    from jobs.runtime.run import run_stage
    from jobs.runtime.stage import Output, Stage

    folder, made = sets
    ctx = context()
    documents = commit_documents(ctx, {"a": [{"text": made["english"][1]}] * 15})
    part = open_dataset(ctx.store, "documents").parts().to_pylist()[0]
    schema = pa.schema([("id", pa.string()), ("dedup.keep", pa.bool_())])
    from jobs.runtime.stage import part_units

    stage = Stage(
        job="made", stage_id="0" * 32, outputs=(Output(dataset="dedup", kind="annotations", schema=schema),),
        worker="tests.unit.jobs.test_decontaminate_documents:open_keeper",
    )  # fmt: skip
    run_stage(ctx, stage, part_units(open_dataset(ctx.store, "documents").parts()), engine="process")
    assert documents.version == 1 and part["rows"] == 15
    config = decontaminate_documents.Config(benchmarks=str(folder))
    assert decontaminate_documents.run(config, ctx)[0].stats["contaminated"] == 15
    assert decontaminate_documents.run(settings(folder, output="all"), ctx)[0].stats["contaminated"] == 0


def open_keeper(_worker_config, store):
    from jobs.runtime.stage import UnitResult
    from pipelines.datasets.dataset import read_parquet

    def keep(unit):
        ids = read_parquet(store.get(unit.spec["key"]), ["id"])["id"].to_pylist()
        return UnitResult(parts={"dedup": pa.table({"id": ids, "dedup.keep": [n == 0 for n in range(len(ids))]})})

    return keep


def test_a_missing_folder_or_a_senseless_bound_is_refused(tmp_path):
    ctx = context()
    commit_documents(ctx, {"a": [{"text": "x"}]})
    with pytest.raises(InputError, match="no folder"):
        decontaminate_documents.run(settings(tmp_path / "none"), ctx)
    with pytest.raises(InputError, match="no examples"):
        decontaminate_documents.run(settings(tmp_path), ctx)
    with pytest.raises(ConfigError):
        decontaminate_documents.run(settings(tmp_path, most_documents=0), ctx)
