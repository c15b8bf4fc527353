"""Trying again: what ended well is added, each record counts once, and everything else stays as it is."""

from __future__ import annotations

import json
import uuid

import pyarrow as pa
import pytest

from cluster.cli import main
from jobs.extract_crawl import Config, run
from jobs.runtime.context import Context
from jobs.runtime.retry import retry
from pipelines.crawl.extract import Page
from pipelines.datasets import aligned_parts, open_dataset
from pipelines.datasets.store import Store, open_store
from pipelines.errors import ConfigError
from tests.made_crawl import page, pages, write_crawl
from tests.sample.warc_writer import crawl_file, response_record

BROKEN = ("https://mill.example/broken/1", "https://mill.example/broken/2")


def context(store: Store) -> Context:
    return Context(store=store, engine="process", flush_seconds=0.0)


@pytest.fixture
def engine(monkeypatch):
    """Extraction that raises on pages with a mark, until it is mended."""
    import pipelines.crawl.pages as module

    real = module.extract_html
    state = {"marks": [b"<!-- one -->", b"<!-- two -->"]}

    def extract(html: bytes, **given):
        if any(mark in html for mark in state["marks"]):
            return Page(reason="engine_error", detail="Broken")
        return real(html, **given)

    monkeypatch.setattr(module, "extract_html", extract)
    return state


@pytest.fixture
def crawl(tmp_path):
    write_crawl(tmp_path, {"a.warc.gz": pages(range(4)), "c.warc.gz": pages(range(8, 10))})
    records = [
        response_record(BROKEN[0], page(20) + b"<!-- one -->"),
        response_record("https://mill.example/5", page(5)),
        response_record(BROKEN[1], page(21) + b"<!-- two -->"),
        response_record("https://mill.example/gone", page(6), status="404 Not Found"),
    ]
    (tmp_path / "b.warc.gz").write_bytes(crawl_file(*records))
    return str(tmp_path / "*.warc.gz")


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def rows(store: Store, version: int | None = None) -> list[dict]:
    documents = open_dataset(store, "documents", version)
    return sorted(documents.to_arrow().to_pylist(), key=lambda r: (r["file"], r["offset"]))


def verdicts(store: Store, version: int | None = None) -> dict[str, str]:
    documents = open_dataset(store, "documents", version)
    rows = [row for table in documents.ledger() for row in table.to_pylist()]
    return {row["url"]: row["reason"] for row in rows if row["verdict"] != "changed"}


def test_what_ends_well_is_added_and_each_record_counts_once(crawl, store, engine):
    run(Config(crawl=crawl), context(store))
    before = open_dataset(store, "documents")
    assert before.manifest.books["documents"]["failed"] == {"engine_error": 2}
    engine["marks"].clear()
    found = retry(context(store), "documents", "engine_error")
    assert (found.records, found.settled, found.version) == (2, 2, 2)

    after, filters = open_dataset(store, "documents"), open_dataset(store, "filters")
    assert after.manifest.extends["version"] == 1
    books = after.manifest.books["documents"]
    assert books["read"] == 10 and books["kept"] == 9 and not books["failed"]
    assert books["set_sum"] == before.manifest.books["documents"]["set_sum"]
    assert set(before.part_list["key"].to_pylist()) < set(after.part_list["key"].to_pylist())
    assert verdicts(store) == {"https://mill.example/gone": "http_status"}
    assert verdicts(store, 1)[BROKEN[0]] == "engine_error"
    pairs = aligned_parts(after, filters)
    assert sum(mine["rows"] for mine, _ in pairs) == 9
    assert filters.manifest.parents[0]["version"] == 2

    fresh = open_store(f"memory://{uuid.uuid4().hex}")
    run(Config(crawl=crawl), context(fresh))
    assert rows(fresh) == rows(store)
    assert open_dataset(fresh, "documents").manifest.content_sum == after.manifest.content_sum
    assert open_dataset(fresh, "filters").manifest.content_sum == filters.manifest.content_sum


def test_trying_again_with_nothing_to_do_writes_nothing(crawl, store, engine):
    run(Config(crawl=crawl), context(store))
    keys = {o.key for o in store.list("datasets/documents/manifests")}
    same = retry(context(store), "documents", "engine_error")
    assert (same.records, same.settled, same.version) == (2, 0, 1)
    none = retry(context(store), "documents", "page_time")
    assert (none.records, none.settled, none.units) == (0, 0, [])
    planned = retry(context(store), "documents", "engine_error", dry_run=True)
    assert planned.units == [("b.warc.gz", 2)]
    assert {o.key for o in store.list("datasets/documents/manifests")} == keys
    engine["marks"].clear()
    retry(context(store), "documents", "engine_error")
    assert retry(context(store), "documents", "engine_error").records == 0


