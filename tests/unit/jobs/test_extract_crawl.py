"""extract_crawl: every record of a crawl is counted once, and a crawl that grew costs what is new."""

from __future__ import annotations

import shutil
import uuid

import pytest

from jobs.extract_crawl import Config, run
from jobs.runtime.context import Context
from pipelines.datasets import aligned_parts, open_dataset
from pipelines.datasets.reasons import REASONS
from pipelines.datasets.store import open_store
from pipelines.errors import ConfigError, InputError
from tests.made_crawl import page, pages, write_crawl
from tests.sample.warc_writer import crawl_file, member, response_record, warc_record


def context(store=None) -> Context:
    return Context(store=store or open_store(f"memory://{uuid.uuid4().hex}"), engine="process", flush_seconds=0.0)


def extract(crawl: str, ctx: Context, **settings):
    return run(Config(crawl=crawl, **settings), ctx)


def ledger(ctx: Context, *verdicts: str) -> list[dict]:
    rows = [row for table in open_dataset(ctx.store, "documents").ledger() for row in table.to_pylist()]
    return [row for row in rows if row["verdict"] in (verdicts or ("rejected", "failed"))]


def test_documents_filters_and_ledger_hold_every_record_once(tmp_path):
    records = [
        response_record("https://mill.example/0", page(0)),
        response_record("https://mill.example/1", page(1)),
        response_record("https://mill.example/gone", page(1), status="404 Not Found"),
        response_record("https://mill.example/pic", b"\x89PNG....", content_type="image/png"),
        warc_record("request", b"GET / HTTP/1.1\r\n\r\n", url="https://mill.example/0"),
    ]
    body = crawl_file(*records)
    (tmp_path / "a.warc.gz").write_bytes(body + member(records[0])[:100])
    (tmp_path / "b.warc.gz").write_bytes(crawl_file(response_record("https://mill.example/2", page(2))))
    ctx = context()
    documents, filters = extract(str(tmp_path / "*.warc.gz"), ctx)
    books = documents.books["documents"]
    assert books["read"] == 6 and books["kept"] == 3
    assert books["rejected"] == {"http_status": 1, "not_html": 1} and books["failed"] == {"truncated_record": 1}
    assert documents.stats["skipped_records"] == 1
    assert documents.stats["by_language"] == {"zh": 2, "en": 1}
    assert filters.kind == "annotations" and filters.parents[0]["name"] == "documents"

    rows = ledger(ctx)
    assert {(r["reason"], r["verdict"]) for r in rows} == {
        ("http_status", "rejected"),
        ("not_html", "rejected"),
        ("truncated_record", "failed"),
    }
    places = [(r["file"], r["offset"], r["length"]) for r in rows]
    texts = open_dataset(ctx.store, "documents").to_arrow().to_pylist()
    places += [(r["file"], r["offset"], r["length"]) for r in texts]
    assert len(set(places)) == 6
    assert ("a.warc.gz", len(body), 100) in places

    mine, measured = open_dataset(ctx.store, "documents"), open_dataset(ctx.store, "filters")
    for part, theirs in aligned_parts(mine, measured):
        assert mine.read_part(part["key"])["id"].equals(measured.read_part(theirs["key"])["id"])


def test_every_reason_of_extraction_and_of_the_rules_is_in_the_vocabulary():
    from pipelines.crawl.document import VERDICTS
    from pipelines.filters.rules import default_rules

    assert set(VERDICTS) | {rule.reason for rule in default_rules()} <= set(REASONS)


def test_running_again_writes_nothing(tmp_path):
    crawl = write_crawl(tmp_path, {"a.warc.gz": pages(range(4))})
    ctx = context()
    first = extract(crawl, ctx)
    before = {o.key for o in ctx.store.list("")}
    again = extract(crawl, context(ctx.store))
    assert [m.sha256 for m in again] == [m.sha256 for m in first]
    assert {o.key for o in ctx.store.list("")} == before


