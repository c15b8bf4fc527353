"""extract_crawl on real engines: a page that hangs costs itself, no unit or engine changes a row, retry mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.extract_crawl import Config, run
from jobs.runtime.context import Context
from jobs.runtime.retry import retry
from pipelines.datasets import open_dataset
from pipelines.datasets.store import open_store
from tests.made_crawl import page, pages, write_crawl
from tests.sample.warc_writer import crawl_file, response_record

STUCK = "https://mill.example/stuck"


@pytest.fixture
def crawl(tmp_path: Path) -> str:
    """Three files; one holds a page that needs more CPU than a hundredth of a millisecond, in a process of its own."""
    write_crawl(tmp_path, {"a.warc.gz": pages(range(6)), "c.warc.gz": pages(range(6, 12))})
    large = page(20) + b"<!--" + b"x" * 200_000 + b"-->"
    records = [response_record("https://mill.example/b", page(21)), response_record(STUCK, large)]
    (tmp_path / "b.warc.gz").write_bytes(crawl_file(*records))
    return str(tmp_path / "*.warc.gz")


def fates(context: Context) -> tuple[int, dict[str, str]]:
    documents = open_dataset(context.store, "documents")
    rows = [row for table in documents.ledger() for row in table.to_pylist() if row["verdict"] != "changed"]
    return documents.part_list.num_rows, {row["url"]: row["reason"] for row in rows}


@pytest.mark.parametrize(
    "engine", [pytest.param("spark", marks=pytest.mark.spark), pytest.param("ray", marks=pytest.mark.ray)]
)
def test_a_page_that_overruns_costs_itself_and_retry_adds_it(engine, crawl, tmp_path):
    expected, _ = run(Config(crawl=crawl), Context(store=open_store(tmp_path / "expected")))
    context = Context(store=open_store(tmp_path / "root"), engine=engine, parallelism=2, flush_seconds=0.2)
    try:
        first, _ = run(Config(crawl=crawl, unit_bytes=3_000, page_seconds=1e-5, isolate_bytes=100_000), context)
        assert first.books["documents"]["failed"] == {"page_time": 1}
        assert fates(context)[1] == {STUCK: "page_time"}
        found = retry(context, "documents", "page_time", {"page_seconds": 30.0})
        assert (found.records, found.settled) == (1, 1)
        assert fates(context)[1] == {}
        again = retry(context, "documents", "page_time")
        assert again.records == 0
    finally:
        context.close()
    mended = open_dataset(context.store, "documents").manifest
    assert mended.content_sum == expected.content_sum and mended.books == expected.books
