"""A crawl named by its index: planned once, fetched politely, and never fetched twice by later crawls."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.extract_crawl import Config, plan, run
from jobs.extract_index import Fetch, rules_for
from jobs.runtime.context import Context
from jobs.runtime.cost import Request
from jobs.runtime.progress import Progress
from jobs.runtime.retry import retry
from pipelines.crawl import pages
from pipelines.datasets import open_dataset
from pipelines.datasets.store import open_store
from pipelines.errors import ConfigError, InputError
from tests.made_crawl import page
from tests.sample.warc_writer import member, response_record
from tests.unit.crawl.http_server import serving

LANGUAGES = ("zho", "eng,zho", "deu")


class _Said(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def _context(root: Path) -> Context:
    return Context(store=open_store(root), engine="process", flush_seconds=0.0, progress=_Said())


def _write_index(folder: Path, crawl: str, pages: range) -> dict[str, bytes]:
    """An index of one file in `folder`; the archive that it tells of, by name."""
    name, body, rows = f"crawl-data/{crawl}/0.warc.gz", b"", []
    for n in pages:
        url = f"https://mill{n % 5}.example/{n}"
        stored = member(response_record(url, page(n)))
        rows.append(
            {
                "url": url, "fetch_status": 200, "content_mime_detected": "text/html",
                "content_languages": LANGUAGES[n % 3], "content_digest": f"D{n}",
                "warc_filename": name, "warc_record_offset": len(body), "warc_record_length": len(stored),
            }
        )  # fmt: skip
        body += stored
    folder.mkdir()
    with pa.OSFile(str(folder / "part-0.parquet"), "wb") as file:
        pq.write_table(pa.Table.from_pylist(rows), file)
    return {name: body}


def _config(index: Path, root: str, **fetch) -> Config:
    return Config(crawl=f"cc-index:{index}/*.parquet", fetch=Fetch(root=root, requests_per_second=1000, **fetch))


def test_the_wanted_pages_of_an_index_become_documents_and_are_asked_for_once(tmp_path):
    archives = _write_index(tmp_path / "index", "one", range(30))
    ctx = _context(tmp_path / "root")
    with serving(archives) as server:
        config = _config(tmp_path / "index", server.root)
        documents, _ = run(config, ctx)
        asked = len(server.asked)
        assert documents.part_list["rows"] == 20
        assert documents.stats["fetch_plan"]["dropped"]["language"] == 10
        assert documents.stats["fetch_pages"] == 20 and documents.stats["fetch_gets"] == asked
        assert documents.stats["fetch_plan"]["gets"] == asked
        again, _ = run(config, ctx)
        assert again.sha256 == documents.sha256 and len(server.asked) == asked
    rows = open_dataset(ctx.store, "documents").to_arrow(columns=["file", "offset", "length", "url"]).to_pylist()
    (name,) = archives
    assert {row["file"] for row in rows} == {name}
    stored = archives[name]
    assert all(stored[row["offset"] :][:2] == b"\x1f\x8b" for row in rows)
    assert any(line.startswith("20 of 30 pages are to be fetched") for line in ctx.progress.lines)


def test_what_another_crawl_had_is_not_fetched_and_the_report_tells_what_that_saved(tmp_path):
    archives = _write_index(tmp_path / "old", "one", range(30)) | _write_index(tmp_path / "new", "two", range(15, 60))
    seen = str(tmp_path / "seen")
    with serving(archives) as server:
        first, later = _context(tmp_path / "a"), _context(tmp_path / "b")
        run(_config(tmp_path / "old", server.root, seen=seen), first)
        documents, _ = run(_config(tmp_path / "new", server.root, seen=seen), later)
        assert documents.part_list["rows"] == 20  # of the 30 new and wanted ones ten were there
        assert documents.stats["fetch_plan"]["dropped"]["seen_url"] == 10
        assert documents.stats["fetch_plan"]["bytes_saved"] > 0
        assert any("10 of the wanted ones" in line and "CPU" in line for line in later.progress.lines)
        asked = len(server.asked)
        again, _ = run(_config(tmp_path / "old", server.root, seen=seen), first)  # its own set is not held against it
        assert again.part_list["rows"] == 20 and len(server.asked) == asked
        _write_index(tmp_path / "third", "three", range(30, 45))
        with pytest.raises(InputError, match="seen_url"):
            run(_config(tmp_path / "third", server.root, seen=seen), _context(tmp_path / "c"))


def test_a_planned_page_that_was_lost_is_asked_for_again(tmp_path, monkeypatch):
    archives = _write_index(tmp_path / "index", "one", range(6))
    ctx = _context(tmp_path / "root")
    with serving(archives) as server:
        config = replace(_config(tmp_path / "index", server.root), max_failed_fraction=1.0)
        with monkeypatch.context() as slow, pytest.raises(InputError, match="page_time"):
            slow.setattr(pages, "extract_page", lambda *_: {"reason": "page_time"})
            run(config, ctx)
        found = retry(ctx, "documents", "page_time")
        assert found.records == 4 and found.settled == 4
    assert open_dataset(ctx.store, "documents").manifest.part_list["rows"] == 4


@pytest.mark.s3
def test_index_archives_and_root_may_lie_in_a_bucket(tmp_path, s3_prefix):
    archives = _write_index(tmp_path / "index", "one", range(30))
    bucket = open_store(s3_prefix)
    bucket.put("index/part-0.parquet", (tmp_path / "index" / "part-0.parquet").read_bytes())
    for name, body in archives.items():
        bucket.put(f"archives/{name}", body)
    ctx = Context(store=open_store(f"{s3_prefix}/root"), engine="process", flush_seconds=0.0, progress=_Said())
    config = Config(crawl=f"cc-index:{s3_prefix}/index/*.parquet", fetch=Fetch(root=f"{s3_prefix}/archives"))
    documents, _ = run(config, ctx)
    assert documents.part_list["rows"] == 20 and documents.stats["fetch_pages"] == 20


def test_processes_share_the_servers_patience_and_a_plan_fetches_nothing(tmp_path):
    alone = rules_for(Fetch(), Context(store=open_store(f"memory://{uuid.uuid4().hex}"), engine="process"))
    assert alone.requests_per_second == 5.0 and alone.connections == 4
    four = Context(store=open_store(f"memory://{uuid.uuid4().hex}"), engine="spark", parallelism=4)
    assert rules_for(Fetch(), four).requests_per_second == 1.25 and rules_for(Fetch(), four).connections == 1
    with pytest.raises(ConfigError, match="fetches nothing"):
        plan(Config(crawl="cc-index:x/*.parquet"), four, Request())


def test_a_folder_of_seen_sets_lies_on_this_machine(tmp_path):
    _write_index(tmp_path / "index", "one", range(3))
    with pytest.raises(ConfigError, match=r"fetch\.seen"):
        run(_config(tmp_path / "index", "http://127.0.0.1:9/", seen="s3://bucket/seen"), _context(tmp_path / "root"))