def test_a_file_that_is_added_leaves_old_parts_as_they_are(tmp_path):
    crawl = write_crawl(tmp_path, {"a.warc.gz": pages(range(4)), "b.warc.gz": pages(range(4, 8))})
    ctx = context()
    extract(crawl, ctx)
    old = set(open_dataset(ctx.store, "documents").parts()["key"].to_pylist())
    write_crawl(tmp_path, {"c.warc.gz": pages(range(8, 10))})
    documents, filters = extract(crawl, context(ctx.store))
    new = set(open_dataset(ctx.store, "documents").parts()["key"].to_pylist())
    assert old < new and len(new - old) == 1
    assert documents.version == filters.version == 2
    assert documents.books["documents"]["kept"] == 10

    other = context()
    (fresh, _) = extract(crawl, other)
    assert fresh.content_sum == documents.content_sum


def test_a_crawl_that_moved_is_the_same_crawl(tmp_path):
    crawl = write_crawl(tmp_path / "here", {"a.warc.gz": pages(range(3))})
    ctx = context()
    first = extract(crawl, ctx)
    shutil.move(tmp_path / "here", tmp_path / "磨坊 there")
    again = extract(str(tmp_path / "磨坊 there" / "*.warc.gz"), context(ctx.store))
    assert [m.sha256 for m in again] == [m.sha256 for m in first]


def test_another_setting_that_changes_content_makes_another_version(tmp_path):
    crawl = write_crawl(tmp_path, {"a.warc.gz": pages(range(4))})
    ctx = context()
    extract(crawl, ctx)
    documents, _ = extract(crawl, context(ctx.store), languages=("zh",))
    assert documents.version == 2
    assert documents.books["documents"]["rejected"] == {"sniffed_language": 2}
    late, _ = extract(crawl, context(ctx.store), languages=("zh",), sniff=False)
    assert late.version == 3 and late.content_sum == documents.content_sum
    assert late.books["documents"]["rejected"] == {"language": 2}
    assert {r["detail"] for r in ledger(ctx)} == {"en"}


def test_files_that_are_no_warc_cost_one_line_each_and_no_neighbour(tmp_path):
    crawl = write_crawl(tmp_path, {"a.warc.gz": pages(range(4))})
    (tmp_path / "b.warc.gz").write_bytes(b"this is a text file\n" * 40)
    (tmp_path / "c.warc.gz").write_bytes(b"")
    ctx = context()
    documents, _ = extract(crawl, ctx)
    assert documents.books["documents"]["kept"] == 4
    assert documents.books["documents"]["failed"] == {"not_a_warc": 1}
    (row,) = ledger(ctx)
    assert (row["file"], row["offset"], row["length"]) == ("b.warc.gz", 0, 800)


def test_a_crawl_without_a_document_says_so(tmp_path):
    (tmp_path / "b.warc.gz").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        extract(str(tmp_path / "*.warc.gz"), context())
    assert caught.value.exit_code == 3 and caught.value.mend


def test_a_pattern_without_files_and_an_empty_one_are_told_apart(tmp_path):
    with pytest.raises(InputError, match=r"no-such"):
        extract(str(tmp_path / "no-such-*.warc.gz"), context())
    with pytest.raises(ConfigError):
        extract("", context())


def test_units_of_any_size_hold_the_same_rows(tmp_path):
    crawl = write_crawl(tmp_path, {"a.warc.gz": pages(range(30)), "b.warc.gz": pages(range(30, 33))})
    whole, measured = extract(crawl, context())
    for unit_bytes in (1500, 4000, 9000):
        ctx = context()
        cut, cut_measured = extract(crawl, ctx, unit_bytes=unit_bytes)
        assert cut.part_list["parts"] > whole.part_list["parts"] == 2
        assert (cut.content_sum, cut_measured.content_sum) == (whole.content_sum, measured.content_sum)
        assert cut.books == whole.books
        inputs = open_dataset(ctx.store, "documents").parts()["input"].to_pylist()
        assert inputs[0] == "a.warc.gz@000000000000000" and len(set(inputs)) == len(inputs)
    assert extract(crawl, ctx, unit_bytes=9000, isolate_bytes=0)[0].sha256 == cut.sha256