def test_records_are_settled_one_after_the_other_over_several_tries(crawl, store, engine):
    run(Config(crawl=crawl), context(store))
    engine["marks"].remove(b"<!-- one -->")
    first = retry(context(store), "documents", "engine_error")
    assert (first.records, first.settled, first.version) == (2, 1, 2)
    assert verdicts(store)[BROKEN[1]] == "engine_error"
    engine["marks"].clear()
    second = retry(context(store), "documents", "engine_error")
    assert (second.records, second.settled, second.version) == (1, 1, 3)
    assert BROKEN[1] not in verdicts(store)
    assert open_dataset(store, "documents").manifest.books["documents"]["kept"] == 9


def test_the_job_finds_itself_finished_and_takes_the_retried_over_when_the_crawl_grows(crawl, store, engine, tmp_path):
    run(Config(crawl=crawl), context(store))
    engine["marks"].clear()
    retry(context(store), "documents", "engine_error")
    again, _ = run(Config(crawl=crawl), context(store))
    assert again.version == 2
    write_crawl(tmp_path, {"d.warc.gz": pages(range(30, 33))})
    grown, _ = run(Config(crawl=crawl), context(store))
    assert grown.version == 3 and grown.books["documents"]["kept"] == 12
    assert BROKEN[0] not in verdicts(store)


def test_a_setting_that_would_change_other_records_is_refused(crawl, store, engine):
    run(Config(crawl=crawl, languages=("en", "zh")), context(store))
    engine["marks"].clear()
    with pytest.raises(ConfigError, match="other settings"):
        retry(context(store), "documents", "engine_error", {"languages": ["en"]})
    assert retry(context(store), "documents", "engine_error", {"page_seconds": 60.0}).settled == 2
    with pytest.raises(ConfigError, match="no_such"):
        retry(context(store), "documents", "no_such")
    with pytest.raises(ConfigError, match="no_such_key"):
        retry(context(store), "documents", "engine_error", {"no_such_key": 1})


def test_a_record_that_is_not_there_any_more_keeps_its_row(crawl, store, engine, tmp_path):
    run(Config(crawl=crawl), context(store))
    engine["marks"].clear()
    (tmp_path / "b.warc.gz").unlink()
    found = retry(context(store), "documents", "engine_error")
    assert (found.records, found.settled) == (2, 0)
    assert verdicts(store)[BROKEN[0]] == "engine_error"


def test_the_command_tells_what_it_did_in_text_and_json(crawl, engine, tmp_path, capsys):
    root = tmp_path / "root"
    run(Config(crawl=crawl), context(open_store(root)))

    def call(*arguments: str) -> str:
        main(["retry", "documents", "--reason", "engine_error", "--root", str(root), *arguments])
        return capsys.readouterr().out

    assert "b.warc.gz" in call("--dry-run")
    assert "ended as before" in call()
    engine["marks"].clear()
    told = json.loads(call("--json"))
    assert (told["records"], told["settled"], told["version"]) == (2, 2, 2)
    assert "nothing to do" in call()


@pytest.mark.s3
def test_retry_works_on_an_object_store(s3_prefix, tmp_path, engine, crawl):
    bucket = open_store(s3_prefix)
    for path in sorted(tmp_path.glob("*.warc.gz")):
        bucket.put(f"crawl/{path.name}", path.read_bytes())
    root = open_store(f"{s3_prefix}/out")
    run(Config(crawl=f"{s3_prefix}/crawl/*.warc.gz"), context(root))
    engine["marks"].clear()
    found = retry(context(root), "documents", "engine_error")
    assert (found.settled, found.version) == (2, 2)
    local = open_store(f"memory://{uuid.uuid4().hex}")
    run(Config(crawl=crawl), context(local))
    assert rows(local) == rows(root)


def test_a_dataset_of_another_job_says_how_it_is_made_anew(store):
    from jobs.runtime.run import run_stage
    from tests.unit.runtime.synthetic import stage, units

    run_stage(context(store), stage(), units(2))
    with pytest.raises(ConfigError):
        retry(context(store), "documents", "too_short")


def test_a_retry_that_died_goes_on_where_it_stopped(crawl, store, engine, monkeypatch):
    from jobs.runtime import retry as module

    run(Config(crawl=crawl), context(store))
    engine["marks"].clear()

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_commit", dies)
        with pytest.raises(KeyboardInterrupt):
            retry(context(store), "documents", "engine_error")
    assert open_dataset(store, "documents").manifest.version == 1
    found = retry(context(store), "documents", "engine_error")
    assert (found.settled, found.version) == (2, 2)
    assert not [o.key for o in store.list("datasets/documents/work/") if "/done/" in o.key]


def test_a_ledger_of_which_no_row_stands_is_empty():
    from pipelines.datasets.dataset import _last_verdicts
    from pipelines.datasets.schemas import LEDGER

    row = {"file": "a", "offset": 0, "length": 9, "id": "x", "verdict": "failed", "reason": "page_time"}
    rows = pa.Table.from_pylist([row, {**row, "verdict": "kept", "reason": "retried"}], schema=LEDGER)
    assert _last_verdicts(rows).num_rows == 0
