"""A record of any form of input that was lost is found again where the ledger says it lies."""

from __future__ import annotations

import gzip
import io
import json
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.extract_crawl import Config, run
from jobs.runtime.context import Context
from jobs.runtime.retry import retry
from pipelines.crawl import pages
from pipelines.datasets import open_dataset
from pipelines.datasets.store import open_store
from pipelines.errors import InputError
from tests.made_crawl import page
from tests.sample.warc_writer import crawl_file, response_record

ROWS = [{"url": f"https://mill.example/{n}", "html": page(n).decode()} for n in range(4)]


def _archive() -> bytes:
    return crawl_file(*(response_record(row["url"], row["html"].encode()) for row in ROWS))


def _shared_member() -> bytes:
    return gzip.compress(b"".join(response_record(row["url"], row["html"].encode()) for row in ROWS))


def _wacz() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("archive/a.warc.gz", _archive())
    return out.getvalue()


def _lines() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=3)
    return sink.getvalue().to_pybytes()


FORMS: dict[str, Callable[[], dict[str, bytes]]] = {
    "warc": lambda: {"a.warc.gz": _archive()},
    "warc, one member": lambda: {"a.warc.gz": _shared_member()},
    "warc, plain": lambda: {"a.warc": b"".join(response_record(r["url"], r["html"].encode()) for r in ROWS)},
    "wacz": lambda: {"a.wacz": _wacz()},
    "html": lambda: {f"mill.example/{n}.html": row["html"].encode() for n, row in enumerate(ROWS)},
    "jsonl": lambda: {"a.jsonl": _lines()},
    "jsonl, packed": lambda: {"a.jsonl.gz": gzip.compress(_lines())},
    "parquet": lambda: {"a.parquet": _parquet()},
}


@pytest.mark.parametrize("form", FORMS)
def test_what_time_cost_is_read_again_and_kept(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch):
    crawl = tmp_path / "crawl"
    for name, body in FORMS[form]().items():
        (crawl / name).parent.mkdir(parents=True, exist_ok=True)
        (crawl / name).write_bytes(body)
    lost, whole = (Context(store=open_store(f"memory://{uuid.uuid4().hex}"), flush_seconds=0.0) for _ in range(2))
    with monkeypatch.context() as slow, pytest.raises(InputError, match="page_time"):
        slow.setattr(pages, "extract_page", lambda *_: {"reason": "page_time"})
        run(Config(crawl=str(crawl), max_failed_fraction=1.0), lost)
    found = retry(lost, "documents", "page_time")
    assert found.records == found.settled == len(ROWS)
    documents, _ = run(Config(crawl=str(crawl)), whole)
    assert found.manifests[0].content_sum == documents.content_sum
    assert not open_dataset(lost.store, "documents").manifest.books["documents"]["failed"]