def test_what_is_taken_out_of_a_text_is_booked_and_told(tmp_path):
    secret = page(1).replace(b"</p>", "，邮箱zhang.san@qq.com请来信。</p>".encode(), 1)
    (tmp_path / "a.warc.gz").write_bytes(crawl_file(response_record("https://mill.example/1", secret)))
    ctx = context()
    documents, _ = extract(str(tmp_path / "*.warc.gz"), ctx)
    book = documents.books["characters"]
    assert book["in"] == book["out"] + sum(book["removed"].values())
    (row,) = open_dataset(ctx.store, "documents").to_arrow().to_pylist()
    assert "zhang.san" not in row["text"] and book["out"] == len(row["text"]) == documents.stats["characters"]
    (told,) = [r for r in ledger(ctx, "changed") if r["reason"] == "pii_email"]
    assert (told["id"], told["value"]) == (row["id"], 1.0) and "-" in told["detail"] and "zhang" not in str(told)
    bare, _ = extract(str(tmp_path / "*.warc.gz"), context(), pii=False, lines=False)
    assert "removed" not in bare.books["characters"] or not bare.books["characters"]["removed"]


def test_rows_of_json_lines_become_documents_with_what_they_tell(tmp_path):
    import json

    text = "The stones turn slowly and the grain becomes flour, as it always has. " * 8
    rows = [
        {"body": text, "link": "https://mill.example/1", "title": "Mill", "published": "2025-03-04"},
        {"body": text, "title": "No link"},
        {"link": "https://mill.example/2"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ctx = context()
    documents, _ = extract(
        str(tmp_path / "*.jsonl"), ctx, columns={"text": ("body",), "url": ("link",)}, max_failed_fraction=1.0
    )
    assert documents.books["documents"]["kept"] == 2 and documents.books["documents"]["failed"] == {"not_a_record": 1}
    found = sorted(open_dataset(ctx.store, "documents").to_arrow().to_pylist(), key=lambda row: row["offset"])
    assert [(r["title"], r["published"], r["domain"]) for r in found] == [
        ("Mill", "2025-03-04", "mill.example"),
        ("No link", None, None),
    ]
    with pytest.raises(ConfigError, match="colour"):
        extract(str(tmp_path / "*.jsonl"), context(), columns={"colour": ("red",)})


@pytest.mark.s3
def test_a_crawl_that_lies_on_s3_gives_the_same_content(tmp_path, s3_prefix):
    crawl = write_crawl(tmp_path, {"a.warc.gz": pages(range(4)), "sub-b.warc.gz": pages(range(4, 7))})
    expected, _ = extract(crawl, context())
    bucket = open_store(s3_prefix)
    for path in sorted(tmp_path.glob("*.warc.gz")):
        bucket.put(f"crawl/2026/{path.name}", path.read_bytes())
    bucket.put("crawl/2026/readme.txt", b"no crawl file")
    ctx = context(open_store(f"{s3_prefix}/out"))
    found, _ = extract(f"{s3_prefix}/crawl/2026/*.warc.gz", ctx)
    assert found.content_sum == expected.content_sum
    assert found.books == expected.books
    again, _ = extract(f"{s3_prefix}/crawl/2026/", context(ctx.store))
    assert again.sha256 == found.sha256
    with pytest.raises(InputError, match="nothing-here"):
        extract(f"{s3_prefix}/crawl/nothing-here-*.warc.gz", context())


def test_notes_on_records_that_can_be_read_are_counted(tmp_path):
    record = response_record("https://mill.example/0", page(0))
    cut = record.replace(b"\r\nContent-Length", b"\r\nWARC-Truncated: length\r\nContent-Length", 1)
    (tmp_path / "a.warc.gz").write_bytes(crawl_file(record, cut))
    documents, _ = extract(str(tmp_path / "*.warc.gz"), context())
    assert documents.stats["notes"] == {"cut_by_crawler": 1, "repeated_record_id": 1}
    assert documents.books["documents"]["kept"] == 2
